"""Image sets prepared by TensorFlow Datasets, read from disk and never downloaded.

Reading needs neither the set's own code nor the network, only its prepared files. Examples are
numbered by the set's `id` feature where it has one ("train_00039"), else by reading position.
"""

import os
import re
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.data import array_cache, decode
from tfdistill.data.dataset import Examples, Reader, Source
from tfdistill.data.encoded import EncodedImages
from tfdistill.data.sources import stores
from tfdistill.utils import checks, storage

TFRECORD = "tfrecord"
PREPARE_AGAIN = "Prepare the data set again."


def read(config: DataConfig, name: str) -> Source:
    """Return the prepared set `name`, such as `cifar10` or `cifar10:3.0.2`.

    Raises:
        UsageError: It is not prepared, is no image classification, or lacks a split.
    """
    return read_builder(_builder(config, name), config)


def images(config: DataConfig, name: str) -> np.ndarray | EncodedImages:
    """Return the images of one split, such as `stl10 unlabelled`, whatever their labels.

    Args:
        config: Where prepared sets lie, and the images' size.
        name: Of the set and, after a space, of the split; `train` where none is named.

    Returns:
        `[n, height, width, channels]` uint8, or encoded ones.

    Raises:
        UsageError: It is not prepared, has no such split, or not one image each.
    """
    name, _, split = name.partition(" ")
    builder = _builder(config, name)
    split = split or "train"
    if split not in builder.info.splits:
        raise checks.UsageError(
            f"The data set {builder.name!r} has the splits {', '.join(builder.info.splits)}. "
            f"Received: {split!r}."
        )
    features = import_tfds().features
    found = [key for key, kind in builder.info.features.items() if isinstance(kind, features.Image)]
    if len(found) != 1:
        raise checks.UsageError(
            f"The data set {builder.name!r} must have one image for each example. Received: "
            f"{len(found)}."
        )
    key: dict[str, Any] = {"tfds": builder.info.full_name, "images of": split}
    return _kept(builder, split, found[0], config, _key(builder, config.image_size) | key)


def _builder(config: DataConfig, name: str) -> Any:
    tfds = import_tfds()
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir(config))
    except ValueError:
        folder = data_dir(config)
        command = f"import tensorflow_datasets as tfds; tfds.load('{name}', data_dir='{folder}')"
        raise checks.UsageError(
            f"The data set {name!r} is not prepared in data_dir {folder}. Set data.data_dir to "
            f'where it lies, or fetch it: python -c "{command}"'
        ) from None


def data_dir(config: DataConfig) -> str:
    """Return the folder in which prepared sets are looked for."""
    folder = config.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return str(Path(folder).expanduser())


