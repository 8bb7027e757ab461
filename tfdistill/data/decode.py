"""Encoded images to arrays: decoded in parallel, brought to one size, named where that fails.

Every header is looked at first, so that no file unpacks to more than its share of memory.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np

from tfdistill.data import headers
from tfdistill.utils import checks

CHUNK = 512
MOST_WORKERS = 16
# Part of the keys of arrays that are kept: to be raised where files are to give other pixels.
RULES = 2


def workers() -> int:
    """Return how many images are decoded and augmented at once, which changes no pixel of them."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)


def decode(
    encoded: Sequence[bytes], name_of: Callable[[int], str], channels: int, size: int | None
) -> np.ndarray:
    """Decode JPEG, PNG, BMP, GIF, WebP or TIFF images (of several pictures, the first).

    Args:
        encoded: The bytes of n files.
        name_of: Names the file at a place, for error messages.
        channels: 1 or 3 (PNG also 4).
        size: Side of the square that they are brought to; None keeps their size.

    Returns:
        `[n, height, width, channels]` uint8.

    Raises:
        UsageError: A file cannot be read, is too large or too narrow, or sizes differ and `size` is
            None.
    """
    import tensorflow as tf

    files = [_checked(data, at, name_of, channels, size) for at, data in enumerate(encoded)]
    try:
        with tf.device("CPU"):
            return _gathered(_batches(files, channels, size), len(files))
    except (tf.errors.InvalidArgumentError, _MixedSizes):
        raise _diagnosis(files, name_of, channels) from None


def one(file: headers.Encoded, channels: int) -> np.ndarray:
    """Decode an image that has been checked, `[height, width, channels]` uint8, upright.

    Raises:
        ImageError: It is damaged.
    """
    import tensorflow as tf

    try:
        with tf.device("CPU"):
            return pixels(ready(file), channels, file.orientation, file.ratio).numpy()
    except (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError):
        raise headers.ImageError(f"The {file.format} is damaged or cut short.") from None


def pixels(data, channels: int, orientation, ratio):
    """Decode a JPEG, PNG, BMP or GIF file in a graph.

    Args:
        data: The file, a scalar string.
        channels: 1 or 3 (PNG also 4).
        orientation: How it is to be turned, as Exif counts, 1 to 8; a number or a scalar tensor.
        ratio: By how much a JPEG is reduced: 1, 2, 4 or 8; a number or a scalar tensor.

    Returns:
        `[height, width, channels]` uint8 tensor.
    """
    import tensorflow as tf

    def whole():
        return tf.io.decode_image(data, channels=channels, expand_animations=False)

    def reduced(by: int):
        return lambda: tf.io.decode_jpeg(data, channels=channels, ratio=by)

    # What is known beforehand needs no branches in the graph.
    if isinstance(ratio, int):
        image = whole() if ratio == 1 else reduced(ratio)()
    else:
        cases = [(tf.equal(ratio, by), reduced(by)) for by in headers.RATIOS[1:]]
        image = tf.ensure_shape(tf.case(cases, default=whole), (None, None, channels))
    if isinstance(orientation, int) and orientation == 1:
        return image
    return tf.cond(tf.equal(orientation, 1), lambda: image, lambda: _upright(image, orientation))


