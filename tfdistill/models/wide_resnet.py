"""Wide residual networks with pre-activation (Zagoruyko & Komodakis, arXiv 1605.07146, section 2).

WRN-d-k has d = 6n + 4 layers: a 3x3 convolution of 16 channels, three stages of n blocks of 16k,
32k and 64k channels, batch norm and ReLU. A block that changes the width takes its 1x1 shortcut
after its first batch norm and ReLU. Weights start as `blocks` says; layers that have any are named
as in github.com/xternalz/WideResNet-pytorch, so that `from_torch` finds them.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from tfdistill.config import ModelConfig
from tfdistill.models.blocks import classify, conv, norm, pixels
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor


def build(
    config: ModelConfig,
    input_shape: Sequence[int],
    num_classes: int,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> keras.Model:
    """Return the Wide ResNet of a name such as `wrn-28-10`."""
    depth, factor = map(int, config.name.removeprefix("wrn-").split("-"))
    scale: dict[str, Any] = {"mean": mean, "std": std, "dropout": config.dropout}
    return wide_resnet(input_shape, num_classes, depth, factor, **scale)


def wide_resnet(
    input_shape: Sequence[int],
    num_classes: int,
    depth: int = 28,
    factor: int = 10,
    *,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    dropout: float | None = None,
) -> keras.Model:
    """Return WRN-depth-factor.

    The sum that each stage ends in is a layer `stage1`, `stage2` or `stage3`, before the next batch
    norm and ReLU; the last ReLU is the layer `features`.

    Args:
        input_shape: `(height, width, channels)` of raw pixels 0..255.
        num_classes: Number of classes.
        depth: 6n + 4: 10, 16, 22, 28, 34, 40 ...
        factor: Widening factor k, at least 1.
        mean: Subtracted inside, in 0..255, one number or one for each channel.
        std: Divided by inside, as `mean`, > 0.
        dropout: Rate between the two convolutions of a block, in 0..1; null means none.

    Returns:
        A functional model from `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Example:
        >>> teacher = wide_resnet((32, 32, 3), 100, depth=28, factor=10, mean=127.5, std=127.5)
        >>> teacher.name
        'wrn-28-10'
    """
    checks.count("factor", factor)
    rate = checks.fraction("dropout", dropout or 0.0)
    if depth < 10 or depth % 6 != 4:
        raise checks.UsageError(
            "A Wide ResNet wrn-depth-factor has 6n + 4 layers, such as 16, 28 or 40. "
            f"Received: depth={depth!r}."
        )
    inputs, x = pixels(input_shape, mean, std)
    x = conv(x, 16, name="conv1")
    blocks = (depth - 4) // 6
    for stage, channels in enumerate((16 * factor, 32 * factor, 64 * factor), start=1):
        for index in range(blocks):
            name = f"stage{stage}" if index == blocks - 1 else None
            stride = 2 if stage > 1 and index == 0 else 1
            x = _block(x, channels, stride, rate, f"block{stage}.layer.{index}", name)
    x = layers.Activation("relu", name="features")(norm(x, "bn1"))
    return classify(inputs, x, num_classes, f"wrn-{depth}-{factor}")


def _block(x: Tensor, channels: int, stride: int, rate: float, at: str, name: str | None) -> Tensor:
    y = layers.Activation("relu")(norm(x, f"{at}.bn1"))
    same = stride == 1 and x.shape[-1] == channels
    shortcut = x if same else conv(y, channels, 1, stride, f"{at}.convShortcut")
    y = norm(conv(y, channels, 3, stride, f"{at}.conv1"), f"{at}.bn2")
    y = layers.Activation("relu")(y)
    y = layers.Dropout(rate)(y) if rate else y
    return layers.Add(name=name)([conv(y, channels, name=f"{at}.conv2"), shortcut])
