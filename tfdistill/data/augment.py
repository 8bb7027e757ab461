"""Random augmentation of whole batches of images, decided by the draws of a view (`views.draws`).

Shifts and flips are gathers and stay uint8; crops of other sizes and rotations are one affine
transform, mirrored at the border and rounded back to uint8. Cutout is DeVries & Taylor 2017 (arXiv
1708.04552), mixup Zhang et al. 2018 (arXiv 1710.09412), resized crops Szegedy et al. 2015 (arXiv
1409.4842, section 6).
"""

import math

import tensorflow as tf

from tfdistill.config import AugmentConfig
from tfdistill.data.views import column

GREY = 128
LOG_ASPECT = math.log(4 / 3)


def apply(images: tf.Tensor, draws: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Change every image as its draws say.

    Args:
        images: `[b, h, w, c]` uint8.
        draws: `[b, len(views.COLUMNS)]` float32 in [0, 1).
        config: What to do; mixup is not done here, as it needs a second image.

    Returns:
        `[b, h, w, c]` uint8.

    Example:
        >>> table = views.draws(seed=0, view=0, num_ids=1000)
        >>> apply(images, tf.gather(table, ids), AugmentConfig(pad_crop=4, flip=True))
    """
    if config.resized_crop or config.rotation:
        images = _transform(images, draws, config)
    if config.pad_crop or config.flip:
        images = _shift_and_flip(images, draws, config)
    if config.cutout:
        images = _cut_out(images, draws, config.cutout)
    return images


def mix(images: tf.Tensor, partners: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return weight * image + (1 - weight) * partner, rounded; all `[b, h, w, c]` uint8."""
    weights = weights[:, None, None, None]
    return to_uint8(
        weights * tf.cast(images, tf.float32) + (1 - weights) * tf.cast(partners, tf.float32)
    )


def resize(images: tf.Tensor, size: int | None) -> tf.Tensor:
    """Resize `[b, h, w, c]` uint8 bilinearly to `size` x `size`; None returns them as they are."""
    if size is None or tuple(images.shape[1:3]) == (size, size):
        return images
    return to_uint8(tf.image.resize(images, (size, size), method="bilinear"))


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Round float `[..., channels]` to the nearest of 0..255, uint8 of the same shape."""
    return tf.saturate_cast(tf.round(images), tf.uint8)


def _shift_and_flip(images: tf.Tensor, draws: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    height, width, pad = images.shape[1], images.shape[2], config.pad_crop
    columns = tf.tile(tf.range(width)[None], [tf.shape(images)[0], 1])  # [b, w]
    if config.flip:
        flipped = column(draws, "flip")[:, None] < 0.5
        columns = tf.where(flipped, columns[:, ::-1], columns)
    if pad:
        images = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        rows = _below(column(draws, "crop_y"), 2 * pad + 1)[:, None] + tf.range(height)
        columns += _below(column(draws, "crop_x"), 2 * pad + 1)[:, None]
        images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)


def _transform(images: tf.Tensor, draws: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    height, width = float(images.shape[1]), float(images.shape[2])
    high, wide = _window(draws, config.resized_crop, width / height)
    middle_y = (high / 2 + column(draws, "window_y") * (1 - high)) * height
    middle_x = (wide / 2 + column(draws, "window_x") * (1 - wide)) * width
    angle = (2 * column(draws, "angle") - 1) * math.radians(config.rotation)
    cos, sin = tf.cos(angle), tf.sin(angle)
    # The op maps pixel numbers; their centres lie half a pixel further.
    x, y = 0.5 - width / 2, 0.5 - height / 2
    rows = [wide * cos, -wide * sin, middle_x - 0.5 + wide * (cos * x - sin * y)]
    rows += [high * sin, high * cos, middle_y - 0.5 + high * (sin * x + cos * y)]
    rows += [tf.zeros_like(cos)] * 2
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.stack(rows, axis=1),
        output_shape=tf.shape(images)[1:3],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
    return tf.ensure_shape(to_uint8(moved), images.shape)


def _window(draws: tf.Tensor, smallest: float, ratio: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return height and width (`[b]`) of the part that is kept, as shares of the image's."""
    if not smallest:
        whole = tf.ones_like(column(draws, "area"))
        return whole, whole
    area = smallest + (1 - smallest) * column(draws, "area")
    aspect = tf.exp((2 * column(draws, "aspect") - 1) * LOG_ASPECT) / ratio
    return tf.minimum(tf.sqrt(area / aspect), 1.0), tf.minimum(tf.sqrt(area * aspect), 1.0)


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
