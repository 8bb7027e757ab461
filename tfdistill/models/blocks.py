"""What the networks share: raw pixels in, float32 logits out, weights at the start.

Initial weights are those of He et al. 2015 (arXiv 1502.01852), section 2.2, in the fan-out form
that residual networks use; batch norm has momentum 0.9 and epsilon 1e-5 (PyTorch's 0.1 and 1e-5).
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from tfdistill.utils import checks
from tfdistill.utils.types import Tensor


def pixels(
    input_shape: Sequence[int],
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> tuple:
    """Return the input of raw pixels and the normalised images.

    Args:
        input_shape: `(height, width, channels)`.
        mean: One number or one for each channel, in 0..255.
        std: As `mean`, > 0.

    Returns:
        Two symbolic tensors `[batch, height, width, channels]` float32; the second is
        (pixels - mean) / std.

    Raises:
        UsageError: A shape that is not of images, or a mean that does not fit their channels.

    Example:
        >>> inputs, x = pixels((32, 32, 3), mean=127.5, std=127.5)
    """
    if len(input_shape) != 3:
        raise checks.UsageError(
            f"Networks take images of (height, width, channels). Received: {tuple(input_shape)}."
        )
    channels = input_shape[-1]
    mean = _per_channel("mean", mean, channels)
    std = [checks.positive("std", value) for value in _per_channel("std", std, channels)]
    inputs = keras.Input(input_shape, dtype="float32", name="image")
    # float32 also under mixed precision, where 8 bits of mantissa would coarsen the pixels.
    normalize = layers.Normalization(
        mean=mean, variance=[value**2 for value in std], dtype="float32", name="normalize"
    )
    return inputs, normalize(inputs)


def classify(inputs: Tensor, features: Tensor, num_classes: int, name: str) -> keras.Model:
    """Return the network that averages `features` over the image and ends in logits.

    Args:
        inputs: What `pixels` returned.
        features: Last feature map, `[batch, h, w, channels]`.
        num_classes: Number of logits.
        name: Name of the network.

    Returns:
        A functional model to `[batch, num_classes]` float32.

    Example:
        >>> inputs, x = pixels((32, 32, 3))
        >>> network = classify(inputs, conv(x, 16), num_classes=10, name="tiny")
    """
    x = layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.Model(inputs, logits(x, num_classes), name=name)


def logits(x: Tensor, num_classes: int) -> Tensor:
    """Return the last dense layer's output, `[batch, num_classes]`, float32 in every precision."""
    return layers.Dense(checks.count("num_classes", num_classes), dtype="float32", name="logits")(x)


def conv(
    x: Tensor, channels: int, size: int = 3, stride: int = 1, name: str | None = None
) -> Tensor:
    """Return a convolution of `x` without bias, with He-normal fan-out weights.

    It pads with zeros by half its size on every side, as PyTorch's networks do.

    Args:
        x: `[batch, height, width, any]` float.
        channels: Of the result, `[batch, height / stride, width / stride, channels]`.
        size: Of the kernel, odd.
        stride: 1 or 2.
        name: Of the layer.
    """
    padding = "same"
    if stride > 1 and size > 1:
        # There "same" would pad an even image on its far side alone, which shifts it by a pixel.
        x, padding = layers.ZeroPadding2D(size // 2)(x), "valid"
    # A new initialiser each time: one that is shared gives layers of one shape the same weights.
    start = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return layers.Conv2D(
        channels,
        size,
        stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=start,
        name=name,
    )(x)


def norm(x: Tensor, name: str | None = None) -> Tensor:
    """Return `x`, `[batch, ..., channels]`, after batch norm with momentum 0.9, epsilon 1e-5."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def scaled(channels: int, width: float) -> int:
    """Return a number of channels times `width`, at least 1."""
    return max(1, round(channels * checks.positive("width", width)))


def _per_channel(name: str, value: float | Sequence[float], channels: int) -> list[float]:
    values = np.asarray(value, "float64")
    if values.shape not in ((), (1,), (channels,)):
        raise checks.UsageError(
            f"{name} must be one number or one for each of the {channels} channels. "
            f"Received: {values.size} numbers."
        )
    return [float(number) for number in np.broadcast_to(values, (channels,))]
