"""Networks by name, from raw pixels 0..255 to logits.

Every network normalises its images itself, so that an exported student needs nothing else, and has
its last feature map in a layer `features` (a `saved` model has the layers that its file has). The
tables of names are in `names`; Keras is imported when a network is built.
"""

from tfdistill.config import ModelConfig
from tfdistill.models.names import (
    CIFAR_RESNETS,
    CNNS,
    KERAS,
    RESNETS,
    check_name,
    known_names,
    wide,
)
from tfdistill.utils import checks

__all__ = ["build", "check_name", "known_names"]


def build(config: ModelConfig, input_shape, num_classes: int, mean=0.0, std=1.0):
    """Return the network that `config` describes.

    Args:
        config: Name and settings.
        input_shape: `(height, width, channels)` of raw pixels 0..255.
        num_classes: Number of classes.
        mean: Subtracted inside, in 0..255, one number or one for each channel; networks of
            keras.applications and saved ones do their own preprocessing instead.
        std: Divided by inside, as `mean`, > 0.

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
    _check_settings(config)
    if config.name == "saved":
        from tfdistill.models import cnn  # noqa: F401, its layer may be in the file
        from tfdistill.models.saved import load

        model = load(config.path, input_shape, num_classes, config.outputs)
    elif config.name.startswith(KERAS):
        from tfdistill.models.applications import application, is_backbone

        name = config.name.removeprefix(KERAS)
        model = application(name, input_shape, num_classes, weights=config.weights)
        if config.weights == "imagenet" or is_backbone(config.weights):
            return model
    else:
        model = _own(config, input_shape, num_classes, mean, std)
    if config.weights is not None:
        from tfdistill.models.blocks import load_weights

        load_weights(model, config.weights)
    return model


def _own(config: ModelConfig, input_shape, num_classes: int, mean, std):
    from tfdistill.models import cnn, resnet, wide_resnet

    name, scale = config.name, {"mean": mean, "std": std}
    if name in CNNS:
        create = {"cnn2": cnn.cnn2, "cnn4": cnn.cnn4}[name]
        settings = {
            "width": config.width,
            "dropout": config.dropout,
            "dropout_in_evaluation": config.dropout_in_evaluation,
        }
        return create(input_shape, num_classes, **scale, **settings)
    if name in CIFAR_RESNETS:
        depth, is_wide = CIFAR_RESNETS[name]
        widths = resnet.WIDE if is_wide else resnet.NARROW
        scale["width"] = config.width
        return resnet.cifar_resnet(input_shape, num_classes, depth, widths, **scale)
    if name in RESNETS:
        depth, stem = RESNETS[name]
        return resnet.resnet(input_shape, num_classes, depth, stem, width=config.width, **scale)
    depth, factor = wide(name)
    return wide_resnet.wide_resnet(
        input_shape, num_classes, depth, factor, dropout=config.dropout, **scale
    )


def _check_settings(config: ModelConfig) -> None:
    check_name(config.name)
    is_cnn, is_resnet = config.name in CNNS, config.name in (*CIFAR_RESNETS, *RESNETS)
    if config.width != 1.0 and not (is_cnn or is_resnet):
        _refuse(config, "width", "a cnn or resnet", "a name that says its width, such as wrn-16-2,")
    if config.dropout is not None and not (is_cnn or wide(config.name)):
        _refuse(config, "dropout", "a cnn or wrn", "null")
    if config.dropout_in_evaluation and not (config.name == "cnn4" or is_cnn and config.dropout):
        _refuse(config, "dropout_in_evaluation", "a cnn with dropout", "false")
    if config.weights == "imagenet" and not config.name.startswith(KERAS):
        _refuse(config, "weights", "a keras:NAME network", "a file of weights, or null")


def _refuse(config: ModelConfig, setting: str, who: str, instead: str) -> None:
    value = getattr(config, setting)
    raise checks.UsageError(
        f"model.{setting}={value!r} needs {who}. Received: model.name={config.name!r}. "
        f"Give {instead} or take another network."
    )
