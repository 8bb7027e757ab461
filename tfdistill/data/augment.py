"""Random augmentation of images: what a view shows of each (`views.windows`), brought to a size.

Windows are rendered image by image, straight from the stored one to the size that a network sees;
shifts and flips of whole batches are gathers and stay uint8. Cutout is DeVries & Taylor 2017 (arXiv
1708.04552), random erasing Zhong et al. 2017 (arXiv 1708.04896), mixup Zhang et al. 2018 (arXiv
1710.09412), CutMix Yun et al. 2019 (arXiv 1905.04899).
"""

import tensorflow as tf

from tfdistill.config import AugmentConfig
from tfdistill.data import decode
from tfdistill.data.views import WINDOW, column

GREY = 128


def apply(
    images: tf.Tensor, draws: tf.Tensor, config: AugmentConfig, flipped: bool = False
) -> tf.Tensor:
    """Return what is done to images that have the size at which a network sees them.

    Args:
        images: `[b, h, w, c]` uint8.
        draws: `[b, len(views.COLUMNS)]` float32 in [0, 1).
        config: What to do; random erasing is not done here, and what needs a second image.
        flipped: Whether they were mirrored with their windows.

    Returns:
        `[b, h, w, c]` uint8: shifted, mirrored, a square cut out.

    Example:
        >>> table = views.draws(seed=0, view=0, num_ids=1000)
        >>> apply(images, tf.gather(table, ids), AugmentConfig(pad_crop=4, flip=True))
    """
    if config.pad_crop or (config.flip and not flipped):
        images = _shift_and_flip(images, draws, config.pad_crop, config.flip and not flipped)
    if config.cutout:
        images = _cut_out(images, draws, config.cutout)
    return images


def render(
    images: tf.Tensor,
    windows: tf.Tensor,
    sides: tuple[int, int],
    antialias: bool = False,
    fill: str | None = None,
) -> tf.Tensor:
    """Return windows of images at a size, with one resampling of the stored pixels.

    Each image is rendered by itself, with the same bits in a batch of any size.

    Args:
        images: `[b, h, w, c]` uint8.
        windows: `[b, len(views.WINDOW)]` float32.
        sides: Height and width of what is returned.
        antialias: Average over the pixels that become one where a window shrinks.
        fill: What lies outside a window that is turned: `reflect` (the image, mirrored) or
            `constant` (grey); None where none is turned.

    Returns:
        `[b, *sides, c]` uint8.
    """

    def rendered(part: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, window = part
        if fill:
            return turned(image, window, sides, fill)
        top, left, height, width = tf.unstack(box(window))
        return cropped(image[top : top + height, left : left + width], window, sides, antialias)

    shape = tf.TensorSpec((*sides, images.shape[3]), tf.uint8)
    return tf.map_fn(rendered, (images, windows), fn_output_signature=shape)


def box(window: tf.Tensor) -> tf.Tensor:
    """Return top, left, height and width of a window (`[len(views.WINDOW)]`), `[4]` int32."""
    return tf.cast(window[:4], tf.int32)


def cropped(
    part: tf.Tensor, window: tf.Tensor, sides: tuple[int, int], antialias: bool
) -> tf.Tensor:
    """Return what is in a window, `[h, w, c]` uint8, at a size, mirrored where the window is."""
    return _mirrored(to_uint8(tf.image.resize(part, sides, antialias=antialias)), window)


def _mirrored(shown: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    flip = column(window[None], "flip", WINDOW)[0] > 0.5
    return tf.cond(flip, lambda: tf.reverse(shown, [1]), lambda: shown)


def turned(image: tf.Tensor, window: tf.Tensor, sides: tuple[int, int], fill: str) -> tf.Tensor:
    """Return a window of a whole image, `[h, w, c]` uint8, turned, at a size, and mirrored."""
    top, left, height, width, _, angle = tf.unstack(window)
    cos, sin = tf.cos(angle), tf.sin(angle)
    # From pixel numbers of the result to those of the image; centres lie half a pixel further.
    wide, high = width / sides[1], height / sides[0]
    x, y = (0.5 - sides[1] / 2) * wide, (0.5 - sides[0] / 2) * high
    columns = [wide * cos, -high * sin, left + width / 2 - 0.5 + cos * x - sin * y]
    rows = [wide * sin, high * cos, top + height / 2 - 0.5 + sin * x + cos * y]
    shown = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image[None], tf.float32),
        transforms=tf.stack([[*columns, *rows, 0.0, 0.0]]),
        output_shape=sides,
        interpolation="BILINEAR",
        fill_mode=fill.upper(),
        fill_value=float(GREY),
    )[0]
    return _mirrored(to_uint8(shown), window)


