"""What a source yields: images with labels and stable numbers; and the data set made of them.

An example keeps its number (`id`) through every split and subset, because views, mixing weights and
teacher logits are looked up by it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.data import decode, encoded
from tfdistill.data.encoded import EncodedImages

if TYPE_CHECKING:
    import tensorflow as tf


# The label of an example that has none.
UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class Tensors:
    """Examples as TensorFlow's tensors on the host, and how many and which numbers there are.

    Args:
        images: `[n, height, width, channels]` uint8, or encoded ones.
        labels: `[n]` int32, or `[n, labels]` uint8.
        ids: `[n]` int64.
        count: n.
        num_ids: Largest id + 1.
        workers: Images that are rendered at once.
        unchanged: Their batches to evaluate on, by batch and input size, each traced once.
    """

    images: tf.Tensor | EncodedImages
    labels: tf.Tensor
    ids: tf.Tensor
    count: int
    num_ids: int
    workers: int
    unchanged: dict[tuple[int, int | None], tf.data.Dataset] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Examples:
    """Images with their labels and numbers.

    Args:
        images: `[n, height, width, channels]` uint8, or `EncodedImages`, whose height and width are
            None where sizes differ.
        labels: `[n]` int32, in 0..num_classes - 1, or -1 where there is none; or, of several labels
            that do not exclude each other, `[n, labels]` uint8, 1 where an image has the label and
            0 where not.
        ids: `[n]` int64, >= 0, unique: the place in the source's full training split, or after
            its end for a source's own validation examples.
        workers: Images that pipelines render at once, which changes no pixel of them; None: as many
            as there are cores, at most 16.

    Example:
        >>> examples = Examples.numbered(images, labels)
        >>> half = examples.take(np.arange(0, len(examples), 2))
        >>> half.ids  # 0, 2, 4, ...
    """

    images: np.ndarray | EncodedImages
    labels: np.ndarray
    ids: np.ndarray
    workers: int | None = None

    @classmethod
    def numbered(cls, images: np.ndarray | EncodedImages, labels: np.ndarray) -> Examples:
        """Return examples whose numbers are their places.

        Args:
            images: `[n, height, width, channels]` uint8, or encoded ones.
            labels: `[n]`, in 0..num_classes - 1, or `[n, labels]` of 0 and 1.
        """
        labels = np.asarray(labels)
        labels = labels.astype(np.int32 if labels.ndim == 1 else np.uint8)
        return cls(images, labels, np.arange(len(labels), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def evenly(self, count: int) -> Examples:
        """Return `count` examples, or all, at even distances: files may be sorted by class."""
        count = min(count, len(self))
        return self.take(np.arange(count) * len(self) // count)

    @cached_property
    def tensors(self) -> Tensors:
        """The examples as tensors, shared by all pipelines over them."""
        import tensorflow as tf

        images = self.images
        with tf.device("CPU"):
            images = images if isinstance(images, EncodedImages) else tf.constant(images)
            labels, ids = tf.constant(self.labels), tf.constant(self.ids)
        workers = self.workers or decode.workers()
        return Tensors(images, labels, ids, len(self), int(self.ids.max()) + 1, workers)

    @property
    def pixels(self) -> np.ndarray:
        """The images as an array, `[n, height, width, channels]` uint8; encoded ones are decoded.

        Raises:
            UsageError: Encoded ones of several sizes.
        """
        return self.images.decoded() if isinstance(self.images, EncodedImages) else self.images

    @property
    def labelled(self) -> np.ndarray:
        """Places of the examples that have a label, `[m]` int."""
        known = self.labels != UNLABELLED
        return np.flatnonzero(known.reshape(len(self), -1).all(axis=1))

    @property
    def images_sha256(self) -> str:
        """SHA-256 of the images alone."""
        return self._sha256()

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of images, labels and ids, the same whether images are decoded or not."""
        return self._sha256(self.labels, self.ids)

    def _sha256(self, *others: np.ndarray) -> str:
        if isinstance(self.images, EncodedImages):
            return self.images.sha256(*others)
        found = hashlib.sha256()
        for array in (self.images, *others):
            encoded.add(found, array)
        return found.hexdigest()

    def of_mixed_sizes(self) -> Examples:
        """Return encoded examples as some of images of several sizes."""
        assert isinstance(self.images, EncodedImages)
        return dataclasses.replace(self, images=dataclasses.replace(self.images, mixed=True))

    def take(self, indices: np.ndarray | slice) -> Examples:
        """Return the examples at `indices` (`[m]` int, or a slice), which keep their ids."""
        images = self.images
        images = images.take(indices) if isinstance(images, EncodedImages) else images[indices]
        return dataclasses.replace(
            self, images=images, labels=self.labels[indices], ids=self.ids[indices]
        )


