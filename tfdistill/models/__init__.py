"""Networks by name, from raw pixels 0..255 to logits.

Every network normalises its images itself, so that an exported student needs nothing else, and has
its last feature map in a layer `features` (a `saved` model has the layers that its file has). The
names are in `NETWORKS` of `tfdistill.config.registry`; Keras is imported when a network is built.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfdistill.config import ModelConfig
from tfdistill.config.registry import NETWORKS
from tfdistill.config.training import network_family
from tfdistill.utils import checks
from tfdistill.utils.lazy import lazy_names
from tfdistill.utils.registry import imported

if TYPE_CHECKING:
    import keras

_LAZY = {"from_torch": "tfdistill.models.weights.torch"}

__all__ = ["build", "from_torch", "register_layers"]  # noqa: F822

__getattr__, __dir__ = lazy_names(__name__, _LAZY)


def register_layers(path: Path) -> None:
    """Make known to Keras what layers the network in a file may have that are none of Keras's.

    Raises:
        UsageError: It has some of KerasHub, which is not installed.
    """
    from tfdistill.models.teachers import hub

    for family in NETWORKS.values():
        if family.layers:
            imported(family.builder)
    hub.register_layers(path)
    imported("tfdistill.quantization.layers")


def build(
    config: ModelConfig,
    input_shape: Sequence[int],
    num_classes: int,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    independent: bool = False,
) -> "keras.Model":
    """Return the network that `config` describes.

    Args:
        config: Name and settings.
        input_shape: `(height, width, channels)` of raw pixels 0..255.
        num_classes: Number of classes.
        mean: Subtracted inside, in 0..255, one number or one for each channel; networks of
            keras.applications and saved ones do their own preprocessing instead.
        std: Divided by inside, as `mean`, > 0.
        independent: Whether outputs do not exclude each other: a saved network may then end in
            sigmoid, and else in softmax.

    Returns:
        A `keras.Model` from `[batch, height, width, channels]` to logits `[batch, num_classes]`
        float32.

    Raises:
        UsageError: An unknown name, a setting that the network does not have, images that it
            cannot take, or a file that cannot be read or does not fit.

    Example:
        >>> student = build(ModelConfig("resnet20"), (32, 32, 3), 10, mean=127.5, std=127.5)
        >>> student(images).shape
        (128, 10)
    """
    family = network_family(config.name)
    _check_settings(config, family.settings)
    own = {"independent": independent} if "path" in family.settings else {}
    model = family.build(config, tuple(input_shape), num_classes, mean, std, **own)
    if config.weights is not None and "weights" not in family.settings:
        from tfdistill.models.weights.files import load_weights

        load_weights(model, config.weights)
    return model


def _check_settings(config: ModelConfig, known: tuple[str, ...]) -> None:
    if config.width != 1.0 and "width" not in known:
        _refuse(config, "width", "a name that says its width, such as wrn-16-2,")
    if config.dropout is not None and "dropout" not in known:
        _refuse(config, "dropout", "null")
    if config.weights == "imagenet" and "weights" not in known:
        _refuse(config, "weights", "a file of weights, or null,")


def _refuse(config: ModelConfig, setting: str, instead: str) -> None:
    value = getattr(config, setting)
    having = [name for name, family in NETWORKS.items() if setting in family.settings]
    raise checks.UsageError(
        f"model.{setting}={value!r} needs a network of: {', '.join(having)}. Received: "
        f"model.name={config.name!r}. Give {instead} or take another network."
    )
