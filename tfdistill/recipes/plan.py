"""Images and a trained network to the study that teaches a small one: `single`, settings chosen.

One teacher, one student, the same student alone as its control.
"""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfdistill.config import (
    AugmentConfig,
    CacheConfig,
    DataConfig,
    DistillationConfig,
    ExportConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
    export_name,
)
from tfdistill.config.training import network_family
from tfdistill.recipes import inputs, teachers
from tfdistill.training import study_folder
from tfdistill.utils import checks, pixels, storage, tensorflow
from tfdistill.utils.pixels import FULL, PixelRange
from tfdistill.utils.progress import Silent

# Of a teacher that takes images of any size, and of a student beside a teacher of more.
TEACHER_SIZE, STUDENT_SIZE = 128, 48
# Optimiser steps of every student, where no number of epochs is given, in parts of so many.
STEPS, PARTS = 1500, 10
BATCH_SIZE = 50
ALPHA, TEMPERATURE = 0.9, 4.0
HEADS = ("auto", "keep", "new")
TRAINED = "train:"


@dataclass(frozen=True)
class Wish:
    """What was asked for.

    Args:
        photos: As of `inputs.source_of`.
        teacher: Path of a .keras file, a SavedModel folder or a finished run's folder; or
            `keras:NAME`, `hub:PRESET` or `train:NAME`; or a Keras model.
        output: Where results go.
        student: Name of the student's architecture, the path of a .keras file, or a Keras model.
        student_size: Side in pixels that it sees; None chooses.
        image_size: Side in pixels that the teacher sees; None takes its own.
        epochs: Passes over all images; None chooses a number of steps.
        seeds: Number of students, each beside one alone.
        classes: Numbers or names of the teacher's outputs for the images' classes.
        head: `auto`, `keep` or `new`.
        formats: Of the export; None exports nothing.
        unlabelled: As of `inputs.unlabelled_of`; None without.
        pixel_range: What the teacher expects for the pixels 0 and 255.
    """

    photos: Any
    teacher: Any
    output: Path
    student: Any = "cnn4"
    student_size: int | None = None
    image_size: int | None = None
    epochs: int | None = None
    seeds: int = 3
    classes: Sequence[int | str] = ()
    head: str = "auto"
    formats: Sequence[str] | None = None
    unlabelled: Any = None
    pixel_range: PixelRange = FULL


def prepare(wish: Wish, progress: Silent) -> StudyConfig:
    """Return the study that answers a wish; where the teacher needs a new head, it is fitted.

    The head is kept in the output folder, and taken from there when the same is asked for again.
    A folder that was not there before is not left behind by an error.

    Raises:
        UsageError: Images or a teacher that cannot be read or do not fit, or a teacher without
            the images' classes beside `head="keep"`.
    """
    with nothing_half_done(wish.output):
        _check_place(wish)
        return _prepared(wish, progress)


@contextlib.contextmanager
def nothing_half_done(output: Path, dry_run: bool = False) -> Iterator[None]:
    """Remove a folder that was not there before, where an error comes before a study is in it, or
    where it was made for a dry run alone: to list the runs, a head may have to be fitted."""
    new = not output.exists()
    made = [folder for folder in output.parents if not folder.exists()]
    unwanted = dry_run
    try:
        yield
    except checks.UsageError:
        unwanted = dry_run or not (output / study_folder.CONFIG_FILE).exists()
        raise
    finally:
        if new and unwanted:
            _remove(output, made)


