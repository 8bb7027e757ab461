"""What encoded images of unknown origin say of themselves, looked at before anything is decoded."""

import io
import stat
import struct
import warnings
from pathlib import Path

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 25_000_000
FORMATS = ("JPEG", "PNG", "BMP", "GIF")


class ImageError(ValueError):
    """A file that is no image to be classified; its text is one sentence."""


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


def checked(data: bytes, channels: int, size: int | None = None) -> tuple[str, bytes]:
    """Return an image's format, and the bytes of it that may be decoded.

    Args:
        data: The bytes of a file.
        channels: 1 or 3 (PNG also 4).
        size: Side of the square that it is to be brought to; None keeps its size.

    Returns:
        One of `FORMATS`, and the bytes; of a GIF, those of the first frame.

    Raises:
        ImageError: No image, one of more than 25 megapixels, now or when its shorter side is
            `size`, or one whose colours cannot be turned into `channels`.

    Example:
        >>> checked(Path("cat.jpg").read_bytes(), 3)[0]
        'JPEG'
    """
    format, mode, sides = _header(data)
    data = _first_frame(data) if format == "GIF" else data
    if not _readable(format, mode, channels):
        raise ImageError(
            f"A {format} with colours of kind {mode} cannot be read into {channels} "
            f"channel{'s' * (channels > 1)}. Save it as PNG."
        )
    if size is not None:
        check_sides(sides, size)
    return format, data


def check_sides(sides: tuple[int, int], size: int) -> None:
    """Raise if an image of these sides would become too large when its shorter one is `size`.

    Raises:
        ImageError: More than 25 megapixels.
    """
    short, long = sorted(sides)
    if size * size * long > MAX_PIXELS * short:
        raise ImageError(f"Its sides of {long} and {short} pixels are too unequal.")


def _header(data: bytes) -> tuple[str, str, tuple[int, int]]:
    """Return format, mode and sides of an image of which nothing is decoded."""
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
    return "JPEG" if format == "MPO" else format, mode, (width, height)


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
