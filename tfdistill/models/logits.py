"""The logits of a network that ends in softmax or sigmoid, as most networks of Keras's users do.

Probabilities taken for logits would be softened twice: training shows no error and teaches little.
The last layers are read, and where they end in softmax or sigmoid, its input is the logits: exact,
unlike the logarithm of rounded probabilities.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfdistill.quantization.layers import FakeQuantize
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor

TRIED_SIZE = 32
LINEAR, SOFTMAX, SIGMOID = "linear", "softmax", "sigmoid"
ACTIVATIONS = {LINEAR: lambda logits: logits, SOFTMAX: ops.softmax, SIGMOID: ops.sigmoid}


def final_activation(network: keras.Model) -> str | None:
    """Return what a network's last layers apply to its logits.

    Returns:
        `linear`, `softmax` or `sigmoid`; None where its layers do not tell, as of a subclassed
        model or one that ends in a layer of the user's own.

    Example:
        >>> final_activation(keras.applications.MobileNetV2(weights=None))
        'softmax'
    """
    last = _last(network)
    if isinstance(last, keras.Model):
        return final_activation(last)
    if last is None:
        return None
    # A layer (`Softmax`) and an operation (`keras.ops.softmax`) go by the same name.
    if type(last).__name__.lower() in (SOFTMAX, SIGMOID):
        return type(last).__name__.lower()
    activation = getattr(last, "activation", None)
    if activation is keras.activations.softmax:
        return SOFTMAX
    if activation is keras.activations.sigmoid:
        return SIGMOID
    return LINEAR if _multiplies(last) and activation in (None, keras.activations.linear) else None


def logits_network(network: keras.Model) -> keras.Model:
    """Return a network over the same layers and weights that ends before softmax or sigmoid.

    Args:
        network: A Keras model, `[batch, num_classes]` or more axes in between.

    Returns:
        The same object where it ends in neither, or where its layers do not tell.

    Example:
        >>> teacher = keras.applications.MobileNetV2(weights=None)
        >>> logits_network(teacher)(images)  # its softmax equals teacher(images)
    """
    if final_activation(network) not in (SOFTMAX, SIGMOID):
        return network
    if not network.built:
        raise checks.UsageError(
            f"The size of {network.name}'s images is not known yet. Begin it with a keras.Input."
        )
    last, before = network.outputs[0]._keras_history.operation, _input_of(network.outputs[0])
    if isinstance(last, keras.Model):
        logits = logits_network(last)(before)
    elif _multiplies(last):
        logits = WithoutActivation(last)(before)
    else:
        logits = before
    # What a Sequential calls its input is that of its first layer, maybe in another network.
    inputs = network.inputs[0] if len(network.inputs) == 1 else network.input
    return keras.Model(inputs, logits, name=network.name)


def features_network(network: keras.Model) -> keras.Model:
    """Return a network over the same layers and weights that ends before the last dense layer.

    Args:
        network: A functional or sequential model.

    Returns:
        A model to `[batch, features]`. A network that ends in no dense layer is returned as it is,
        its maps averaged over their positions.

    Raises:
        UsageError: A model whose layers are not known, or whose outputs are no features.

    Example:
        >>> features_network(keras.applications.MobileNetV2(weights=None)).output_shape
        (None, 1280)
    """
    logits = logits_network(network)
    outputs = getattr(logits, "outputs", None)
    if not outputs or len(outputs) != 1:
        raise checks.UsageError(
            "A network is needed whose layers are known: functional or Sequential, with one "
            f"output. Received: {type(network).__name__} {network.name}."
        )
    inputs = logits.inputs[0] if len(logits.inputs) == 1 else logits.input
    features, last = outputs[0], outputs[0]
    while _passes(last):  # MobileNet ends in a convolution and a Reshape
        last = _input_of(last)
    operation = last._keras_history.operation
    if isinstance(operation, keras.Model):
        features = features_network(operation)(_input_of(last))
    elif _multiplies(operation) or isinstance(operation, WithoutActivation):
        features = _input_of(last)
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D()(features)
    if len(features.shape) != 2:
        raise checks.UsageError(
            f"Features must be [batch, features]. Received: {tuple(features.shape)} before the "
            f"last layer of {network.name}."
        )
    return keras.Model(inputs, features, name=network.name)


def gives_probabilities(network: keras.layers.Layer, input_shape: Any = None) -> bool:
    """Return whether a network's outputs for random inputs are probabilities; False if unknown.

    By its outputs, not its last layer: a softmax may be followed by a logarithm, or be an operation
    that is no layer.

    Args:
        network: A model or layer.
        input_shape: Of one input, such as `(height, width, channels)`; None takes the network's.
    """
    shape = getattr(network, "input_shape", None) if getattr(network, "built", False) else None
    shape = shape if input_shape is None else (None, *input_shape)
    if not isinstance(shape, tuple) or len(getattr(network, "inputs", None) or [0]) != 1:
        return False
    sides = [size or TRIED_SIZE for size in shape[1:]]
    inputs = np.random.default_rng(0).integers(0, 256, (8, *sides)).astype("float32")
    try:
        outputs = network(inputs, training=False)
    except (TypeError, ValueError):  # of inputs that are no images
        return False
    return hasattr(outputs, "shape") and look_like_probabilities(outputs)


def last_operation(network: keras.Model) -> Any:
    """Return the layer or operation that makes a network's only output, also of one inside another.

    None where its layers do not tell.
    """
    last: Any = network
    while isinstance(last, keras.Model):
        last = _last(last)
    return last


def look_like_probabilities(outputs: Any) -> bool:
    """Return whether outputs `[n, classes]` are all in 0..1, each row with the sum 1."""
    values = np.asarray(ops.convert_to_numpy(ops.cast(outputs, "float32")))
    in_range = bool((values >= 0).all())
    return in_range and bool((abs(values.sum(axis=-1) - 1) < 1e-3).all())


@keras.saving.register_keras_serializable("tfdistill")
class WithoutActivation(keras.layers.Layer):
    """A layer applied without its activation, with its own weights.

    Args:
        layer: With a kernel and an activation.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        kwargs = {"name": f"{layer.name}_logits", "dtype": layer.dtype_policy, **kwargs}
        super().__init__(**kwargs)
        self.layer = layer

    def call(self, x: Tensor) -> Tensor:
        activation = self.layer.activation
        self.layer.activation = None
        try:
            return self.layer(x)
        finally:
            self.layer.activation = activation

    def get_config(self) -> dict[str, Any]:
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WithoutActivation":
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})