@dataclass(frozen=True, eq=False)
class Source:
    """What a reader returns, before any part of the training examples is held back.

    Args:
        class_names: One name for each class, or for each label that an image may have.
        train: All training examples.
        test: All test examples, numbered by themselves.
        validation: Those that the source sets aside to select with, numbered after the training
            examples; None where it leaves that to `DataConfig.validation`.
        notes: What the user is to be told of the reading; a line each.
    """

    class_names: tuple[str, ...]
    train: Examples
    test: Examples
    validation: Examples | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """A kind of `data.source`, as a member of `SOURCES`.

    Args:
        read: Returns the source, of the configuration and of what follows the colon.
        argument: What must follow the colon, as `PATH`; empty where nothing may.
    """

    read: Callable[[DataConfig, str], Source]
    argument: str = ""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, split and measured.

    Args:
        name: The configured source, such as `tfds:cifar10`.
        class_names: One name for each class, or for each label that an image may have.
        train: Examples to train on.
        validation: Examples held back from the training split, or set aside by the source, to
            select with.
        test: The source's own test examples, numbered by themselves.
        mean: Per channel, in units of 0..255; to be subtracted from the images.
        std: Per channel, in units of 0..255, > 0; to divide by.
        input_size: Side in pixels that networks see; None means the images' own.
        own_validation: Whether the source set the validation examples aside itself.
    """

    name: str
    class_names: tuple[str, ...]
    train: Examples
    validation: Examples
    test: Examples
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int | None = None
    own_validation: bool = False

    def __post_init__(self) -> None:
        if self.input_size is None and isinstance(self.train.images, EncodedImages):
            self.train.images.check_sizes()

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the images, labels and ids of `train`, `validation` and `test`."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: examples.sha256 for name, examples in parts.items()}

    def at(self, input_size: int | None) -> Dataset:
        """Return the same images, seen by networks at another size (None: their own)."""
        if input_size == self.input_size:
            return self
        return dataclasses.replace(self, input_size=input_size)

    @property
    def summary(self) -> str:
        """How many classes and images there are, in a line."""
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(examples)} {part}" for part, examples in parts.items())
        if self.unlabelled:
            counts = counts.replace(" training", f" training ({self.unlabelled} without labels)", 1)
        names = ", ".join(self.class_names[:5]) + ", ..." * (self.num_classes > 5)
        if not self.multi_label:
            return f"{self.name}: {self.num_classes} classes; {counts} images. Classes: {names}"
        several = "s" * (self.num_classes > 1)
        mean = np.concatenate([part.labels for part in parts.values()]).sum(axis=1).mean()
        return (
            f"{self.name}: {self.num_classes} label{several}; {counts} images, each has {mean:.1f} "
            f"on average. Label{several}: {names}"
        )

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of the labels, and not just one class."""
        return self.train.labels.ndim == 2

    @property
    def unlabelled(self) -> int:
        """Number of training examples without a label."""
        return int(np.sum(self.train.labels == UNLABELLED))

    @property
    def num_classes(self) -> int:
        """Number of classes, or of labels that an image may have."""
        return len(self.class_names)

    @property
    def stored_side(self) -> int | None:
        """Side of the square stored images; None where they are none, or differ."""
        height, width = self.train.images.shape[1:3]
        return height if height == width else None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of the images that networks see."""
        if self.input_size:
            return (self.input_size, self.input_size, self.train.images.shape[3])
        height, width, channels = self.train.images.shape[1:]
        assert height is not None and width is not None  # else it was refused
        return (height, width, channels)
