"""What images go through inside a SavedModel, from files or from pixels of any size.

It equals what the data pipeline does to JPEG and PNG files: they are turned as their Exif note says
and, where very large, reduced while they are decoded. Files of other kinds are refused. Files come
from anyone, so their headers are checked before anything is decoded.
"""

import functools
from dataclasses import dataclass

import tensorflow as tf

from tfdistill.data import augment, decode, structure
from tfdistill.data.headers import MAX_PASSES, MAX_PHOTO, MAX_PIXELS, RATIOS

# Files that are decoded at once.
PARALLEL = 2
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# A PNG's first chunk is IHDR, 13 bytes that begin with width and height.
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"IEND"


@dataclass(frozen=True)
class Frame:
    """What brings images of other sizes to the network's, and which it refuses.

    Args:
        input_shape: `(height, width, channels)` of the network.
        image_size: Side of the data set's stored images; None means the network's own.
    """

    input_shape: tuple[int, int, int]
    image_size: int | None

    @property
    def side(self) -> int:
        """Side that an image's shorter side is scaled to."""
        return self.image_size or max(self.input_shape[:2])

    def fit(self, pixels: tf.Tensor, done: bool = True) -> tf.Tensor:
        """Bring `[n, h, w, c]` uint8 to the network's size; what has it stays untouched.

        Args:
            pixels: The images.
            done: Whether images of the network's size have been brought to it before; a file of
                that size goes through the stored images' size first, as in training.
        """
        if not done and self.side != max(self.input_shape[:2]):
            return self._scaled(pixels)
        same = tf.reduce_all(tf.shape(pixels)[1:3] == self.input_shape[:2])
        return tf.ensure_shape(
            tf.cond(same, lambda: pixels, lambda: self._scaled(pixels)), (None, *self.input_shape)
        )

    def reduction(self, head: structure.Jpeg) -> tf.Tensor:
        """Return the ratio at which a JPEG is decoded; 1 if no other fits (`headers.ratio_of`)."""
        height, width = tf.cast(head.height, tf.int64), tf.cast(head.width, tf.int64)
        most = tf.where(head.one_pass, tf.constant(MAX_PHOTO, tf.int64), MAX_PASSES)
        found = tf.constant(RATIOS[-1])
        for ratio in reversed(RATIOS[:-1]):
            size = _shrunk(height, ratio) * _shrunk(width, ratio)
            found = tf.where(size <= MAX_PIXELS, ratio, found)
        enough = tf.minimum(head.height, head.width) >= found * self.side
        return tf.where(enough & (height * width <= most), found, 1)

    def fault(self, height: tf.Tensor, width: tf.Tensor, by: tf.Tensor | int = 1) -> tf.Tensor:
        """Return what is wrong with a size (scalars `[]`, int32), or an empty string `[]`.

        Args:
            height, width: Of the image.
            by: By how much it is reduced while it is decoded.
        """
        height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
        shorter, longer = tf.minimum(height, width), tf.maximum(height, width)
        # A long, narrow image is small until its shorter side is scaled up.
        ratio = max(1, MAX_PIXELS // self.side**2)
        size = tf.strings.format(" has {} x {} pixels; ", (height, width))
        # A quotient, as the product of two sides from a header may be too large for an integer.
        held = tf.maximum(_shrunk(shorter, by), 1)
        few = (shorter > 0) & (_shrunk(longer, by) <= MAX_PIXELS // held)
        narrow = f"give images at most {ratio} times as long as wide."
        many = f"give images of 1 to {MAX_PIXELS} pixels."
        text = tf.strings.join([size, tf.where(few, narrow, many)])
        return tf.where(few & (longer <= ratio * shorter), "", text)

    def _scaled(self, pixels: tf.Tensor) -> tf.Tensor:
        height, width, channels = self.input_shape
        if height != width:
            return augment.to_uint8(tf.image.resize(pixels, (height, width), antialias=True))
        square = decode.squared(pixels, self.side)
        return augment.resize(
            tf.ensure_shape(square, (None, self.side, self.side, channels)), height
        )


def some(batch: tf.Tensor, name: str) -> tf.Tensor:
    """Return a batch `[n, ...]`, n >= 1: TensorFlow answers an empty one with internal errors."""
    fault = tf.where(tf.shape(batch)[0] == 0, " has no images; give at least one.", "")
    return _checked(batch, name, fault)


def fitted(pixels: tf.Tensor, frame: Frame) -> tf.Tensor:
    """Bring pixels, uint8 `[n, h, w, c]`, to the network's size, or refuse them."""
    shape = tf.shape(pixels)
    return frame.fit(_checked(pixels, "image", frame.fault(shape[1], shape[2])))


def decoded(files: tf.Tensor, frame: Frame) -> tf.Tensor:
    """Decode JPEG and PNG files, string `[n]`, into the network's images."""
    return _decoder(frame)(files)


@functools.lru_cache(maxsize=4)
def _decoder(frame: Frame):
    """Return `decoded` as a function that is traced once: its graph is large, and an export asks
    for it twice, for its variables and for its signature."""
    channels = frame.input_shape[2]

    def one(item):
        place, data = item
        subject = tf.strings.format("image_bytes[{}]", place)
        data = _checked(data, subject, _file_fault(data))
        height, width, turned, ratio, fault = tf.cond(
            _starts(data, _PNG_START), lambda: _png(data), lambda: _jpeg(data, frame)
        )
        data = _checked(data, subject, fault)
        data = _checked(data, subject, frame.fault(height, width, ratio))
        image = decode.pixels(data, channels, turned, ratio)
        return frame.fit(image[None], done=False)[0]

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)
    def decode_all(files):
        return tf.map_fn(
            one,
            (tf.range(tf.size(files)), files),
            fn_output_signature=tf.TensorSpec(frame.input_shape, tf.uint8),
            parallel_iterations=PARALLEL,
        )

    return decode_all.get_concrete_function()


def _shrunk(side: tf.Tensor, ratio: tf.Tensor | int) -> tf.Tensor:
    return -(-side // tf.cast(ratio, side.dtype))


def _checked(value: tf.Tensor, subject, fault: tf.Tensor) -> tf.Tensor:
    """Return `value`, which can be had only after the check that there is no fault."""
    check = tf.debugging.Assert(tf.equal(fault, ""), [tf.strings.join([subject, fault])])
    with tf.control_dependencies([check]):
        return tf.identity(value)


def _file_fault(data: tf.Tensor) -> tf.Tensor:
    """Return what is wrong with a file (scalar string) at first sight, or an empty string."""
    is_jpeg, is_png = _starts(data, _JPEG_START), _starts(data, _PNG_START)
    whole = (is_jpeg & _holds(data, _JPEG_END)) | (is_png & _holds(data, _PNG_END))
    size = tf.strings.length(data)
    problem = tf.where(is_jpeg | is_png, " is cut off", " is neither JPEG nor PNG")
    problem = tf.where(size == 0, " is empty", problem)
    advice = tf.strings.format(" ({} bytes); give whole JPEG or PNG files.", size)
    return tf.where(whole, "", tf.strings.join([problem, advice]))


def _starts(data: tf.Tensor, with_bytes: bytes) -> tf.Tensor:
    return tf.equal(tf.strings.substr(data, 0, len(with_bytes)), with_bytes)


def _holds(data: tf.Tensor, part: bytes) -> tf.Tensor:
    values = tf.io.decode_raw(data, tf.uint8)
    places = tf.maximum(tf.size(values) - len(part) + 1, 0)
    found = [values[at : at + places] == value for at, value in enumerate(part)]
    return tf.reduce_any(tf.reduce_all(tf.stack(found), axis=0))


def _png(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Return height, width, orientation, ratio and what is wrong, of a PNG."""
    sides = tf.strings.substr(data, len(_PNG_START), 8)
    width_height = tf.io.decode_raw(sides, tf.int32, little_endian=False)
    turned = structure.png_orientation_in_graph(data)
    return width_height[1], width_height[0], turned, tf.constant(1), tf.constant("")


def _jpeg(data: tf.Tensor, frame: Frame) -> tuple[tf.Tensor, ...]:
    """Return height, width, orientation, ratio and what is wrong, of a JPEG."""
    head = structure.jpeg_in_graph(data)
    # The decoder's grey of CMYK is not that of the picture.
    unfit = (head.components == 4) & (frame.input_shape[2] == 1)
    fault = tf.where(unfit, " is a JPEG in CMYK, which has no grey; give it in RGB.", "")
    fault = tf.where(head.height == 0, " is a damaged JPEG; give whole JPEG or PNG files.", fault)
    return head.height, head.width, head.orientation, frame.reduction(head), fault
