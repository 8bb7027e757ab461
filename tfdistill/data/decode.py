"""Encoded images to arrays: decoded in parallel, brought to one size, named where that fails.

Every header is looked at first, so that no file unpacks to more than its share of memory.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tfdistill.data import headers
from tfdistill.utils import checks

CHUNK = 512
PARALLEL = 2


def decode(
    encoded: Sequence[bytes], name_of: Callable[[int], str], channels: int, size: int | None
) -> np.ndarray:
    """Decode JPEG, PNG, BMP or GIF images (of a GIF, the first frame).

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

    encoded = [_checked(data, at, name_of, channels, size) for at, data in enumerate(encoded)]
    try:
        with tf.device("CPU"):
            return _gathered(_batches(encoded, channels, size), len(encoded))
    except (tf.errors.InvalidArgumentError, _MixedSizes):
        raise _diagnosis(encoded, name_of, channels) from None


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
) -> bytes:
    try:
        return headers.checked(data, channels, size)[1]
    except headers.ImageError as error:
        raise unreadable(name_of(at), str(error)) from None


def unreadable(name: str, problem: str) -> checks.UsageError:
    """Return the error for an image that cannot be trained on."""
    return checks.UsageError(
        f"Cannot read the image {name}: {problem} Give a whole JPEG, PNG, BMP or GIF file, or "
        "remove it."
    )


def _batches(encoded: Sequence[bytes], channels: int, size: int | None):
    import tensorflow as tf

    def one(data):
        image = tf.io.decode_image(data, channels=channels, expand_animations=False)
        return image if size is None else squared(image, size)

    options = tf.data.Options()
    options.autotune.enabled = False
    return (
        tf.data.Dataset.from_tensor_slices(list(encoded))
        .map(one, num_parallel_calls=PARALLEL, deterministic=True)
        .batch(CHUNK)
        .prefetch(2)
        .with_options(options)
    )


def _gathered(batches, total: int) -> np.ndarray:
    images, done = None, 0
    for batch in batches.as_numpy_iterator():
        if images is None:
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


def _diagnosis(encoded: Sequence[bytes], name_of: Callable, channels: int) -> Exception:
    import tensorflow as tf

    sizes: dict[tuple, str] = {}
    for place, data in enumerate(encoded):
        try:
            image = tf.io.decode_image(data, channels=channels, expand_animations=False)
        except tf.errors.InvalidArgumentError:
            return unreadable(name_of(place), "It is damaged or cut short.")
        sizes.setdefault(tuple(image.shape[:2]), name_of(place))
    found = ", ".join(f"{h}x{w} ({name})" for (h, w), name in list(sizes.items())[:2])
    return checks.UsageError(
        f"All images must have one size. Received: {found}. Set data.image_size to bring them to "
        f"one square size."
    )
