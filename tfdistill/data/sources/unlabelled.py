"""Images without labels, beside labelled ones: a folder of any depth, a file of paths, or an array.

They are training examples with the label -1: a teacher says what is on them.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.config.data import IN_FILES, MEMORY
from tfdistill.data import array_cache, walk
from tfdistill.data.dataset import UNLABELLED, Dataset, Examples
from tfdistill.data.encoded import EncodedImages
from tfdistill.data.sources import arrays, parts, tfds_prepared
from tfdistill.utils import checks

LIST_ENDING, ARRAY_ENDING = ".txt", ".npz"
PREPARED = "tfds:"
Images = np.ndarray | EncodedImages


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
    # All training images are kept in one way.
    kept_in = IN_FILES if isinstance(images.train.images, EncodedImages) else MEMORY
    config = dataclasses.replace(config, storage=kept_in)
    skipped = walk.Skipped()
    if str(config.unlabelled).startswith(PREPARED):
        found = tfds_prepared.images(config, str(config.unlabelled).removeprefix(PREPARED))
    else:
        found = _images(place, config, skipped)
    first = 3 if isinstance(found, EncodedImages) else 1  # of others, sizes may differ, too
    if found.shape[first:] != images.train.images.shape[first:]:
        raise checks.UsageError(
            "Images without labels must have the size of the others. Received: "
            f"{found.shape[1:]} and {images.train.images.shape[1:]}. Set data.image_size."
        )
    kept = _kept(found, (images.test, images.validation))
    notes = skipped.lines()
    if not kept.all():
        notes.append(
            f"Left out {np.sum(~kept)} images without labels that are validation or test images"
        )
    count = int(kept.sum())
    first = 1 + max(int(part.ids.max()) for part in (images.train, images.validation))
    train = Examples(
        _joined(images.train.images, found, np.flatnonzero(kept)),
        np.concatenate([images.train.labels, np.full(count, UNLABELLED)]).astype(np.int32),
        np.concatenate([images.train.ids, first + np.arange(count)]).astype(np.int64),
    )
    return dataclasses.replace(images, train=train), notes


def resolved(config: DataConfig) -> tuple[DataConfig, list[str]]:
    """Return a configuration that says where images are kept, if those without labels decide it.

    Returns:
        The configuration, and what is to be told.
    """
    place = Path(str(config.unlabelled)).expanduser()
    if str(config.unlabelled).startswith(PREPARED) or place.suffix.lower() == ARRAY_ENDING:
        return config, []
    try:
        paths = _paths(place, walk.Skipped())
    except checks.UsageError:  # said where they are read
        return config, []
    decided, told = parts.resolved(config, paths)
    return (decided, told) if decided.storage == IN_FILES else (config, [])


def _kept(found: Images, others: Sequence[Examples]) -> np.ndarray:
    """Return which images are no copies of others, `[n]` bool."""

    def looked() -> dict[str, np.ndarray]:
        known = {parts.digest_of(image) for part in others for image in part.images}
        return {"kept": np.array([parts.digest_of(image) not in known for image in found])}

    if not isinstance(found, EncodedImages):
        return looked()["kept"]
    key = {"copies in": found.identity, "of": [part.sha256 for part in others]}
    return array_cache.cached(key, looked)["kept"]


def _joined(first: Images, second: Images, chosen: np.ndarray) -> Images:
    """Return images and, after them, those of others that are chosen."""
    if isinstance(first, EncodedImages) and isinstance(second, EncodedImages):
        return first.and_(second.take(chosen))
    return np.concatenate([first, second[chosen]])  # type: ignore[index]


def _images(place: Path, config: DataConfig, skipped: walk.Skipped) -> Images:
    """Return the images at a place, `[n, height, width, channels]` uint8, or encoded ones."""
    if place.suffix.lower() == ARRAY_ENDING:
        found = arrays.images(place, "x", config)
        if config.storage == IN_FILES:
            raise checks.UsageError(
                "Beside images that stay in files, those without labels are files, too. Received: "
                f"data.unlabelled={str(place)!r}. Give a folder, or set data.storage=memory."
            )
        return found
    paths = _paths(place, skipped)
    labels = np.full(len(paths), UNLABELLED)
    return parts.examples(paths, labels, config, f"unlabelled {place.resolve()}").images


def _paths(place: Path, skipped: walk.Skipped) -> list[Path]:
    """Return the images in a folder or a list, of which there must be some."""
    paths = _listed(place) if place.suffix.lower() == LIST_ENDING else _below(place, skipped)
    if not paths:
        raise checks.UsageError(
            f"data.unlabelled must hold images ({' '.join(walk.ENDINGS)}). Received: {place}, "
            "which holds none."
        )
    return paths


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
