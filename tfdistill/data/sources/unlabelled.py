"""Images without labels, beside labelled ones: a folder of any depth, a file of paths, or an array.

They are training examples with the label -1: a teacher says what is on them.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.data import walk
from tfdistill.data.dataset import UNLABELLED, Dataset, Examples
from tfdistill.data.sources import arrays, parts, tfds_prepared
from tfdistill.utils import checks

LIST_ENDING, ARRAY_ENDING = ".txt", ".npz"
PREPARED = "tfds:"


def added(images: Dataset, config: DataConfig) -> tuple[Dataset, list[str]]:
    """Return a data set with the images that `config.unlabelled` names, and what is to be told.

    Exact copies of validation and test images are left out: a student would be tested on what it
    was taught.

    Args:
        images: With labels.
        config: Its `unlabelled` is a folder, a text file of paths, one a line, or a .npz file with
            the array `x`; or `tfds:NAME SPLIT`.

    Raises:
        UsageError: Images with several labels; there is no such folder or file, no image in it, one
            that cannot be read, or images of another size than the labelled ones.
    """
    if images.multi_label:
        raise checks.UsageError(
            "data.unlabelled stands beside images of one class each. Received: "
            f"{config.source}, whose images have several labels. Set it to null."
        )
    place = Path(str(config.unlabelled)).expanduser()
    skipped = walk.Skipped()
    if str(config.unlabelled).startswith(PREPARED):
        found = tfds_prepared.images(config, str(config.unlabelled).removeprefix(PREPARED))
    else:
        found = _images(place, config, skipped)
    labels = np.full(len(found), UNLABELLED)
    if found.shape[1:] != images.train.images.shape[1:]:
        raise checks.UsageError(
            "Images without labels must have the size of the others. Received: "
            f"{found.shape[1:]} and {images.train.images.shape[1:]}. Set data.image_size."
        )
    known = {_digest(image) for part in (images.test, images.validation) for image in part.images}
    kept = np.array([_digest(image) not in known for image in found])
    notes = skipped.lines()
    if not kept.all():
        notes.append(
            f"Left out {np.sum(~kept)} images without labels that are validation or test images"
        )
    first = 1 + max(int(part.ids.max()) for part in (images.train, images.validation))
    train = Examples(
        np.concatenate([images.train.images, found[kept]]),
        np.concatenate([images.train.labels, labels[kept]]).astype(np.int32),
        np.concatenate([images.train.ids, first + np.arange(kept.sum())]).astype(np.int64),
    )
    return dataclasses.replace(images, train=train), notes


def _images(place: Path, config: DataConfig, skipped: walk.Skipped) -> np.ndarray:
    """Return the images at a place, `[n, height, width, channels]` uint8."""
    if place.suffix.lower() == ARRAY_ENDING:
        return arrays.images(place, "x", config)
    paths = _listed(place) if place.suffix.lower() == LIST_ENDING else _below(place, skipped)
    if not paths:
        raise checks.UsageError(
            f"data.unlabelled must hold images ({' '.join(walk.ENDINGS)}). Received: {place}, "
            "which holds none."
        )
    labels = np.full(len(paths), UNLABELLED)
    return parts.examples(paths, labels, config, f"unlabelled {place.resolve()}").images


def _listed(file: Path) -> list[Path]:
    """Return the paths that a file lists, those that are not absolute from its folder."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise checks.UsageError(
            "data.unlabelled must be a folder of images or a text file of paths. Received: "
            f"{file}, which cannot be read: {checks.first_line(error)}"
        ) from None
    paths = [file.parent / line.strip() for line in lines if line.strip()]
    for path in paths:
        if not path.is_file():
            raise checks.UsageError(f"{file} lists {str(path)!r}, which is no file. Remove it.")
    return list(dict.fromkeys(paths))


def _below(folder: Path, skipped: walk.Skipped) -> list[Path]:
    if not folder.is_dir():
        raise checks.UsageError(
            "data.unlabelled must be a folder of images or a text file of paths. Received: "
            f"{str(folder)!r}, which is neither."
        )
    found = []
    for path, kind in walk.below(folder):
        if isinstance(kind, OSError):
            raise checks.UsageError(f"Cannot read the folder {path}: {kind.strerror}.")
        if kind == walk.IMAGE and walk.is_text(path):
            found.append(path)
        else:
            skipped.add(walk.NO_TEXT if kind == walk.IMAGE else kind, path)
    return sorted(found)


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha1(image.tobytes(), usedforsecurity=False).digest()
