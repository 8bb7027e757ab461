"""A folder of image files, one sub-folder for each class.

Either `PATH/{train,test}/<class>/*`, or `PATH/<class>/*`, where a stratified fifth is the test set.
Classes are numbered in the order of their names, examples in the order of their paths.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.data import array_cache, decode, headers, splits
from tfdistill.data.dataset import Examples, Reader, Source
from tfdistill.utils import checks

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
TEST_SHARE = 0.2


def read(config: DataConfig, name: str) -> Source:
    """Return the images under the folder `name`.

    Raises:
        UsageError: The folder is missing, a class is empty, a file cannot be read, or sizes differ
            and `config.image_size` is None.
    """
    root = Path(name).expanduser()
    if not root.is_dir():
        raise checks.UsageError(
            f"data.source 'folder:PATH' needs a folder of images. Received: {name!r}, which is no "
            f"folder."
        )
    split = all((root / part).is_dir() for part in ("train", "test"))
    classes = _classes(root / "train" if split else root)
    if split:
        _same_classes(classes, _classes(root / "test"), root)
        train = _examples(root / "train", classes, config)
        return Source(classes, train, _examples(root / "test", classes, config))
    return _divided(classes, _examples(root, classes, config), config.split_seed)


def _classes(root: Path) -> tuple[str, ...]:
    classes = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != "."))
    if len(classes) < 2:
        raise checks.UsageError(
            f"{root} needs one sub-folder for each of at least 2 classes. Received: {len(classes)}."
        )
    return classes


def _same_classes(train: tuple, test: tuple, root: Path) -> None:
    if train != test:
        odd = ", ".join(sorted(set(train) ^ set(test)))
        raise checks.UsageError(
            f"{root}/train and {root}/test must have the same classes. Received in only one: {odd}."
        )


def _examples(root: Path, classes: tuple[str, ...], config: DataConfig) -> Examples:
    files = [_files(root / name) for name in classes]
    checks.no_empty_class(map(len, files), classes, f"{root.name} (files {' '.join(ENDINGS)})")
    paths = [path for group in files for path in group]
    key: dict[str, Any] = {"folder": str(root.resolve()), "size": config.image_size}
    key["files"] = array_cache.fingerprint(paths)

    def decoded():
        data = [_contents(path) for path in paths]
        pixels = decode.decode(data, lambda at: str(paths[at]), 3, config.image_size)
        return {"images": pixels}

    labels = np.repeat(np.arange(len(classes)), list(map(len, files)))
    return Examples.numbered(array_cache.cached(key, decoded)["images"], labels)


def _contents(path: Path) -> bytes:
    try:
        return headers.contents(path)
    except headers.ImageError as error:
        raise decode.unreadable(str(path), str(error)) from None


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and p.name[0] != ".")


def _divided(classes: tuple[str, ...], every: Examples, seed: int) -> Source:
    count = max(1, round(TEST_SHARE * len(every)))
    test = splits.stratified(every.labels, count, seed, splits.TEST)
    train = splits.without(test, len(every))
    parts = (Examples.numbered(every.images[at], every.labels[at]) for at in (train, test))
    return Source(classes, *parts)


READER = Reader(read, argument="PATH")
