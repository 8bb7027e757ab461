"""Layers that round as an int8 file does, with gradients as if they did not round.

Weights are rounded symmetrically with a scale for each output channel, activations between two
numbers for the whole tensor, of which 0 is always one of the levels (Jacob et al., arXiv
1712.05877, section 3).
"""

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

    Args:
        bits: 2 to 8.
        ranges: `average`, a moving average of each training batch's smallest and largest value;
            `learned`, trained as weights; `fixed`, `low` and `high` as they are given.
        low: Smallest value, <= 0; of `fixed` alone.
        high: Largest value, >= 0.
        momentum: Of the moving average, 0..1.

    Before the first training batch, or `calibrate`, the range is not known, and nothing is rounded.

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
        self.bits = check_bits("bits", bits)
        self.ranges = checks.one_of("ranges", ranges, RANGES)
        self.momentum = checks.fraction("momentum", momentum)
        self._fixed = float(low), float(high)
        self.supports_jit = True

    def build(self, input_shape: Any) -> None:
        if self.ranges != FIXED:
            common: dict[str, Any] = {
                "shape": (),
                "initializer": "zeros",
                "trainable": self.ranges == LEARNED,
                "aggregation": "mean",
            }
            self.low = self.add_weight(name="low", **common)
            self.high = self.add_weight(name="high", **common)
        self.built = True

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value now; both 0 where they are not known yet."""
        if self.ranges == FIXED:
            return self._fixed
        low, high = (float(ops.convert_to_numpy(each)) for each in (self.low, self.high))
        # A minimum that is nan is one, too.
        return float(np.minimum(low, 0.0)), float(np.maximum(high, 0.0))

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        if self.ranges == FIXED:
            return fake_quant_with_min_max_vars(x, *self._fixed, num_bits=self.bits)
        if training and self.trainable:
            self._follow(x)
        low, high = ops.minimum(self.low, 0.0), ops.maximum(self.high, 0.0)
        known = high > low
        # Where the range is not known, a valid one keeps gradients from being NaN.
        some = ops.where(known, high, low + 1.0)
        return ops.where(known, fake_quant_with_min_max_vars(x, low, some, self.bits), x)

    def _follow(self, x: Tensor) -> None:
        """Take the range of the first batch; then, if it is not learned, the moving average."""
        known = self.high > self.low
        share = 0.0 if self.ranges == LEARNED else 1.0 - self.momentum
        x = ops.stop_gradient(x)
        of_batch = ops.minimum(ops.min(x), 0.0), ops.maximum(ops.max(x), 0.0)
        for mine, found in zip((self.low, self.high), of_batch, strict=True):
            mine.assign(ops.where(known, mine + share * (found - mine), found))

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
        self.weight_bits = check_bits("weight_bits", weight_bits)

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


QUANTIZED = {
    layers.Conv2D: QuantizedConv2D,
    layers.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    layers.Dense: QuantizedDense,
}


@keras.saving.register_keras_serializable("tfdistill")
class DeployedConv2D(layers.Conv2D):
    """A convolution whose kernel of fewer than 8 bits a converter leaves as it is.

    A converter rounds to 127 steps for the largest weight, among which those of 7 steps are not. It
    is told to round between `-limit` and `limit` instead, where a step of 4 bits is 18 of 8 bits.
    """

    limit: keras.Variable

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.limit = self.add_weight(
            name="limit", shape=(self.filters,), initializer="ones", trainable=False
        )

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        ends = -self.limit, self.limit
        kernel = fake_quant_with_min_max_vars(kernel, *ends, narrow_range=True, axis=-1)
        return super().convolution_op(inputs, kernel)


def limits(kernel: np.ndarray, bits: int) -> np.ndarray:
    """Return the `limit` of a kernel, `[height, width, channels, filters]`, that is on its grid."""
    step = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)), SMALLEST) / levels(bits)
    return 127 * step / (127 // levels(bits))


def is_quantized(network: Any) -> bool:
    """Return whether a network is one that `quantize_aware` made."""
    return any(isinstance(layer, FakeQuantize) for layer in getattr(network, "layers", ()))


def check_bits(name: str, bits: int) -> int:
    """Return a number of bits if it is from 2 to 8, else raise."""
    if checks.count(name, bits, minimum=2) > 8:
        raise checks.UsageError(f"{name} must be from 2 to 8. Received: {name}={bits}.")
    return bits
