"""Where images come from: `load` reads the configured source, splits it and measures it.

To add a source, write its `Reader` beside the others in `sources` and name it in `SOURCES`.
"""

import logging
from collections.abc import Callable

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.config.data import ARRAYS
from tfdistill.config.registry import SOURCES
from tfdistill.data import decode, splits
from tfdistill.data.dataset import Dataset, Examples, Reader, Source
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
    source = reader.read(config, name)
    for note in source.notes:
        tell(note)
    if source.validation is not None and config.validation != DataConfig.validation:
        tell(f"data.validation={config.validation} is not used: {config.source} has its own part")
    images = splits.with_hidden_labels(_assembled(source, config), config)
    if config.unlabelled:
        images, notes = unlabelled.added(images, config)
        for note in notes:
            tell(note)
    return images


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
    return _assembled(found, config, name=ARRAYS)


def _reader(source: str) -> tuple[Reader, str]:
    """Return what reads a source, and what follows the colon in its name."""
    kind, _, name = source.partition(":")
    reader = SOURCES[checks.one_of("data.source", kind, SOURCES)]
    if bool(name) != bool(reader.argument):
        form = f"{kind}:{reader.argument}" if reader.argument else kind
        raise checks.UsageError(f"data.source must be {form}. Received: data.source={source!r}.")
    return reader, name


def _assembled(source: Source, config: DataConfig, name: str | None = None) -> Dataset:
    if len(source.class_names) < 2 and source.train.labels.ndim == 1:
        raise checks.UsageError(
            "Classification needs images of at least two classes. Received: "
            f"{', '.join(source.class_names)} alone. Add images of another class."
        )
    training, validation = splits.training_and_validation(source, config)
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


def _normalization(pixels: np.ndarray, normalize: str | list) -> tuple[tuple, tuple]:
    channels = pixels.shape[-1]
    if normalize == "none":
        return (0.0,) * channels, (1.0,) * channels
    if normalize == "measured":
        return _measured(pixels)
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


def _measured(pixels: np.ndarray) -> tuple[tuple, tuple]:
    """Return mean and deviation per channel; exact, as sums of whole numbers are."""
    width, channels = pixels.shape[-2:]
    total = squares = np.zeros(width * channels, np.uint64)
    for at in range(0, len(pixels), decode.CHUNK):
        rows = pixels[at : at + decode.CHUNK].reshape(-1, width * channels)
        total = total + rows.sum(axis=0, dtype=np.uint64)
        squares = squares + np.square(rows, dtype=np.uint16).sum(axis=0, dtype=np.uint64)
    count = pixels.size // channels
    mean = total.reshape(-1, channels).sum(axis=0) / count
    std = np.sqrt(squares.reshape(-1, channels).sum(axis=0) / count - mean**2)
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())
