"""Inner activations of a network, for losses that compare more than logits.

Every network of this family has a layer `features`: its last feature map, before pooling or
flattening (the hint layers of Romero et al., arXiv 1412.6550; the maps of Tung & Mori, ICCV 2019).
"""

from collections.abc import Sequence

import keras

from tfdistill.utils import checks


def tap(model: keras.Model, layer_names: Sequence[str]) -> keras.Model:
    """Return a model over the same layers that gives `(logits, [activations])`.

    Args:
        model: A functional Keras model, or a Sequential whose images have a known shape.
        layer_names: Names of its layers, such as `features`.

    Returns:
        A model that shares the layers and weights of `model`; activations are in the order of
        `layer_names`, each with the shape of its layer's output,
        such as `[batch, height, width, channels]`.

    Raises:
        UsageError: A model that is not functional, or a layer that it does not have.

    Example:
        >>> network = cnn2((32, 32, 3), num_classes=10)
        >>> logits, (features,) = tap(network, ["features"])(images)
        >>> features.shape
        (128, 8, 8, 64)
    """
    # What a Sequential is made of once the shape of its images is known.
    functional = getattr(model, "_functional", None) or model
    if not isinstance(functional, keras.Model) or not getattr(functional, "inputs", None):
        raise checks.UsageError(
            "Feature losses need a functional Keras model, or a Sequential with a keras.Input. "
            f"Received: {type(model).__name__} without inputs."
        )
    known = [layer.name for layer in model.layers]
    for name in layer_names:
        checks.one_of(f"layer of {model.name}", name, known)
    # Not `layer.output`: a layer that other networks use too has several.
    nodes = [node for depth in functional._nodes_by_depth.values() for node in depth]
    found = {node.operation.name: node.outputs[0] for node in nodes}
    outputs = [found[name] for name in layer_names]
    inputs = functional.inputs if len(functional.inputs) > 1 else functional.inputs[0]
    # A list of one would make Keras warn about the structure at every call.
    return keras.Model(inputs, (functional.outputs[0], outputs))
