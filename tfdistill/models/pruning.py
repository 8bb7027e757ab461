"""Networks of fewer channels: whole channels go, with all weights that make or take them.

Channels that are added to each other must fall together, so that all blocks of a residual stage
share one set, and the inside of a block has its own. A channel is scored by the L1 norm of its
kernel (Li et al. 2017, arXiv 1608.08710), times what its batch norm makes of it.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import layers

from tfdistill.quantization import graph as graphs
from tfdistill.quantization.graph import Graph, Node
from tfdistill.utils import checks

WHAT = "Pruning"
MAKES = (layers.Conv2D, layers.Dense)
PASSES = (
    layers.DepthwiseConv2D,
    layers.BatchNormalization,
    layers.Activation,
    layers.ReLU,
    layers.Dropout,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.GlobalAveragePooling2D,
    layers.ZeroPadding2D,
    layers.Flatten,
    layers.Normalization,
    layers.Rescaling,
    layers.Softmax,
)
FOLDED, KERNEL = SCORES = ("folded", "kernel")


def prune(model: keras.Model, keep: float, score: str = FOLDED, multiple: int = 8) -> keras.Model:
    """Return a network of a part of a model's channels, with their weights.

    Of each set of channels that must fall together those of the highest score are kept. The image's
    channels and the outputs are all kept. What the network has lost is to be learned again, as by
    the student of a `Distiller`; prune before `quantize_aware`.

    Args:
        model: Functional or Sequential, of Conv2D, Dense, DepthwiseConv2D, BatchNormalization, ReLU
            and other activations that are 0 at 0, pooling, Flatten, ZeroPadding2D, Dropout, Add,
            and at its input Normalization or Rescaling. It is left as it is.
        keep: Share of the channels of each set that is kept, in 0..1, above 0.
        score: `folded`, the L1 norm of a channel's kernel times |gamma| / sigma of its batch norm,
            or `kernel`, without the batch norm.
        multiple: The number that is kept is the nearest multiple of it; kernels for phones and
            microcontrollers compute in blocks of 8.

    Returns:
        A functional model of the same inputs and outputs; its layers have the names of the model's.

    Raises:
        UsageError: A layer that is not understood, or that would be left empty; it is named.

    Example:
        >>> student = prune(wide, keep=0.5)
        >>> Distiller(student=student, teacher=wide)
    """
    checks.fraction("keep", keep)
    checks.one_of("score", score, SCORES)
    checks.count("multiple", multiple)
    model = graphs.functional(model, WHAT)
    graph = graphs.read(model, WHAT, (*MAKES, *PASSES, layers.Add))
    channels = _Channels(graph)
    masks = {}
    for group, makers in channels.makers.items():
        scores = sum(_score(graph, name, score) for name in makers)
        masks[group] = _kept(makers, scores, keep, multiple)

    def mask(name: str) -> Any:
        """Return which outputs of a layer are kept: all, or a boolean for each."""
        kept = masks.get(channels.group(name))
        return slice(None) if kept is None else np.tile(kept, channels.positions[name])

    def copied(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        kept = masks.get(channels.group(layer.name))
        if isinstance(layer, MAKES) and kept is not None:
            config["filters" if isinstance(layer, layers.Conv2D) else "units"] = int(kept.sum())
        return type(layer).from_config(config)

    pruned = keras.models.clone_model(model, clone_function=copied)
    for name, node in graph.items():
        if node.layer.weights:
            values = _sliced(node.layer, mask(node.inputs[0]), mask(name))
            pruned.get_layer(name).set_weights(values)
    return pruned


class _Channels:
    """Which layers' output channels must fall together.

    Attributes:
        makers: By group that may lose channels, the layers that make them.
        positions: By layer, how often its channels stand in its last axis: above 1 behind Flatten.
    """

    def __init__(self, graph: Graph):
        self._above: dict[str, str] = {name: name for name in graph}
        self.positions: dict[str, int] = {}
        first, *_, last = graph
        for name, node in graph.items():
            _check(node)
            before = [] if isinstance(node.layer, (*MAKES, layers.InputLayer)) else node.inputs
            for other in before:
                self._above[self.group(name)] = self.group(other)
            self.positions[name] = max((self.positions[other] for other in before), default=1)
            if isinstance(node.layer, layers.Flatten):
                self.positions[name] *= math.prod(size or 1 for size in node.shapes[0][1:-1])
        whole = {self.group(first), self.group(last)}
        self.makers: dict[str, list[str]] = {}
        for name, node in graph.items():
            if self.group(name) in whole:
                continue
            if _at_zero(node.layer) != 0:
                raise graphs.refusal(
                    WHAT, node.layer, "whose activation is not 0 at 0", "Use relu or silu."
                )
            if isinstance(node.layer, MAKES):
                self.makers.setdefault(self.group(name), []).append(name)

    def group(self, name: str) -> str:
        """Return the layer that stands for all whose channels fall with those of this one."""
        while self._above[name] != name:
            name = self._above[name]
        return name


def _check(node: Node) -> None:
    layer, rank = node.layer, len(node.shapes[0])
    norm = isinstance(layer, layers.BatchNormalization)
    faults = [
        (
            getattr(layer, "data_format", "channels_last") == "channels_first",
            "with channels first",
            "Build the network with channels last.",
        ),
        (getattr(layer, "groups", 1) != 1, "a convolution of groups", "Use groups=1."),
        (
            getattr(layer, "depth_multiplier", 1) != 1,
            "which makes several channels of one",
            "Use depth_multiplier=1.",
        ),
        (
            isinstance(layer, layers.Dense) and rank != 2,
            "between positions",
            "Flatten before it, or use a 1x1 Conv2D.",
        ),
        (len(set(node.shapes)) > 1, "which repeats one of its inputs", "Add tensors of one shape."),
        (
            norm and layer.axis not in (-1, rank - 1),
            "over another axis than the last",
            "Normalise channels.",
        ),
    ]
    for there, why, instead in faults:
        if there:
            raise graphs.refusal(WHAT, layer, why, instead)


def _at_zero(layer: keras.Layer) -> float:
    """Return what a layer's activation makes of a channel of zeros; NaN of a Softmax."""
    if isinstance(layer, layers.Softmax):
        return math.nan
    if isinstance(layer, layers.ReLU):
        return float(keras.ops.convert_to_numpy(layer(np.zeros((1, 1), "float32"))).item())
    activation = getattr(layer, "activation", None)
    if activation is None:
        return 0.0
    return float(keras.ops.convert_to_numpy(activation(keras.ops.zeros((1, 2))))[0, 0])


