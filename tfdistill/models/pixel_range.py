"""Pixels as a network expects them: not all were trained on 0..255."""

from collections.abc import Sequence

import keras

FULL = (0.0, 255.0)


def from_pixels(
    network: keras.layers.Layer,
    pixel_range: Sequence[float],
    seen: Sequence[float] = FULL,
    input_shape: Sequence[int | None] | None = None,
) -> keras.Model:
    """Return a network that takes pixels 0..255, and brings them to the range of another first.

    Args:
        network: From images `[batch, height, width, channels]` of the range `seen`.
        pixel_range: What the result expects for 0 and 255.
        seen: What `network` itself takes for 0 and 255.
        input_shape: `(height, width, channels)` of its images; None takes the network's own, which
            a subclassed one does not know.

    Returns:
        The same object where the two ranges are equal.

    Example:
        >>> from_pixels(trained_on_unit_pixels, [0, 1])(images)  # of 0..255
    """
    if tuple(pixel_range) == tuple(seen):
        return network
    low, high = (255.0 * (end - seen[0]) / (seen[1] - seen[0]) for end in pixel_range)
    inputs = keras.Input(input_shape or network.input_shape[1:])
    scaled = keras.layers.Rescaling((high - low) / 255.0, low, dtype="float32")(inputs)
    return keras.Model(inputs, network(scaled), name=network.name)
