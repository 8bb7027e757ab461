"""Image files of unknown origin, read one at a time and with bounded memory.

A file's header is looked at before anything of it is decoded. Pixels then come from the decoder and
the resizing that training images go through, so a network sees an image as it saw those. As in
training, the orientation that a camera noted (EXIF) is not applied.
"""

import io
import os
import stat
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tfdistill.data import images
from tfdistill.data.folders import ENDINGS

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 25_000_000
FORMATS = ("JPEG", "PNG", "BMP", "GIF")


class ImageError(ValueError):
    """A file that is no image to be classified; its text is one sentence."""


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


def contents(path: Path) -> bytes:
    """Return the bytes of a file; never waits for a pipe and never reads more than 64 MB."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise ImageError("It is a folder.")
        if not stat.S_ISREG(kind):
            raise ImageError("It is no regular file.")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"The file cannot be read: {reason}.") from error
    if not data:
        raise ImageError("The file is empty.")
    if len(data) > MAX_BYTES:
        raise ImageError(f"The file is larger than {MAX_BYTES // 2**20} MB.")
    return data


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

    format, mode = _header(data)
    data = _first_frame(data) if format == "GIF" else data
    if not _readable(format, mode, channels):
        raise ImageError(
            f"A {format} with colours of kind {mode} cannot be read into {channels} "
            f"channel{'s' * (channels > 1)}. Save it as PNG."
        )
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
    if height is None or (pixels.shape[:2] == (height, width) and image_size in (None, height)):
        return pixels
    size = image_size or max(height, width)
    short, long = sorted(pixels.shape[:2])
    if size * size * long > MAX_PIXELS * short:
        raise ImageError(f"Its sides of {long} and {short} pixels are too unequal.")
    with tf.device("CPU"):
        if height == width:
            return augment.resize(images.squared(pixels, size)[None], height)[0].numpy()
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


def _header(data: bytes) -> tuple[str, str]:
    """Return format and mode of an image of which nothing is decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                format, mode, (width, height) = image.format, image.mode, image.size
    except Image.DecompressionBombError:
        raise _too_large() from None
    except Exception:  # each of Pillow's readers raises its own kinds
        raise ImageError("It is no JPEG, PNG, BMP or GIF file, or a damaged one.") from None
    if width * height > MAX_PIXELS:
        raise _too_large()
    # A JPEG of several pictures, as telephones write; the first one is read.
    return "JPEG" if format == "MPO" else format, mode


def _readable(format: str, mode: str, channels: int) -> bool:
    """Return whether the decoder turns such an image into so many channels, and rightly."""
    if format == "BMP":
        # Of a BMP with a palette, the decoder gives the numbers of colours for colours.
        return channels == 3 and mode not in ("P", "1")
    if format == "JPEG":
        return channels == 3 or mode != "CMYK"
    return format == "PNG" or channels == 3


def _first_frame(data: bytes) -> bytes:
    """Return a GIF without its later frames: the decoder would unpack them all, of any number."""
    try:
        place = 13 + _colours(data[10])
        while data[place] == 0x21:  # an extension
            place = _after_blocks(data, place + 2)
        if data[place] != 0x2C:
            raise ImageError("The GIF holds no picture.")
        width, height = struct.unpack_from("<HH", data, place + 5)
        end = _after_blocks(data, place + 11 + _colours(data[place + 9]))
    except (IndexError, struct.error):
        raise ImageError("The GIF is damaged or cut short.") from None
    if width * height > MAX_PIXELS:
        raise _too_large()
    return data[:end] + b";"


def _colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_blocks(data: bytes, place: int) -> int:
    while data[place]:
        place += data[place] + 1
    return place + 1


def _too_large() -> ImageError:
    return ImageError(f"It has more than {MAX_PIXELS // 10**6} megapixels.")
