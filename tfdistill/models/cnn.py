"""Small convolutional students: two convolutions (alpha x temperature grid on CIFAR-10), four, and
depthwise separable ones.

`cnn4` is the student of the ImageWoof experiment (github.com/valukov-alex/knoledge_distilling). The
widths of the two-layer network of the CIFAR-10 grid were never published; ours are stated below.
"""

from collections.abc import Callable, Sequence

import keras
from keras import layers

from tfdistill.config import ModelConfig
from tfdistill.models.blocks import classify, conv, logits, norm, pixels, scaled
from tfdistill.utils import checks

SMALLEST_VALID = 46  # below, four unpadded convolutions and poolings leave nothing


def build(
    config: ModelConfig,
    input_shape: Sequence[int],
    num_classes: int,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    dropout_layer: Callable[[float], keras.Layer] = layers.Dropout,
) -> keras.Model:
    """Return `cnn2` or `cnn4`; another layer that drops out is for the controls of a study."""
    create = {"cnn2": cnn2, "cnn4": cnn4}[config.name]
    return create(
        input_shape,
        num_classes,
        mean=mean,
        std=std,
        width=config.width,
        dropout=config.dropout,
        dropout_layer=dropout_layer,
    )


def cnn2(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    width: float = 1.0,
    dropout: float | None = None,
    dropout_layer: Callable[[float], keras.Layer] = layers.Dropout,
) -> keras.Model:
    """Return a network of two convolutions.

    3x3 convolution with 32 channels, ReLU, 2x2 max pooling, the same with 64 channels (the layer
    `features`), dropout, and the logits from the flattened map without a hidden layer between: our
    choice, as the published system gives no widths. 60,362 weights on 32x32x3 images of 10 classes.

    Args:
        input_shape: `(height, width, channels)` of raw pixels 0..255, sides at least 4.
        num_classes: Number of classes.
        mean: Subtracted inside, in 0..255, one number or one for each channel.
        std: Divided by inside, as `mean`, > 0.
        width: Multiplies the channels, > 0.
        dropout: Rate before the logits, in 0..1; null means none.
        dropout_layer: Class of the layer that drops out.

    Returns:
        A functional model from `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Example:
        >>> student = cnn2((32, 32, 3), num_classes=10, mean=127.5, std=127.5)
        >>> student(images).shape
        (128, 10)
    """
    inputs, x = pixels(input_shape, mean, std)
    _at_least("cnn2", input_shape, 4)
    for channels in (32, 64):
        x = layers.Conv2D(scaled(channels, width), 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(layers.Activation("linear", name="features")(x))
    x = dropout_layer(checks.fraction("dropout", dropout))(x) if dropout else x
    return keras.Model(inputs, logits(x, num_classes), name="cnn2")


def cnn4(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    width: float = 1.0,
    dropout: float | None = None,
    dropout_layer: Callable[[float], keras.Layer] = layers.Dropout,
) -> keras.Model:
    """Return a network of four convolutions and a hidden layer.

    Four blocks of 3x3 convolution (16, 32, 64, 128 channels), batch norm, ReLU, dropout and 2x2 max
    pooling (the last is the layer `features`), then dense 128, ReLU, dropout and the logits.
    Convolutions are unpadded, as published, for images of 46 pixels or more; smaller ones, which
    unpadded convolutions would use up, are padded in convolutions and poolings.

    Args:
        input_shape: `(height, width, channels)` of raw pixels 0..255.
        num_classes: Number of classes.
        mean: Subtracted inside, in 0..255, one number or one for each channel.
        std: Divided by inside, as `mean`, > 0.
        width: Multiplies the channels of convolutions and hidden layer, > 0.
        dropout: Rate, in 0..1; null means the published 0.5.
        dropout_layer: Class of the layers that drop out.

    Returns:
        A functional model from `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Example:
        >>> student = cnn4((128, 128, 3), num_classes=10, mean=127.5, std=127.5)
        >>> student(images).shape
        (128, 10)
    """
    rate = checks.fraction("dropout", 0.5 if dropout is None else dropout)
    inputs, x = pixels(input_shape, mean, std)
    padding = "valid" if min(input_shape[:2]) >= SMALLEST_VALID else "same"
    for channels in (16, 32, 64, 128):
        x = norm(layers.Conv2D(scaled(channels, width), 3, padding=padding)(x))
        x = dropout_layer(rate)(layers.Activation("relu")(x))
        x = layers.MaxPooling2D(padding=padding)(x)
    x = layers.Flatten()(layers.Activation("linear", name="features")(x))
    x = layers.Dense(scaled(128, width), activation="relu")(x)
    return keras.Model(inputs, logits(dropout_layer(rate)(x), num_classes), name="cnn4")


def build_separable(
    config: ModelConfig,
    input_shape: Sequence[int],
    num_classes: int,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> keras.Model:
    """Return `dscnn6`."""
    return dscnn6(input_shape, num_classes, mean=mean, std=std, width=config.width)


def dscnn6(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    width: float = 1.0,
) -> keras.Model:
    """Return a network of six depthwise separable convolutions, as in MobileNet (arXiv 1704.04861).

    3x3 convolution with 16 channels, then six times a 3x3 depthwise and a 1x1 convolution, with 32,
    64 (stride 2), 64, 128 (stride 2), 128 and 128 channels, each convolution with batch norm and
    ReLU6 behind it; global average pooling and the logits. 57,194 weights and 5.7 million
    multiply-adds on 32x32x3 images of 10 classes.

    Args:
        input_shape: `(height, width, channels)` of raw pixels 0..255.
        num_classes: Number of classes.
        mean: Subtracted inside, in 0..255, one number or one for each channel.
        std: Divided by inside, as `mean`, > 0.
        width: Multiplies the channels, > 0.

    Returns:
        A functional model from `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Example:
        >>> student = dscnn6((32, 32, 3), num_classes=10, mean=127.5, std=127.5)
    """
    inputs, x = pixels(input_shape, mean, std)
    x = layers.Activation("relu6")(norm(conv(x, scaled(16, width))))
    for channels, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (128, 1)):
        if stride > 1:  # as `conv` pads
            x = layers.ZeroPadding2D(1)(x)
        padding = "valid" if stride > 1 else "same"
        x = norm(layers.DepthwiseConv2D(3, stride, padding=padding, use_bias=False)(x))
        x = layers.Activation("relu6")(x)
        x = layers.Activation("relu6")(norm(conv(x, scaled(channels, width), 1)))
    x = layers.Activation("linear", name="features")(x)
    return classify(inputs, x, num_classes, "dscnn6")


def _at_least(name: str, input_shape: Sequence[int], pixels_a_side: int) -> None:
    if min(input_shape[:2]) < pixels_a_side:
        raise checks.UsageError(
            f"{name} needs images of at least {pixels_a_side} x {pixels_a_side} pixels. Received: "
            f"{input_shape[0]} x {input_shape[1]}. Set data.image_size or take another network."
        )
