"""A network that sees its images smaller than they are stored: shrunk within it, wherever it runs.

A teacher of 128 pixels and a student of 48 are then taught by the same images, and the student's
export takes what its teacher takes.
"""

from collections.abc import Sequence

import keras
from keras import layers

from tfdistill.utils import checks


def shrinking(network: keras.Model, input_shape: Sequence[int]) -> keras.Model:
    """Return a network over larger images, with the layers and weights of another.

    Blocks of k x k pixels are averaged, k the whole part of the ratio, and what is left is resized
    bilinearly: operations that every runtime has, unlike an antialiased resizing.

    Args:
        network: A functional model from `[batch, size, size, channels]`.
        input_shape: `(height, width, channels)` of the larger images.

    Returns:
        A model from `[batch, height, width, channels]` float32, whose layers keep their names.

    Raises:
        UsageError: Images that are smaller than the network's, or of other proportions.

    Example:
        >>> shrinking(cnn2((48, 48, 3), num_classes=10), (128, 128, 3)).input_shape
        (None, 128, 128, 3)
    """
    size, height, width = network.input_shape[1], *input_shape[:2]
    if height != width or height < size:
        raise checks.UsageError(
            "model.input_size must not be larger than the images, which must be square. Received: "
            f"model.input_size={size} and images of {height} x {width}. Set data.image_size."
        )
    inputs = keras.Input(tuple(input_shape), dtype="float32", name="image")
    factor = height // size
    x = inputs
    if factor > 1:
        x = layers.AveragePooling2D(factor, dtype="float32", name="shrink")(x)
    if x.shape[1] != size:
        x = layers.Resizing(size, size, dtype="float32", name="resize")(x)
    # `call` runs the layers one by one; called as a whole, the network would be one layer.
    return keras.Model(inputs, network.call(x), name=network.name)
