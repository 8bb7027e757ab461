"""Rounding, worked out by hand."""

import keras
import numpy as np
import pytest

from tfdistill.quantization.layers import (
    FakeQuantize,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedDepthwiseConv2D,
    is_quantized,
    limits,
    rounded,
)
from tfdistill.utils.checks import UsageError


def values(tensor):
    return np.asarray(tensor)


def test_weights_are_multiples_of_a_seventh_of_the_largest_in_4_bits():
    kernel = np.float32([[0.7, -14.0], [-0.32, 1.1], [0.04, 0.9]])
    expected = [[0.7, -14.0], [-0.3, 2.0], [0.0, 0.0]]
    np.testing.assert_allclose(rounded(kernel, 4, (0,)), expected, atol=1e-6)


def test_a_channel_of_zeros_stays_one():
    np.testing.assert_array_equal(rounded(np.zeros((3, 2), "float32"), 8, (0,)), np.zeros((3, 2)))


@pytest.mark.parametrize("bits", [8, 7, 4, 2])
def test_a_step_of_fewer_bits_is_a_whole_number_of_steps_of_8(bits):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype("float32")
    steps = values(rounded(kernel, bits, (0, 1, 2))) / (limits(kernel, bits) / 127)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert 0 < abs(steps).max() <= 127.001


@pytest.mark.parametrize(
    ("layer", "shape", "kernel", "expected"),
    [
        (QuantizedDense(2, use_bias=False, weight_bits=2), (1, 2), [[1, 4], [-0.4, -3]], [[1, -4]]),
        (
            QuantizedConv2D(1, (1, 2), use_bias=False, weight_bits=2),
            (1, 1, 2, 1),
            [[[[4.0]], [[-1.9]]]],
            [[[[4.0]]]],
        ),
        (
            QuantizedDepthwiseConv2D((1, 2), use_bias=False, weight_bits=2),
            (1, 1, 2, 2),
            [[[[4.0], [1.0]], [[-1.9], [-0.6]]]],
            [[[[4.0, 0.0]]]],
        ),
    ],
)
def test_layers_compute_with_rounded_kernels_and_scales_for_each_channel(
    layer, shape, kernel, expected
):
    layer.build(shape)
    layer.set_weights([np.float32(kernel)])
    found = values(layer(np.ones(shape, "float32")))
    if isinstance(layer, QuantizedDense):  # 1 + 0 and 4 - 4
        expected = [[1.0, 0.0]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_gradient_is_that_of_weights_that_are_not_rounded():
    tf = pytest.importorskip("tensorflow")
    layer = QuantizedDense(1, use_bias=False, weight_bits=2)
    layer.build((1, 3))
    layer.set_weights([np.float32([[1.0], [0.2], [-0.7]])])
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(layer(np.float32([[3.0, 5.0, 7.0]])))
    np.testing.assert_allclose(tape.gradient(loss, layer.kernel.value), [[3.0], [5.0], [7.0]])


class TestRanges:
    def test_fixed_ranges_round_to_their_levels(self):
        layer = FakeQuantize(bits=2, ranges="fixed", low=0.0, high=3.0)
        found = layer(np.float32([-1.0, 0.4, 0.6, 1.4, 9.0]))
        np.testing.assert_allclose(found, [0, 0, 1, 1, 3], atol=1e-6)
        assert not layer.weights

    def test_before_the_first_batch_nothing_is_rounded(self):
        x = np.float32([[0.123, -4.0]])
        np.testing.assert_array_equal(FakeQuantize(bits=2)(x), x)

    def test_the_first_batch_sets_it_and_others_move_it(self):
        layer = FakeQuantize(momentum=0.75)
        layer(np.float32([-1.0, 3.0]), training=True)
        assert layer.range == (-1.0, 3.0)
        layer(np.float32([0.5, 7.0]), training=True)  # 0 is always within
        assert layer.range == (-0.75, 4.0)
        layer(np.float32([-9.0, 9.0]), training=False)
        assert layer.range == (-0.75, 4.0)
        layer.trainable = False
        layer(np.float32([-9.0, 9.0]), training=True)
        assert layer.range == (-0.75, 4.0)

    def test_learned_ranges_get_the_gradient_of_what_rounding_costs(self):
        tf = pytest.importorskip("tensorflow")
        layer = FakeQuantize(bits=2, ranges="learned")
        layer(np.float32([[0.0, 3.0]]), training=True)  # a step of 1
        with tf.GradientTape() as tape:
            x = tf.constant([[0.75, 1.25, 4.0, -3.0]])
            tape.watch(x)
            outputs = layer(x, training=True)
            loss = keras.ops.sum(outputs * np.float32([[1, 2, 3, 10]]))
        np.testing.assert_allclose(outputs, [[1, 1, 3, 0]])
        assert layer.trainable_weights == [layer.factor]
        of_x, of_factor = tape.gradient(loss, [x, layer.factor.value])
        np.testing.assert_allclose(of_x, [[1, 2, 0, 0]])
        # (1 - 0.75) + 2 (1 - 1.25) + 3 * 3, over the root of 4 numbers times 3 steps
        assert float(of_factor) == pytest.approx((0.25 - 0.5 + 9) / 12**0.5, rel=1e-5)
        layer.factor.assign(0.5)
        assert layer.range == (0.0, 1.5)
        np.testing.assert_allclose(layer(x), [[1, 1.5, 1.5, 0]])
        layer(np.float32([[0.0, 9.0]]), training=True)
        assert layer.range == (0.0, 1.5)

    def test_learned_ranges_round_as_fixed_ones_do(self):
        x = np.random.default_rng(0).normal(size=(4, 9)).astype("float32")
        layer = FakeQuantize(bits=4, ranges="learned")
        layer(x, training=True)
        layer.factor.assign(0.7)
        low, high = layer.range
        fixed = FakeQuantize(bits=4, ranges="fixed", low=low, high=high)
        np.testing.assert_allclose(layer(x), fixed(x), atol=1e-6)

    def test_a_batch_of_zeros_leaves_it_unknown(self):
        layer = FakeQuantize()
        np.testing.assert_array_equal(layer(np.zeros(3, "float32"), training=True), np.zeros(3))
        layer(np.float32([2.0]), training=True)
        assert layer.range == (0.0, 2.0)


@pytest.mark.parametrize("bits", [1, 9, 4.0, True])
def test_bits_are_from_2_to_8(bits):
    with pytest.raises(UsageError, match="bits must be"):
        FakeQuantize(bits=bits)


def test_layers_come_back_from_their_configurations():
    for layer in (
        FakeQuantize(4, "learned", momentum=0.5),
        QuantizedConv2D(3, 2, weight_bits=4),
        QuantizedDense(3, weight_bits=5),
    ):
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()


def test_a_network_that_rounds_is_known():
    inputs = keras.Input((2,))
    assert is_quantized(keras.Model(inputs, FakeQuantize()(inputs)))
    assert not is_quantized(keras.Model(inputs, keras.layers.Dense(1)(inputs)))
    assert not is_quantized(None)
