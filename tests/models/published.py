"""The published ResNets and Wide ResNets of PyTorch: random state dicts, and what they compute.

Written from their definitions alone (torchvision, RepDistiller, xternalz), on plain operations in
float64: weights in PyTorch's names and layout, padding of half the kernel on every side.
"""

import numpy as np
import tensorflow as tf

LENGTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class Weights(dict):
    """Random weights by PyTorch's names, in the order in which modules register them."""

    def __init__(self, seed=0):
        super().__init__()
        self._random = np.random.default_rng(seed)

    def conv(self, name, channels, outputs, size):
        scale = (channels * size * size) ** -0.5
        self[f"{name}.weight"] = self._normal((outputs, channels, size, size), scale)

    def norm(self, name, channels):
        self[f"{name}.weight"] = 1 + self._normal((channels,), 0.2)
        self[f"{name}.bias"] = self._normal((channels,), 0.2)
        self[f"{name}.running_mean"] = self._normal((channels,), 0.2)
        self[f"{name}.running_var"] = self._random.uniform(0.3, 1.5, channels).astype("float32")
        self[f"{name}.num_batches_tracked"] = np.array(7)

    def linear(self, name, features, outputs):
        self[f"{name}.weight"] = self._normal((outputs, features), features**-0.5)
        self[f"{name}.bias"] = self._normal((outputs,), 0.1)

    def _normal(self, shape, scale):
        return (self._random.normal(size=shape) * scale).astype("float32")


def resnet(widths, lengths, bottleneck=False, stem=3, classes=5, channels=3):
    """Return the state dict of a ResNet; `widths` of the stem and of the stages."""
    weights, expansion = Weights(), 4 if bottleneck else 1
    weights.conv("conv1", channels, widths[0], stem)
    weights.norm("bn1", widths[0])
    before = widths[0]
    for stage, (width, length) in enumerate(zip(widths[1:], lengths, strict=True), 1):
        for index in range(length):
            at, after = f"layer{stage}.{index}", width * expansion
            sizes = [(before, width, 1), (width, width, 3), (width, after, 1)]
            if not bottleneck:
                sizes = [(before, width, 3), (width, width, 3)]
            for number, (inputs, outputs, size) in enumerate(sizes, 1):
                weights.conv(f"{at}.conv{number}", inputs, outputs, size)
                weights.norm(f"{at}.bn{number}", outputs)
            if index == 0 and (stage > 1 or before != after):
                weights.conv(f"{at}.downsample.0", before, after, 1)
                weights.norm(f"{at}.downsample.1", after)
            before = after
    weights.linear("fc", before, classes)
    return weights


def wide_resnet(depth, factor, classes=5, channels=3):
    """Return the state dict of a Wide ResNet."""
    weights, before = Weights(), 16
    weights.conv("conv1", channels, 16, 3)
    for stage, width in enumerate((16 * factor, 32 * factor, 64 * factor), 1):
        for index in range((depth - 4) // 6):
            at = f"block{stage}.layer.{index}"
            weights.norm(f"{at}.bn1", before)
            weights.conv(f"{at}.conv1", before, width, 3)
            weights.norm(f"{at}.bn2", width)
            weights.conv(f"{at}.conv2", width, width, 3)
            if before != width:
                weights.conv(f"{at}.convShortcut", before, width, 1)
            before = width
    weights.norm("bn1", before)
    weights.linear("fc", before, classes)
    return weights


def logits(weights, images):
    """Return the logits of a state dict's network for normalised images `[b, h, w, channels]`."""
    x = tf.constant(images, tf.float64)
    x = _wide(weights, x) if "block1.layer.0.bn1.weight" in weights else _residual(weights, x)
    x = tf.reduce_mean(x, (1, 2))
    return (x @ _weight(weights, "fc").T + weights["fc.bias"]).numpy()


def _residual(weights, x):
    imagenet = weights["conv1.weight"].shape[-1] == 7
    x = tf.nn.relu(_norm(weights, "bn1", _conv(weights, "conv1", x, 2 if imagenet else 1)))
    if imagenet:
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
    stage, index = 1, 0
    while f"layer{stage}.0.conv1.weight" in weights:
        at = f"layer{stage}.{index}"
        if f"{at}.conv1.weight" not in weights:
            stage, index = stage + 1, 0
            continue
        stride, y, shortcut = 2 if stage > 1 and index == 0 else 1, x, x
        convolutions = 3 if f"{at}.conv3.weight" in weights else 2
        for number in range(1, convolutions + 1):
            # The stride is that of the first 3x3 convolution (torchvision's ResNet v1.5).
            own = stride if number == convolutions - 1 else 1
            y = _norm(weights, f"{at}.bn{number}", _conv(weights, f"{at}.conv{number}", y, own))
            y = tf.nn.relu(y) if number < convolutions else y
        if f"{at}.downsample.0.weight" in weights:
            shortcut = _conv(weights, f"{at}.downsample.0", x, stride)
            shortcut = _norm(weights, f"{at}.downsample.1", shortcut)
        x, index = tf.nn.relu(y + shortcut), index + 1
    return x


def _wide(weights, x):
    x = _conv(weights, "conv1", x, 1)
    for stage in (1, 2, 3):
        index = 0
        while f"block{stage}.layer.{index}.conv1.weight" in weights:
            at = f"block{stage}.layer.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            active = tf.nn.relu(_norm(weights, f"{at}.bn1", x))
            y = _norm(weights, f"{at}.bn2", _conv(weights, f"{at}.conv1", active, stride))
            y = _conv(weights, f"{at}.conv2", tf.nn.relu(y), 1)
            if f"{at}.convShortcut.weight" in weights:
                x = _conv(weights, f"{at}.convShortcut", active, stride)
            x, index = x + y, index + 1
    return tf.nn.relu(_norm(weights, "bn1", x))


def _weight(weights, name):
    return weights[f"{name}.weight"].astype("float64")


def _conv(weights, name, x, stride):
    kernel = _weight(weights, name).transpose(2, 3, 1, 0)
    both = [kernel.shape[0] // 2] * 2
    return tf.nn.conv2d(x, kernel, stride, [[0, 0], both, both, [0, 0]])


def _norm(weights, name, x):
    mean = weights[f"{name}.running_mean"].astype("float64")
    variance = weights[f"{name}.running_var"].astype("float64")
    return (x - mean) / np.sqrt(variance + 1e-5) * _weight(weights, name) + weights[f"{name}.bias"]
