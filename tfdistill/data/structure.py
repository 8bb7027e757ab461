"""What JPEG and PNG files say of themselves before their pixels begin, in Python and in a graph.

Training and `predict` look with `jpeg` and `png_orientation`, the exported `bytes` signature with
`jpeg_in_graph` and `png_orientation_in_graph`; a test compares them. Both stop after `MOST_PARTS`.
The orientation is what the Exif note of a camera says: 1 upright, 2 to 8 mirrored or turned.
"""

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import tensorflow as tf

MOST_PARTS = 1000
ORIENTATION = 0x112  # tag of a TIFF directory, as which Exif is written
LONG = 4
EXIF, SCAN = 0xE1, 0xDA
FRAMES = tuple(marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC))
ONE_PASS = (0xC0, 0xC1)  # frames that are not progressive
PNG_START = 8


class Jpeg(NamedTuple):
    """The head of a JPEG.

    Args:
        height, width: As stored, before it is turned.
        components: 1 grey, 3 colours, 4 CMYK.
        one_pass: Whether it can be decoded line by line, without all its coefficients in memory.
        orientation: 1 to 8.
    """

    height: int
    width: int
    components: int
    one_pass: bool
    orientation: int


def jpeg(data: bytes) -> Jpeg:
    """Return what the head of a JPEG says.

    Raises:
        ValueError: It is damaged, or no JPEG.
    """
    place, frame, exif = 2, None, None
    try:
        for _ in range(MOST_PARTS):
            marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
            if data[place] != 0xFF:
                break
            if marker == 0xFF:  # padding
                place += 1
                continue
            if length < 2 or place + 2 + length > len(data):
                break
            if marker == SCAN:
                if frame is None:
                    break
                kind, (height, width, components) = frame
                one_pass = kind in ONE_PASS and data[place + 4] == components
                return Jpeg(height, width, components, one_pass, orientation(exif or b""))
            if marker in FRAMES and frame is None:
                frame = marker, struct.unpack_from(">HHB", data, place + 5)
            if marker == EXIF and exif is None and data[place + 4 : place + 10] == b"Exif\0\0":
                exif = data[place + 10 : place + 2 + length]
            place += 2 + length
    except (IndexError, struct.error):
        pass
    raise ValueError("damaged")


def png_orientation(data: bytes) -> int:
    """Return the orientation that a PNG notes before its pixels, 1 to 8."""
    place = PNG_START
    for _ in range(MOST_PARTS):
        length, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if name == b"eXIf":
            return orientation(data[place + 8 : place + 8 + length])
        if name in (b"IDAT", b""):
            break
        place += 12 + length
    return 1