def _upright(image, orientation):
    import tensorflow as tf

    def among(*numbers: int):
        return tf.reduce_any(tf.equal(orientation, numbers))

    image = tf.cond(among(5, 6, 7, 8), lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(among(2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    return tf.cond(among(3, 4, 7, 8), lambda: image[::-1], lambda: image)


def ready(file: headers.Encoded) -> bytes:
    """Return the bytes of a file as the decoder of `pixels` takes them."""
    return _plain(file.data) if file.foreign else file.data


def _plain(data: bytes) -> bytes:
    try:
        return headers.plain(data)
    except Exception:  # each of Pillow's readers raises its own kinds
        return b""  # which the decoder takes for damaged


def fit(images: np.ndarray, size: int | None) -> np.ndarray:
    """Bring an array of images (`[n, h, w, c]` uint8) to `size`; None returns it as it is."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    import tensorflow as tf

    with tf.device("CPU"):
        parts = [squared(images[at : at + CHUNK], size) for at in range(0, len(images), CHUNK)]
    return np.concatenate([part.numpy() for part in parts])


class _MixedSizes(Exception):
    pass


def _checked(
    data: bytes, at: int, name_of: Callable[[int], str], channels: int, size: int | None
) -> headers.Encoded:
    try:
        file = headers.checked(data, channels, size)
        if size is not None:
            headers.check_sides(file.sides, size)
        return file
    except headers.ImageError as error:
        raise unreadable(name_of(at), str(error)) from None


def unreadable(name: str, problem: str) -> checks.UsageError:
    """Return the error for an image that cannot be trained on."""
    return checks.UsageError(
        f"Cannot read the image {name}: {problem} Give a whole {headers.KINDS} file, or remove it."
    )


def _batches(files: Sequence[headers.Encoded], channels: int, size: int | None):
    import tensorflow as tf

    @tf.autograph.experimental.do_not_convert
    def decoded(data, orientation, ratio, foreign):
        if any_foreign:
            data = tf.cond(
                foreign,
                lambda: tf.ensure_shape(tf.numpy_function(_plain, [data], tf.string), ()),
                lambda: data,
            )
        image = pixels(
            data, channels, orientation if any_turned else 1, ratio if any_reduced else 1
        )
        return image if size is None else squared(image, size)

    any_foreign = any(file.foreign for file in files)
    any_turned = any(file.orientation != 1 for file in files)
    any_reduced = any(file.ratio != 1 for file in files)
    options = tf.data.Options()
    options.autotune.enabled = False
    columns = [(file.data, file.orientation, file.ratio, file.foreign) for file in files]
    return (
        tf.data.Dataset.from_tensor_slices(tuple(map(list, zip(*columns, strict=True))))
        .map(decoded, num_parallel_calls=workers(), deterministic=True)
        .batch(CHUNK)
        .prefetch(2)
        .with_options(options)
    )


def _gathered(batches, total: int) -> np.ndarray:
    images, done = np.empty(0, np.uint8), 0
    for batch in batches.as_numpy_iterator():
        if not done:
            images = np.empty((total, *batch.shape[1:]), np.uint8)
        if batch.shape[1:] != images.shape[1:]:
            raise _MixedSizes
        images[done : done + len(batch)] = batch
        done += len(batch)
    return images


def squared(images, size: int):
    """Resize so that the shorter side is `size`, and cut out the centre.

    Args:
        images: `[..., height, width, channels]` uint8 tensor.
        size: Side of the square in pixels.

    Returns:
        `[..., size, size, channels]` uint8 tensor.
    """
    import tensorflow as tf

    shape = tf.shape(images)[-3:-1]
    scale = size / tf.cast(tf.reduce_min(shape), tf.float64)
    scaled = tf.cast(tf.round(tf.cast(shape, tf.float64) * tf.cast(scale, tf.float64)), tf.int32)
    images = tf.image.resize(images, scaled, antialias=True)
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    images = images[..., top : top + size, left : left + size, :]
    return tf.saturate_cast(tf.round(images), tf.uint8)


def _diagnosis(files: Sequence[headers.Encoded], name_of: Callable, channels: int) -> Exception:
    sizes: dict[tuple, str] = {}
    for place, file in enumerate(files):
        try:
            image = one(file, channels)
        except headers.ImageError as error:
            return unreadable(name_of(place), str(error))
        sizes.setdefault(image.shape[:2], name_of(place))
    found = ", ".join(f"{h}x{w} ({name})" for (h, w), name in list(sizes.items())[:2])
    return checks.UsageError(
        f"All images must have one size. Received: {found}. Set data.image_size to bring them to "
        "one square size, or data.storage=files and data.input_size to leave them as they are."
    )
