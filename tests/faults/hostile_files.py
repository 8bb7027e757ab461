"""Files made to do harm: images that unpack to gigabytes, archives that reach outside."""

import io
import struct
import tarfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image


def encoded(format: str, side: int = 24) -> bytes:
    """Return a whole image of noise."""
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format)
    return data.getvalue()


def palette_bmp() -> bytes:
    """Return a BMP with a palette, whose numbers a decoder may take for colours."""
    data = io.BytesIO()
    Image.open(io.BytesIO(encoded("PNG"))).quantize(16).save(data, "BMP")
    return data.getvalue()


def png(width: int, height: int) -> bytes:
    """Return a black PNG whose file is small and whose sides are as said."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    # What follows a full flush is packed alike again, so a piece of zeros is packed once.
    size, piece = height * (1 + 3 * width), 2**20
    packer = zlib.compressobj(9, wbits=-15)
    first = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(size % piece)) + packer.flush()
    checksum = struct.pack(">HH", size % 65521, 1)  # Adler-32 of zeros
    packed = b"\x78\xda" + size // piece * first + rest + checksum
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def gif_of_many_frames(side: int = 4000, frames: int = 100) -> bytes:
    """Return a GIF whose first frame is small and whose frames together are gigabytes."""
    data = io.BytesIO()
    Image.new("P", (side, side)).save(data, "GIF")
    whole = data.getvalue()
    start = whole.index(b"\x2c", 13)
    return whole[:start] + whole[start:-1] * frames + b";"


HOSTILE_IMAGES = {
    "cut short.jpg": encoded("JPEG")[:300],
    "cut short.png": encoded("PNG")[:-200],
    "empty.png": b"",
    "text.png": b"no image at all",
    "bomb.png": png(30_000, 10_000),
    "narrow.png": png(400_000, 1),
    "palette.bmp": palette_bmp(),
    "header only.bmp": encoded("BMP")[:60],
    "header only.gif": encoded("GIF")[:12],
}


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Return bytes with some flipped, cut out, repeated or put in."""
    found = bytearray(data)
    for _ in range(random.integers(1, 6)):
        place = int(random.integers(0, max(1, len(found))))
        length = int(random.integers(1, 40))
        kind = random.integers(0, 4)
        if kind == 0:
            found[place : place + 1] = bytes([int(random.integers(0, 256))])
        elif kind == 1:
            del found[place : place + length]
        elif kind == 2:
            found[place:place] = found[place : place + length]
        else:
            found[place:place] = random.bytes(length)
    return bytes(found)


def _member(name: str, **settings) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in settings.items():
        setattr(member, key, value)
    return member


def hostile_members() -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Return members of an archive that would reach outside if they were extracted, by kind."""
    image, place = encoded("JPEG"), "imagewoof2-160/train/n02086240"
    return {
        "above": (_member("../../harm/train/n02086240/a.JPEG", size=len(image)), image),
        "absolute": (_member("/tmp/harm/train/n02086240/a.JPEG", size=len(image)), image),
        "symbolic link": (
            _member(f"{place}/b.JPEG", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            b"",
        ),
        "hard link": (
            _member(f"{place}/c.JPEG", type=tarfile.LNKTYPE, linkname="../../../etc/passwd"),
            b"",
        ),
        "link to itself": (
            _member(f"{place}/d.JPEG", type=tarfile.SYMTYPE, linkname="d.JPEG"),
            b"",
        ),
        "device": (_member(f"{place}/e.JPEG", type=tarfile.CHRTYPE, devmajor=1, devminor=5), b""),
        "pipe": (_member(f"{place}/f.JPEG", type=tarfile.FIFOTYPE), b""),
        "no image": (_member(f"{place}/g.JPEG", size=9), b"no image."),
        "bomb": (_member(f"{place}/h.JPEG", size=len(png(30_000, 1_000))), png(30_000, 1_000)),
        "short path": (_member("i.JPEG", size=len(image)), image),
    }


def archive(members: Iterator[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Return a .tgz of members."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return data.getvalue()
