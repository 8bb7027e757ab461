"""Layers that round as an int8 file does, with gradients as if they did not round.

Weights are rounded symmetrically with a scale for each output channel, activations between two
numbers for the whole tensor, of which 0 is always one of the levels (Jacob et al., arXiv
1712.05877, section 3).
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from keras.quantizers import fake_quant_with_min_max_vars

from tfdistill.utils import checks
from tfdistill.utils.types import Tensor

AVERAGE, LEARNED, FIXED = RANGES = ("average", "learned", "fixed")
# A channel of zeros is trained and converted, too.
SMALLEST = 1e-8


def levels(bits: int) -> int:
    """Return the largest whole number that weights of so many bits take: 127 of 8, 7 of 4."""
    return 2 ** (bits - 1) - 1


def rounded(kernel: Tensor, bits: int, axes: tuple[int, ...]) -> Tensor:
    """Return a kernel on its grid, k * step with k from -levels to levels.

    A channel's step is its largest weight / levels. Scaling a channel by any number, as folding a
    batch norm does, scales its grid with it.

    Args:
        kernel: float32.
        bits: 2 to 8.
        axes: All but those of the output channel.

    Example:
        >>> rounded([[0.7], [-0.32]], bits=4, axes=(0,))  # step 0.1
        [[0.7], [-0.3]]
    """
    largest = ops.max(ops.abs(kernel), axis=axes, keepdims=True)
    step = ops.maximum(largest, SMALLEST) / levels(bits)
    return ops.round(kernel / step) * step


def _straight_through(kernel: Tensor, bits: int, axes: tuple[int, ...]) -> Tensor:
    """Return `rounded`, with the gradient of `kernel` itself."""
    return kernel + ops.stop_gradient(rounded(kernel, bits, axes) - kernel)


@keras.saving.register_keras_serializable("tfdistill")
class FakeQuantize(keras.Layer):
    """Rounds activations to 2^bits levels between two numbers.

    Before the first training batch, or `calibrate`, the two are not known, and nothing is rounded.

    Args:
        bits: 2 to 8.
        ranges: `average`, a moving average of each training batch's smallest and largest value;
            `learned`, those of the first batch times a factor that is trained (LSQ, Esser et al.
            2020, arXiv 1902.08153); `fixed`, `low` and `high` as they are given.
        low: Smallest value, <= 0; of `fixed` alone.
        high: Largest value, >= 0; of `fixed` alone.
        momentum: Of the moving average, 0..1.

    Example:
        >>> FakeQuantize(bits=2, ranges="fixed", low=0.0, high=3.0)([0.4, 0.6, 9.0])
        [0.0, 1.0, 3.0]
    """

    def __init__(
        self,
        bits: int = 8,
        ranges: str = AVERAGE,
        low: float = 0.0,
        high: float = 0.0,
        momentum: float = 0.99,
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.bits = checks.bits("bits", bits)
        self.ranges = checks.one_of("ranges", ranges, RANGES)
        self.momentum = checks.fraction("momentum", momentum)
        self._fixed = float(low), float(high)

    def build(self, input_shape: Any) -> None:
        if self.ranges != FIXED:
            common: dict[str, Any] = {"initializer": "zeros", "aggregation": "mean"}
            self.low = self.add_weight(shape=(), name="low", trainable=False, **common)
            self.high = self.add_weight(shape=(), name="high", trainable=False, **common)
        if self.ranges == LEARNED:
            self.factor = self.add_weight(shape=(), name="factor", initializer="ones")
        self.built = True

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value now; both 0 where they are not known yet."""
        if self.ranges == FIXED:
            return self._fixed
        factor = self.factor if self.ranges == LEARNED else 1.0
        low, high = (ops.convert_to_numpy(factor * each) for each in (self.low, self.high))
        return float(low), float(high)

    def set_range(self, low: float, high: float) -> None:
        """Set the smallest (<= 0) and the largest value (>= 0); both 0 make it unknown."""
        self.low.assign(low)
        self.high.assign(high)
        if self.ranges == LEARNED:
            self.factor.assign(1.0)

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        x = ops.cast(x, "float32")  # of an input of whole numbers
        if self.ranges == FIXED:
            return fake_quant_with_min_max_vars(x, *self._fixed, num_bits=self.bits)
        if training and self.trainable:
            self._follow(ops.stop_gradient(x))
        low, high = ops.convert_to_tensor(self.low), ops.convert_to_tensor(self.high)
        known = high > low
        # Where the range is not known, a valid one keeps gradients from being NaN.
        high = ops.where(known, high, low + 1.0)
        if self.ranges == LEARNED:
            rounded = self._scaled(x, low, high)
        else:
            rounded = fake_quant_with_min_max_vars(x, low, high, self.bits)
        return ops.where(known, rounded, x)

    def _follow(self, x: Tensor) -> None:
        """Take the range of the first batch; then, if it is not learned, the moving average."""
        known = self.high > self.low
        share = 0.0 if self.ranges == LEARNED else 1.0 - self.momentum
        of_batch = ops.minimum(ops.min(x), 0.0), ops.maximum(ops.max(x), 0.0)
        for mine, found in zip((self.low, self.high), of_batch, strict=True):
            mine.assign(ops.where(known, mine + share * (found - mine), found))

    def _scaled(self, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return x rounded to levels of the step that the factor makes larger or smaller."""
        top = 2.0**self.bits - 1
        # As there, so that it changes as fast as weights do.
        slowed = (top * math.prod(size or 1 for size in x.shape[1:])) ** -0.5
        factor = slowed * self.factor + ops.stop_gradient((1 - slowed) * self.factor)
        step = (high - low) / top
        zero = ops.floor(0.5 - low / step)
        level = ops.clip(x / (factor * step) + zero, 0.0, top)
        level = level + ops.stop_gradient(ops.floor(level + 0.5) - level)
        return (level - zero) * (factor * step)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        low, high = self._fixed
        return {
            **super().get_config(),
            "bits": self.bits,
            "ranges": self.ranges,
            "low": low,
            "high": high,
            "momentum": self.momentum,
        }


class _Rounding:
    """What layers with a rounded kernel share; `axes` are all but those of the output channel."""

    axes: tuple[int, ...]

    def __init__(self, *args: Any, weight_bits: int = 8, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.weight_bits = checks.bits("weight_bits", weight_bits)

    def rounded_kernel(self) -> Tensor:
        """Return the kernel that the layer computes with."""
        return _straight_through(self.kernel, self.weight_bits, self.axes)  # type: ignore[attr-defined]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight_bits": self.weight_bits}  # type: ignore[misc]


@keras.saving.register_keras_serializable("tfdistill")
class QuantizedConv2D(_Rounding, layers.Conv2D):
    """A convolution with a rounded kernel: `Conv2D`'s arguments, and `weight_bits`, 2 to 8."""

    axes = (0, 1, 2)

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return super().convolution_op(inputs, self.rounded_kernel())


@keras.saving.register_keras_serializable("tfdistill")
class QuantizedDepthwiseConv2D(_Rounding, layers.DepthwiseConv2D):
    """A depthwise convolution with a rounded kernel: as `QuantizedConv2D`."""

    axes = (0, 1)

    def call(self, inputs: Tensor) -> Tensor:
        outputs = ops.depthwise_conv(
            inputs,
            self.rounded_kernel(),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
        )
        outputs = outputs + self.bias if self.use_bias else outputs
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable("tfdistill")
class QuantizedDense(_Rounding, layers.Dense):
    """A dense layer with a rounded kernel: as `QuantizedConv2D`."""

    axes = (0,)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        outputs = ops.matmul(inputs, self.rounded_kernel())
        outputs = outputs + self.bias if self.use_bias else outputs
        return outputs if self.activation is None else self.activation(outputs)


QUANTIZED: dict[type, Any] = {
    layers.Conv2D: QuantizedConv2D,
    layers.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    layers.Dense: QuantizedDense,
}


@keras.saving.register_keras_serializable("tfdistill")
class DeployedConv2D(layers.Conv2D):
    """A convolution whose kernel of fewer than 8 bits a converter leaves as it is.

    A converter rounds to 127 steps for the largest weight, among which those of 7 steps are not. It
    is told to round between `-limit` and `limit` instead, where a step of 4 bits is 18 of 8 bits.

    Args:
        *args: Of `Conv2D`.
        limit: `[filters]` numbers > 0.
        **kwargs: Of `Conv2D`.
    """

    def __init__(self, *args: Any, limit: Sequence[float], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.limit = [float(each) for each in limit]

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        limit = np.asarray(self.limit, "float32")
        kernel = fake_quant_with_min_max_vars(kernel, -limit, limit, narrow_range=True, axis=-1)
        return super().convolution_op(inputs, kernel)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "limit": self.limit}


def limits(kernel: np.ndarray, bits: int, smallest: np.ndarray | float = SMALLEST) -> np.ndarray:
    """Return the `limit` of a kernel that is on its grid.

    Args:
        kernel: `[height, width, channels, filters]`.
        bits: Of its grid.
        smallest: `[filters]` or a number: no limit is below.
    """
    step = np.abs(kernel).max(axis=(0, 1, 2)) / levels(bits)
    return np.maximum(127 * step / (127 // levels(bits)), smallest)


def is_quantized(network: Any) -> bool:
    """Return whether a network is one that `quantize_aware` made."""
    return any(isinstance(layer, FakeQuantize) for layer in getattr(network, "layers", ()))


def count_params(network: Any) -> int:
    """Return the number of a network's weights, without the numbers that are ranges."""
    ranges = [layer for layer in network.layers if isinstance(layer, FakeQuantize)]
    return network.count_params() - sum(layer.count_params() for layer in ranges)
