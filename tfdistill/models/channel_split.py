"""A fresh network on top of some channels of a trained one, whose lower part stays as it is.

The channel split of Allen-Zhu & Li (arXiv 2012.09816, their table of split channels): if the
channels of an inner layer hold many views of an image, then networks that see disjoint parts of
them are nearly as good as a network that sees them all, and differ enough to gain as an ensemble.
"""

import re
from typing import Any

import keras

from tfdistill.utils import checks
from tfdistill.utils.types import Tensor


def split_upper(network: keras.Model, layer: str, parts: int, part: int) -> keras.Model:
    """Return `network` with all above `layer` new, on one of `parts` parts of its channels.

    With g the layers of `network` up to `layer`, of c channels, and n = `parts`, the result is
    h(g(x)[..., part c/n : (part + 1) c/n]). g is a copy that is not trained and runs in inference
    mode: batch norm keeps its statistics and nothing is dropped out. h has the architecture of the
    layers above, with initial weights that the seed in force decides (`set_random_seed`).

    Args:
        network: A trained functional model from images to logits; it is left as it is.
        layer: Name of its layer that is cut, whose output is `[batch, height, width, c]`.
        parts: Number n of disjoint parts, a divisor of c; 1 keeps all channels.
        part: The part that is kept, in 0..parts - 1.

    Returns:
        A functional model of the same images and logits; its layers have the names of `network`'s.

    Raises:
        UsageError: No such feature map, parts that do not divide its channels, a part outside
            0..parts - 1, or a layer that a shortcut skips or whose channels a shortcut keeps.

    Example:
        >>> base = wide_resnet((32, 32, 3), 100, depth=28, factor=2)  # stage1 has 32 channels
        >>> upper = split_upper(base, "stage1", parts=4, part=3)  # channels 24..31
        >>> upper(images).shape
        (128, 100)
    """
    cut = _feature_map(network, layer)
    channels = _share(cut.shape[-1], layer, parts, part)
    above = _layers_above(network, layer, cut)

    def copy(original: keras.Layer) -> keras.Layer:
        return _fresh(original) if original.name in above else _same(original)

    def call(copied: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if isinstance(copied, keras.layers.Dropout) and copied.name not in above:
            return args[0]  # a Functional model would switch it on in training, frozen or not
        if copied.name in above and not _takes(network.get_layer(copied.name), args):
            raise _refusal(network, layer, "where a shortcut keeps the number of channels")
        output = copied(*args, **kwargs)
        return output[..., channels] if copied.name == layer else output

    split = keras.models.clone_model(network, clone_function=copy, call_function=call)
    for copied in split.layers:
        if copied.weights and copied.name not in above:
            copied.set_weights(network.get_layer(copied.name).get_weights())
            copied.trainable = False
    return split


def _feature_map(network: keras.Model, layer: str) -> Tensor:
    """Return the symbolic output of a layer, `[batch, height, width, channels]`."""
    maps = {
        known.name: known.output
        for known in getattr(network, "layers", ())
        if not isinstance(known, keras.layers.InputLayer)
        and len(getattr(known.output, "shape", ())) == 4
    }
    if layer not in maps:
        raise _refusal(network, layer, "which is none of its feature maps")
    return maps[layer]


def _share(count: int, layer: str, parts: int, part: int) -> slice:
    """Return the channels of a part."""
    checks.count("split.parts", parts)
    if count % parts:
        raise checks.UsageError(
            f"split.parts must divide the {count} channels of {layer}. Received: parts={parts}."
        )
    if checks.count("split.part", part, minimum=0) >= parts:
        raise checks.UsageError(
            f"split.part must be from 0 to {parts - 1}. Received: part={part} of {parts}."
        )
    size = count // parts
    return slice(part * size, (part + 1) * size)


def _layers_above(network: keras.Model, layer: str, cut: Tensor) -> set[str]:
    try:
        upper = keras.Model(cut, network.output)
    except ValueError:  # Keras: the graph is disconnected
        raise _refusal(network, layer, "which a shortcut skips") from None
    return {above.name for above in upper.layers if not isinstance(above, keras.layers.InputLayer)}


def _same(layer: keras.Layer) -> keras.Layer:
    return layer.from_config(layer.get_config())


def _fresh(layer: keras.Layer) -> keras.Layer:
    return layer.from_config(_unseeded(layer.get_config()) | {"trainable": True})


def _unseeded(config: Any) -> Any:
    """Return a layer's configuration without seeds, which would give the same weights again."""
    if isinstance(config, dict):
        return {key: None if key == "seed" else _unseeded(config[key]) for key in config}
    return [_unseeded(value) for value in config] if isinstance(config, list) else config


def _takes(layer: keras.Layer, inputs: Tensor) -> bool:
    """Return whether a layer's inputs, where it has several, keep their shapes; no broadcasting."""
    before, now = keras.tree.flatten(layer.input), keras.tree.flatten(inputs)
    return len(now) == 1 or [x.shape for x in before] == [x.shape for x in now]


def _refusal(network: keras.Model, layer: str, why: str) -> checks.UsageError:
    names = [known.name for known in getattr(network, "layers", ())]
    stages = [name for name in names if re.fullmatch(r"stage\d+|features", name)]
    return checks.UsageError(
        f"{network.name} cannot be cut at {layer!r}, {why}. "
        f"Set split.layer to the output of a whole stage: {', '.join(stages) or 'it has none'}."
    )
