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
from tfdistill.data.sources import unlabelled
from tfdistill.utils import checks

CHANNELS = (1, 3, 4)
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
    check = _label_columns if multi_label else _class_numbers
    parts = [
        _checked(*part, name, config, check) for part, name in ((train, "train"), (test, "test"))
    ]
    names = (_names_of_labels if multi_label else _names_of_classes)(parts, class_names)
    if parts[0].images.shape[1:] != parts[1].images.shape[1:]:
        raise checks.UsageError(
            f"Training and test images must have the same shape. Received: "
            f"{parts[0].images.shape[1:]} and {parts[1].images.shape[1:]}."
        )
    return _assembled(Source(names, train=parts[0], test=parts[1]), config, name=ARRAYS)


def _names_of_classes(parts: list[Examples], given: tuple[str, ...] | None) -> tuple[str, ...]:
    largest = max(int(part.labels.max()) for part in parts)
    if given is None and largest >= len(parts[0]):
        raise checks.UsageError(
            f"Labels must be 0, 1, 2, ... with a training image of each. Received: the label "
            f"{largest} of {len(parts[0])} training images. Number the classes from 0."
        )
    names = tuple(given or map(str, range(largest + 1)))
    for part in parts:
        checks.label_range(int(part.labels.min()), int(part.labels.max()), len(names))
    return names


def _names_of_labels(parts: list[Examples], given: tuple[str, ...] | None) -> tuple[str, ...]:
    columns = [part.labels.shape[1] for part in parts]
    names = tuple(map(str, range(columns[0])) if given is None else given)
    if set(columns) != {len(names)}:
        raise checks.UsageError(
            "Training and test labels must have one column for each label. Received: "
            f"{columns[0]} and {columns[1]} columns, {len(names)} names. Give as many of each."
        )
    return names


def _reader(source: str) -> tuple[Reader, str]:
    """Return what reads a source, and what follows the colon in its name."""
    kind, _, name = source.partition(":")
    reader = SOURCES[checks.one_of("data.source", kind, SOURCES)]
    if bool(name) != bool(reader.argument):
        form = f"{kind}:{reader.argument}" if reader.argument else kind
        raise checks.UsageError(f"data.source must be {form}. Received: data.source={source!r}.")
    return reader, name


def _checked(
    pixels: np.ndarray, labels: np.ndarray, name: str, config: DataConfig, check: Callable
) -> Examples:
    pixels, labels = (
        _array(values, f"{name} {what}")
        for values, what in ((pixels, "images"), (labels, "labels"))
    )
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise checks.UsageError(
            f"{name} images must be uint8 [n, h, w] or [n, h, w, c]. "
            f"Received: {pixels.dtype} {list(pixels.shape)}{_conversion(pixels)}."
        )
    if pixels.ndim == 4 and pixels.shape[3] not in CHANNELS and pixels.shape[1] in CHANNELS:
        raise checks.UsageError(
            f"{name} images must be [n, h, w, c], their channels last. Received: "
            f"{list(pixels.shape)}, with channels first. Give images.transpose(0, 2, 3, 1)."
        )
    if 0 in pixels.shape[1:]:
        raise checks.UsageError(f"{name} images must have pixels. Received: {list(pixels.shape)}.")
    labels = check(labels, len(pixels), name)
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    return Examples.numbered(decode.fit(pixels, config.image_size), labels)


def _class_numbers(labels: np.ndarray, count: int, name: str) -> np.ndarray:
    """Return labels that are numbers of classes, `[count]`, or raise."""
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or not len(labels):
        raise checks.UsageError(
            f"{name} labels must be integers [{count}], one for each of at least one image. "
            f"Received: {labels.dtype} {list(labels.shape)}{_label_advice(labels, count)}."
        )
    if max(abs(int(labels.min())), abs(int(labels.max()))) > checks.LARGEST:
        # As int32 they would be others.
        raise checks.UsageError(
            f"{name} labels must be the numbers of classes, from 0. Received: labels from "
            f"{labels.min()} to {labels.max()}."
        )
    return labels


def _label_columns(labels: np.ndarray, count: int, name: str) -> np.ndarray:
    """Return labels that are a column of 0 and 1 for each label, `[count, labels]`, or raise."""
    if labels.ndim != 2 or len(labels) != count or not labels.size:
        advice = ". Of a single one, give labels[:, None]" if labels.shape == (count,) else ""
        raise checks.UsageError(
            f"{name} labels must be [{count}, labels], a column for each label of at least one "
            f"image. Received: {labels.dtype} {list(labels.shape)}{advice}."
        )
    others = (
        [labels.dtype] if labels.dtype.kind not in "biuf" else labels[(labels != 0) & (labels != 1)]
    )
    if len(others):
        raise checks.UsageError(
            f"{name} labels must be 1 where an image has a label, and 0 where not. Received: "
            f"{others[0]}."
        )
    return labels


def _array(values: object, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:  # rows of different lengths
        raise checks.UsageError(
            f"{name} must be one array. Received: rows of unlike shapes."
        ) from None


def _conversion(pixels: np.ndarray) -> str:
    """Return, after a comma, how other images become uint8; empty where that is unknown."""
    if pixels.dtype == np.uint8 or pixels.dtype.kind not in "fiu" or not pixels.size:
        return ""
    smallest, largest = float(pixels.min()), float(pixels.max())
    if not np.isfinite([smallest, largest]).all():
        return ", some of them NaN or infinite. Repair them and bring all to 0..255 as uint8"
    values = f", from {smallest:g} to {largest:g}. "
    if smallest < 0 or largest > 255:
        return f"{values}Bring the images to 0..255, rounded, and give images.astype('uint8')"
    if pixels.dtype.kind == "f" and largest <= 1:
        return f"{values}Give (images * 255).round().astype('uint8')"
    return f"{values}Give images{'.round()' * (pixels.dtype.kind == 'f')}.astype('uint8')"


def _label_advice(labels: np.ndarray, count: int) -> str:
    if labels.ndim == 2 and labels.shape[0] == count and count:
        return (
            ". Of one column for each class, give labels.argmax(axis=1); of labels that do not "
            "exclude each other, say multi_label=True"
        )
    if labels.dtype.kind == "f" and labels.shape == (count,):
        whole = np.isfinite(labels).all() and (labels == np.round(labels)).all()
        return ". Give labels.astype('int32')" if whole else ", not all of them whole numbers"
    return ""


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
