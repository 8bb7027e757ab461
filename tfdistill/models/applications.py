"""Networks of keras.applications (https://keras.io/api/applications), with ImageNet weights or not.

Each takes raw pixels and prepares them as its authors did, inside the model: by `preprocess_input`
of its module, or by layers of its own, as EfficientNet, ConvNeXt and MobileNetV3 do.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
from keras import layers

from tfdistill.config import ModelConfig
from tfdistill.config.networks import APPLICATIONS
from tfdistill.models.blocks import classify
from tfdistill.models.weights.files import load_weights
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor

CLASSES = 1000  # of ImageNet


def build(
    config: ModelConfig,
    input_shape: Sequence[int],
    num_classes: int,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> keras.Model:
    """Return the network of a name such as `keras:MobileNetV2`; its own mean and std are used."""
    return application(
        config.name.removeprefix("keras:"), input_shape, num_classes, weights=config.weights
    )


def application(
    name: str, input_shape: Sequence[int], num_classes: int, weights: str | None = None
) -> keras.Model:
    """Return a network of keras.applications with global average pooling and a new last layer.

    Args:
        name: As in keras.applications, such as `MobileNetV2`.
        input_shape: `(height, width, channels)` of raw pixels 0..255; one channel is repeated
            three times.
        num_classes: Number of classes.
        weights: `imagenet` (downloaded by Keras), the path of an `.h5` file as Keras publishes
            them (without top; not of EfficientNetB0 to B7, to which Keras adds a scaling layer
            with `imagenet` only) or of any file of the whole network; or null for random weights.

    Returns:
        A functional model from `[batch, height, width, channels]` to logits `[batch, num_classes]`;
        its layer `features` is the last feature map.

    Raises:
        UsageError: An unknown name, images that the network cannot take, or weights that cannot
            be downloaded or read.

    Example:
        >>> teacher = application("MobileNetV2", (96, 96, 3), 10, weights="imagenet")
        >>> teacher(images).shape
        (128, 10)
    """
    checks.one_of("name", name, APPLICATIONS)
    inputs, x = _rgb(name, input_shape)
    create = vars(keras.applications)[name]
    backbone = _backbone(create, sys.modules[create.__module__].preprocess_input(x), weights)
    features = layers.Activation("linear", name="features")(backbone.output)
    model = classify(inputs, features, num_classes, name)
    if weights not in (None, "imagenet") and not _is_backbone(weights):
        load_weights(model, weights)
    return model


def _is_backbone(weights: str | None) -> bool:
    """Return whether `weights` names a file as Keras publishes them, of all but the last layer."""
    return str(weights).endswith(".h5") and not str(weights).endswith(".weights.h5")


def _rgb(name: str, input_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    if len(input_shape) != 3 or input_shape[-1] not in (1, 3):
        raise checks.UsageError(
            f"keras:{name} takes images of (height, width, 3 or 1 channels). "
            f"Received: {tuple(input_shape)}."
        )
    inputs = keras.Input(input_shape, dtype="float32", name="image")
    if input_shape[-1] == 3:
        return inputs, inputs
    return inputs, layers.Concatenate(dtype="float32", name="rgb")([inputs] * 3)


def _backbone(create: Callable[..., keras.Model], x: Tensor, weights: str | None) -> keras.Model:
    name = create.__name__
    download = "imagenet" if weights == "imagenet" else None
    try:
        backbone = create(
            include_top=False, weights=download, input_tensor=x, input_shape=x.shape[1:]
        )
    except ValueError as error:
        raise checks.UsageError(
            f"keras:{name} cannot take images of {x.shape[1]} x {x.shape[2]} pixels: "
            f"{checks.first_line(error)} Set data.image_size to bring them to a larger size."
        ) from error
    except Exception as error:  # Keras raises a bare Exception where a download fails
        raise _no_download(
            name, error, "give model.weights the path of a local weights file"
        ) from error
    if weights is not None and _is_backbone(weights):
        load_weights(backbone, weights)
    return backbone


def classifier(name: str, weights: str = "imagenet", image_size: int | None = None) -> keras.Model:
    """Return a whole network of keras.applications, with its ImageNet classes.

    Args:
        name: As of `application`.
        weights: `imagenet` (downloaded by Keras), or a file of weights with the last layer or
            without it, as Keras publishes them (`.h5`) or saves them (`.weights.h5`, `.keras`).
        image_size: Side of its images, which are brought to its own size; None takes those.

    Returns:
        A functional model from raw pixels `[batch, size, size, 3]`, 0..255, to logits
        `[batch, 1000]`, or of weights without the last layer to what stands before it,
        `[batch, features]`.

    Raises:
        UsageError: An unknown name, or weights that cannot be downloaded or read.

    Example:
        >>> classifier("MobileNetV2").input_shape
        (None, 224, 224, 3)
    """
    checks.one_of("keras:NAME", name, APPLICATIONS)
    create = vars(keras.applications)[name]
    if weights == "imagenet":
        try:
            network = create(weights=weights, classifier_activation=None)
        except Exception as error:  # Keras raises a bare Exception where a download fails
            raise _no_download(name, error, f"give a file of weights: keras:{name}=FILE") from error
    else:
        network = _from_file(create, weights)
    height, width, channels = network.input_shape[1:]
    side = image_size or height
    inputs = keras.Input((side, side, channels), dtype="float32", name="image")
    x = layers.Resizing(height, width, name="resize")(inputs) if side != height else inputs
    prepared = sys.modules[create.__module__].preprocess_input(x)
    # `call` runs the layers one by one; called as a whole, the network would be one layer.
    return keras.Model(inputs, network.call(prepared), name=network.name)


def _from_file(create: Callable[..., keras.Model], weights: str) -> keras.Model:
    name = create.__name__
    if name.startswith("EfficientNetB"):
        raise checks.UsageError(
            f"Keras adds a layer to {name} with weights that it downloads itself, so that those of "
            f"a file may be wrong in silence. Received: {weights!r}. Give a .keras file of the "
            "whole network."
        )
    whole = create(weights=None, classifier_activation=None)
    try:
        load_weights(whole, weights)
        return whole
    except checks.UsageError:
        if not Path(weights).is_file():
            raise
    sides = whole.input_shape[1:]
    headless = create(include_top=False, weights=None, pooling="avg", input_shape=sides)
    load_weights(headless, weights)
    return headless


def _no_download(name: str, error: Exception, instead: str) -> checks.UsageError:
    return checks.UsageError(
        f"The ImageNet weights of keras:{name} could not be downloaded: "
        f"{checks.first_line(error)} Try again with a connection, or {instead}."
    )
