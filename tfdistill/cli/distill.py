"""`tfdistill distill`: images and a trained network go in, a small network comes out.

One teacher, one student, the same student alone as its control: a study `single`, whose settings
are chosen here and said. A teacher that never had the images' classes gets a new head first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
from tfdistill.config.registry import SOURCES
from tfdistill.config.training import network_family
from tfdistill.utils import checks, foreign, storage, tensorflow
from tfdistill.utils.progress import Silent

TEACHER_FILE, NOTE_FILE = "teacher.keras", "teacher.json"
# Of a teacher that takes images of any size, and of a student beside a teacher of more.
TEACHER_SIZE, STUDENT_SIZE = 128, 48
# Optimiser steps of a student where no number of epochs is given; at least and at most so many.
STEPS, EPOCHS = 1500, (5, 200)
BATCH_SIZE = 50
HEADS = ("auto", "keep", "new")


@dataclass(frozen=True)
class Wish:
    """What was asked for.

    Args:
        photos: A folder, a CSV file, or a source such as `tfds:NAME`.
        teacher: A .keras file or SavedModel folder.
        student: Name of the student's architecture.
        student_size: Side in pixels that it sees; None chooses.
        image_size: Side in pixels that the teacher sees; None takes its own.
        epochs: Of the students; None chooses.
        seeds: Number of students, each beside one alone.
        classes: Numbers or names of the teacher's outputs for the images' classes.
        head: `auto`, `keep` or `new`.
        output: Where results go.
        formats: Of the export; None exports nothing.
        unlabelled: A folder or list of images without labels; None without.
    """

    photos: str
    teacher: Path
    student: str
    student_size: int | None
    image_size: int | None
    epochs: int | None
    seeds: int
    classes: Sequence[str]
    head: str
    output: Path
    formats: Sequence[str] | None
    unlabelled: Path | None = None


def source_of(photos: str) -> str:
    """Return a `data.source` for what a user calls images.

    Raises:
        UsageError: There is no such folder or file, and it is no source.
    """
    path = Path(photos).expanduser()
    if path.is_dir():
        return f"folder:{path.resolve()}"
    if path.suffix.lower() == ".csv" and path.is_file():
        return f"csv:{path.resolve()}"
    if photos.partition(":")[0] in SOURCES:
        return photos
    raise checks.UsageError(
        "PHOTOS must be a folder with a sub-folder for each class, a CSV file of path,label, or a "
        f"source such as tfds:NAME. Received: {photos!r}."
    )


def prepare(wish: Wish, progress: Silent) -> StudyConfig:
    """Return the study that answers a wish; where the teacher needs a new head, it is fitted.

    The head is kept in the output folder, and taken from there when the command is given again.

    Raises:
        UsageError: Images or a teacher that cannot be read or do not fit, or a teacher without
            the images' classes beside `head="keep"`.
    """
    checks.one_of("head", wish.head, HEADS)
    checks.count("seeds", wish.seeds)
    source = source_of(wish.photos)
    if not wish.teacher.exists():
        raise checks.UsageError(
            "The teacher must be a .keras file or a SavedModel folder. Received: "
            f"{str(wish.teacher)!r}, which does not exist."
        )
    progress.say("Reading the teacher and the images")
    tensorflow.start()
    from tfdistill import data
    from tfdistill.models import saved

    size = wish.image_size or saved.input_size(wish.teacher) or TEACHER_SIZE
    config = DataConfig(source, image_size=size)
    images = data.load(config, lambda note: None)  # the study tells it
    student_size = wish.student_size or (STUDENT_SIZE if size > STUDENT_SIZE * 4 / 3 else None)
    # With dropout before batch norm, a network that is trained for few steps is at chance when
    # it is evaluated: cnn4's 0.5 left it there for 400 steps.
    has_dropout = "dropout" in network_family(wish.student).settings
    student = ModelConfig(
        wish.student, dropout=0.0 if has_dropout else None, input_size=student_size
    )
    more = str(wish.unlabelled.resolve()) if wish.unlabelled else None
    every = len(images.train)
    if more:
        with_more = DataConfig(source, image_size=size, unlabelled=more)
        every = len(data.load(with_more, lambda note: None).train)
    epochs = wish.epochs or _epochs(every)
    # As many steps on the labelled images alone.
    alone = round(epochs * _steps(every) / _steps(len(images.train)))
    crops = AugmentConfig(resized_crop=0.5, flip=True)
    training = TrainingConfig(
        epochs=epochs,
        batch_size=min(BATCH_SIZE, len(images.train)),
        learning_rate=0.002,
        schedule="cosine",
        select="last",
    )
    export = None
    if wish.formats is not None:
        export = ExportConfig(list(wish.formats), name=export_name(wish.output.name))
        export.check_packages()
    teacher = _teacher(wish, images, progress)  # the last: it may write
    progress.say(
        f"Student: {wish.student} at {student_size or size} pixels, {epochs} epochs, alpha 0.9, "
        f"temperature 4, {wish.seeds} seeds; the teacher sees {size} pixels"
    )
    return StudyConfig(
        study="single",
        output=str(wish.output),
        seeds=list(range(wish.seeds)),
        data=DataConfig(source, image_size=size, augment=crops, unlabelled=more),
        teacher=teacher,
        student=student,
        training=training,
        # Of the unchanged image, once: the dearest part of it all is the teacher's pass.
        distillation=DistillationConfig(alpha=0.9, temperature=4.0, teacher_view="fixed"),
        settings={"alone_epochs": alone} if more else {},
        cache=CacheConfig(),
        export=export,
    )


def _steps(images: int) -> int:
    return -(-images // BATCH_SIZE)


def _epochs(images: int) -> int:
    least, most = EPOCHS
    return int(np.clip(round(STEPS / _steps(images)), least, most))


def _teacher(wish: Wish, images: Any, progress: Silent) -> ModelConfig:
    """Return the teacher with outputs for the images' classes."""
    from tfdistill.models import saved

    path = str(wish.teacher.resolve())
    names, outputs = saved.class_names(wish.teacher), saved.count_outputs(wish.teacher)
    if wish.classes:
        classes: list[int | str] = [int(one) if one.isdecimal() else one for one in wish.classes]
        if len(classes) != images.num_classes:
            raise checks.UsageError(
                f"--classes must name one of the teacher's outputs for each of "
                f"{images.num_classes} classes. Received: {len(classes)}."
            )
        progress.say(f"Teacher: {wish.teacher.name}, {len(classes)} of its {outputs} outputs")
        return ModelConfig("saved", path=path, classes=classes)
    if wish.head != "new" and names and set(images.class_names) <= set(names):
        progress.say(f"Teacher: {wish.teacher.name}, its outputs picked by the classes' names")
        return ModelConfig("saved", path=path, classes=list(images.class_names))
    if wish.head != "new" and outputs == images.num_classes:
        progress.say(f"Teacher: {wish.teacher.name}, which has as many outputs")
        return ModelConfig("saved", path=path)
    if wish.head == "keep":
        raise checks.UsageError(
            f"The teacher has none of the images' classes by name, and {outputs} outputs for "
            f"{images.num_classes} classes. Name its outputs with --classes, or let a new head be "
            "fitted with --head new."
        )
    return ModelConfig("saved", path=str(_with_new_head(wish, images, progress).resolve()))


