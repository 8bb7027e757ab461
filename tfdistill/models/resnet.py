"""Residual networks (He et al., arXiv 1512.03385): table 6 for CIFAR, table 1 for ImageNet.

The CIFAR family has 6n + 2 layers in three stages; `resnet8x4` and `resnet32x4` are the wide ones
of github.com/HobbitLong/RepDistiller. Wherever the shape changes, the shortcut is a 1x1 convolution
with batch norm, as there. The ImageNet family comes with either stem. Weights start as in `blocks`;
layers that have any are named as in torchvision's networks, so that `from_torch` finds them.
`mlperf_resnet8` is the reference of MLPerf Tiny's image classification (github.com/mlcommons/tiny).
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from tfdistill.config import ModelConfig
from tfdistill.models.blocks import classify, conv, norm, pixels, scaled
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor

NARROW = (16, 16, 32, 64)  # stem and three stages
WIDE = (32, 64, 128, 256)
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
STEMS = ("cifar", "imagenet")


def build_cifar(
    config: ModelConfig,
    input_shape: Sequence[int],
    num_classes: int,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> keras.Model:
    """Return the CIFAR ResNet of a name such as `resnet20` or `resnet8x4`."""
    depth, _, wide = config.name.removeprefix("resnet").partition("x")
    widths = WIDE if wide else NARROW
    scale: dict[str, Any] = {"mean": mean, "std": std, "width": config.width}
    return cifar_resnet(input_shape, num_classes, int(depth), widths, **scale)


def build(
    config: ModelConfig,
    input_shape: Sequence[int],
    num_classes: int,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> keras.Model:
    """Return the ResNet of a name such as `resnet18` or `resnet50-imagenet`."""
    depth, _, stem = config.name.removeprefix("resnet").partition("-")
    scale: dict[str, Any] = {"mean": mean, "std": std, "width": config.width}
    return resnet(input_shape, num_classes, int(depth), stem or "cifar", **scale)


def build_mlperf(
    config: ModelConfig,
    input_shape: Sequence[int],
    num_classes: int,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> keras.Model:
    """Return `mlperf_resnet8`, which sees raw pixels: `mean` and `std` are not used."""
    return mlperf_resnet8(input_shape, num_classes, width=config.width)


def cifar_resnet(
    input_shape: Sequence[int],
    num_classes: int,
    depth: int = 20,
    widths: Sequence[int] = NARROW,
    *,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    width: float = 1.0,
) -> keras.Model:
    """Return a CIFAR ResNet of 6n + 2 layers.

    The last ReLU of each stage is a layer `stage1`, `stage2` or, in the third, `features`.

    Args:
        input_shape: `(height, width, channels)` of raw pixels 0..255.
        num_classes: Number of classes.
        depth: 6n + 2: 8, 14, 20, 32, 44, 56, 110 ...
        widths: Channels of the stem and of the three stages.
        mean: Subtracted inside, in 0..255, one number or one for each channel.
        std: Divided by inside, as `mean`, > 0.
        width: Multiplies all channels, > 0.

    Returns:
        A functional model from `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Example:
        >>> student = cifar_resnet((32, 32, 3), 10, depth=20, mean=127.5, std=127.5)
        >>> student.name
        'resnet20'
    """
    if depth < 8 or depth % 6 != 2:
        raise checks.UsageError(
            "A CIFAR ResNet has 6n + 2 layers, such as 8, 20, 56 or 110. "
            f"Received: depth={depth!r}."
        )
    inputs, x = pixels(input_shape, mean, std)
    stem, *stages = (scaled(channels, width) for channels in widths)
    x = layers.Activation("relu")(norm(conv(x, stem, name="conv1"), "bn1"))
    x = _stages(x, [depth // 6] * 3, stages, _basic)
    name = f"resnet{depth}x4" if tuple(widths) == WIDE else f"resnet{depth}"
    return classify(inputs, x, num_classes, name)


def resnet(
    input_shape: Sequence[int],
    num_classes: int,
    depth: int = 18,
    stem: str = "cifar",
    *,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    width: float = 1.0,
) -> keras.Model:
    """Return ResNet-18, 34 (basic blocks) or 50 (bottlenecks).

    The last ReLU of each stage is a layer `stage1`, `stage2`, `stage3` or, in the fourth,
    `features`.

    Args:
        input_shape: `(height, width, channels)` of raw pixels 0..255.
        num_classes: Number of classes.
        depth: 18, 34 or 50.
        stem: `cifar` (3x3 convolution, no pooling) or `imagenet` (7x7 with stride 2, 3x3 max
            pooling with stride 2), both with 64 channels.
        mean: Subtracted inside, in 0..255, one number or one for each channel.
        std: Divided by inside, as `mean`, > 0.
        width: Multiplies all channels, > 0.

    Returns:
        A functional model from `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Example:
        >>> teacher = resnet((224, 224, 3), 10, depth=18, stem="imagenet", mean=127.5, std=127.5)
        >>> teacher.name
        'resnet18-imagenet'
    """
    checks.one_of("depth", str(depth), map(str, STAGES))
    checks.one_of("stem", stem, STEMS)
    inputs, x = pixels(input_shape, mean, std)
    size, stride = (7, 2) if stem == "imagenet" else (3, 1)
    x = norm(conv(x, scaled(64, width), size, stride, "conv1"), "bn1")
    x = layers.Activation("relu")(x)
    if stem == "imagenet":
        # After a ReLU zeros never are the largest, so that they pad as PyTorch's -infinity does.
        x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    widths = [scaled(channels, width) for channels in (64, 128, 256, 512)]
    x = _stages(x, STAGES[depth], widths, _bottleneck if depth == 50 else _basic)
    name = f"resnet{depth}-imagenet" if stem == "imagenet" else f"resnet{depth}"
    return classify(inputs, x, num_classes, name)


def mlperf_resnet8(
    input_shape: Sequence[int], num_classes: int, *, width: float = 1.0
) -> keras.Model:
    """Return the ResNet-8 of MLPerf Tiny's reference.

    It differs from `resnet8`: raw pixels, biases in convolutions, shortcuts without batch norm, an
    epsilon of 1e-3, and strides that pad on the far side alone. 78,666 weights and 12.5 million
    multiply-adds on 32x32x3 images of 10 classes; its larger sibling has the width 2.5.

    Args:
        input_shape: `(height, width, channels)` of raw pixels 0..255.
        num_classes: Number of classes.
        width: Multiplies all channels, > 0.

    Returns:
        A functional model from `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Example:
        >>> mlperf_resnet8((32, 32, 3), 10).count_params()
        78666
    """

    def convolved(x: Tensor, channels: int, size: int, stride: int, name: str) -> Tensor:
        settings: dict[str, Any] = {"padding": "same", "kernel_initializer": "he_normal"}
        return layers.Conv2D(channels, size, stride, name=name, **settings)(x)

    def normalised(x: Tensor, at: str, number: int, channels: int, stride: int = 1) -> Tensor:
        x = convolved(x, channels, 3, stride, f"{at}conv{number}")
        return layers.BatchNormalization(epsilon=1e-3, name=f"{at}bn{number}")(x)

    if len(input_shape) != 3:
        raise checks.UsageError(
            f"Networks take images of (height, width, channels). Received: {tuple(input_shape)}."
        )
    stem, *stages = (scaled(channels, width) for channels in NARROW)
    inputs = keras.Input(input_shape, dtype="float32", name="image")
    x = layers.Activation("relu")(normalised(inputs, "", 1, stem))
    for stage, channels in enumerate(stages, 1):
        at, stride = f"layer{stage}.0.", 1 if stage == 1 else 2
        y = layers.Activation("relu")(normalised(x, at, 1, channels, stride))
        y = normalised(y, at, 2, channels)
        if stage > 1:
            x = convolved(x, channels, 1, stride, f"{at}downsample")
        name = f"stage{stage}" if stage < len(stages) else "features"
        x = layers.Activation("relu", name=name)(layers.Add()([x, y]))
    return classify(inputs, x, num_classes, "mlperf_resnet8")


def _stages(
    x: Tensor, lengths: Sequence[int], widths: Sequence[int], block: Callable[..., Tensor]
) -> Tensor:
    names = [f"stage{stage}" for stage in range(1, len(lengths))] + ["features"]
    for stage, (name, length, channels) in enumerate(zip(names, lengths, widths, strict=True), 1):
        for index in range(length):
            stride = 2 if stage > 1 and index == 0 else 1
            last = name if index == length - 1 else None
            x = block(x, channels, stride, f"layer{stage}.{index}", last)
    return x


def _basic(x: Tensor, channels: int, stride: int, at: str, name: str | None) -> Tensor:
    y = norm(conv(x, channels, 3, stride, f"{at}.conv1"), f"{at}.bn1")
    y = layers.Activation("relu")(y)
    y = norm(conv(y, channels, name=f"{at}.conv2"), f"{at}.bn2")
    y = layers.Add()([y, _shortcut(x, channels, stride, at)])
    return layers.Activation("relu", name=name)(y)


def _bottleneck(x: Tensor, channels: int, stride: int, at: str, name: str | None) -> Tensor:
    y = layers.Activation("relu")(norm(conv(x, channels, 1, 1, f"{at}.conv1"), f"{at}.bn1"))
    y = norm(conv(y, channels, 3, stride, f"{at}.conv2"), f"{at}.bn2")
    y = layers.Activation("relu")(y)
    y = norm(conv(y, 4 * channels, 1, 1, f"{at}.conv3"), f"{at}.bn3")
    y = layers.Add()([y, _shortcut(x, 4 * channels, stride, at)])
    return layers.Activation("relu", name=name)(y)


def _shortcut(x: Tensor, channels: int, stride: int, at: str) -> Tensor:
    if stride == 1 and x.shape[-1] == channels:
        return x
    return norm(conv(x, channels, 1, stride, f"{at}.downsample.0"), f"{at}.downsample.1")
