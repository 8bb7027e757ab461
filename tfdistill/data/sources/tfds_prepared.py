"""Image sets prepared by TensorFlow Datasets, read from disk and never downloaded.

Reading needs neither the set's own code nor the network, only its prepared files. Examples are
numbered by the set's `id` feature where it has one ("train_00039"), else by reading position.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.data import array_cache, decode
from tfdistill.data.dataset import Examples, Reader, Source
from tfdistill.utils import checks


def read(config: DataConfig, name: str) -> Source:
    """Return the prepared set `name`, such as `cifar10` or `cifar10:3.0.2`.

    Raises:
        UsageError: It is not prepared, is no image classification, or lacks a split.
    """
    return read_builder(_builder(config, name), config.image_size)


def images(config: DataConfig, name: str) -> np.ndarray:
    """Return the images of one split, such as `stl10 unlabelled`, whatever their labels.

    Args:
        config: Where prepared sets lie, and the images' size.
        name: Of the set and, after a space, of the split; `train` where none is named.

    Returns:
        `[n, height, width, channels]` uint8.

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
    key |= {"size": config.image_size, "rules": decode.RULES}
    key["files"] = array_cache.fingerprint(Path(builder.data_dir).iterdir())

    def decoded() -> dict[str, np.ndarray]:
        encoded = [
            data for record in _records(builder, split, found[0]) for data in record[found[0]]
        ]
        return {"images": _decoded(builder, split, found[0], encoded, config.image_size)}

    return array_cache.cached(key, decoded)["images"]


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
            f"pip install tensorflow-datasets importlib_resources."
        ) from None
    return tfds


def read_builder(builder, size: int | None) -> Source:
    """Return the training and test examples of a prepared `tfds.core.DatasetBuilder`."""
    image, label = _keys(builder)
    splits = {"train": "train", "test": _test_split(builder)}
    key = {"tfds": builder.info.full_name, "splits": splits, "size": size, "rules": decode.RULES}
    key["files"] = array_cache.fingerprint(Path(builder.data_dir).iterdir())
    arrays = array_cache.cached(key, lambda: _read_splits(builder, splits, size))
    names = tuple(builder.info.features[label].names)
    for part, split in splits.items():
        _check_labels(builder, split, arrays[f"{part}_labels"], len(names))
    return Source(
        class_names=names,
        train=Examples(*(arrays[f"train_{part}"] for part in ("images", "labels", "ids"))),
        test=Examples.numbered(arrays["test_images"], arrays["test_labels"]),
    )


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


def _read_splits(builder, splits: dict[str, str], size: int | None) -> dict[str, np.ndarray]:
    arrays = {}
    for part, split in splits.items():
        for name, array in _read_split(builder, split, size).items():
            arrays[f"{part}_{name}"] = array
    return arrays


def _read_split(builder, split: str, size: int | None) -> dict[str, np.ndarray]:
    image, label = _keys(builder)
    records = _records(builder, split, image)
    labels = np.concatenate([record[label] for record in records])
    encoded = [data for record in records for data in record[image]]
    pixels = _decoded(builder, split, image, encoded, size)
    names = [name for record in records for name in record.get("id", ())]
    ids = numbers(names, len(labels))
    return {"images": pixels, "labels": labels.astype(np.int32), "ids": ids}


def _decoded(
    builder: Any, split: str, image: str, encoded: list[bytes], size: int | None
) -> np.ndarray:
    channels = builder.info.features[image].shape[-1] or 3
    return decode.decode(encoded, lambda at: f"{builder.name}/{split}[{at}]", channels, size)


def _records(builder, split: str, image: str) -> list[dict[str, np.ndarray]]:
    """Read a split whole, its images still encoded, in the order of its files."""
    tfds = import_tfds()
    config = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
    config.options.autotune.enabled = False
    batches = builder.as_dataset(
        split=split,
        shuffle_files=False,
        read_config=config,
        decoders={image: tfds.decode.SkipDecoding()},
    ).batch(decode.CHUNK)
    return list(tfds.as_numpy(batches))


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
