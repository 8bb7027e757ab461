"""Which layer of a network takes the output of which: for what rebuilds it layer by layer."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import layers

from tfdistill.utils import checks
from tfdistill.utils.types import Shape

RELUS = (keras.activations.relu, keras.activations.relu6)
LINEAR = (None, keras.activations.linear)


@dataclass(frozen=True)
class Node:
    """A layer in its network.

    Args:
        layer: The layer.
        inputs: Names of the layers whose outputs it takes, in its order.
        shapes: Of what it takes, with the batch; a layer that other networks use, too, has several.
        users: Names of the layers that take its output.
    """

    layer: keras.Layer
    inputs: tuple[str, ...]
    shapes: tuple[Shape, ...]
    users: list[str] = field(default_factory=list)


Graph = dict[str, Node]


def functional(model: keras.Model, what: str) -> keras.Model:
    """Return a model over the same layers, functional and not compiled.

    Args:
        model: A functional model, or a Sequential whose images have a known shape.
        what: What it is needed for, for the message: `Quantisation`.

    Raises:
        UsageError: A model without layers in a graph, or of several inputs or outputs.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise checks.UsageError(
            f"{what} needs a functional Keras model, or a Sequential with a keras.Input. "
            f"Received: {type(model).__name__}. Build the network from its layers."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise checks.UsageError(
            f"{what} needs a network of one input and one output. Received: {model.name} with "
            f"{len(model.inputs)} and {len(model.outputs)}. Give keras.Model(input, output)."
        )
    output = model.outputs[0]
    made = output._keras_history
    before = made.operation._inbound_nodes[made.node_index].input_tensors
    # What is read of a file ends in a cast to what it is already.
    if type(made.operation).__name__ == "Cast" and before[0].dtype == output.dtype:
        output = before[0]
    return keras.Model(model.inputs[0], output, name=model.name)


def read(model: keras.Model, what: str, known: Collection[type]) -> Graph:
    """Return the layers of a functional model by name, each after those that it needs.

    Args:
        model: What `functional` returned.
        what: What it is needed for, for the message.
        known: Classes of layers that are understood, beside the input.

    Raises:
        UsageError: A layer of another class, an operation that is no layer, or a layer that is
            used twice; it is named.
    """
    graph: Graph = {}
    makers: dict[int, str] = {}
    entrance = model.inputs[0]._keras_history.operation
    graph[entrance.name] = Node(entrance, (), (tuple(model.inputs[0].shape),))

    def note(copy: "_StandIn", *args: Any, **kwargs: Any) -> Any:
        layer = copy.layer
        _check_known(layer, what, known)
        if layer.name in graph:
            raise checks.UsageError(
                f"{what} needs each layer to be used once. Received: {layer.name}, used twice. "
                "Give each place a layer of its own."
            )
        given = keras.tree.flatten((args, kwargs))
        tensors = [each for each in given if isinstance(each, keras.KerasTensor)]
        # What no layer before has made is the image.
        inputs = tuple(makers.get(id(each), entrance.name) for each in tensors)
        for name in inputs:
            graph[name].users.append(layer.name)
        graph[layer.name] = Node(layer, inputs, tuple(tuple(each.shape) for each in tensors))
        output = copy(*args, **kwargs)
        makers[id(output)] = layer.name
        kept.append(output)
        return output

    kept: list[Any] = []  # else another tensor could have the id of one that is gone
    keras.models.clone_model(model, clone_function=_StandIn, call_function=note)
    return graph


def is_linear(layer: keras.Layer) -> bool:
    """Return whether a layer applies no activation to what it computes."""
    return getattr(layer, "activation", None) in LINEAR


def is_relu(layer: keras.Layer) -> bool:
    """Return whether a layer is a ReLU, or a ReLU6, and nothing else."""
    if isinstance(layer, layers.Activation):
        return layer.activation in RELUS
    if isinstance(layer, layers.ReLU):
        slope, start = float(layer.negative_slope), float(layer.threshold)
        return slope == start == 0 and layer.max_value in (None, 6)
    return False


def refusal(what: str, layer: keras.Layer, why: str, instead: str) -> checks.UsageError:
    """Return the error of a layer that is not understood.

    Args:
        what: What it is needed for.
        layer: The layer.
        why: `which ...`.
        instead: What to do, a sentence.
    """
    shown = f"{layer.name} ({type(layer).__name__})"
    return checks.UsageError(f"{what} cannot take the layer {shown}, {why}. {instead}")


def _check_known(layer: Any, what: str, known: Collection[type]) -> None:
    # A subclass may compute something else.
    if type(layer) in known:
        return
    if isinstance(layer, keras.Model):
        why, instead = "a network within the network", "Build one network of the layers of both."
    elif not isinstance(layer, keras.Layer):
        why, instead = "an operation that is no layer", "Use the layer for it, as keras.layers.Add."
    else:
        names = sorted(kind.__name__ for kind in known)
        why, instead = "which it does not know", f"Build the network of: {', '.join(names)}."
    raise refusal(what, layer, why, instead)


class _StandIn(keras.Operation):
    """An operation that only passes on the shape of a layer's output."""

    def __init__(self, layer: Any):
        super().__init__(name=layer.name)
        self.layer = layer

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, **kwargs)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer(*args, **kwargs)
