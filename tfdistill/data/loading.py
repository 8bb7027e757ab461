"""Where images come from: `load` reads the configured source, splits it and measures it.

To add a source, write its `Reader` beside the others in `sources` and name it in `SOURCES`.
"""

import dataclasses
import logging
from collections.abc import Callable

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.config.data import ARRAYS, AUTO, IN_FILES
from tfdistill.config.registry import SOURCES
from tfdistill.data import decode, encoded, splits
from tfdistill.data.dataset import Dataset, Examples, Reader, Source
from tfdistill.data.encoded import EncodedImages
from tfdistill.data.sources import arrays, unlabelled
from tfdistill.utils import checks

LOGGER = logging.getLogger("tfdistill")

__all__ = ["SOURCES", "Dataset", "Examples", "from_arrays", "load"]


def load(config: DataConfig, tell: Callable[[str], None] = LOGGER.warning) -> Dataset:
    """Read, split and measure the images that `config` describes.

    Decoded arrays are kept on disk under $TFDISTILL_CACHE (default ~/.cache/tfdistill); files that
    have changed since are read again.

    Args:
        config: The images; nothing is downloaded for them.
        tell: Gets a line for each kind of file that was left out, and for what was decided.

    Returns:
        The data set, its examples numbered by their place in the source's training split.

    Raises:
        UsageError: The source is missing or unfit, or cannot be split as asked; one line that says
            what to do.

    Example:
        >>> data = load(DataConfig(source="digits", validation=100))
        >>> len(data.train), data.input_shape, data.num_classes
        (900, (8, 8, 1), 10)
    """
    reader, name = _reader(config.source)
    if config.unlabelled and config.storage == AUTO:
        config, told = unlabelled.resolved(config)
        for note in told:
            tell(note)
    source = reader.read(config, name)
    if config.storage == IN_FILES and not isinstance(source.train.images, EncodedImages):
        raise checks.UsageError(
            "data.storage=files is of images in folders, CSV lists and sets prepared by TensorFlow "
            f"Datasets. Received: data.source={config.source!r}. Set data.storage=memory."
        )
    for note in source.notes:
        tell(note)
    if source.validation is not None and config.validation != DataConfig.validation:
        tell(f"data.validation={config.validation} is not used: {config.source} has its own part")
    return _whole(_assembled(source, config, tell=tell), config, tell)


def _whole(images: Dataset, config: DataConfig, tell: Callable[[str], None]) -> Dataset:
    """Return a data set as the configuration wants it beyond its source: labels, other images."""
    images = splits.with_hidden_labels(images, config)
    if config.unlabelled:
        images, notes = unlabelled.added(images, config)
        for note in notes:
            tell(note)
    return images if config.workers is None else _with_workers(images, config.workers)


def _with_workers(images: Dataset, workers: int) -> Dataset:
    names = ("train", "validation", "test")
    parts = {name: dataclasses.replace(getattr(images, name), workers=workers) for name in names}
    return dataclasses.replace(images, **parts)


def from_arrays(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    config: DataConfig | None = None,
    class_names: tuple[str, ...] | None = None,
    multi_label: bool = False,
) -> Dataset:
    """Make a data set of NumPy arrays.

    Args:
        train: Images `[n, h, w]` or `[n, h, w, c]` uint8, and labels `[n]` int from 0; with
            `multi_label`, `[n, labels]` of 0 and 1.
        test: The same, of the same image size unless `config.image_size` is given.
        config: How to split and normalise; its `source` is not used.
        class_names: One for each class or label; default is their numbers.
        multi_label: Whether an image has any number of the labels. Columns alone do not tell: they
            may be one class of several, one-hot.

    Returns:
        The data set; a part of `train` becomes its validation examples.

    Raises:
        UsageError: Wrong dtype, rank or length, or labels out of range.

    Example:
        >>> data = from_arrays(train=(x, y), test=(x_test, y_test))
    """
    config = config or DataConfig(source=ARRAYS)
    found = arrays.source(train, test, config, class_names, multi_label)
    return _whole(_assembled(found, config, name=ARRAYS), config, LOGGER.warning)


def _reader(source: str) -> tuple[Reader, str]:
    """Return what reads a source, and what follows the colon in its name."""
    kind, _, name = source.partition(":")
    reader = SOURCES[checks.one_of("data.source", kind, SOURCES)]
    if bool(name) != bool(reader.argument):
        form = f"{kind}:{reader.argument}" if reader.argument else kind
        raise checks.UsageError(f"data.source must be {form}. Received: data.source={source!r}.")
    return reader, name


def _assembled(
    source: Source,
    config: DataConfig,
    name: str | None = None,
    tell: Callable[[str], None] = LOGGER.warning,
) -> Dataset:
    if len(source.class_names) < 2 and source.train.labels.ndim == 1:
        raise checks.UsageError(
            "Classification needs images of at least two classes. Received: "
            f"{', '.join(source.class_names)} alone. Add images of another class."
        )
    source = _of_one_shape(source)
    training, validation = splits.training_and_validation(source, config)
    if isinstance(training.images, EncodedImages):
        training.images.look(tell)
    mean, std = _normalization(training.images, config.normalize)
    return Dataset(
        name=name or config.source,
        class_names=source.class_names,
        train=training,
        validation=validation,
        test=splits.tested(source, config),
        mean=mean,
        std=std,
        input_size=config.input_size,
        own_validation=source.validation is not None,
    )


def _of_one_shape(source: Source) -> Source:
    """Return a source all of whose parts are seen in one way.

    Raises:
        UsageError: Images of one part have another size than those of the others, or other
            channels, and are kept decoded.
    """
    parts = {"train": source.train, "test": source.test}
    if source.validation is not None:
        parts["validation"] = source.validation
    shapes = {name: part.images.shape[1:] for name, part in parts.items()}
    if len(set(shapes.values())) == 1:
        return source
    if not all(isinstance(part.images, EncodedImages) for part in parts.values()):
        found = ", ".join(f"{'x'.join(map(str, shape))} ({name})" for name, shape in shapes.items())
        raise checks.UsageError(
            f"All images must have one size. Received: {found}. Set data.image_size to bring them "
            "to one square size."
        )
    mixed = {name: part.of_mixed_sizes() for name, part in parts.items()}
    return dataclasses.replace(source, **mixed)  # type: ignore[arg-type]


def _normalization(
    images: np.ndarray | EncodedImages, normalize: str | list
) -> tuple[tuple, tuple]:
    channels = images.shape[-1]
    if normalize == "none":
        return (0.0,) * channels, (1.0,) * channels
    if normalize == "measured":
        return _measured(images)
    try:
        given = np.stack([np.broadcast_to(part, channels) for part in normalize]).astype(float)
    except ValueError:
        given = None
    if given is None or not np.all(given[1] > 0):
        raise checks.UsageError(
            f"data.normalize must be [mean, deviation], each one number or {channels}, the "
            f"deviation > 0. Received: {normalize!r}."
        )
    mean, deviation = (given * 255).tolist()
    return tuple(mean), tuple(deviation)


def _measured(images: np.ndarray | EncodedImages) -> tuple[tuple, tuple]:
    """Return mean and deviation per channel; exact, as sums of whole numbers are."""
    if isinstance(images, EncodedImages):
        total, squares, count = images.moments
    else:
        chunks = range(0, len(images), decode.CHUNK)
        parts = [encoded.sums(images[at : at + decode.CHUNK]) for at in chunks]
        total, squares = (np.sum(each, axis=0) for each in zip(*parts, strict=True))
        count = images.size // images.shape[-1]
    mean = total / count
    std = np.sqrt(squares / count - mean**2)
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())
