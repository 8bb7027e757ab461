"""A teacher with outputs for the images' classes: picked, kept, or with a new head."""

import csv
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.special

from tfdistill.config import ModelConfig
from tfdistill.recipes import inputs
from tfdistill.utils import checks, foreign, pixels, storage
from tfdistill.utils.progress import Silent

if TYPE_CHECKING:
    from tfdistill import data
    from tfdistill.recipes.plan import Wish

TEACHER_FILE, NOTE_FILE, ANSWERS_FILE = "teacher.keras", "teacher.json", "answers.csv"
# Of images without any label: a class that a teacher names for fewer is none of theirs.
FEWEST_OF_CLASS = 5


def fitting(wish: "Wish", path: Path, images: "data.Dataset", progress: Silent) -> ModelConfig:
    """Return a teacher with outputs for the images' classes; of a new head, where it will be.

    Args:
        wish: What was asked for: `classes`, `head`, and `output`, where a new head is kept.
        path: The teacher's file.
        images: With the classes.
        progress: Is told which it is, but of a new head, which `with_new_head` fits.

    Raises:
        UsageError: Outputs that are not there, or none for the classes beside `head="keep"`.
    """
    from tfdistill.models import saved
    from tfdistill.models.class_choice import class_numbers

    names, outputs = saved.class_names(path), saved.count_outputs(path)
    given = ModelConfig(
        "saved", path=str(path.resolve()), pixel_range=pixels.kept(wish.pixel_range)
    )
    if wish.classes:
        if len(wish.classes) != images.num_classes:
            raise checks.UsageError(
                f"--classes must name one of the teacher's outputs for each of "
                f"{images.num_classes} classes. Received: {len(wish.classes)}."
            )
        class_numbers(wish.classes, outputs, names)
        progress.say(f"Teacher: {path.name}, {len(wish.classes)} of its {outputs} outputs")
        return dataclasses.replace(given, classes=list(wish.classes))
    if wish.head != "new" and names and set(images.class_names) <= set(names):
        class_numbers(images.class_names, outputs, names)
        progress.say(f"Teacher: {path.name}, its outputs picked by the classes' names")
        return dataclasses.replace(given, classes=list(images.class_names))
    if wish.head != "new" and outputs == images.num_classes:
        progress.say(f"Teacher: {path.name}, which has as many outputs")
        return given
    if wish.head == "keep":
        raise checks.UsageError(
            f"The teacher has none of the images' classes by name, and {outputs} outputs for "
            f"{images.num_classes} classes. Name its outputs with --classes, or let a new head be "
            "fitted with --head new."
        )
    return ModelConfig("saved", path=str((wish.output / TEACHER_FILE).resolve()))


def answers(
    wish: "Wish", path: Path, files: list[Path], size: int, progress: Silent
) -> tuple[Path, ModelConfig, str]:
    """Return a list of images with the teacher's answer as the label of each, and the teacher.

    The third is a line that says how often it names each class, and how sure it is.

    Raises:
        UsageError: The teacher names fewer than two classes, or one for too few images.
    """
    from tfdistill.config import DataConfig
    from tfdistill.data import pipeline
    from tfdistill.data.sources import parts
    from tfdistill.models import saved

    names, outputs = saved.class_names(path), saved.count_outputs(path)
    picked = list(wish.classes) or list(range(outputs))
    config = DataConfig(f"folder:{files[0].parent}", image_size=size)
    config, lines = parts.resolved(config, files)
    shown = parts.examples(files, np.zeros(len(files), int), config, f"answers {files[0].parent}")
    network = saved.load(
        path, shown.images.shape[1:], len(picked), classes=picked, pixel_range=wish.pixel_range
    )
    for line in (*lines, f"Teacher: {path.name} looks at {len(files)} images without a label"):
        progress.say(line)
    batches = pipeline.evaluation_batches(shown, batch_size=50)
    logits = np.concatenate([network.predict_on_batch(seen) for seen, _ in batches])
    chosen = logits.argmax(axis=-1)
    counts = np.bincount(chosen, minlength=len(picked))
    known = np.flatnonzero(counts)
    words = [names[each] if names and isinstance(each, int) else str(each) for each in picked]
    if len(set(words)) < len(words):  # as two of ImageNet's classes are called crane
        words = list(map(str, picked))
    told = ", ".join(
        f"{words[each]} {counts[each]}" for each in sorted(known, key=lambda at: -counts[at])[:10]
    )
    rare = [words[each] for each in known if counts[each] < FEWEST_OF_CLASS]
    if len(known) < 2 or rare:
        raise checks.UsageError(
            f"Without labels, the teacher must name two classes or more, each for "
            f"{FEWEST_OF_CLASS} images or more. It named: {told}{', ...' * (len(known) > 10)}. "
            "Give those that are yours with --classes."
        )
    sure = scipy.special.softmax(logits, axis=-1).max(axis=-1).mean()
    said = f"Its answers: {told}; it is {sure:.0%} sure on average"
    progress.say(said)
    # A list's classes are in the order of their names, or of numbers that all are numbers.
    texts = [words[each] for each in known]
    numeric = all(text.isdecimal() for text in texts)
    order = sorted(range(len(known)), key=lambda at: int(texts[at]) if numeric else texts[at])
    file = wish.output / ANSWERS_FILE
    with (
        inputs.instead_of(file) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as opened,
    ):
        rows = csv.writer(opened)
        rows.writerow(("path", "label"))
        rows.writerows((one.resolve(), words[at]) for one, at in zip(files, chosen, strict=True))
    classes = [picked[known[at]] for at in order]
    teacher = ModelConfig(
        "saved",
        path=str(path.resolve()),
        classes=classes,
        pixel_range=pixels.kept(wish.pixel_range),
    )
    return file, teacher, said


def with_new_head(wish: "Wish", path: Path, images: "data.Dataset", progress: Silent) -> None:
    """Write the teacher with a new head, unless an earlier call has fitted it.

    Args:
        wish: What was asked for; the teacher is kept in its `output`.
        path: The teacher's file.
        images: The images to which the head is fitted.
        progress: Is told how well it does.

    Raises:
        UsageError: A teacher or images that no head can be fitted to, or a folder with that of
            others.
    """
    from tfdistill.models import saved
    from tfdistill.training.heads import new_head

    saved.check_layers(path)
    found, note = wish.output / TEACHER_FILE, wish.output / NOTE_FILE
    key: dict[str, Any] = {"teacher": storage.sha256(path), "images": images.hashes}
    if not pixels.is_full(wish.pixel_range):
        key["pixel_range"] = pixels.kept(wish.pixel_range)
    if found.exists() and note.exists():
        try:
            known = storage.read_checked(note)
            if known["of"] != key:
                raise checks.UsageError(
                    f"{found} is the teacher of other images or of another network. Name another "
                    "folder with --output."
                )
            storage.check_file(found, known["sha256"])
            progress.say(known["said"])
            return
        except storage.DamagedError as error:
            progress.say(f"{error.problem}; the head is fitted again")
    head = new_head(saved.whole(path), images, wish.pixel_range, path.name)
    said = (
        f"Teacher: {path.name} with a new head, fitted to {len(images.train)} labelled images: "
        f"right on {head.validation_accuracy:.0%} of {head.judged} that it was not fitted to, "
        f"{head.training_accuracy:.0%} of its own"
    )
    progress.say(said)
    with storage.appearing(found) as temporary:
        head.network.save(temporary)
        digest = storage.sha256(temporary)
        foreign.know(digest)
    storage.write_checked(note, {"of": key, "sha256": digest, "said": said})