def _remove(folder: Path, made: list[Path]) -> None:
    """Remove a folder, and those around it that were made for it and hold nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        for around in made:
            around.rmdir()


def _prepared(wish: Wish, progress: Silent) -> StudyConfig:
    checks.one_of("head", wish.head, HEADS)
    checks.count("seeds", wish.seeds)
    for name in ("student_size", "image_size"):
        if getattr(wish, name) is not None:
            checks.count(name, getattr(wish, name))
    teacher_given = inputs.network_file(wish.teacher, wish.output, inputs.GIVEN_TEACHER_FILE)
    student_given = inputs.network_file(wish.student, wish.output, inputs.GIVEN_STUDENT_FILE)
    wish = dataclasses.replace(wish, teacher=teacher_given, student=student_given)
    export = _export(wish)
    trained = str(wish.teacher).startswith(TRAINED)
    pixels.check("pixel_range", wish.pixel_range)
    given = not trained and str(wish.teacher).partition(":")[0] not in inputs.PUBLISHED
    if not given and not pixels.is_full(wish.pixel_range):
        raise checks.UsageError(
            f"pixel_range is of a teacher in a file. Received: {wish.pixel_range} beside "
            f"{wish.teacher}, which takes pixels 0..255. Remove it."
        )
    if given:
        _teacher_file(wish, progress)  # is told before TensorFlow starts, if it is not there
    loose = inputs.loose_images(wish.photos)
    source = None if loose else inputs.source_of(wish.photos, wish.output)
    more = inputs.unlabelled_of(wish.unlabelled, wish.output)
    progress.say("Starting TensorFlow; reading the teacher and the images")
    tensorflow.start()
    path = None if trained else _teacher_file(wish, progress)
    from tfdistill import data
    from tfdistill.models import saved

    size = wish.image_size or (saved.input_size(path) if path else None) or TEACHER_SIZE
    teacher, note = None, ""
    if loose:
        if path is None or more:
            raise checks.UsageError(
                f"No image of {wish.photos} has a label, so a teacher is needed that knows their "
                "classes, and no other images. Sort some into a folder for each class."
            )
        answered, teacher, said = teachers.answers(wish, path, loose, size, progress)
        source = f"csv:{answered.resolve()}"
        note = (
            "No image has a label. The teacher's answers stand for them: accuracy is agreement "
            "with the teacher, and the student alone learned from its answers as from labels. "
            f"{said}."
        )
    config = DataConfig(str(source), image_size=size, unlabelled=more)
    images = data.load(config, lambda line: None)  # the study tells it
    labelled = data.load(config.labelled_only, lambda line: None) if more else images
    student, seen = _student(wish, size, images.num_classes)
    training = _training(wish, len(images.train), len(labelled.train))
    if teacher is None:
        if path is None:
            name = str(wish.teacher).removeprefix(TRAINED)
            teacher = ModelConfig(name)
            progress.say(f"Teacher: {name}, trained on the {len(labelled.train)} labelled images")
        else:
            teacher = teachers.fitting(wish, path, labelled, progress)
    alpha = 1.0 if loose else ALPHA
    crops = AugmentConfig(resized_crop=0.5, flip=True)
    study = StudyConfig(
        study="single",
        output=str(wish.output),
        seeds=list(range(wish.seeds)),
        data=dataclasses.replace(config, augment=crops),
        teacher=teacher,
        student=student,
        training=training,
        # Of the unchanged image, once: the dearest part of it all is the teacher's pass.
        distillation=DistillationConfig(alpha, TEMPERATURE, teacher_view="fixed"),
        cache=CacheConfig(),
        export=export,
        note=note,
    )
    study_folder.check_folder(study, wish.output)
    if path and teacher.path == str((wish.output / teachers.TEACHER_FILE).resolve()):
        teachers.with_new_head(wish, path, labelled, progress)
    if remark := inputs.smaller(wish.photos, size):
        progress.warn(remark)
    progress.say(
        f"Student: {wish.student} at {seen} pixels, {training.steps} steps of "
        f"{training.batch_size} images, alpha {alpha:g}, temperature {TEMPERATURE:g}, {wish.seeds} "
        f"seed{'s' * (wish.seeds > 1)}; the teacher sees {size} pixels"
    )
    return study


def _check_place(wish: Wish) -> None:
    """Raise if results cannot be written, or would lie where images are looked for."""
    output = wish.output.resolve()
    there = next(folder for folder in (output, *output.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        problem = "cannot be written" if there.is_dir() else "is a file"
        raise storage.WriteError(
            f"Cannot write to {wish.output}: {there} {problem}. Name another folder with --output."
        )
    if not isinstance(wish.photos, str | Path) or not str(wish.photos):
        return
    photos = Path(wish.photos).expanduser()
    if photos.is_dir() and photos.resolve() in (output, *output.parents):
        raise checks.UsageError(
            f"Results must lie outside the images' folder. Received: the output {wish.output} in "
            f"{photos}. Name another folder with --output."
        )


def _teacher_file(wish: Wish, progress: Silent) -> Path:
    text = str(wish.teacher)
    path = inputs.finished_run(Path(text).expanduser())
    if path.exists() and text:
        if problem := inputs.no_network(path):
            raise checks.UsageError(
                f"The teacher must be {inputs.TEACHER_FORMS}. Received: {text!r}, {problem}."
            )
        return path
    if text.partition(":")[0] not in inputs.PUBLISHED:
        raise checks.UsageError(
            f"The teacher must be {inputs.TEACHER_FORMS}. Received: {text!r}, which does not exist."
        )
    from tfdistill.models.teachers.opening import teacher_file

    return teacher_file(text, wish.output, progress.say)


def _student(wish: Wish, size: int, num_classes: int) -> tuple[ModelConfig, int]:
    """Return the student, and the side in pixels that it sees."""
    from tfdistill.models import saved

    seen = wish.student_size or (STUDENT_SIZE if size > STUDENT_SIZE * 4 / 3 else size)
    shown = seen if seen != size else None
    if Path(wish.student).suffix == ".keras":
        if not Path(wish.student).is_file():
            raise checks.UsageError(f"There is no student at {wish.student}. Give its file.")
        if (outputs := saved.count_outputs(Path(wish.student))) != num_classes:
            raise checks.UsageError(
                f"The student must have an output for each of {num_classes} classes. Received: "
                f"{outputs} of {wish.student}. Give one that has, or an architecture's name."
            )
        return ModelConfig("saved", path=str(Path(wish.student).resolve()), input_size=shown), seen
    # With dropout before batch norm, a network that is trained for few steps is at chance when
    # it is evaluated: cnn4's 0.5 left it there for 400 steps.
    has_dropout = "dropout" in network_family(str(wish.student)).settings
    dropout = 0.0 if has_dropout else None
    return ModelConfig(str(wish.student), dropout=dropout, input_size=shown), seen


def _training(wish: Wish, count: int, labelled: int) -> TrainingConfig:
    """Return how students are trained: alone, on labelled images only, and taught for as many
    steps."""
    size = min(BATCH_SIZE, labelled)
    steps, parts = STEPS, PARTS
    if wish.epochs is not None:
        checks.count("epochs", wish.epochs)
        steps, parts = wish.epochs * -(-count // size), wish.epochs
    return TrainingConfig(
        epochs=parts,
        steps=steps,
        batch_size=size,
        learning_rate=0.002,
        schedule="cosine",
        select="last",
    )


def _export(wish: Wish) -> ExportConfig | None:
    if wish.formats is None:
        return None
    formats = [wish.formats] if isinstance(wish.formats, str) else list(wish.formats)
    export = ExportConfig(formats, name=export_name(wish.output.name))
    export.check_for_study()
    return export