def import_tfds() -> Any:
    """Import TensorFlow Datasets, or say how to install it."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise checks.UsageError(
            f"This data source needs TensorFlow Datasets ({error}). Install it: "
            'pip install "tfdistill[tfds]"'
        ) from None
    return tfds


def read_builder(builder: Any, config: DataConfig) -> Source:
    """Return the training and test examples of a prepared `tfds.core.DatasetBuilder`."""
    image, label = _keys(builder)
    splits = {"train": "train", "test": _test_split(builder)}
    key = _key(builder, config.image_size)
    names = tuple(builder.info.features[label].names)
    count = sum(builder.info.splits[split].num_examples for split in splits.values())
    config, told = stores.resolved(config, _records(builder, "train", image), count)
    found = {}
    for part, split in splits.items():
        known = array_cache.cached({**key, "labels of": split}, partial(_labels, builder, split))
        _check_labels(builder, split, known["labels"], len(names))
        pixels = _kept(builder, split, image, config, {**key, "images of": split})
        found[part] = Examples(pixels, known["labels"], known["ids"])
    test = Examples.numbered(found["test"].images, found["test"].labels)
    return Source(names, found["train"], test, notes=tuple(told))


def _key(builder: Any, size: int | None) -> dict[str, Any]:
    """Return what arrays of a prepared set depend on."""
    files = array_cache.fingerprint(Path(builder.data_dir).iterdir())
    about = {"tfds": builder.info.full_name, "size": size, "rules": decode.RULES}
    return {**about, "files": files}


def _kept(
    builder: Any, split: str, image: str, config: DataConfig, key: dict[str, Any]
) -> np.ndarray | EncodedImages:
    records = _records(builder, split, image)
    channels = builder.info.features[image].shape[-1] or 3
    return stores.kept(records, len(records.spans), channels, config, key)


def _keys(builder) -> tuple[str, str]:
    features = import_tfds().features
    keys: Any = builder.info.supervised_keys or ()
    found = [builder.info.features[key] for key in keys if isinstance(key, str)]
    kinds = (features.Image, features.ClassLabel)
    if len(found) != 2 or not all(map(isinstance, found, kinds)):
        raise checks.UsageError(
            f"The data set {builder.name!r} must be an image classification with one image and one "
            f"class label. Received: supervised keys {keys!r}."
        )
    return keys


def _test_split(builder) -> str:
    held = next((name for name in ("test", "validation") if name in builder.info.splits), None)
    if held is None or "train" not in builder.info.splits:
        raise checks.UsageError(
            f"The data set {builder.name!r} needs a train split and a test or validation split. "
            f"Received: {', '.join(builder.info.splits)}."
        )
    return held


def _check_labels(builder, split: str, labels: np.ndarray, classes: int) -> None:
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0 or largest >= classes:
        raise checks.UsageError(
            f"The data set {builder.name!r} has labels outside 0..{classes - 1} in its split "
            f"{split!r}. Received: labels from {smallest} to {largest}; -1 marks images without a "
            "label. Give a set whose images are all labelled."
        )


def _labels(builder: Any, split: str) -> dict[str, np.ndarray]:
    """Return labels and numbers of a split, in the order of its files."""
    image, label = _keys(builder)
    found = [_Example(data) for data in _records(builder, split, image).contents()]
    labels = np.array([example.number(label) for example in found], np.int32)
    names = [name for example in found for name in example.texts("id")]
    return {"labels": labels, "ids": numbers(names, len(labels))}


class _Example:
    """What a record holds: features by name."""

    def __init__(self, data: bytes):
        from tensorflow.train import Example

        try:
            self._features = Example.FromString(data).features.feature
        except Exception as error:  # of protobuf, whose errors have no common class
            raise ValueError("it is damaged") from error

    def texts(self, name: str) -> list[bytes]:
        return list(self._features[name].bytes_list.value)

    def number(self, name: str) -> int:
        return int(self._features[name].int64_list.value[0])


def _records(builder: Any, split: str, image: str) -> stores.Records:
    """Return the records of a split in the order of its files, their images still encoded."""
    if builder.info.file_format.value != TFRECORD:
        raise checks.UsageError(
            f"The data set {builder.name!r} must be prepared as {TFRECORD} files. Received: "
            f"{builder.info.file_format.value}. Prepare it again with this file format."
        )
    files = [Path(path) for path in builder.info.splits[split].filepaths]
    spans = np.concatenate(
        [_spans(number, path) for number, path in enumerate(files)] or [np.empty((0, 3))]
    )
    name = f"{builder.name}/{split}"
    return stores.Records(files, spans, lambda data: _Example(data).texts(image)[0], name)


def _spans(number: int, path: Path) -> np.ndarray:
    """Return the number of a TFRecord file, offset and length of each of its records, `[n, 3]`."""
    found, place = [], 0
    try:
        end = path.stat().st_size
        with open(path, "rb") as file:
            while place < end:
                file.seek(place)
                (length,) = struct.unpack("<Q", file.read(8))
                found.append((number, place + 12, length))
                place += 16 + length
    except (OSError, struct.error) as error:
        raise storage.DamagedError(path, f"cannot be read ({error})", PREPARE_AGAIN) from None
    if place != end:
        raise storage.DamagedError(path, "is cut short", PREPARE_AGAIN)
    return np.array(found, np.int64).reshape(-1, 3)


def numbers(names: list, total: int) -> np.ndarray:
    """Return the last number in each name, or 0..total - 1 unless these are unique and dense.

    Example:
        >>> numbers([b"train_00002", b"train_00000", b"train_00001"], 3)
        array([2, 0, 1])
    """
    found = (re.search(rb"(\d+)\D*$", name) for name in names if isinstance(name, bytes))
    ids = [int(match[1]) for match in found if match]
    # Tables are indexed by id, so numbers far above the count would waste memory.
    if len(names) == len(ids) == len(set(ids)) == total and max(ids, default=0) < 2 * total:
        return np.array(ids, dtype=np.int64)
    return np.arange(total, dtype=np.int64)


READER = Reader(read, argument="NAME")
