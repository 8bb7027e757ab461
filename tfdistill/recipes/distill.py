"""`tfdistill.distill`: images and a trained network go in, a small network comes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfdistill.recipes import findings
from tfdistill.recipes.plan import Wish, nothing_half_done, prepare
from tfdistill.records import Record, by_row, spread
from tfdistill.studies.common import ALONE, TEACHER
from tfdistill.studies.single import DISTILLED
from tfdistill.training import runner
from tfdistill.utils import checks
from tfdistill.utils.pixels import FULL, PixelRange
from tfdistill.utils.progress import Silent, display


@dataclass(frozen=True, eq=False)
class Distilled:
    """What came of it.

    Args:
        folder: With records, weights, `report.html` and, if wanted, exports.
        records: Of teacher, students alone and students that were taught.
        verdict: What the records say, in words.
        report: Path of the report.
    """

    folder: Path
    records: list[Record]
    verdict: str
    report: Path

    @property
    def accuracy(self) -> dict[str, float]:
        """Mean test accuracy in 0..1 of `teacher`, `student alone` and `student`."""
        rows = by_row(self.records)
        names = {TEACHER: TEACHER, ALONE: ALONE, DISTILLED: "student"}
        found = {name: spread(rows.get(row, []), "test_accuracy") for row, name in names.items()}
        return {name: value.mean for name, value in found.items() if value}

    @property
    def best(self) -> Record:
        """Record of the taught student that does best on validation images."""
        taught = by_row(self.records)[DISTILLED]
        return max(taught, key=lambda record: record.figures["validation_accuracy"])

    def student(self) -> Any:
        """Return the best student: a `keras.Model` from pixels 0..255,
        `[batch, size, size, channels]`, to logits `[batch, num_classes]` float32."""
        from tfdistill.models import saved

        return saved.whole(self.folder / "runs" / self.best.name / f"{self.best.select}.keras")


def distill(
    images: Any,
    teacher: Any,
    student: Any = "cnn4",
    *,
    output: str | Path,
    unlabelled: Any = None,
    pixel_range: PixelRange = FULL,
    classes: Sequence[int | str] = (),
    head: str = "auto",
    student_size: int | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    seeds: int = 3,
    export: Sequence[str] | None = None,
    workers: int = 1,
    verbose: bool = True,
) -> Distilled:
    """Teach a small network a user's images by a trained one, beside the same network alone.

    The same call resumes after an interruption.

    Args:
        images: A folder with a sub-folder for each class (or, with a teacher that knows them, of
            images without any label), a CSV file of path,label, a .npz file, a source such as
            `tfds:NAME`; a pair of arrays, images `[n, h, w, c]` uint8 and labels `[n]` int; or a
            `tf.data.Dataset` of such pairs, batched or not. A part of them is held out as
            validation and test images.
        teacher: A Keras model from pixels 0..255 to logits or probabilities; a .keras file, a
            SavedModel, a finished run's folder, `keras:NAME`, `hub:PRESET`, or `train:NAME`.
        student: Name of an architecture, or a Keras model from pixels 0..255 to logits, which
            starts from the weights that it has.
        output: Folder for records, weights and the report.
        unlabelled: More images, without labels: a folder, a text file of paths, or an array.
        pixel_range: What a teacher in memory or in a file expects for the pixels 0 and 255, such as
            (0, 1) where its images were divided by 255 before they reached it; or `caffe` or
            `torch`, where `preprocess_input` of keras.applications prepared them so.
        classes: The teacher's outputs for the images' classes, in their order: numbers or names.
        head: `auto` picks outputs by name, keeps as many outputs as classes, else fits a new head;
            `keep` or `new` insist.
        student_size: Side in pixels that the student sees; None: 48 where the teacher sees more.
        image_size: Side in pixels that the teacher sees; None: its own, else 128.
        epochs: Passes over all images; None: 1,500 steps.
        seeds: Number of students, each beside one alone.
        export: Formats of an export of the best student, such as `litert-int8`; None: none.
        workers: Processes that train students at the same time; on CPUs to the same bits as one
            with as many threads.
        verbose: Whether to say what is done, and show progress.

    Returns:
        Records, verdict and report; `student()` gives the network.

    Raises:
        UsageError: What is given cannot be read or does not fit; one line that says what to do.

    Example:
        >>> found = distill("photos", "teacher.keras", output="results/photos")
        >>> found.accuracy
        {'teacher': 0.91, 'student alone': 0.61, 'student': 0.66}
        >>> found.student().save("small.keras")
    """
    checks.count("workers", workers)
    progress = display() if verbose else Silent()
    output = Path(output)
    wish = Wish(
        images,
        teacher,
        output,
        student,
        student_size,
        image_size,
        epochs,
        seeds,
        classes,
        head,
        export,
        unlabelled,
        pixel_range,
    )
    with nothing_half_done(output):
        config = prepare(wish, progress)
        found = runner.run_study(config, output, progress, workers)
    if config.export:
        from tfdistill.export import study_exports

        study_exports.export_study(output, config.export, progress)
    says = findings.of_folder(config, output, found)
    _, report = findings.write(output, says)
    progress.say(f"{says.verdict}\nReport: {report}")
    return Distilled(output, says.found, says.verdict, report)
