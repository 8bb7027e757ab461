"""The network that is converted: batch norm folded, ranges fixed, weights on their grid."""

from typing import Any

import keras
import numpy as np
from keras import layers

from tfdistill.quantization import graph as graphs
from tfdistill.quantization.aware import (
    KNOWN,
    WHAT,
    check_quantized,
    check_ranges,
    folded,
)
from tfdistill.quantization.layers import (
    FIXED,
    QUANTIZED,
    SMALLEST,
    DeployedConv2D,
    FakeQuantize,
    limits,
    rounded,
)
from tfdistill.utils.types import Tensor

FLOAT: dict[type, Any] = {quantized: plain for plain, quantized in QUANTIZED.items()}
BITS: tuple[Any, ...] = tuple(FLOAT)


def deploy(qmodel: keras.Model) -> keras.Model:
    """Return what a trained network computes in inference, in the form that LiteRT converts.

    Batch norm is folded into the layer before it, or becomes a 1x1 depthwise convolution where that
    is none; weights are on their grid; ranges are constants; dropout is gone. `export_network(...,
    ["litert-int8-aware"])` writes its file.

    Args:
        qmodel: What `quantize_aware` returned, trained or calibrated. It is left as it is.

    Returns:
        A functional model of the same inputs and outputs, which differ by rounding errors: a value
        half between two levels may fall on either.

    Raises:
        UsageError: A network that is not of `quantize_aware`, or a range that has collapsed, or
            that was never measured.

    Example:
        >>> deploy(distiller.student)(images)
    """
    model = graphs.functional(qmodel, WHAT)
    check_quantized(model)
    check_ranges(model)
    graph = graphs.read(model, WHAT, {*KNOWN, *BITS, FakeQuantize})
    into = folded(graph)
    norms = {kernel: norm for norm, kernel in into.items()}
    weights: dict[str, list[np.ndarray]] = {}

    def copied(layer: Any) -> keras.Layer:
        config = layer.get_config()
        if isinstance(layer, FakeQuantize):
            return FakeQuantize(layer.bits, FIXED, *layer.range, name=layer.name)
        if isinstance(layer, BITS):
            norm = graph[norms[layer.name]].layer if layer.name in norms else None
            kernel, bias = weights[layer.name] = _weights(layer, norm)
            bits = config.pop("weight_bits")
            config["use_bias"] = True
            if bits == 8 or not isinstance(layer, layers.Conv2D):
                return FLOAT[type(layer)].from_config(config)
            # A bias is a whole number of steps of weight times steps of input, in 32 bits.
            smallest = 127 * np.abs(bias) / (2**30 * _step_before(graph, layer.name))
            limit = limits(kernel, bits, np.maximum(smallest, SMALLEST))
            return DeployedConv2D.from_config(config | {"limit": limit})
        if isinstance(layer, layers.BatchNormalization) and layer.name not in into:
            factor, shift = _factors(layer)
            weights[layer.name] = [factor.reshape(1, 1, -1, 1), shift]
            return layers.DepthwiseConv2D(1, name=layer.name, dtype="float32")
        return type(layer).from_config(config)

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Tensor:
        gone = layer.name in into or isinstance(layer, layers.Dropout)
        return args[0] if gone else layer(*args)

    deployed = keras.models.clone_model(model, clone_function=copied, call_function=call)
    for name, values in weights.items():
        deployed.get_layer(name).set_weights(values)
    return deployed


def _weights(layer: Any, norm: Any) -> list[np.ndarray]:
    """Return the weights of a layer on its grid, times what a batch norm makes of its outputs."""
    kernel = np.asarray(rounded(layer.kernel, layer.weight_bits, layer.axes), "float64")
    channels = [size for axis, size in enumerate(kernel.shape) if axis not in layer.axes]
    factor, shift = _factors(norm) if norm is not None else (1.0, 0.0)
    factor = np.broadcast_to(factor, np.prod(channels))
    bias = np.asarray(layer.bias, "float64") if layer.use_bias else 0.0
    return [kernel * factor.reshape(channels), bias * factor + shift]


def _step_before(graph: graphs.Graph, name: str) -> float:
    """Return the step of the rounded activations that a layer takes."""
    while not isinstance(graph[name].layer, FakeQuantize):
        name = graph[name].inputs[0]
    low, high = graph[name].layer.range
    return (high - low) / (2 ** graph[name].layer.bits - 1)


def _factors(norm: layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Return (factor, shift) of a batch norm in inference, `[channels]` each."""
    mean, variance = (
        np.asarray(each, "float64") for each in (norm.moving_mean, norm.moving_variance)
    )
    factor = 1 / np.sqrt(variance + norm.epsilon)
    factor = factor * np.asarray(norm.gamma, "float64") if norm.scale else factor
    beta = np.asarray(norm.beta, "float64") if norm.center else 0.0
    return factor, beta - mean * factor
