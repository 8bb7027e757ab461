"""A teacher by what a user writes: `keras:NAME`, `keras:NAME=FILE` or `hub:PRESET`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from tfdistill.models import applications
from tfdistill.models.teachers import hub
from tfdistill.models.weights.notes import write_notes
from tfdistill.utils import checks, foreign, storage

KERAS, HUB = "keras", "hub"


@dataclass(frozen=True, eq=False)
class OpenedTeacher:
    """A published network.

    Args:
        network: From raw pixels `[batch, size, size, channels]` float32, 0..255, to logits
            `[batch, classes]` float32; it prepares its pixels itself.
        class_names: One for each output; None where they are not known.
        image_size: Side of its square images; None where it takes any.
    """

    network: keras.Model
    class_names: list[str] | None
    image_size: int | None


def open_teacher(text: str, image_size: int | None = None) -> OpenedTeacher:
    """Return a published network as a teacher.

    Args:
        text: `keras:NAME` of keras.applications with ImageNet weights, which Keras downloads;
            `keras:NAME=FILE` with those of a file; `hub:PRESET` of KerasHub, by name or address
            (downloaded) or the folder of `save_to_preset`.
        image_size: Side of the images that it is given and then brings to its own size, as its
            authors do; None takes images of its own size.

    Raises:
        UsageError: Another text, a name or preset that is not known, a download or a file that
            fails, or KerasHub that is not installed.

    Example:
        >>> teacher = open_teacher("hub:resnet_50_imagenet")
        >>> teacher.image_size, teacher.class_names[1]
        (224, 'goldfish')
        >>> head = new_head(teacher.network, images)  # or save it: teacher.network.save(...)
    """
    kind, _, name = text.partition(":")
    if kind not in (KERAS, HUB) or not name:
        raise checks.UsageError(
            "A published teacher is keras:NAME, keras:NAME=FILE of weights or hub:PRESET. "
            f"Received: {checks.shown(text)}."
        )
    if image_size is not None:
        checks.count("image_size", image_size)
    place = _place(text)
    if kind == HUB:
        network = hub.classifier(place, image_size)
        names = hub.class_names(place, network.output_shape[-1])
    else:
        network = applications.classifier(name.partition("=")[0], place or "imagenet", image_size)
        # What stands before the last layer has no names.
        names = hub.imagenet_names() if network.output_shape[-1] == applications.CLASSES else None
    return OpenedTeacher(network, names, network.input_shape[1])


def teacher_file(text: str, output: Path, say: Callable[[str], None] = lambda note: None) -> Path:
    """Return the .keras file of a teacher; a published one is written into a folder, once.

    Args:
        text: As of `open_teacher`, or the path of a file or folder, which is returned.
        output: Folder for the file, which is found there again with the same text and, of a
            teacher on this machine, the same content.
        say: Told what takes long.

    Raises:
        UsageError: As `open_teacher`; or the folder holds the file of another teacher.
    """
    if text.partition(":")[0] not in (KERAS, HUB):
        return Path(text).expanduser()
    path = output / f"{_file_name(text)}.keras"
    note = path.with_suffix(".json")
    key = {"teacher": text, "files": _hashes(text)}
    if path.exists() and note.exists():
        known = storage.read_checked(note)
        if known["of"] != key:
            raise checks.UsageError(
                f"{path} is the teacher {known['of']['teacher']}, as it was then. Received: "
                f"{text}. Name another folder with --output."
            )
        storage.check_file(path, known["sha256"])
        return path
    say(f"Opening {text}")
    opened = open_teacher(text)
    with storage.appearing(path) as temporary:
        opened.network.save(temporary)
        write_notes(temporary, class_names=opened.class_names)
        digest = storage.sha256(temporary)
        foreign.know(digest)
    storage.write_checked(note, {"of": key, "sha256": digest})
    return path


def _file_name(text: str) -> str:
    """Return `keras-NAME` of `keras:NAME=FILE`, `hub-NAME` of `hub:any/where/NAME`."""
    kind, _, name = text.partition(":")
    short = Path(_place(text)).name if kind == HUB else name.partition("=")[0]
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_-]', '-', short)}"


def _place(text: str) -> str:
    """Return the preset of `hub:PRESET`, or the file of `keras:NAME=FILE`, empty without one."""
    kind, _, place = text.partition(":")
    place = place if kind == HUB else place.partition("=")[2]
    return str(Path(place).expanduser()) if place.startswith("~") else place


def _hashes(text: str) -> dict[str, str]:
    """Return the SHA-256 of a teacher's files on this machine; none where it is downloaded."""
    place = _place(text)
    found = Path(place)
    if not place or not found.exists():
        return {}
    files = sorted(found.iterdir()) if found.is_dir() else [found]
    # Its time of saving says nothing of the teacher.
    kept = [each for each in files if each.is_file() and each.name != "metadata.json"]
    return {each.name: storage.sha256(each) for each in kept}
