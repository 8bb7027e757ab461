"""Is an exported file the network that was trained? Each is asked in a process of its own.

The process has only what a deployment has: TensorFlow for a SavedModel, the LiteRT or ONNX runtime
for the others. It answers real test images through every signature, and its logits are compared
with those of the Keras network.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfdistill.export.format import BYTES, DEFAULT, ExportFormat, export_format
from tfdistill.export.isolated import Probe, ProbeError
from tfdistill.records import Record, Table
from tfdistill.utils import checks

# What an exported network is.
KINDS = STUDENT, TEACHER, ENSEMBLE, NETWORK = "student", "teacher", "ensemble", "network"
# Accuracy that a format without a tolerance, one in 8 bits, may cost.
INT8_LOSS = 0.01
# A network that rounds takes another of two levels where a value lies between them, so that it is
# held by its classes: by the share of all images, a format's `agreement`, and of those that it
# gives any one class.
CLASS_AGREEMENT = 0.8
# Images of a class that tell.
ENOUGH = 20


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


@dataclass(frozen=True, eq=False)
class TestImages:
    """The test images on which formats are compared.

    Args:
        images: `[n, height, width, channels]` uint8, as the network sees them.
        stored: The same images as they are stored, before they are brought to its size.
        labels: `[n]` int, or `[n, labels]` of 0 and 1.
    """

    images: np.ndarray
    stored: Iterable[np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True)
class Check:
    """How far a format's answers are from the network's.

    Args:
        format: A name of `EXPORT_FORMATS`.
        signature: `serving_default` or `bytes`.
        images: Number of test images.
        difference: Largest difference of a logit.
        probability_difference: Largest difference of a probability.
        largest_logit: Largest logit of the network by amount.
        agreement: Share of the images that both give the same class, 0..1.
        accuracy: Of the format on these images, 0..1.
        network_accuracy: Of the network on these images, 0..1.
        multi_label: Whether images have any number of labels; agreement and accuracy are then
            shares of all labels of all images.
        rounded: Whether the network itself rounds, as one of `quantize_aware`.
        class_agreement: Smallest agreement within a class of the network's answers, or a label.
    """

    format: str
    signature: str
    images: int
    difference: float
    probability_difference: float
    largest_logit: float
    agreement: float
    accuracy: float
    network_accuracy: float
    multi_label: bool = False
    rounded: bool = False
    class_agreement: float = 1.0

    @property
    def tolerance(self) -> float | None:
        """Largest difference allowed, in units of the largest logit or 1; None for 8 bits."""
        return None if self.rounded else export_format(self.format).tolerance

    @property
    def good(self) -> bool:
        """Whether the format passes: by logits, or by classes or accuracy of 8 bits."""
        if self.rounded:
            differing = round((1 - self.agreement) * self.images)
            allowed = 1 - export_format(self.format).agreement
            alike = differing <= allowed * self.images + 1e-9
            return alike and self.class_agreement >= CLASS_AGREEMENT
        if self.tolerance is None:
            lost = round((self.network_accuracy - self.accuracy) * self.images)
            return lost <= INT8_LOSS * self.images
        logits = self.difference <= self.tolerance * max(1.0, self.largest_logit)
        return logits and self.probability_difference <= self.tolerance

    def text(self) -> str:
        """Return the outcome as one line."""
        what, labels = ("answer", "the labels of ") if self.multi_label else ("class", "")
        return (
            f"{self.label}: same {what} as the network for {100 * self.agreement:.2f} % of "
            f"{labels}{self.images} test images, logits differ by {self.difference:.1e} at most"
        )

    @property
    def differing(self) -> str:
        """How many answers of a network that rounds may be others, in words."""
        share = 1 - export_format(self.format).agreement
        return f"{share:.0%} of all images and {1 - CLASS_AGREEMENT:.0%} of a class"

    @property
    def label(self) -> str:
        """Its format and, where there are several, its signature."""
        several = export_format(self.format).runtime.takes_bytes
        return f"{self.format}, {self.signature}" if several else self.format


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Turn the end of a process that checks an export into one line for the user.

    Raises:
        Refused: Instead of a `ProbeError`.
    """
    try:
        yield
    except ProbeError as error:
        raise checks.Refused(str(error)) from error


