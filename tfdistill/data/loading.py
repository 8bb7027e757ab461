"""Where images come from: `load` reads the configured source, splits it and measures it.

To add a source, write its `Reader` beside the others in `sources` and name it in `SOURCES`.
"""

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.config.data import ARRAYS
from tfdistill.config.registry import SOURCES
from tfdistill.data import decode, splits
from tfdistill.data.dataset import Dataset, Examples, Reader, Source
from tfdistill.utils import checks

__all__ = ["SOURCES", "Dataset", "Examples", "from_arrays", "load"]


def load(config: DataConfig) -> Dataset:
    """Read, split and measure the images that `config` describes.

    Decoded arrays are kept on disk under $TFDISTILL_CACHE (default ~/.cache/tfdistill), and the
    last few data sets in memory: the same configuration yields the same object again.

    Args:
        config: The images; nothing is downloaded for them.

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
    return _assembled(reader.read(config, name), config)


def from_arrays(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    config: DataConfig | None = None,
    class_names: tuple[str, ...] | None = None,
) -> Dataset:
    """Make a data set of NumPy arrays.

    Args:
        train: Images `[n, h, w]` or `[n, h, w, c]` uint8, and labels `[n]` int from 0.
        test: The same, of the same image size unless `config.image_size` is given.
        config: How to split and normalise; its `source` is not used.
        class_names: One for each class; default is the labels' numbers.

    Returns:
        The data set; a part of `train` becomes its validation examples.

    Raises:
        UsageError: Wrong dtype, rank or length, or labels out of range.

    Example:
        >>> data = from_arrays(train=(x, y), test=(x_test, y_test))
    """
    config = config or DataConfig(source=ARRAYS)
    parts = [_checked(*part, name, config) for part, name in ((train, "train"), (test, "test"))]
    largest = max(int(part.labels.max()) for part in parts)
    names = tuple(class_names or map(str, range(largest + 1)))
    for part in parts:
        checks.label_range(int(part.labels.min()), int(part.labels.max()), len(names))
    if parts[0].images.shape[1:] != parts[1].images.shape[1:]:
        raise checks.UsageError(
            f"Training and test images must have the same shape. Received: "
            f"{parts[0].images.shape[1:]} and {parts[1].images.shape[1:]}."
        )
    return _assembled(Source(names, *parts), config, name=ARRAYS)


def _reader(source: str) -> tuple[Reader, str]:
    """Return what reads a source, and what follows the colon in its name."""
    kind, _, name = source.partition(":")
    reader = SOURCES[checks.one_of("data.source", kind, SOURCES)]
    if bool(name) != bool(reader.argument):
        form = f"{kind}:{reader.argument}" if reader.argument else kind
        raise checks.UsageError(f"data.source must be {form}. Received: data.source={source!r}.")
    return reader, name


def _checked(pixels: np.ndarray, labels: np.ndarray, name: str, config: DataConfig) -> Examples:
    pixels, labels = np.asarray(pixels), np.asarray(labels)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise checks.UsageError(
            f"{name} images must be uint8 [n, h, w] or [n, h, w, c]. "
            f"Received: {pixels.dtype} {list(pixels.shape)}."
        )
    if labels.shape == (len(pixels), 1):
        labels = labels[:, 0]
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu" or not len(labels):
        raise checks.UsageError(
            f"{name} labels must be integers [{len(pixels)}], one for each of at least one image. "
            f"Received: {labels.dtype} {list(labels.shape)}."
        )
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    return Examples.numbered(decode.fit(pixels, config.image_size), labels)


def _assembled(source: Source, config: DataConfig, name: str | None = None) -> Dataset:
    if len(source.class_names) < 2:
        raise checks.UsageError(
            "Classification needs images of at least two classes. Received: "
            f"{', '.join(source.class_names)} alone. Add images of another class."
        )
    train, validation = splits.training_and_validation(source, config)
    training = source.train.take(train)
    mean, std = _normalization(training.images, config.normalize)
    return Dataset(
        name=name or config.source,
        class_names=source.class_names,
        train=training,
        validation=source.train.take(validation),
        test=splits.tested(source, config),
        mean=mean,
        std=std,
        input_size=config.input_size,
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
