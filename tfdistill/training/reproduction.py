"""A finished run done again from its record alone, and compared with it to the bit."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from tfdistill import records
from tfdistill.config import RunConfig, StudyConfig, build
from tfdistill.records import RECORD_FILE, Record, Table
from tfdistill.training import runner
from tfdistill.training.study_folder import alone
from tfdistill.utils import checks, tensorflow
from tfdistill.utils.progress import Silent
from tfdistill.utils.storage import digest

UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Reproduction:
    """What came of doing a run again.

    Args:
        tables: What was compared, and what else differed.
        equal: Whether weights, figures and history are equal to the bit.
    """

    tables: list[Table]
    equal: bool


def record_of(path: Path) -> tuple[Record, Path]:
    """Return the record at a path, and the folder that it lies in.

    Args:
        path: A run's folder or its `record.json`.

    Raises:
        UsageError: There is no readable record.
    """
    path = Path(path)
    folder = path.parent if path.name == RECORD_FILE else path
    record = records.read(folder)
    if record is None:
        raise checks.UsageError(
            f"There is no record at {path}. Give a run's folder, STUDY/runs/NAME, or its "
            f"{RECORD_FILE}."
        )
    return record, folder


def reproduce(
    path: Path, folder: Path | None = None, progress: Silent | None = None
) -> Reproduction:
    """Do a finished run again, after all runs that it needs, and compare.

    TensorFlow spreads operations over as many threads as then, if it has not computed yet.

    Args:
        path: A run's folder or its `record.json`.
        folder: A new folder for the runs; None means results/NAME-reproduced.
        progress: Where to show progress; None shows nothing.

    Raises:
        UsageError: No readable record, one that names runs that cannot be found, images that are
            missing, or a folder that is not empty.

    Example:
        >>> reproduce(Path("results/quickstart/runs/no-labels-0")).equal
        True
    """
    before, here = record_of(path)
    folder = Path("results") / f"{before.name}-reproduced" if folder is None else Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise checks.UsageError(
            f"{folder} is not empty. Give a new folder with --output, or remove it."
        )
    needed = _needed(before, here)
    runs = [_run(each["config"]) for each in (*needed, {"config": before.config})]
    tensorflow.start(devices=False)
    from tfdistill.utils import machine

    machine.use_threads(before.environment.get("threads", machine.threads()))
    session = runner.start(progress or Silent())
    from tfdistill.training import preflight

    study = StudyConfig()  # one run after the other
    preflight.check_runs(study, runs, session)
    with alone(folder):
        runner.do_runs(study, runs, folder, session)
    found = {record.name: record for record in records.read_all(folder)}
    return _compared(before, found.get(before.name), needed, found)


def _needed(record: Record, here: Path) -> list[dict]:
    """Return what `Record.needed` holds; of an earlier version's record, from those beside it."""
    if record.needed:
        return record.needed
    found: dict[str, dict] = {}
    config = record.config
    names = [*config["teachers"], *config["members"], config.get("start")]
    names += [(config.get(part) or {}).get("base") for part in ("split", "prune")]
    for name in filter(None, names):
        other = records.read(here.parent / name)
        if other is None:
            raise checks.UsageError(
                f"{record.name} needs the run {name}, of which there is no record in "
                f"{here.parent}. Put its folder there."
            )
        for each in _needed(other, here.parent / name):
            found.setdefault(each["config"]["name"], each)
        found[name] = {"config": other.config, "weights": other.weights}
    return list(found.values())


def _run(config: dict) -> RunConfig:
    run = build(RunConfig, config)
    if run.cache and run.cache.folder:  # the user's stored logits are neither read nor changed
        return dataclasses.replace(run, cache=dataclasses.replace(run.cache, folder=None))
    return run


def _compared(
    before: Record, now: Record | None, needed: list[dict], found: dict[str, Record]
) -> Reproduction:
    if now is None:
        now = Record(before.name, before.row, before.seed, "", before.config, status="left out")
    rows = []
    for each in needed:
        name = each["config"]["name"]
        weights = found[name].weights if name in found else {}
        rows += _rows(f"{name}: weights", each["weights"], weights, _short)
    rows += _rows(f"{before.name}:", {"status": before.status}, {"status": now.status}, str)
    for part, shown in (("weights", _short), ("best", repr), ("last", repr), ("history", digest)):
        rows += _rows(part, getattr(before, part), getattr(now, part), shown)
    for part in ("calibration", "extra"):
        if getattr(before, part) or getattr(now, part):
            rows += _rows("", {part: getattr(before, part)}, {part: getattr(now, part)}, digest)
    equal = all(row[-1] == "yes" for row in rows)
    differences = _differences(before, now)
    note = "Equal to the bit." if equal else "Not equal to the bit."
    if not differences.rows:
        note += " Versions, device, threads, code and images were the same."
    title = f"{before.name}, done again"
    compared = Table(title, ("what", "before", "now", "equal"), tuple(rows), note)
    return Reproduction([compared, differences] if differences.rows else [compared], equal)


def _rows(label: str, before: dict, now: dict, shown) -> list[tuple[str, ...]]:
    rows = []
    for name in {**before, **now}:
        cells = [shown(values[name]) if name in values else "–" for values in (before, now)]
        equal = name in before and name in now and _same(before[name], now[name])
        rows.append((f"{label} {name}".strip(), *cells, "yes" if equal else "NO"))
    return rows


def _differences(before: Record, now: Record) -> Table:
    """Return what the results follow from and was not the same."""
    first, second = _circumstances(before), _circumstances(now)
    rows = [
        (name, str(first.get(name, UNKNOWN)), str(second.get(name, UNKNOWN)))
        for name in {**first, **second}
        if first.get(name) != second.get(name)
    ]
    note = (
        "What the results follow from and was not the same. With changed: true, files of the "
        "package were changed since its revision; code is the SHA-256 of them."
    )
    return Table("Differences", ("of", "before", "now"), tuple(rows), note)


def _circumstances(record: Record) -> dict:
    images = {f"images: {name}": _short(value) for name, value in record.images.items()}
    environment = {
        name: _short(value) if name in ("code", "revision") else value
        for name, value in record.environment.items()
    }
    return {**record.versions, "device": record.device, **environment, **images}


def _same(before, now) -> bool:
    # As text, because NaN does not equal itself.
    return json.dumps(before, sort_keys=True) == json.dumps(now, sort_keys=True)


def _short(value: str) -> str:
    return value[:12]
