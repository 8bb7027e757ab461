"""Image files of unknown origin, read one at a time and with bounded memory.

A file's header is looked at before anything of it is decoded. Pixels then come from the decoder and
the resizing that training images go through, so a network sees an image as it saw those. As in
training, the orientation that a camera noted (EXIF) is not applied.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tfdistill.data import decode, headers
from tfdistill.data.headers import MAX_BYTES, ImageError, contents
from tfdistill.data.sources.folder import ENDINGS

__all__ = [
    "ENDINGS",
    "MAX_BYTES",
    "ImageError",
    "contents",
    "decoded",
    "fitted",
    "found",
    "name_of",
    "read",
]


def found(
    paths: Iterable[str | Path], skip: Callable[[Path], None]
) -> Iterator[tuple[Path, str | None]]:
    """Yield the image files that paths name, folders with all that is in them.

    Folders are gone through in the order of names, files before sub-folders; hidden ones and links
    to folders are left out.

    Args:
        paths: Files and folders. A file is yielded whatever it is called.
        skip: Called with every file inside a folder that has no image's ending.

    Yields:
        Path, and None or, of a folder that cannot be read or holds no image, what is wrong.

    Example:
        >>> [path.name for path, problem in found(["photos"], skip=print)]
        ['cat.jpg', 'dog.png']
    """
    for path in map(Path, paths):
        if not os.path.isdir(path):
            yield path, None
            continue
        empty = True
        for inside in _inside(path, skip):
            empty = False
            yield inside
        if empty:
            yield path, f"The folder holds no image ({' '.join(ENDINGS)})."


def read(
    path: Path, shape: tuple[int | None, int | None, int], image_size: int | None = None
) -> np.ndarray:
    """Return an image file as a network sees it.

    Args:
        path: A JPEG, PNG, BMP or GIF file (of a GIF, the first frame) of at most 64 MB and 25
            megapixels.
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
    return fitted(decoded(contents(path), shape[2]), shape, image_size)


def name_of(path: Path) -> str:
    """Return a path as text that can be written anywhere, bytes that are no text escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def decoded(data: bytes, channels: int) -> np.ndarray:
    """Decode an image as training does, once its header has shown that it may be.

    Args:
        data: The bytes of a file.
        channels: 1 or 3.

    Returns:
        `[height, width, channels]` uint8.

    Raises:
        ImageError: No image, a damaged one, one of more than 25 megapixels, or one whose colours
            cannot be turned into `channels`.
    """
    import tensorflow as tf

    format, data = headers.checked(data, channels)
    try:
        with tf.device("CPU"):
            return tf.io.decode_image(data, channels=channels, expand_animations=False).numpy()
    except (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError):
        raise ImageError(f"The {format} is damaged or cut short.") from None


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


def _inside(root: Path, skip: Callable[[Path], None]) -> Iterator[tuple[Path, str | None]]:
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except OSError as error:
            yield folder, f"The folder cannot be read: {error.strerror}."
            continue
        # Unlike Path.is_dir, this raises nothing: links may lead round in circles.
        parts = [(folder / name, os.path.isdir(folder / name)) for name in names]
        for path, is_folder in parts:
            if is_folder:
                continue
            if path.suffix.lower() in ENDINGS:
                yield path, None
            else:
                skip(path)
        folders += [
            path for path, is_folder in reversed(parts) if is_folder and not path.is_symlink()
        ]
