"""What a study, a search or an export has left, in a form that can be compared."""

import csv
import hashlib
import json
import re
import zipfile
from pathlib import Path

from tfdistill.utils import storage

# Files that are the same whenever they are written; a SavedModel's variables are in any order, so
# how it answers is compared, as the card tells it.
EXACT = ("*.tflite", "labels.txt", "assets.extra/*")
CARD = ("key", "settings", "figures", "parameters")


def results(folder: Path) -> dict[str, object]:
    """Return all results below a folder by name, without times of day and durations.

    Example:
        >>> results(Path("one")) == results(Path("other"))
        True
    """
    out, models = folder / "out", folder / "saved_models"
    found: dict[str, object] = {"left behind": left_behind(folder)}
    for path in sorted(out.glob("runs/*/record.json")):
        found[str(path.relative_to(folder))] = _record(path)
    for path in sorted(out.glob("runs/*/*.keras")):
        found[str(path.relative_to(folder))] = _network(path)
    for path in sorted([*out.glob("cache/**/*.npy"), *out.glob("cache/*/*.json")]):
        found[str(path.relative_to(folder))] = _sha256(path.read_bytes())
    for path in sorted(out.glob("tuner/trial_*/trial.json")):
        trial = json.loads(path.read_text())
        kept = ("hyperparameters", "status", "score")
        found[str(path.relative_to(folder))] = {name: trial[name] for name in kept}
    found["results.csv"] = _table(out / "results.csv")
    found["tables"] = _tables(folder / "output.txt")
    found["versions"] = sorted(str(path.relative_to(models)) for path in models.glob("*/*/**/*"))
    for path in sorted(path for name in EXACT for path in models.glob(f"*/*/{name}")):
        found[str(path.relative_to(folder))] = _sha256(path.read_bytes())
    for path in models.glob("*/*/model_card.json"):
        card = json.loads(path.read_text())
        found[str(path.relative_to(folder))] = {name: card[name] for name in CARD} | {
            format: one["checks"] for format, one in card["formats"].items()
        }
    return found


def differences(expected: dict, found: dict) -> list[str]:
    """Return the names of results that are not those of the uninterrupted run."""
    names = sorted({*expected, *found})
    return [f"{name} differs" for name in names if expected.get(name) != found.get(name)]


def finished_work(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of every file of finished runs, caches and exports, by path."""
    paths = [
        path
        for record in folder.glob("out/runs/*/record.json")
        for path in (record, *record.parent.glob("*.keras"))
    ]
    paths += folder.glob("out/cache/*/v*/*.npy")
    paths += [path for path in folder.glob("saved_models/*/[0-9]*/**/*") if path.is_file()]
    stats = {str(path.relative_to(folder)): path.stat() for path in paths}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def left_behind(folder: Path) -> list[str]:
    """Return hidden or temporary files and folders, and states of trainings."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name.startswith(storage.TEMPORARY)
        or path.suffix == ".npz"
        or path.parent.name == "claims"
    )


def _record(path: Path) -> dict:
    record = json.loads(path.read_text())
    # The files' sums follow the time that is written in a .keras file.
    return {k: v for k, v in record.items() if k not in ("seconds", "files", "checksum")}


def _network(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as file:
        names = [name for name in file.namelist() if name != "metadata.json"]
        contents = {name: file.read(name) for name in names}
    # Keras writes there where objects lay in memory.
    contents["config.json"] = re.sub(rb'"shared_object_id": \d+', b"", contents["config.json"])
    return {name: _sha256(content) for name, content in contents.items()}


def _table(path: Path) -> list[dict]:
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def _tables(path: Path) -> str:
    """Return the tables that a command printed last, but the measured one of exports."""
    text = path.read_text()
    found = re.search(r"^(Test accuracy|The best trial, confirmed) *\n", text, re.MULTILINE)
    return text[found.start() :].partition("\nDeployment")[0].partition("\nReport:")[0]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
