"""What is known about an export: the facts that its model card is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tfdistill.data import Dataset
from tfdistill.export.verify import Check
from tfdistill.records import Record
from tfdistill.utils import checks

KINDS = ("student", "teacher", "ensemble", "network")


@dataclass(frozen=True)
class File:
    """One file of an export.

    Args:
        path: Relative to the version's folder.
        bytes: Its size.
        sha256: Of its content, in hexadecimal.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Figures:
    """How good a network is on test images.

    Args:
        values: By name, as `metrics.summary` names them: accuracy, nll, brier, ece, ece_equal_mass
            and, with teachers, agreement and teacher_kl.
        images: Number of test images.
        weights: `best` or `last`; None where there is no such choice.
        epoch: Epoch of the weights; None where it is not known.
        validation_accuracy: On the images that selected the epoch, 0..1; None without.
    """

    values: Mapping[str, float]
    images: int
    weights: str | None = None
    epoch: int | None = None
    validation_accuracy: float | None = None

    @classmethod
    def of(cls, record: Record, images: int, part: str | None = None) -> "Figures":
        """Return those of a run.

        Args:
            record: Of the run.
            images: Number of its test images.
            part: `best` or `last` weights; None means what the run's configuration selects.
        """
        part = part or record.select
        found = record.best if part == "best" else record.last
        on_test = {name: value for name, value in found.items() if name.startswith("test_")}
        values = {name.removeprefix("test_"): value for name, value in on_test.items()}
        epoch = None if found.get("epoch") is None else int(found["epoch"])
        return cls(values, images, part, epoch, found.get("validation_accuracy"))


@dataclass(frozen=True)
class Facts:
    """What is known about an export.

    Args:
        name: Name of the model.
        version: Its version, >= 1.
        key: What the export follows from, as a hash.
        kind: `student`, `teacher`, `ensemble` or `network`.
        created: When, with a time zone.
        versions: Versions of the libraries.
        licence: Of the weights.
        images: The images that the figures are of, and where known those it was trained on.
        resize: Whether `serving_default` takes images of any size.
        files: By format, the files that one would ship.
        checks: How the formats compare with the network.
        parameters: Number of weights.
        flops: Operations of one image's forward pass; None where they were not counted.
        figures: On the test images; None where they were not measured.
        record: Of its run; None for a file of one's own, or an ensemble that has no run.
        teachers: Records of the runs that taught it.
        members: Records of the runs that an ensemble averages.
        average: How it averages them.
    """

    name: str
    version: int
    key: str
    kind: str
    created: datetime
    versions: Mapping[str, str]
    licence: str
    images: Dataset
    resize: bool
    files: Mapping[str, Sequence[File]]
    checks: Sequence[Check]
    parameters: int
    flops: int | None = None
    figures: Figures | None = None
    record: Record | None = None
    teachers: Sequence[Record] = ()
    members: Sequence[Record] = ()
    average: str = "probabilities"

    def __post_init__(self):
        checks.one_of("kind", self.kind, KINDS)
        checks.count("version", self.version)