def _score(graph: Graph, name: str, score: str) -> np.ndarray:
    """Return how much each output channel of a layer does, with mean square 1."""
    kernel = np.asarray(graph[name].layer.kernel, "float64")
    found = np.abs(kernel).reshape(-1, kernel.shape[-1]).sum(axis=0)
    users = graph[name].users
    norm = graph[users[0]].layer if len(users) == 1 else None
    if score == FOLDED and isinstance(norm, layers.BatchNormalization):
        gamma = np.abs(np.asarray(norm.gamma, "float64")) if norm.scale else 1.0
        found = found * gamma / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    return found / max(float(np.sqrt(np.mean(found**2))), 1e-30)


def _kept(makers: list[str], scores: Any, keep: float, multiple: int) -> np.ndarray:
    """Return which channels of a group are kept, `[channels]` bool."""
    count = len(scores)
    number = min(count, multiple * math.floor(keep * count / multiple + 0.5))
    number = count if keep == 1 else number
    if number == 0:
        raise checks.UsageError(
            f"{WHAT} would leave the layer {makers[0]} empty. Received: keep={keep:g} of its "
            f"{count} channels, in multiples of {multiple}. Raise keep, or lower multiple."
        )
    kept = np.zeros(count, bool)
    kept[np.argsort(-scores, kind="stable")[:number]] = True
    return kept


def _sliced(layer: keras.Layer, inputs: Any, outputs: Any) -> list[np.ndarray]:
    """Return a layer's weights for the channels that are kept."""
    values = layer.get_weights()
    if isinstance(layer, layers.Normalization):
        return values
    if isinstance(layer, layers.DepthwiseConv2D):
        return [values[0][:, :, inputs], *(value[outputs] for value in values[1:])]
    if isinstance(layer, MAKES):
        kernel, *bias = values
        return [kernel[..., inputs, :][..., outputs], *(value[outputs] for value in bias)]
    return [value[outputs] for value in values]
