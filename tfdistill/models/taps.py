"""Inner activations of a network, for losses that compare more than logits."""

import keras

from tfdistill import checks


def tap(model, layer_names) -> keras.Model:
    """Return a model over the same layers that gives `(logits, [activations])`.

    Args:
        model: A functional Keras model.
        layer_names: Names of its layers, such as `features`.

    Raises:
        UsageError: A model that is not functional, or a layer that it does not have.

    Example:
        >>> logits, (features,) = tap(network, ["features"])(images)
    """
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise checks.UsageError(
            "Feature losses need a functional Keras model. "
            f"Received: {type(model).__name__} without inputs."
        )
    known = [layer.name for layer in model.layers]
    for name in layer_names:
        checks.one_of("layer", name, known)
    outputs = [model.get_layer(name).output for name in layer_names]
    return keras.Model(inputs, (model.output, outputs))
