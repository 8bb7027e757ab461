"""Records: one JSON file per finished run, and the tables made of them.

Figures of the best validation epoch and of the last epoch stand apart in `best` and `last` and are
never mixed; which of the two a table shows is the configuration's `training.select`.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdistill.config import formats
from tfdistill.records import checking
from tfdistill.records.checking import FINISHED
from tfdistill.utils import checks, storage
from tfdistill.utils.storage import digest
from tfdistill.utils.text import duration

if TYPE_CHECKING:
    from tfdistill.records.predictions import Predictions

RECORD_FILE = "record.json"


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
            test_agreement and test_teacher_kl. Of several labels an image, accuracy, NLL, Brier
            score and agreement are means over all labels of all images, and in the place of the
            calibration errors stand test_exact_match and test_mean_average_precision.
        last: The same figures of the last epoch.
        history: One list per figure, one value per epoch (loss, accuracy, val_loss, val_accuracy,
            and hard_loss, soft_loss with teachers).
        calibration: Reliability diagram of the selected weights on the test set: lists `count`,
            `confidence`, `accuracy`, one value per bin; empty of several labels.
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
        predictions: What the selected weights say of each test image, where that was read; it lies
            in a file of its own.
    """

    name: str
    row: str
    seed: int
    key: str
    config: dict[str, Any]
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
    extra: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    needed: list[dict[str, Any]] = field(default_factory=list)
    predictions: "Predictions | None" = field(default=None, compare=False, repr=False)

    @property
    def select(self) -> str:
        """`best` or `last`: the figures that stand in the tables."""
        return self.config["training"]["select"]

    @property
    def multi_label(self) -> bool:
        """Whether it is of images with several labels, by what was measured."""
        return "test_exact_match" in {**self.best, **self.last}

    @property
    def figures(self) -> dict[str, float]:
        """The figures of the selected epoch."""
        return self.best if self.select == "best" else self.last


def run_folder(study_folder: Path, name: str) -> Path:
    """Return the folder of one run of a study."""
    return Path(study_folder) / "runs" / name


def run_key(config: dict[str, Any], needed: Iterable[Record]) -> str:
    """Return the hash of all that a result follows from: configuration and teachers' weights."""
    config = formats.identifying(config)
    return digest(config, [[record.name, record.weights, record.key] for record in needed])


def is_of(record: Record, config: dict[str, Any], needed: Iterable[Record]) -> bool:
    """Return whether a record is of a run's configuration and of its teachers' present weights."""
    taught_by = {each["config"]["name"]: each["weights"] for each in record.needed}
    same = all(taught_by.get(teacher.name) == teacher.weights for teacher in needed)
    return same and record.config == config


def to_repeat(needed: Iterable[Record]) -> list[dict[str, Any]]:
    """Return configuration and weights of runs, each after those that it needed itself."""
    found: dict[str, dict[str, Any]] = {}
    for record in needed:
        for each in record.needed:
            found.setdefault(each["config"]["name"], each)
        found[record.name] = {"config": record.config, "weights": record.weights}
    return list(found.values())


def write(folder: Path, record: Record) -> None:
    """Write a run's record into its folder."""
    storage.write_checked(Path(folder) / RECORD_FILE, as_values(record))


def as_values(record: Record) -> dict[str, Any]:
    """Return a record as JSON values with the number of their format; without predictions."""
    values = dataclasses.asdict(dataclasses.replace(record, predictions=None))
    del values["predictions"]
    return {formats.KEY: formats.FORMAT, **values}


def read(folder: Path) -> Record | None:
    """Return the record in a run's folder, None where there is none.

    Of a record of an earlier format the configurations are brought to the present one.

    Raises:
        DamagedError: It is not as it was written.
        LaterError: A later version of this package wrote it.
    """
    path = Path(folder) / RECORD_FILE
    if not path.exists():
        return None
    return of_values(path, storage.read_checked(path))


def of_values(path: Path, values: dict[str, Any]) -> Record:
    """Return the record of the values of `as_values`, which were read from a file.

    Raises:
        DamagedError: They are no record.
        LaterError: A later version of this package wrote them.
    """
    written = formats.number(path, values)
    unknown = [name for name in values if name not in Record.__dataclass_fields__]
    if unknown:
        raise storage.LaterError(path, f"it holds {', '.join(unknown)}")
    try:
        checking.check_needed(values.get("needed", []))
        values["config"] = formats.current_run(values.get("config"), written)
        for each in values.get("needed", ()):
            each["config"] = formats.current_run(each["config"], written)
        checking.check(Record, values)
    except (checks.UsageError, RecursionError, ValueError) as error:
        line = checks.first_line(error).rstrip(".")
        if getattr(error, "unknown_key", False):
            raise storage.LaterError(path, line) from None
        raise storage.DamagedError(path, f"is damaged ({line})") from None
    return Record(**values)


def read_runs(study_folder: Path, names: Iterable[str]) -> list[Record]:
    """Return the records of finished runs of a study, by their names.

    Raises:
        DamagedError: One is not as it was written, or there is none.
        LaterError: As of `read`.
    """
    found = []
    for folder in (run_folder(study_folder, name) for name in names):
        record = read(folder)
        if record is None:
            raise storage.DamagedError(folder / RECORD_FILE, "is missing")
        found.append(record)
    return found


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


def outcome(record: Record) -> str:
    """Return one line about a finished run."""
    if record.status != FINISHED:
        return record.message
    accuracy = record.figures.get("test_accuracy")
    if accuracy is None:
        return f"done, {duration(record.seconds)}"
    return f"test accuracy {100 * accuracy:.2f} % ({record.select}), {duration(record.seconds)}"
