"""The random numbers of a view: pure functions of (seed, view number, example id).

Each comes from a counter-based generator (Philox), drawn as one table and looked up by id, so
neither the order of the examples nor the batch size, the parallelism or other examples matter. What
a view shows of an image is a window of whole pixels, worked out in such a table, too: computed for
a batch, its roots and exponentials would differ in the last bit with the batch's size.
"""

import math

import numpy as np
import tensorflow as tf

from tfdistill.config import AugmentConfig

# Height and width: of all images, or of each.
Sides = tuple[int, int] | tuple[np.ndarray, np.ndarray]

# Of what views with a crop or a rotation show: to be raised when the same draws give other pixels.
# Part of the keys of caches and of interrupted runs. 1: areas clipped at the sides, resized twice.
VERSION = 2

# A fixed set of columns: switching one augmentation on leaves the draws of the others as they are.
COLUMNS = (
    "crop_y",
    "crop_x",
    "flip",
    "area",  # this and the next one: of version 1
    "aspect",
    "window_y",
    "window_x",
    "angle",
    "cutout_y",
    "cutout_x",
)
_DRAWS, _ORDER, _PARTNERS, _FIRST_WEIGHT, _SECOND_WEIGHT, _CROPS, _ERASING, _CENTRES = range(8)
_STREAMS = 8
# How often the size of a random resized crop is drawn before the centre is taken, and that of a box
# before none is erased.
ATTEMPTS = 10
# Shares of the area, and smallest aspect ratio, of boxes that are erased.
ERASED, ERASED_RATIO = (0.02, 0.4), 0.3
# Columns of a table of windows.
WINDOW = ("top", "left", "height", "width", "flip", "angle")
# Columns of a table of boxes, the last two beyond the box.
BOX = ("top", "left", "bottom", "right")


def draws(seed: int, view: int, num_ids: int) -> tf.Tensor:
    """Return the uniform numbers that decide how a view changes each example.

    Args:
        seed: Of the run.
        view: View number, >= 0; may be a tensor.
        num_ids: Largest id + 1; a larger table begins with the same rows.

    Returns:
        `[num_ids, len(COLUMNS)]` float32 in [0, 1).

    Example:
        >>> draws(seed=0, view=3, num_ids=1000)[17]  # how view 3 changes example 17
    """
    shape = [num_ids, len(COLUMNS)]
    return tf.random.stateless_uniform(shape, _key(seed, view, _DRAWS), alg="philox")


def version(config: AugmentConfig) -> int:
    """Return the version of what views show that are augmented so."""
    return VERSION if config.resized_crop or config.rotation else 1


def windows(seed: int, view: int, num_ids: int, config: AugmentConfig, sides: Sides) -> tf.Tensor:
    """Return the part of its image that a view shows of each example.

    A random resized crop (Szegedy et al. 2015, arXiv 1409.4842, section 6) as it is usual in the
    field: its area is drawn from a range of shares of the image's, its aspect ratio log-uniformly,
    up to ten times until it fits into the image; then the largest centred crop of an allowed ratio
    is taken. Its place is uniform.

    Args:
        seed: Of the run.
        view: View number, >= 0; may be a tensor.
        num_ids: Largest id + 1.
        config: `resized_crop`, `crop_ratio`, `rotation` and `flip`.
        sides: Height and width of the images; of each, `[num_ids]`, where they differ.

    Returns:
        `[num_ids, len(WINDOW)]` float32: top, left, height and width in whole pixels, within the
        image; 1 where the window is mirrored, else 0; and the angle in radians by which it is
        turned around its centre.
    """
    table = draws(seed, view, num_ids)
    high, wide, fits = _crop_sides(seed, view, num_ids, config, sides)
    places = []
    for name, side, length in (("window_y", sides[0], high), ("window_x", sides[1], wide)):
        room = tf.cast(side - length, tf.float64)
        drawn = tf.floor(tf.cast(column(table, name), tf.float64) * (room + 1.0))
        places.append(tf.where(fits, drawn, tf.floor(room / 2)))
    flip = (column(table, "flip") < 0.5) & config.flip
    angle = (2 * column(table, "angle") - 1) * math.radians(config.rotation)
    columns = (*places, high, wide, flip, angle)
    return tf.stack([tf.cast(one, tf.float32) for one in columns], axis=1)


