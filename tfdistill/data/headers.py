"""What encoded images of unknown origin say of themselves, looked at before anything is decoded."""

import io
import stat
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

from tfdistill.data import structure

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 25_000_000
# A JPEG may have more, where it is to be made smaller: its decoder then never makes them all. One
# of several passes is held in memory, with two bytes for each colour of each pixel.
MAX_PHOTO, MAX_PASSES = 250_000_000, 64_000_000
RATIOS = (1, 2, 4, 8)
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
KINDS = "JPEG, PNG, BMP, GIF, WebP or TIFF"
# Those that TensorFlow's decoder lacks, and the colours in which they are read.
FOREIGN = ("WEBP", "TIFF")
FOREIGN_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB"}
FOREIGN_MODES |= {"RGB": "RGB", "RGBA": "RGB", "RGBX": "RGB"}
DEEP_MODES = ("I;16", "I;16L", "I;16B")  # grey of 16 bits, of which the upper 8 are taken
TILE_WIDTH, TILE_HEIGHT = 322, 323


@dataclass(frozen=True)
class Encoded:
    """An image file that may be decoded, and how.

    Args:
        format: One of `FORMATS`.
        data: The bytes; of a GIF, those of the first frame.
        sides: Width and height as stored, before they are turned or reduced.
        orientation: How its pixels are to be turned, as Exif counts, 1 to 8.
        ratio: By how much a JPEG is reduced while it is decoded: 1, 2, 4 or 8.
    """

    format: str
    data: bytes
    sides: tuple[int, int]
    orientation: int = 1
    ratio: int = 1

    @property
    def foreign(self) -> bool:
        """Whether `plain` has to be decoded instead of `data`."""
        return self.format in FOREIGN


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


def checked(data: bytes, channels: int, size: int | None = None) -> Encoded:
    """Return an image file as it may be decoded.

    Args:
        data: The bytes of a file.
        channels: 1 or 3 (PNG also 4).
        size: What its shorter side is to be brought to; None keeps its size.

    Raises:
        ImageError: No image; one of more than 25 megapixels, unless it is a JPEG of at most 250
            that can be reduced to no less than `size`; or one whose colours cannot be turned into
            `channels`.

    Example:
        >>> checked(Path("cat.jpg").read_bytes(), 3).format
        'JPEG'
    """
    found, mode = _jpeg(data, size) if data[:3] == b"\xff\xd8\xff" else _header(data)
    if not _readable(found.format, mode, channels):
        raise ImageError(
            f"A {found.format} with colours of kind {mode} cannot be read into {channels} "
            f"channel{'s' * (channels > 1)}. Save it as PNG."
        )
    return found


def plain(data: bytes) -> bytes:
    """Return a WebP or TIFF file, its first picture, turned upright, as an uncompressed PNG.

    Raises:
        Exception: It is damaged; each of Pillow's readers raises its own kinds.
    """
    import numpy as np
    from PIL import Image, ImageOps

    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=FOREIGN) as image:
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode in DEEP_MODES:
                upright = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            else:
                mode = FOREIGN_MODES[image.mode]
                upright = image if image.mode == mode else image.convert(mode)
            upright.save(written, "PNG", compress_level=0, exif=b"", icc_profile=None)
    return written.getvalue()


def check_sides(sides: tuple[int, int], size: int) -> None:
    """Raise if an image of these sides would become too large when its shorter one is `size`.

    Raises:
        ImageError: More than 25 megapixels.
    """
    short, long = sorted(sides)
    if size * size * long > MAX_PIXELS * short:
        raise ImageError(f"Its sides of {long} and {short} pixels are too unequal.")


def ratio_of(sides: tuple[int, int], size: int | None) -> int | None:
    """Return the ratio at which a JPEG has at most 25 megapixels and no side below `size`."""
    for ratio in RATIOS:
        if -(-sides[0] // ratio) * -(-sides[1] // ratio) <= MAX_PIXELS:
            return ratio if ratio == 1 or size and min(sides) >= ratio * size else None
    return None


def _jpeg(data: bytes, size: int | None) -> tuple[Encoded, str]:
    try:
        head = structure.jpeg(data)
    except ValueError:
        raise _no_image() from None
    mode = {1: "L", 3: "RGB", 4: "CMYK"}.get(head.components)
    if mode is None:
        raise _no_image()
    sides, most = (head.width, head.height), MAX_PHOTO if head.one_pass else MAX_PASSES
    if head.width * head.height > most:
        raise _too_large(most)
    ratio = ratio_of(sides, size)
    if ratio is None:
        raise _too_large(but=" Only a JPEG that is to be made smaller may have more.")
    # Of a file of several pictures, as telephones write, the first one is read.
    return Encoded("JPEG", data, sides, head.orientation, ratio), mode


def _header(data: bytes) -> tuple[Encoded, str]:
    """Return format and mode of an image of which nothing is decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS[1:]) as image:
                format, mode, (width, height) = str(image.format), image.mode, image.size
                tags = getattr(image, "tag_v2", {})
                tile = tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0)
    except Image.DecompressionBombError:
        raise _too_large() from None
    except Exception:  # each of Pillow's readers raises its own kinds
        raise _no_image() from None
    if max(width * height, tile) > MAX_PIXELS:
        raise _too_large()
    turned = structure.png_orientation(data) if format == "PNG" else 1
    data = _first_frame(data) if format == "GIF" else data
    return Encoded(format, data, (width, height), turned), mode


def _readable(format: str, mode: str, channels: int) -> bool:
    """Return whether the decoder turns such an image into so many channels, and rightly."""
    if format in FOREIGN:
        return mode in FOREIGN_MODES or mode in DEEP_MODES
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


def _too_large(most: int = MAX_PIXELS, but: str = "") -> ImageError:
    return ImageError(f"It has more than {most // 10**6} megapixels.{but}")


def _no_image() -> ImageError:
    return ImageError(f"It is no {KINDS} file, or a damaged one.")