def _with_new_head(wish: Wish, images: Any, progress: Silent) -> Path:
    """Return the file of the teacher with a new head, fitted or from an earlier call."""
    from tfdistill.models import saved
    from tfdistill.training.heads import new_head

    if wish.teacher.is_dir():
        raise checks.UsageError(
            "A new head needs a .keras file, whose layers are known. Received: the SavedModel "
            f"{wish.teacher}."
        )
    path, note = wish.output / TEACHER_FILE, wish.output / NOTE_FILE
    key = {"teacher": storage.sha256(wish.teacher), "images": images.hashes}
    if path.exists() and note.exists():
        known = storage.read_checked(note)
        if known["of"] != key:
            raise checks.UsageError(
                f"{path} is the teacher of other images or of another network. Name another "
                "folder with --output."
            )
        storage.check_file(path, known["sha256"])
        progress.say(known["said"])
        return path
    head = new_head(saved.whole(wish.teacher), images)
    said = (
        f"Teacher: {wish.teacher.name} with a new head, fitted to {len(images.train)} labelled "
        f"images: right on {head.validation_accuracy:.0%} of {len(images.validation)} others "
        f"({head.training_accuracy:.0%} of its own)"
    )
    progress.say(said)
    wish.output.mkdir(parents=True, exist_ok=True)
    with storage.appearing(path) as temporary:
        head.network.save(temporary)
        digest = storage.sha256(temporary)
        foreign.know(digest)
    storage.write_checked(note, {"of": key, "sha256": digest, "said": said})
    return path