def _last(network: keras.Model) -> Any:
    """Return the operation that makes a network's only output, or None."""
    if isinstance(network, keras.Sequential):
        return network.layers[-1] if network.layers else None
    outputs = getattr(network, "outputs", None)
    if not outputs or len(outputs) != 1:
        return None
    last = outputs[0]
    if isinstance(
        last._keras_history.operation, FakeQuantize
    ):  # which only rounds what it is given
        last = _input_of(last)
    return last._keras_history.operation


def _input_of(output: Tensor) -> Tensor:
    """Return the first input of the operation that makes a symbolic output."""
    history = output._keras_history
    return history.operation._inbound_nodes[history.node_index].input_tensors[0]


def _passes(output: Tensor) -> bool:
    """Return whether an operation hands on the numbers of each class as they are."""
    operation = output._keras_history.operation
    if isinstance(operation, keras.layers.Activation):
        return operation.activation is keras.activations.linear
    if isinstance(operation, (keras.layers.Flatten, keras.layers.Reshape)):
        return output.shape[-1] == _input_of(output).shape[-1]  # of one position
    return isinstance(operation, (keras.layers.Dropout, FakeQuantize))


def _multiplies(operation: Any) -> bool:
    """Return whether an operation is a layer with a kernel, as a classifier's last one."""
    return (
        isinstance(operation, (keras.layers.Dense, keras.layers.EinsumDense))
        or "Conv" in type(operation).__name__
    )
