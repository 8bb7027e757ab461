"""How much a network computes: 2 x multiply-adds of its convolutions and dense layers.

Batch norm, activations, pooling and biases, together a few percent, are left out, as in the tables
of papers; a paper that counts multiply-adds as one operation gives half of these figures.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from tfdistill.utils.types import Tensor


def flops(model: keras.Model, input_shape: Sequence[int]) -> int:
    """Return the floating-point operations of one forward pass of one image.

    A convolution's kernel of n weights applied at p positions counts 2 n p, a dense layer likewise.
    Models inside the model and the members of an ensemble are counted.

    Args:
        model: A functional or sequential Keras model, or one that has such `members`.
        input_shape: `(height, width, channels)` of its images.

    Returns:
        A whole number; layers of which nothing is known, such as a SavedModel's, count 0.

    Example:
        >>> flops(resnet((32, 32, 3), 10), (32, 32, 3)) / 1e9
        1.11
    """
    if hasattr(model, "members"):
        return sum(flops(member, input_shape) for member in model.members)
    if not getattr(model, "inputs", None):
        return 0
    counts: list[int] = []
    images = keras.Input(input_shape, dtype=model.inputs[0].dtype)
    # Stand-ins walk the model's graph at this size, without new weights and without touching it.
    if isinstance(model, keras.Sequential):
        for layer in model.layers:
            images = _StandIn(layer, counts)(images)
        return sum(counts)
    images = keras.tree.map_structure(lambda _: images, model.input)
    keras.models.clone_model(model, images, clone_function=lambda layer: _StandIn(layer, counts))
    return sum(counts)


class _StandIn(keras.Operation):
    """An operation that only passes on the shape of a layer's output, and notes its cost."""

    def __init__(self, layer: keras.Layer, counts: list[int]):
        super().__init__(name=layer.name)
        self._cost = lambda *shapes: counts.append(_cost(layer, *shapes))
        self._output = layer.compute_output_spec

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        output = self._output(*args, **kwargs)
        self._cost(args[0] if args else None, output)
        return output


def _cost(layer: keras.Layer, images: Tensor, output: Any) -> int:
    if isinstance(layer, keras.Model):
        return flops(layer, images.shape[1:])
    if isinstance(layer, layers.Dense):
        return 2 * math.prod(layer.kernel.shape) * math.prod(output.shape[1:-1])
    if isinstance(layer, layers.Conv2DTranspose):
        return 2 * math.prod(layer.kernel.shape) * _positions(layer, images)
    if isinstance(layer, layers.SeparableConv2D):
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        return sum(2 * math.prod(kernel.shape) for kernel in kernels) * _positions(layer, output)
    if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
        return 2 * math.prod(layer.kernel.shape) * _positions(layer, output)
    return 0


def _positions(layer: keras.Layer, tensor: Any) -> int:
    channels_last = layer.data_format == "channels_last"
    return math.prod(tensor.shape[1:-1] if channels_last else tensor.shape[2:])