def _crop_sides(
    seed: int, view: int, num_ids: int, config: AugmentConfig, sides: Sides
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return height and width (`[num_ids]` int32), and whether a size that was drawn has fitted."""
    whole = [tf.broadcast_to(tf.constant(side, tf.int32), [num_ids]) for side in sides]
    if not config.resized_crop:
        return *whole, tf.fill([num_ids], True)
    shape = [num_ids, ATTEMPTS, 2]
    uniform = tf.random.stateless_uniform(shape, _key(seed, view, _CROPS), alg="philox")
    # In float64, whose last bit does not reach the rounded numbers.
    uniform = tf.cast(uniform, tf.float64)
    height, width = (np.reshape(side, (-1, 1)).astype(float) for side in sides)
    area = (config.resized_crop + (1 - config.resized_crop) * uniform[..., 0]) * height * width
    ratio = tf.exp((2 * uniform[..., 1] - 1) * math.log(config.crop_ratio))
    wide = tf.cast(tf.round(tf.sqrt(area * ratio)), tf.int32)
    high = tf.cast(tf.round(tf.sqrt(area / ratio)), tf.int32)
    fits = (high > 0) & (high <= whole[0][:, None]) & (wide > 0) & (wide <= whole[1][:, None])
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    any_fits = tf.reduce_any(fits, axis=1)
    largest = _largest(sides, config.crop_ratio)
    high, wide = (
        tf.where(any_fits, tf.gather(drawn, first, axis=1, batch_dims=1), otherwise)
        for drawn, otherwise in zip((high, wide), largest, strict=True)
    )
    return high, wide, any_fits


def _largest(sides: Sides, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Return height and width of the largest window of an aspect ratio of 1 / ratio to ratio."""
    height, width = map(np.asarray, sides)
    high = np.minimum(height, np.rint(width * ratio))
    wide = np.minimum(width, np.rint(height * ratio))
    return high.astype(np.int32), wide.astype(np.int32)


def column(table: tf.Tensor, name: str, columns: tuple[str, ...] = COLUMNS) -> tf.Tensor:
    """Return one column (`[b]`) of a table of draws, or of windows, (`[b, len(columns)]`)."""
    return table[:, columns.index(name)]


def order(seed: int, epoch: int, count: int) -> tf.Tensor:
    """Return the order (`[count]` int64) in which an epoch visits its examples."""
    return _shuffled(_key(seed, epoch, _ORDER), count)


def partners(seed: int, view: int, count: int) -> tf.Tensor:
    """Return the place (`[count]` int64) of the example that each one is mixed with.

    The partner is the next in a random cycle through all of them, so each is partner once.
    """
    cycle = _shuffled(_key(seed, view, _PARTNERS), count)
    return tf.gather(tf.roll(cycle, -1, axis=0), tf.math.invert_permutation(cycle))


def weights(seed: int, view: int, num_ids: int, a: float) -> tf.Tensor:
    """Return the weight (`[num_ids]` float32 in 0.5..1) of each example over its partner.

    It is max(w, 1 - w) of w ~ Beta(a, a).
    """
    weight = _beta(seed, view, num_ids, a)
    return tf.cast(tf.maximum(weight, 1 - weight), tf.float32)


def _beta(seed: int, view: int, num_ids: int, a: float) -> tf.Tensor:
    """Return numbers (`[num_ids]` float64 in 0..1) of Beta(a, a), a quotient of Gamma(a) ones."""
    first, second = (
        tf.random.stateless_gamma([num_ids], _key(seed, view, stream), a, dtype=tf.float64)
        for stream in (_FIRST_WEIGHT, _SECOND_WEIGHT)
    )
    # With a near 0 both may underflow; the limit of Beta(a, a) is then all or nothing.
    return tf.math.divide_no_nan(first, first + second)


def erasing_boxes(
    seed: int, view: int, num_ids: int, probability: float, sides: tuple[int, int]
) -> tf.Tensor:
    """Return the box that random erasing sets to grey in each example.

    Zhong et al. 2017 (arXiv 1708.04896), algorithm 1, its ratio drawn log-uniformly as is usual in
    the field. Boxes are drawn in shares of the sides, so that they lie at the same place of an
    image of any size.

    Args:
        seed: Of the run.
        view: View number, >= 0; may be a tensor.
        num_ids: Largest id + 1.
        probability: That there is one, in 0..1.
        sides: Height and width of what is shown.

    Returns:
        `[num_ids, len(BOX)]` int32, in pixels; all 0 where nothing is erased.
    """
    shape = [num_ids, 3 + 2 * ATTEMPTS]
    uniform = tf.random.stateless_uniform(shape, _key(seed, view, _ERASING), alg="philox")
    uniform = tf.cast(uniform, tf.float64)  # as in `_crop_sides`
    chance, *place = tf.unstack(uniform[:, :3], axis=1)
    area = ERASED[0] + (ERASED[1] - ERASED[0]) * uniform[:, 3::2]
    ratio = tf.exp((1 - 2 * uniform[:, 4::2]) * math.log(ERASED_RATIO))
    lengths = tf.stack([tf.sqrt(area * ratio), tf.sqrt(area / ratio)], axis=2)
    fits = tf.reduce_all(lengths <= 1, axis=2)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    lengths = tf.gather(lengths, first, axis=1, batch_dims=1)
    start = tf.stack(place, axis=1) * (1 - lengths)
    erased = (chance < probability) & tf.reduce_any(fits, axis=1)
    return tf.where(erased[:, None], _in_pixels(start, start + lengths, sides), 0)


def cutmix_boxes(seed: int, view: int, num_ids: int, a: float, sides: tuple[int, int]) -> tf.Tensor:
    """Return the box of each example in which CutMix shows its partner.

    Yun et al. 2019 (arXiv 1905.04899), section 3.1: of the image's aspect ratio and of the share
    1 - w of its area, w ~ Beta(a, a), around a uniform centre; what lies beyond the image is lost.
    Drawn in shares of the sides, as `erasing_boxes`.

    Args:
        seed: Of the run.
        view: View number, >= 0; may be a tensor.
        num_ids: Largest id + 1.
        a: Of the Beta distribution, > 0.
        sides: Height and width of what is shown.

    Returns:
        `[num_ids, len(BOX)]` int32, in pixels.
    """
    centres = tf.random.stateless_uniform([num_ids, 2], _key(seed, view, _CENTRES), alg="philox")
    centres = tf.cast(centres, tf.float64)
    half = tf.sqrt(1 - _beta(seed, view, num_ids, a))[:, None] / 2
    return _in_pixels(tf.maximum(centres - half, 0), tf.minimum(centres + half, 1), sides)


def kept(boxes: tf.Tensor, sides: tuple[int, int]) -> tf.Tensor:
    """Return the share (`[b]` float32) of an image's pixels that lie outside its box."""
    top, left, bottom, right = tf.unstack(boxes, axis=1)
    inside = tf.cast((bottom - top) * (right - left), tf.float64)
    return tf.cast(1 - inside / (sides[0] * sides[1]), tf.float32)


def _in_pixels(start: tf.Tensor, end: tf.Tensor, sides: tuple[int, int]) -> tf.Tensor:
    """Return boxes of their corners `[b, 2]` in shares of the sides, rounded to whole pixels."""
    corners = tf.concat([start, end], axis=1)
    return tf.cast(tf.round(corners * tf.constant([*sides, *sides], tf.float64)), tf.int32)


def _shuffled(key: tf.Tensor, count: int) -> tf.Tensor:
    places = tf.range(count, dtype=tf.int64)
    return tf.random.experimental.stateless_shuffle(places, key, alg="philox")


def _key(seed: int, number: int, stream: int) -> tf.Tensor:
    return tf.stack([tf.cast(seed, tf.int64), _STREAMS * tf.cast(number, tf.int64) + stream])
