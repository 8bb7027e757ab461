"""Arrays of images and labels, checked; and those that a .npz file holds.

The file has `x_train` and `y_train`, and if wanted `x_test`, `y_test` and `class_names`.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.data import decode
from tfdistill.data.dataset import Examples, Reader, Source
from tfdistill.data.sources import parts
from tfdistill.utils import checks

CHANNELS = (1, 3, 4)


def read(config: DataConfig, name: str) -> Source:
    """Return the images in the .npz file `name`.

    Raises:
        UsageError: The file is missing or lacks an array, or what `source` raises.
    """
    file = Path(name).expanduser()
    found = _contents(file)
    lacking = [key for key in ("x_train", "y_train") if key not in found]
    lacking += ["y_test"] if "x_test" in found and "y_test" not in found else []
    if lacking:
        raise checks.UsageError(
            f"{file} must hold x_train and y_train, and both of x_test and y_test or none. "
            f"Received: {', '.join(sorted(found)) or 'no array'}. Add {lacking[0]}."
        )
    test = (found["x_test"], found["y_test"]) if "x_test" in found else None
    class_names = tuple(map(str, found["class_names"])) if "class_names" in found else None
    return source((found["x_train"], found["y_train"]), test, config, class_names)


def images(file: Path, name: str, config: DataConfig) -> np.ndarray:
    """Return one array of images from a .npz file, `[n, height, width, channels]` uint8.

    Raises:
        UsageError: The file or the array is missing, or it is not of images.
    """
    found = _contents(file)
    if name not in found:
        raise checks.UsageError(
            f"{file} must hold the array {name}. Received: {', '.join(sorted(found)) or 'none'}."
        )
    pixels = _pixels(found[name], name, config)
    if not len(pixels):
        raise checks.UsageError(f"{name} in {file} must hold images. Received: none.")
    return pixels


def _contents(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise checks.UsageError(
            f"A .npz file of arrays is needed. Received: {str(file)!r}, which cannot be read: "
            f"{checks.first_line(error)}"
        ) from None


def source(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    config: DataConfig,
    class_names: tuple[str, ...] | None = None,
    multi_label: bool = False,
) -> Source:
    """Return arrays as a source; the arguments are those of `data.from_arrays`.

    Args:
        train: Images and labels.
        test: The same; None: a fifth of `train` is held out.
        config: Its `image_size` is what images are brought to, its `split_seed` cuts.
        class_names: One for each class or label; None: their numbers.
        multi_label: Whether an image has any number of the labels.

    Raises:
        UsageError: Wrong dtype, rank or length, or labels out of range.
    """
    check = _label_columns if multi_label else _class_numbers
    found = {parts.TRAIN: _checked(*train, "train", config, check)}
    if test is not None:
        found[parts.TEST] = _checked(*test, "test", config, check)
    examples = list(found.values())
    names = (_names_of_labels if multi_label else _names_of_classes)(examples, class_names)
    if len(found) == 2 and examples[0].images.shape[1:] != examples[1].images.shape[1:]:
        raise checks.UsageError(
            f"Training and test images must have the same shape. Received: "
            f"{examples[0].images.shape[1:]} and {examples[1].images.shape[1:]}."
        )
    return parts.source(names, found, config.split_seed, lambda part: part, ())


def _names_of_classes(found: list[Examples], given: tuple[str, ...] | None) -> tuple[str, ...]:
    largest = max(int(part.labels.max()) for part in found)
    if given is None and largest >= len(found[0]):
        raise checks.UsageError(
            f"Labels must be 0, 1, 2, ... with a training image of each. Received: the label "
            f"{largest} of {len(found[0])} training images. Number the classes from 0."
        )
    names = tuple(given or map(str, range(largest + 1)))
    for part in found:
        checks.label_range(int(part.labels.min()), int(part.labels.max()), len(names))
    return names


def _names_of_labels(found: list[Examples], given: tuple[str, ...] | None) -> tuple[str, ...]:
    columns = [part.labels.shape[1] for part in found]
    names = tuple(map(str, range(columns[0])) if given is None else given)
    if set(columns) != {len(names)}:
        raise checks.UsageError(
            "Training and test labels must have one column for each label. Received: "
            f"{' and '.join(map(str, columns))} columns, {len(names)} names. Give as many of each."
        )
    return names


def _checked(
    pixels: np.ndarray, labels: np.ndarray, name: str, config: DataConfig, check: Callable
) -> Examples:
    shown = _pixels(pixels, f"{name} images", config)
    return Examples.numbered(shown, check(_array(labels, f"{name} labels"), len(shown), name))


def _pixels(pixels: np.ndarray, name: str, config: DataConfig) -> np.ndarray:
    """Return images `[n, height, width, channels]`, at `config.image_size`, or raise."""
    pixels = _array(pixels, name)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise checks.UsageError(
            f"{name} must be uint8 [n, h, w] or [n, h, w, c]. "
            f"Received: {pixels.dtype} {list(pixels.shape)}{_conversion(pixels)}."
        )
    if pixels.ndim == 4 and pixels.shape[3] not in CHANNELS and pixels.shape[1] in CHANNELS:
        raise checks.UsageError(
            f"{name} must be [n, h, w, c], their channels last. Received: "
            f"{list(pixels.shape)}, with channels first. Give images.transpose(0, 2, 3, 1)."
        )
    if 0 in pixels.shape[1:]:
        raise checks.UsageError(f"{name} must have pixels. Received: {list(pixels.shape)}.")
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    return decode.fit(pixels, config.image_size)


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


READER = Reader(read, "FILE")
