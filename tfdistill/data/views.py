"""The random numbers of a view: pure functions of (seed, view number, example id).

Each comes from a counter-based generator (Philox), drawn as one table and looked up by id, so
neither the order of the examples nor the batch size, the parallelism or other examples matter.
"""

import tensorflow as tf

# A fixed set of columns: switching one augmentation on leaves the draws of the others as they are.
COLUMNS = (
    "crop_y",
    "crop_x",
    "flip",
    "area",
    "aspect",
    "window_y",
    "window_x",
    "angle",
    "cutout_y",
    "cutout_x",
)
_DRAWS, _ORDER, _PARTNERS, _FIRST_WEIGHT, _SECOND_WEIGHT = range(5)
_STREAMS = 8


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


def column(table: tf.Tensor, name: str) -> tf.Tensor:
    """Return one column (`[b]`) of a table of draws (`[b, len(COLUMNS)]`)."""
    return table[:, COLUMNS.index(name)]


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

    It is max(w, 1 - w) of w ~ Beta(a, a), which is a quotient of two Gamma(a) numbers.
    """
    first, second = (
        tf.random.stateless_gamma([num_ids], _key(seed, view, stream), a, dtype=tf.float64)
        for stream in (_FIRST_WEIGHT, _SECOND_WEIGHT)
    )
    # With a near 0 both may underflow; the limit of Beta(a, a) is then all or nothing.
    weight = tf.math.divide_no_nan(first, first + second)
    return tf.cast(tf.maximum(weight, 1 - weight), tf.float32)


def _shuffled(key: tf.Tensor, count: int) -> tf.Tensor:
    places = tf.range(count, dtype=tf.int64)
    return tf.random.experimental.stateless_shuffle(places, key, alg="philox")


def _key(seed: int, number: int, stream: int) -> tf.Tensor:
    return tf.stack([tf.cast(seed, tf.int64), _STREAMS * tf.cast(number, tf.int64) + stream])