def mix(images: tf.Tensor, partners: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return weight * image + (1 - weight) * partner, rounded; all `[b, h, w, c]` uint8."""
    weights = weights[:, None, None, None]
    return to_uint8(
        weights * tf.cast(images, tf.float32) + (1 - weights) * tf.cast(partners, tf.float32)
    )


def paste(images: tf.Tensor, others: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Return images with a box of each taken from another one.

    Args:
        images: `[b, h, w, c]` uint8.
        others: The same, or one grey level 0..255.
        boxes: `[b, len(views.BOX)]` int32.

    Returns:
        `[b, h, w, c]` uint8.
    """
    top, left, bottom, right = tf.unstack(boxes[:, :, None], axis=1)
    rows, columns = tf.range(images.shape[1]), tf.range(images.shape[2])
    in_rows = ((rows >= top) & (rows < bottom))[:, :, None, None]
    in_columns = ((columns >= left) & (columns < right))[:, None, :, None]
    return tf.where(in_rows & in_columns, tf.cast(others, tf.uint8), images)


def resize(images: tf.Tensor, size: int | None) -> tf.Tensor:
    """Bring `[b, h, w, c]` uint8 to a square, antialiased; None returns them as they are.

    Of images that are no squares the shorter side is brought to it, and the centre cut out, as of
    the files that a network is asked about.
    """
    height, width = images.shape[1:3]
    if size is None or (height, width) == (size, size):
        return images
    if height is None or height != width:
        shown = decode.squared(images, size)
        return tf.ensure_shape(shown, (images.shape[0], size, size, images.shape[3]))
    return to_uint8(tf.image.resize(images, (size, size), antialias=True))


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Round float `[..., channels]` to the nearest of 0..255, uint8 of the same shape."""
    return tf.saturate_cast(tf.round(images), tf.uint8)


def _shift_and_flip(images: tf.Tensor, draws: tf.Tensor, pad: int, flip: bool) -> tf.Tensor:
    height, width = images.shape[1], images.shape[2]
    columns = tf.tile(tf.range(width)[None], [tf.shape(images)[0], 1])  # [b, w]
    if flip:
        flipped = column(draws, "flip")[:, None] < 0.5
        columns = tf.where(flipped, columns[:, ::-1], columns)
    if pad:
        images = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        rows = _below(column(draws, "crop_y"), 2 * pad + 1)[:, None] + tf.range(height)
        columns += _below(column(draws, "crop_x"), 2 * pad + 1)[:, None]
        images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)


def _cut_out(images: tf.Tensor, draws: tf.Tensor, size: int) -> tf.Tensor:
    def inside(name: str, length: int) -> tf.Tensor:
        distance = tf.range(length) - _below(column(draws, name), length)[:, None] + size // 2
        return (distance >= 0) & (distance < size)  # [b, length]

    rows = inside("cutout_y", images.shape[1])[:, :, None, None]
    columns = inside("cutout_x", images.shape[2])[:, None, :, None]
    return tf.where(rows & columns, tf.constant(GREY, tf.uint8), images)


def _below(draws: tf.Tensor, limit: int) -> tf.Tensor:
    """Turn uniform numbers into whole numbers 0..limit - 1."""
    return tf.cast(draws * limit, tf.int32)
