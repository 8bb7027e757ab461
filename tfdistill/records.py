"""Records: one JSON file per finished run, and the tables made of them.

Figures of the best validation epoch and of the last epoch stand apart in `best` and `last` and are
never mixed; which of the two a table shows is the configuration's `training.select`.
"""

import contextlib
import dataclasses
import json
import os
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tfdistill import checks, storage
from tfdistill.config import digest

RECORD_FILE = "record.json"
CHECKSUM = "checksum"
FINISHED, DIVERGED = "finished", "diverged"


@dataclass(frozen=True)
class Record:
    """What one run measured.

    Args:
        name: The run's name, unique in its study.
        row: The row of the table that it belongs to.
        seed: Its seed.
        key: Hash of its configuration and of its teachers' weights.
        config: Its `RunConfig` as a dictionary.
        status: `finished`, or `diverged` when the loss became NaN.
        message: Why it stopped, when it diverged.
        best: Figures of the best validation epoch, accuracies in 0..1: epoch, validation_accuracy,
            test_accuracy, test_nll, test_brier, test_ece, test_ece_equal_mass; with teachers also
            test_agreement and test_teacher_kl.
        last: The same figures of the last epoch.
        history: One list per figure, one value per epoch (loss, accuracy, val_loss, val_accuracy,
            and hard_loss, soft_loss with teachers).
        calibration: Reliability diagram of the selected weights on the test set: lists `count`,
            `confidence`, `accuracy`, one value per bin.
        parameters: Number of weights of the network.
        flops: Floating point operations of one image's forward pass, 2 for each multiply-add.
        seconds: Time of training and evaluation, summed over interruptions.
        weights: SHA-256 of the `best` and of the `last` weights.
        versions: Versions of the libraries.
        device: What it was trained on.
        extra: What a kind of run measured besides, as its module says; JSON.
        files: SHA-256 of the files that the run left beside its record, by name.
        images: SHA-256 of the images, labels and ids of `train`, `validation` and `test`; empty
            where the run makes its own.
        environment: What else its bits follow from: `machine.environment`.
        needed: The runs that it needed, and that those needed, each after those that it needs:
            `config` and `weights` of each.
    """

    name: str
    row: str
    seed: int
    key: str
    config: dict
    status: str = FINISHED
    message: str = ""
    best: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    calibration: dict[str, list[float]] = field(default_factory=dict)
    parameters: int = 0
    flops: int = 0
    seconds: float = 0.0
    weights: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""
    extra: dict = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    needed: list[dict] = field(default_factory=list)

    @property
    def select(self) -> str:
        """`best` or `last`: the figures that stand in the tables."""
        return self.config["training"]["select"]

    @property
    def figures(self) -> dict[str, float]:
        """The figures of the selected epoch."""
        return self.best if self.select == "best" else self.last


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of one figure over `count` runs."""

    mean: float
    std: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """Return the spread of `values`, None of none."""
        values = list(values)
        if not values:
            return None
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(statistics.fmean(values), std, len(values))

    def text(self, scale: float = 100.0, digits: int = 2) -> str:
        """Return e.g. `86.38 ± 0.70`; without a deviation for a single run."""
        mean = f"{scale * self.mean:.{digits}f}"
        return f"{mean} ± {scale * self.std:.{digits}f}" if self.count > 1 else mean


@dataclass(frozen=True)
class Table:
    """A table for terminal, HTML and CSV: text cells, the first column a label."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def write_json(path: Path, value) -> None:
    """Write JSON so that the file appears whole or not at all."""
    with appearing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


def write_checked(path: Path, value: dict) -> None:
    """Write JSON as `write_json`, with a checksum of its content under `checksum`."""
    plain = json.loads(json.dumps(value))
    write_json(path, {**plain, CHECKSUM: digest(plain)})


