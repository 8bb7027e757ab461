"""Quantisation-aware training: a network that rounds in training where its int8 file will round.

Jacob et al. 2018 (arXiv 1712.05877), section 3. Batch norm is an ordinary layer in training and is
folded at deployment: the rounding of a channel commutes with a factor for that channel, as both
scale with its largest weight.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from tfdistill.quantization import graph as graphs
from tfdistill.quantization.graph import Graph, is_linear, is_relu
from tfdistill.quantization.layers import (
    AVERAGE,
    FIXED,
    LEARNED,
    QUANTIZED,
    FakeQuantize,
    is_quantized,
)
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor

WHAT = "Quantisation"
KERNELS: tuple[Any, ...] = tuple(QUANTIZED)
AT_INPUT = (layers.Normalization, layers.Rescaling)
# Their outputs are values of their input, or 0, or (average pooling) are rounded at its scale.
PASSING = (
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.Flatten,
    layers.Reshape,
    layers.ZeroPadding2D,
    layers.Dropout,
)
ACTIVATIONS = (layers.Activation, layers.ReLU, layers.Softmax)
KNOWN = (
    *KERNELS,
    *AT_INPUT,
    *PASSING,
    *ACTIVATIONS,
    layers.BatchNormalization,
    layers.Add,
    layers.GlobalAveragePooling2D,
)
# What an int8 file computes a ReLU with, in the same operation.
_FUSES = (*KERNELS, layers.BatchNormalization, layers.Add)
_ENDS = (keras.activations.softmax, keras.activations.sigmoid)
PIXELS = 255


def quantize_aware(
    model: keras.Model,
    weight_bits: int = 8,
    activation_bits: int = 8,
    ranges: str = AVERAGE,
    momentum: float = 0.99,
) -> keras.Model:
    """Return a network with a model's weights that rounds weights and activations as int8 does.

    It is trained further as any other, alone or as the student of a `Distiller`; layers keep their
    names. Its range of an activation is known after the first training batch, or after `calibrate`,
    which is better: it sees hundreds of images before anything is rounded.

    The first convolution, the last layer, depthwise kernels, the image and the outputs keep 8 bits.
    A softmax or sigmoid at the end stays in float. Means of pixels are brought to whole numbers, so
    that every pixel is one of the 256 levels of the input.

    Args:
        model: From pixels 0..255, `[batch, height, width, channels]`, in float32, functional or
            Sequential, of Conv2D, DepthwiseConv2D, Dense, BatchNormalization, ReLU, ReLU6, Add,
            max, average and global average pooling, Flatten, Reshape, ZeroPadding2D, Dropout; at
            its input Normalization or Rescaling, with one mean and deviation for all channels. It
            is left as it is.
        weight_bits: 2 to 8, of weights.
        activation_bits: 2 to 8, of activations; LiteRT has none below 8.
        ranges: `average`, a moving average of each batch's smallest and largest activation, or
            `learned`, trained like weights.
        momentum: Of the moving average, in 0..1.

    Returns:
        A functional model of the same inputs and outputs.

    Raises:
        UsageError: A layer that cannot be quantised, mixed precision, a normalisation that cannot
            be folded, or a model that is quantised already; it names the layer.

    Example:
        >>> student = calibrate(quantize_aware(student), images[:500])
        >>> distiller = Distiller(student=student, teacher=teacher)
    """
    checks.bits("weight_bits", weight_bits)
    checks.bits("activation_bits", activation_bits)
    checks.one_of("ranges", ranges, (AVERAGE, LEARNED))
    checks.fraction("momentum", momentum)
    model = graphs.functional(model, WHAT)
    if is_quantized(model):
        raise checks.UsageError(
            f"The network is quantised already. Received: {model.name}. Give the float network "
            "that it was made of, or train this one further."
        )
    graph = graphs.read(model, WHAT, KNOWN)
    _check(graph)
    entrance = _Entrance(graph, model.inputs[0].shape[1:])
    kernels = [name for name, node in graph.items() if isinstance(node.layer, KERNELS)]
    points = _points(graph)

    def copied(layer: Any) -> keras.Layer:
        config = layer.get_config()
        if layer.name == entrance.last:
            return layers.Rescaling(*entrance.affine, name=layer.name, dtype="float32")
        if type(layer) not in QUANTIZED:
            return type(layer).from_config(config)
        whole = layer.name in (kernels[0], kernels[-1]) or type(layer) is layers.DepthwiseConv2D
        config |= {"weight_bits": 8 if whole else weight_bits}
        if layer.activation in _ENDS:
            config["activation"] = "linear"
        return QUANTIZED[type(layer)].from_config(config)

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Tensor:
        if layer.name in entrance.dropped:
            return args[0]
        if not entrance.chain and entrance.name in graph[layer.name].inputs:
            args = keras.tree.map_structure(entrance.rounded, args)
        x = layer(*args, **kwargs)
        if layer.name == entrance.last:
            return entrance.point(x)
        if layer.name in points:
            ends = layer.name == last
            bits = 8 if ends else activation_bits
            x = FakeQuantize(bits, ranges, momentum=momentum, name=f"{layer.name}_range")(x)
        before: Any = graph[layer.name].layer
        if isinstance(before, KERNELS) and before.activation in _ENDS:
            x = layers.Activation(before.activation, name=f"{layer.name}_activation")(x)
        return x

    last = _last_point(graph)
    quantized = keras.models.clone_model(model, clone_function=copied, call_function=call)
    for name, node in graph.items():
        if node.layer.weights and name not in entrance.chain:
            quantized.get_layer(name).set_weights(node.layer.get_weights())
    return quantized


def calibrate(qmodel: keras.Model, images: Any, batch_size: int = 32) -> keras.Model:
    """Set each range of a network to the smallest and the largest value over some images.

    Nothing is rounded while they are measured but the weights; batch norm and dropout are as in
    inference.

    Args:
        qmodel: What `quantize_aware` returned.
        images: `[k, height, width, channels]`, pixels 0..255, of the training set; some hundreds.
        batch_size: Images at a time.

    Returns:
        The same object.

    Raises:
        UsageError: No images, pixels of another range, or a layer whose outputs are all 0, infinite
            or NaN; the ranges then are what they were.

    Example:
        >>> student = calibrate(quantize_aware(student), images[:500])
    """
    check_quantized(qmodel)
    images = _checked_images(images, qmodel.input_shape)
    points = {layer.name: layer for layer in qmodel.layers if isinstance(layer, FakeQuantize)}
    measured = [layer for layer in points.values() if layer.ranges != FIXED]
    before = [layer.get_weights() for layer in measured]
    for layer in measured:
        layer.set_range(0.0, 0.0)  # not known: nothing is rounded
    taps = keras.Model(qmodel.inputs[0], [layer.input for layer in measured])
    starts = range(0, len(images), checks.count("batch_size", batch_size))
    # Of a list of one output a model returns the output alone.
    batches = [
        keras.tree.flatten(taps(images[at : at + batch_size], training=False)) for at in starts
    ]
    found = np.array([[(np.min(x), np.max(x)) for x in map(np.asarray, each)] for each in batches])
    low, high = np.minimum(found[..., 0].min(0), 0), np.maximum(found[..., 1].max(0), 0)
    for place, layer in enumerate(measured):
        layer.set_range(low[place], high[place])
    try:
        check_ranges(qmodel)
    except checks.UsageError:
        for layer, weights in zip(measured, before, strict=True):
            layer.set_weights(weights)
        raise
    return qmodel


def _checked_images(images: Any, input_shape: Sequence[int | None]) -> np.ndarray:
    images = np.asarray(images)
    sides = zip(images.shape[1:], input_shape[1:], strict=False)
    fits = images.ndim == len(input_shape) and all(want in (None, side) for side, want in sides)
    wanted = "calibrate takes images of the training set, [k, height, width, channels], in 0..255"
    if not fits or not len(images) or images.dtype.kind not in "uif":
        raise checks.UsageError(
            f"{wanted}. Received: {images.dtype} {list(images.shape)} for a network of "
            f"{list(input_shape[1:])}. Give some hundreds."
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and 1 < high <= PIXELS):
        raise checks.UsageError(
            f"{wanted}. Received: pixels from {low:g} to {high:g}. Give them as they are stored; a "
            "network of other pixels needs keras.layers.Rescaling at its input."
        )
    return images


def check_quantized(qmodel: Any) -> None:
    """Raise unless a network is one of `quantize_aware`."""
    if not is_quantized(qmodel):
        name = getattr(qmodel, "name", type(qmodel).__name__)
        raise checks.UsageError(
            f"A network of quantize_aware is needed. Received: {name}, which has no trained "
            "ranges. Give quantize_aware(network), trained or calibrated; a float network is "
            "exported as litert-int8."
        )


class CollapsedError(checks.UsageError):
    """A layer gives the same value for all images, or NaN, so that it has no range."""


def check_ranges(qmodel: keras.Model) -> None:
    """Raise `CollapsedError` if the range of a layer is not known, empty, infinite or NaN."""
    for layer in qmodel.layers:
        if isinstance(layer, FakeQuantize):
            low, high = layer.range
            if not (np.isfinite(low) and np.isfinite(high) and high - low > 0):
                raise CollapsedError(
                    f"The range of {layer.name.removesuffix('_range')} has collapsed, or no image "
                    f"was seen yet. Received: {low:g} to {high:g}. Give calibrate images of pixels "
                    "0..255, or train a network whose layers do not all give 0."
                )


def folded(graph: Graph) -> dict[str, str]:
    """Return by name of each batch norm that is folded the layer into which it goes."""
    found = {}
    for name, node in graph.items():
        if isinstance(node.layer, layers.BatchNormalization):
            before = graph[node.inputs[0]]
            # One with an activation or with other users gives what is not normalised.
            linear = isinstance(before.layer, KERNELS) and is_linear(before.layer)
            if linear and before.users == [name]:
                found[name] = node.inputs[0]
    return found


class _Entrance:
    """The normalisation at a network's input, as an exact map of pixels to 256 levels.

    Attributes:
        name: Of the input.
        chain: Names of the layers that normalise.
        affine: (scale, offset) of pixels.
    """

    def __init__(self, graph: Graph, shape: Sequence[int]):
        self.name = node = next(iter(graph))
        self.chain: list[str] = []
        while len(graph[node].users) == 1:
            node = graph[node].users[0]
            if not isinstance(graph[node].layer, AT_INPUT):
                break
            self.chain.append(node)
        for name, one in graph.items():
            if isinstance(one.layer, AT_INPUT) and name not in self.chain:
                raise graphs.refusal(
                    WHAT, one.layer, "which is not at the input", "Normalise the image alone."
                )
        scale, zero = _map([graph[name].layer for name in self.chain], shape)
        self.affine = scale, -scale * zero
        self._range = -scale * zero, scale * (PIXELS - zero)
        self._point: FakeQuantize | None = None
        self._output: Any = None

    @property
    def last(self) -> str | None:
        return self.chain[-1] if self.chain else None

    @property
    def dropped(self) -> list[str]:
        return self.chain[:-1]

    def point(self, x: Tensor) -> Tensor:
        """Return the rounded image, once."""
        if self._output is None:
            low, high = self._range
            point = FakeQuantize(8, FIXED, low, high, name=f"{self.last or self.name}_range")
            self._output = point(x)
        return self._output

    def rounded(self, x: Any) -> Any:
        """Return the rounded image for the image, and anything else as it is."""
        made_by = getattr(getattr(x, "_keras_history", None), "operation", None)
        return self.point(x) if isinstance(made_by, layers.InputLayer) else x


def _map(chain: Sequence[keras.Layer], shape: Sequence[int]) -> tuple[float, int]:
    """Return (scale, zero) of a normalisation as scale * (pixel - zero), zero a whole number."""
    ends = np.stack([np.zeros((1, 1, shape[-1])), np.full((1, 1, shape[-1]), PIXELS)])
    for layer in chain:
        ends = np.asarray(layer(ends.astype("float32")), "float64")
    black, white = ends.reshape(2, -1)
    scale = (white - black) / PIXELS
    with np.errstate(all="ignore"):
        zero = -black / scale
    alike = np.ptp(scale) <= 1e-5 * abs(scale[0]) and np.ptp(zero) <= 1e-2
    if not (alike and np.isfinite(zero).all() and scale[0] > 0 and -0.5 <= zero[0] <= PIXELS + 0.5):
        raise graphs.refusal(
            WHAT,
            chain[-1],
            "which cannot be folded into pixels of 8 bits: that takes one mean in 0..255 and one "
            "deviation for all channels",
            "Give the network one mean and std, as data.normalize: [0.5, 0.25], or raw pixels.",
        )
    return float(scale[0]), int(np.clip(np.round(zero[0]), 0, PIXELS))


def _points(graph: Graph) -> set[str]:
    """Return the names of the layers whose outputs the int8 file rounds."""
    into = folded(graph)
    points = set()
    for name, node in graph.items():
        layer = node.layer
        if isinstance(layer, (*PASSING, *AT_INPUT, layers.InputLayer)):
            continue
        if isinstance(layer, ACTIVATIONS) and not is_relu(layer):
            continue
        if len(node.users) == 1:
            user = node.users[0]
            fused = isinstance(layer, _FUSES) and is_linear(layer) and is_relu(graph[user].layer)
            if into.get(user) == name or fused:
                continue
        points.add(name)
    return points


def _last_point(graph: Graph) -> str:
    """Return the name of the point behind which nothing is rounded any more."""
    points = _points(graph)
    return [name for name in graph if name in points][-1]


def _check(graph: Graph) -> None:
    *_, end = graph
    into = folded(graph)
    for name, node in graph.items():
        layer = node.layer
        why = _fault(layer, len(node.shapes[0]), ends=name == end)
        if len(node.inputs) > 2:
            why = f"of {len(node.inputs)} inputs", "Add two at a time."
        flat = isinstance(layer, layers.BatchNormalization) and len(node.shapes[0]) != 4
        if flat and name not in into:
            why = "which follows no layer that takes it in", "Put it right behind a Dense layer."
        if why:
            raise graphs.refusal(WHAT, layer, *why)
    if not any(isinstance(node.layer, KERNELS) for node in graph.values()):
        raise checks.UsageError(
            f"{WHAT} needs a convolution or a dense layer. Received: a network of "
            f"{', '.join(graph)}. Give a network with weights."
        )


def _fault(layer: keras.Layer, rank: int, ends: bool) -> tuple[str, str] | None:
    """Return why a layer of a known class cannot be quantised, and what to do."""
    if isinstance(layer, layers.InputLayer):
        return None
    if layer.compute_dtype != "float32" or layer.variable_dtype != "float32":
        return (
            f"which computes in {layer.compute_dtype}",
            "Build the network under keras.config.set_dtype_policy('float32').",
        )
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return "whose weights Keras has quantised or split", "Give the float network."
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return "with channels first", "Build the network with channels last."
    if getattr(layer, "groups", 1) != 1:
        return "a convolution of groups", "Use DepthwiseConv2D, or groups=1."
    if isinstance(layer, layers.Dense) and rank != 2:
        return "between positions", "Flatten before it, or use a 1x1 Conv2D."
    if isinstance(layer, layers.BatchNormalization) and layer.axis not in (-1, rank - 1):
        return "over another axis than the last", "Normalise channels."
    activation = getattr(layer, "activation", None)
    if isinstance(layer, layers.Softmax) or activation in _ENDS:
        return (
            None if ends else ("which is not the last", "Use softmax or sigmoid at the end alone.")
        )
    if isinstance(layer, layers.ReLU) and not is_relu(layer):
        return "a ReLU other than ReLU and ReLU6", "Use ReLU(), or ReLU(max_value=6)."
    if activation not in (*graphs.LINEAR, *graphs.RELUS):
        return (
            f"with the activation {_name(activation)}",
            "Use activation='relu', 'relu6' or none.",
        )
    return None


def _name(activation: Any) -> str:
    return getattr(activation, "__name__", type(activation).__name__)
