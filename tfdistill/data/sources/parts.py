"""Image files read once, and the source made of the parts that a folder or a list names.

Parts are called train or training; val, valid, validation, dev, eval or evaluation; test or
testing; in any case, and also with an ending such as `_set` or `_images`.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.data import array_cache, decode, splits
from tfdistill.data.dataset import Examples, Source
from tfdistill.data.encoded import EncodedImages
from tfdistill.data.sources import stores
from tfdistill.utils import checks

TRAIN, VALIDATION, TEST = "train", "validation", "test"
WORDS = {
    TRAIN: ("train", "training"),
    VALIDATION: ("val", "valid", "validation", "dev", "eval", "evaluation"),
    TEST: ("test", "testing"),
}
TEST_SHARE = 0.2


# What may follow these words, as in training_set or test-images.
_ENDS = re.compile(r"[ _-]?(set|data|images|imgs|split)$")


def part_of(name: str) -> str | None:
    """Return the part that a name stands for, None if it is no such name."""
    word = _ENDS.sub("", name.lower())
    return next((part for part, words in WORDS.items() if word in words), None)


def words() -> str:
    """Return all names of parts, to be quoted in messages."""
    return "; ".join(", ".join(several) for several in WORDS.values())


def kinds(paths: Sequence[Path]) -> list[str]:
    """Return, as lines to be told, how many files of each kind there are, if of several."""
    counts = Counter(path.suffix.lower() for path in paths).most_common()
    each = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in counts)
    return [f"Image files of several kinds are read: {each}"] if len(counts) > 1 else []


def resolved(config: DataConfig, paths: Sequence[Path]) -> tuple[DataConfig, list[str]]:
    """Return a configuration that says where images are kept, and what is to be told of it."""
    return stores.resolved(config, stores.Files(paths), len(paths))


def examples(paths: Sequence[Path], labels: np.ndarray, config: DataConfig, of: str) -> Examples:
    """Return images with their labels, numbered by their places: decoded, or an index of files.

    Both are made once and found as kept afterwards.

    Args:
        paths: The files.
        labels: One for each.
        config: Its `image_size` is what they are brought to, its `storage` where they are kept.
        of: What is read, as a part of the key under which what was read is kept.

    Raises:
        UsageError: A file cannot be read, or sizes differ and `config.image_size` is None.
    """
    key: dict[str, Any] = {"of": of, "size": config.image_size, "rules": decode.RULES}
    try:
        key["files"] = array_cache.fingerprint(paths)
    except OSError as error:
        raise decode.unreadable(str(error.filename), f"{error.strerror}.") from None
    images = stores.kept(stores.Files(paths), len(paths), 3, config, key)
    return Examples.numbered(images, labels)


def source(
    classes: Sequence[str],
    parts: dict[str, Examples],
    seed: int,
    name_of: Callable[[str], str],
    notes: Sequence[str],
) -> Source:
    """Return the source of named parts; test images are cut from the training ones if need be.

    Args:
        classes: Their names.
        parts: By `TRAIN`, which must be there, `VALIDATION`, `TEST`.
        seed: Of the part that is cut out.
        name_of: Says a part as the user calls it.
        notes: What is to be told; a line each.
    """
    train, test, held = parts[TRAIN], parts.get(TEST), parts.get(VALIDATION)
    notes = list(notes)
    if test is None:
        train, test = _divided(train, seed)
        if held is not None:
            notes.append(
                f"{name_of(VALIDATION)} holds the validation images; there are no test images, so "
                f"a fifth of {name_of(TRAIN)} is held out for them"
            )
    if held is not None:
        # Numbers after those of the training examples: no two examples share one.
        ids = np.arange(len(held), dtype=np.int64) + len(train)
        held = Examples(held.images, held.labels, ids)
    if count := len(copies(test.images, train.images)):
        notes.append(
            f"{count} of {len(test)} test images are exact copies of training images: accuracy on "
            "them says little. Remove the copies"
        )
    return Source(tuple(classes), train, test, held, tuple(notes))


def copies(images: np.ndarray | EncodedImages, others: np.ndarray | EncodedImages) -> np.ndarray:
    """Return the places of images that have the very pixels of one of others, `[m]` int."""
    places = np.arange(len(images))
    if isinstance(images, EncodedImages) and isinstance(others, EncodedImages):
        # Of files, only those of the same bytes are decoded.
        sums, known = images.rows["sum"], others.rows["sum"]
        places, others = np.flatnonzero(np.isin(sums, known)), others.take(np.isin(known, sums))
        images = images.take(places)
    if not len(places):
        return places
    digests = {digest_of(image) for image in others}
    return places[[digest_of(image) in digests for image in images]]


def digest_of(image: np.ndarray) -> bytes:
    """Return a hash of an image's pixels."""
    return hashlib.sha1(image.tobytes(), usedforsecurity=False).digest()


def same_classes(found: dict[str, set[str]], where: str) -> None:
    """Raise unless all parts have the same classes.

    Args:
        found: The classes' names, by the part as the user calls it.
        where: What holds the parts.
    """
    every = set().union(*found.values())
    for part, names in found.items():
        if names != every:
            missing = ", ".join(sorted(every - names))
            raise checks.UsageError(
                f"The parts {', '.join(found)} of {where} must have the same classes. Received: "
                f"{part} without {missing}. Add images there, or remove the class everywhere."
            )


def _divided(every: Examples, seed: int) -> tuple[Examples, Examples]:
    count = max(1, round(TEST_SHARE * len(every)))
    test = splits.stratified(every.labels, count, seed, splits.TEST)
    train = splits.without(test, len(every))
    first, second = map(every.take, (train, test))
    return Examples.numbered(first.images, first.labels), Examples.numbered(
        second.images, second.labels
    )
