"""Image files of unknown origin, read one at a time and with bounded memory.

A file's header is looked at before anything of it is decoded. Pixels then come from the decoder and
the resizing that training images go through, so a network sees an image as it saw those, upright.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tfdistill.data import decode, headers, walk
from tfdistill.data.headers import MAX_BYTES, ImageError, contents
from tfdistill.data.walk import ENDINGS, Skipped, name_of

__all__ = [
    "ENDINGS",
    "MAX_BYTES",
    "ImageError",
    "Skipped",
    "contents",
    "decoded",
    "fitted",
    "found",
    "name_of",
    "read",
]


def found(
    paths: Iterable[str | Path], skipped: Skipped | None = None
) -> Iterator[tuple[Path, str | None]]:
    """Yield the image files that paths name, folders with all that is in them.

    Folders are gone through in the order of names, files before sub-folders; links are followed,
    hidden folders are not entered, and none is entered twice.

    Args:
        paths: Files and folders. A file is yielded whatever it is called.
        skipped: Gets what inside folders is left out.

    Yields:
        Path, and None or, of a folder that cannot be read or holds no image, what is wrong.

    Example:
        >>> [path.name for path, problem in found(["photos"])]
        ['cat.jpg', 'dog.png']
    """
    skipped = Skipped() if skipped is None else skipped
    for path in map(Path, paths):
        if not os.path.isdir(path):
            yield path, None
            continue
        empty = True
        for inside, kind in walk.below(path):
            # A lost link that is called as an image is answered as a missing file is.
            is_image = kind == walk.IMAGE
            is_image |= kind == walk.LOST and inside.suffix.lower() in ENDINGS
            if isinstance(kind, OSError):
                yield inside, f"The folder cannot be read: {kind.strerror}."
            elif is_image:
                yield inside, None
            else:
                skipped.add(kind, inside)
                continue
            empty = False
        if empty:
            yield path, f"The folder holds no image ({' '.join(ENDINGS)})."


def read(
    path: Path, shape: tuple[int | None, int | None, int], image_size: int | None = None
) -> np.ndarray:
    """Return an image file as a network sees it.

    Args:
        path: A JPEG, PNG, BMP, GIF, WebP or TIFF file (of several pictures, the first) of at most
            64 MB and 25 megapixels; a JPEG that is made smaller may have 250.
        shape: `(height, width, channels)` of the network; height and width None keep the image's
            size, channels are 1 or 3.
        image_size: Side of the square that training images were brought to before they were
            resized to the network's; None takes the network's.

    Returns:
        `[height, width, channels]` uint8.

    Raises:
        ImageError: What is wrong with the file.

    Example:
        >>> read(Path("cat.jpg"), (160, 160, 3)).shape
        (160, 160, 3)
    """
    height, width, channels = shape
    size = image_size or max(height, width) if height and width else None
    return fitted(decoded(contents(path), channels, size), shape, image_size)


def decoded(data: bytes, channels: int, size: int | None = None) -> np.ndarray:
    """Decode an image as training does, once its header has shown that it may be.

    Args:
        data: The bytes of a file.
        channels: 1 or 3.
        size: What its shorter side is to be brought to; a JPEG of more than 25 megapixels may be
            reduced to no less than that while it is decoded.

    Returns:
        `[height, width, channels]` uint8, upright.

    Raises:
        ImageError: No image, a damaged one, one of too many pixels, or one whose colours cannot be
            turned into `channels`.
    """
    return decode.one(headers.checked(data, channels, size), channels)


def fitted(
    pixels: np.ndarray, shape: tuple[int | None, int | None, int], image_size: int | None = None
) -> np.ndarray:
    """Bring an image to a network's size as training does: squared, then resized.

    Args:
        pixels: `[h, w, channels]` uint8.
        shape, image_size: As of `read`.

    Returns:
        `[height, width, channels]` uint8.

    Raises:
        ImageError: Sides so unequal that the image would become too large on the way.
    """
    import tensorflow as tf

    from tfdistill.data import augment

    height, width, _ = shape
    if (
        height is None
        or width is None
        or (pixels.shape[:2] == (height, width) and image_size in (None, height))
    ):
        return pixels
    size = image_size or max(height, width)
    headers.check_sides(pixels.shape[:2], size)
    with tf.device("CPU"):
        if height == width:
            return augment.resize(decode.squared(pixels, size)[None], height)[0].numpy()
        # Such a network was trained on images of one size, which had no need of this.
        return augment.to_uint8(tf.image.resize(pixels, (height, width), antialias=True)).numpy()