def compare(
    format: ExportFormat,
    path: Path,
    test: TestImages,
    logits: np.ndarray,
    rounded: bool = False,
) -> list[Check]:
    """Return how a file answers, one `Check` for each of its signatures.

    Args:
        format: Its format.
        path: A SavedModel's folder, or the file of another format.
        test: What it is asked.
        logits: `[n, classes]` float32, what the Keras network answers.
        rounded: Whether the network itself rounds.

    Raises:
        Refused: It answers too differently.
        ProbeError: It cannot be loaded or does not answer.
    """
    try:
        with Probe(path) as probe:
            answers = {DEFAULT: probe.answer(test.images)}
            if format.runtime.takes_bytes:
                answers[BYTES] = probe.answer_bytes([_png(image) for image in test.stored])
    except ProbeError as error:
        extreme = " 8 bits cannot hold it where its numbers are extreme." * (not format.tolerance)
        raise ProbeError(
            f"{format.name} does not run: {error}{extreme} Nothing was exported; leave this format "
            "out, or train the network longer."
        ) from error
    found = [
        _compared(format.name, name, answers[name], test.labels, logits, rounded)
        for name in answers
    ]
    for one in found:
        if not one.good:
            raise checks.Refused(_refusal(one))
    return found


def table(found: list[Check], title: str) -> Table:
    """Return the checks as a table with one row for each signature of each format."""
    rows = []
    for one in found:
        rows.append(
            (
                one.label,
                f"{one.difference:.1e}",
                f"{100 * one.agreement:.2f}",
                f"{100 * one.accuracy:.2f}",
                "–" if one.tolerance is None else f"{one.tolerance:g}",
            )
        )
    several = found[0].multi_label
    what = "answer" if several else "class"
    same = "labels with the same answer" if several else "images with the same class"
    note = (
        f"On {found[0].images} test images, against the Keras network "
        f"({100 * found[0].network_accuracy:.2f} % right, logits up to "
        f"{found[0].largest_logit:.3g}): largest difference of a logit, share "
        f"of {same}, accuracy. Allowed is a difference in units of the largest "
        f"logit; int8 may lose {100 * INT8_LOSS:g} point of accuracy."
    )
    if found[0].rounded:
        loosest = min(found, key=lambda one: export_format(one.format).agreement)
        up_to = "up to " if len({one.differing for one in found}) > 1 else ""
        allowed = f"Allowed is another {what} for {up_to}{loosest.differing}."
        note = f"{note.partition(' Allowed')[0]} {allowed}"
    columns = ("", "largest difference", f"same {what} %", "accuracy %", "allowed")
    return Table(title, columns, tuple(rows), note)


def _compared(format: str, signature: str, answers: dict, labels, logits, rounded: bool) -> Check:
    from tfdistill.training import tasks  # with Keras, which a card or a table needs not

    task = tasks.of_labels(labels)
    chosen, expected = task.chosen(answers), task.choice(logits)
    return Check(
        format=format,
        signature=signature,
        images=len(logits),
        difference=_largest_difference(answers["logits"], logits),
        probability_difference=_largest_difference(
            answers["probabilities"], task.probabilities(logits)
        ),
        largest_logit=float(np.abs(logits).max()),
        agreement=float((chosen == expected).mean()),
        accuracy=float((chosen == labels).mean()),
        network_accuracy=task.accuracy(logits, labels),
        multi_label=labels.ndim == 2,
        rounded=rounded,
        class_agreement=_class_agreement(chosen == expected, expected),
    )


def _class_agreement(same: np.ndarray, expected: np.ndarray) -> float:
    """Return the smallest share of same answers of a label, or of a class of enough images."""
    if expected.ndim == 2:
        return float(same.mean(axis=0).min())
    classes, counts = np.unique(expected, return_counts=True)
    shares = [same[expected == one].mean() for one in classes[counts >= ENOUGH]]
    return float(min(shares, default=1.0))


def _largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    # A NaN is not above any tolerance, so it counts as infinite.
    return float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max())


def _refusal(found: Check) -> str:
    if found.rounded:
        return (
            f"{found.format} ({found.signature}) is not the quantised network: the same answer for "
            f"{100 * found.agreement:.2f} % of {found.images} test images, and for "
            f"{100 * found.class_agreement:.2f} % of a class; allowed are other answers for "
            f"{found.differing}. Nothing was exported; leave this format out."
        )
    if found.tolerance is None:
        return (
            f"{found.format} classifies {100 * found.accuracy:.2f} % of {found.images} test images "
            f"right, the network {100 * found.network_accuracy:.2f} %: more than "
            f"{100 * INT8_LOSS:g} point is lost. Nothing was exported; leave this format out."
        )
    return (
        f"{found.format} ({found.signature}) differs from the network by {found.difference:.2g} "
        f"in a logit, of up to {found.largest_logit:.3g}, and by "
        f"{found.probability_difference:.2g} in a probability; allowed is {found.tolerance:g}, of "
        f"the largest logit where that is above 1. The same answer for "
        f"{100 * found.agreement:.2f} % of {found.images} test images. "
        "Nothing was exported; leave this format out."
    )


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "png")
    return file.getvalue()