def read_checked(path: Path) -> dict:
    """Return what `write_checked` was given; of an earlier version's file, all that it holds.

    Raises:
        DamagedError: The file cannot be read, or is not what was written.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        line = checks.first_line(error).rstrip(".")
        raise storage.DamagedError(path, f"is damaged ({line})") from None
    if not isinstance(value, dict):
        raise storage.DamagedError(path, "is damaged (it holds no keys and values)")
    # It is the last key, also where a damaged byte gave it another name.
    name = next(reversed(value), "")
    content = {key: kept for key, kept in value.items() if key != name}
    if (value.get(name) == digest(content)) != (name == CHECKSUM) or CHECKSUM in content:
        raise storage.DamagedError(path, "is damaged (its checksum is not that of its content)")
    return content if name == CHECKSUM else value


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    What killed processes of this host left of the same file is removed first.

    Raises:
        WriteError: There is no room, or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    temporary = path.with_name(storage.temporary_name(path))
    with storage.explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.remove_abandoned(path)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def run_folder(study_folder: Path, name: str) -> Path:
    """Return the folder of one run of a study."""
    return Path(study_folder) / "runs" / name


def run_key(config: dict, needed: Iterable[Record]) -> str:
    """Return the hash of all that a result follows from: configuration and teachers' weights."""
    return digest(config, [[record.name, record.weights, record.key] for record in needed])


def to_repeat(needed: Iterable[Record]) -> list[dict]:
    """Return configuration and weights of runs, each after those that it needed itself."""
    found: dict[str, dict] = {}
    for record in needed:
        for each in record.needed:
            found.setdefault(each["config"]["name"], each)
        found[record.name] = {"config": record.config, "weights": record.weights}
    return list(found.values())


def write(folder: Path, record: Record) -> None:
    """Write a run's record into its folder."""
    write_checked(Path(folder) / RECORD_FILE, dataclasses.asdict(record))


def read(folder: Path) -> Record | None:
    """Return the record in a run's folder, None where there is none.

    Raises:
        DamagedError: It is not as it was written.
    """
    path = Path(folder) / RECORD_FILE
    if not path.exists():
        return None
    values = read_checked(path)
    try:
        return Record(**values)
    except TypeError as error:
        line = checks.first_line(error).rstrip(".")
        raise storage.DamagedError(path, f"is damaged ({line})") from None


def check_files(folder: Path, record: Record) -> None:
    """Raise `DamagedError` unless the files beside a record are those that it lists."""
    for name, expected in record.files.items():
        storage.check_file(Path(folder) / name, expected)


def check_beside(path: Path) -> None:
    """Raise `DamagedError` if a file is another than the record beside it lists."""
    record = read(Path(path).parent)
    if record and path.name in record.files:
        storage.check_file(path, record.files[path.name])


def read_all(study_folder: Path) -> list[Record]:
    """Return all records of a study, in the order of their names."""
    folders = sorted((Path(study_folder) / "runs").glob("*/"))
    return [record for folder in folders if (record := read(folder)) is not None]


def by_row(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the finished records of every row, in order of first appearance."""
    rows: dict[str, list[Record]] = {}
    for record in records:
        if record.status == FINISHED:
            rows.setdefault(record.row, []).append(record)
    return rows


def spread(records: Iterable[Record], figure: str, part: str | None = None) -> Spread | None:
    """Return mean and deviation of a figure; `part` is `best`, `last` or None for the selected."""
    parts = (getattr(record, part) if part else record.figures for record in records)
    return Spread.of(figures[figure] for figures in parts if figures.get(figure) is not None)


def frame(records: Iterable[Record]):
    """Return a pandas DataFrame with one row per record: the study's results.csv."""
    import pandas as pd

    rows = []
    for record in records:
        row = {"run": record.name, "row": record.row, "seed": record.seed, "status": record.status}
        taught = record.config.get("distillation") or {}
        row |= {name: taught.get(name) for name in ("alpha", "temperature", "scale_by_t2", "loss")}
        row["features"] = "+".join(feature["loss"] for feature in taught.get("features", ()))
        row |= {f"best_{name}": value for name, value in record.best.items()}
        row |= {f"last_{name}": value for name, value in record.last.items()}
        row |= {"select": record.select, "parameters": record.parameters, "flops": record.flops}
        row |= {"seconds": round(record.seconds, 2), "key": record.key}
        row |= {f"weights_{part}": value for part, value in record.weights.items()}
        rows.append(row)
    return pd.DataFrame(rows)