def orientation(exif: bytes) -> int:
    """Return the orientation in an Exif note (a TIFF's bytes), 1 where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHI4s", exif, place)
            if tag == ORIENTATION:
                form = "I" if kind == LONG else "H"
                (found,) = struct.unpack_from(f"{order}{form}", value)
                return found if 1 <= found <= 8 else 1
    except struct.error:
        pass
    return 1


def jpeg_in_graph(data: "tf.Tensor") -> Jpeg:
    """Return what the head of a JPEG (scalar string) says, as tensors; height 0 if damaged."""
    import tensorflow as tf

    values = tf.io.decode_raw(data, tf.uint8)
    size = tf.size(values)

    def step(place, kind, height, width, components, first, scan):
        marker, length = _byte(values, place + 1), _number(values, place + 2, 2, True)
        is_part = (_byte(values, place) == 0xFF) & (marker != 0xFF)
        is_part &= (length >= 2) & (place + 2 + length <= size)
        is_padding = (_byte(values, place) == 0xFF) & (marker == 0xFF)
        is_frame = is_part & (kind < 0) & tf.reduce_any(marker == tf.constant(FRAMES))
        is_exif = is_part & (marker == EXIF) & (first < 0)
        is_exif &= tf.strings.substr(data, tf.minimum(place + 4, size), 6) == b"Exif\0\0"
        is_scan = is_part & (marker == SCAN)
        kind = tf.where(is_frame, marker, kind)
        height = tf.where(is_frame, _number(values, place + 5, 2, True), height)
        width = tf.where(is_frame, _number(values, place + 7, 2, True), width)
        components = tf.where(is_frame, _byte(values, place + 9), components)
        first = tf.where(is_exif, place, first)
        scan = tf.where(is_scan, _byte(values, place + 4), scan)
        after = tf.where(is_part, place + 2 + length, tf.where(is_padding, place + 1, size))
        return tf.where(is_scan, size, after), kind, height, width, components, first, scan

    found = tf.while_loop(
        lambda place, *_: place + 4 <= size,
        step,
        [tf.constant(2), *(tf.constant(value) for value in (-1, 0, 0, 0, -1, -1))],
        maximum_iterations=MOST_PARTS,
    )
    _, kind, height, width, components, first, scan = found
    length = _number(values, first + 2, 2, True)
    one_pass = tf.reduce_any(kind == tf.constant(ONE_PASS)) & (scan == components)
    turned = _orientation_in_graph(values, first + 10, first + 2 + length, first >= 0)
    return Jpeg(tf.where(scan >= 0, height, 0), width, components, one_pass, turned)


def png_orientation_in_graph(data: "tf.Tensor") -> "tf.Tensor":
    """Return the orientation that a PNG (scalar string) notes before its pixels, int32."""
    import tensorflow as tf

    values = tf.io.decode_raw(data, tf.uint8)
    size = tf.cast(tf.size(values), tf.int64)

    def step(place, note):
        name = tf.strings.substr(data, tf.cast(place + 4, tf.int32), 4)
        note = tf.where(name == b"eXIf", place, note)
        last = (name == b"eXIf") | (name == b"IDAT")
        return tf.where(last, size, place + 12 + _number(values, place, 4, True)), note

    _, note = tf.while_loop(
        lambda place, _: place + 8 <= size,
        step,
        [tf.constant(PNG_START, tf.int64), tf.constant(-1, tf.int64)],
        maximum_iterations=MOST_PARTS,
    )
    length = _number(values, note, 4, True)
    return _orientation_in_graph(values, note + 8, note + 8 + length, note >= 0)


def _orientation_in_graph(values, start, end, there):
    """Return the orientation in the Exif note at `start` .. `end` - 1, 1 where there is none."""
    import tensorflow as tf

    start = tf.cast(start, tf.int64)
    end = tf.minimum(tf.cast(end, tf.int64), tf.cast(tf.size(values), tf.int64))

    def noted():
        first, second = _byte(values, start), _byte(values, start + 1)
        is_big, is_little = (
            (first == mark) & (second == mark) & (start + 8 <= end) for mark in b"MI"
        )
        directory = start + _number(values, start + 4, 4, is_big)
        count = tf.where(directory + 2 <= end, _number(values, directory, 2, is_big), 0)
        places = directory + 2 + 12 * tf.range(tf.cast(count, tf.int64), dtype=tf.int64)
        places = tf.boolean_mask(places, places + 12 <= end)
        places = tf.boolean_mask(places, _number(values, places, 2, is_big) == ORIENTATION)[:1]
        is_long = _number(values, places + 2, 2, is_big) == LONG
        short, long = (_number(values, places + 8, size, is_big) for size in (2, 4))
        found = tf.concat([tf.where(is_long, long, tf.cast(short, tf.int64)), [1]], axis=0)[0]
        valid = (is_big | is_little) & (found >= 1) & (found <= 8)
        return tf.where(valid, tf.cast(found, tf.int32), 1)

    return tf.cond(there, noted, lambda: tf.constant(1))


def _byte(values, place):
    import tensorflow as tf

    last = tf.size(values, place.dtype) - 1
    return tf.cast(tf.gather(values, tf.clip_by_value(place, 0, last)), tf.int32)


def _number(values, place, size: int, is_big):
    """Return the number in `size` bytes at `place`: of 2 bytes int32, of 4 bytes int64."""
    import tensorflow as tf

    kind = tf.int32 if size == 2 else tf.int64
    parts = [tf.cast(_byte(values, place + at), kind) for at in range(size)]
    big = sum(part * 256**at for at, part in enumerate(reversed(parts)))
    little = sum(part * 256**at for at, part in enumerate(parts))
    return tf.where(is_big, big, little)
