"""Pruned networks compute what the whole ones do with those channels at zero."""

import keras
import numpy as np
import pytest
from keras import layers

from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.models.pruning import prune
from tfdistill.utils.checks import UsageError

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (4, 32, 32, 3)).astype("float32")


def depthwise_with_residuals():
    """Return a network of inverted blocks, as MobileNetV2's."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 128, -1.0)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(16, 3, 2, padding="same")(x)))
    for _ in range(2):
        y = layers.Conv2D(32, 1, use_bias=False)(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(16, 1, use_bias=False)(y))
        x = layers.Add()([x, y])
    x = layers.AveragePooling2D(2)(x)
    x = layers.Dense(24, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(5)(x))


def build(name):
    if name == "depthwise":
        return scrambled(depthwise_with_residuals())
    width = {"width": 0.25} if name == "resnet18-imagenet" else {}
    return scrambled(models.build(ModelConfig(name, **width), (32, 32, 3), 10, 127.5, 64))


def scrambled(network):
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.moving_mean.shape[0]
            values = [*RANDOM.normal(size=(3, size)), RANDOM.uniform(0.3, 2, size)]
            layer.set_weights(values)
        elif isinstance(layer, (layers.Conv2D, layers.Dense)) and layer.use_bias:
            layer.bias.assign(RANDOM.normal(size=layer.bias.shape))
    return network


def set_to_zero(whole, pruned):
    """Set the channels of `whole` to zero that are not in `pruned`: they have other biases."""
    for layer in whole.layers:
        if isinstance(layer, (layers.BatchNormalization, layers.Conv2D, layers.Dense)):
            values, kept = layer.get_weights(), pruned.get_layer(layer.name).get_weights()
            norm = isinstance(layer, layers.BatchNormalization)
            if norm or layer.use_bias:
                gone = ~np.isin(values[1], kept[1])
                for value in values[:2]:
                    value[..., gone] = 0
                layer.set_weights(values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "whole", "half"),
    [
        ("cnn4", 165_354, 42_106),
        ("resnet8", 78_714, 20_290),
        ("resnet20", 274_042, 69_570),
        ("resnet18-imagenet", 705_786, 178_562),
        ("wrn-10-1", 77_850, None),
        ("depthwise", None, None),
    ],
)
def test_it_computes_what_the_whole_network_does_with_those_channels_at_zero(name, whole, half):
    network = build(name)
    before = network.get_weights()
    pruned = prune(network, keep=0.5)
    if whole and half:
        assert (network.count_params(), pruned.count_params()) == (whole, half)
    assert pruned.count_params() < 0.35 * network.count_params()
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    set_to_zero(network, pruned)
    found, expected = np.asarray(pruned(PIXELS)), np.asarray(network(PIXELS))
    np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())
    assert abs(expected).max() > 0


def chain(*stack, shape=(8, 8, 2)):
    inputs = x = keras.Input(shape)
    for layer in (*stack, layers.GlobalAveragePooling2D(), layers.Dense(3, name="logits")):
        x = layer(x)
    return keras.Model(inputs, x)


def kept_channels(network, name, **settings):
    whole, pruned = network.get_layer(name), prune(network, **settings).get_layer(name)
    kernels = [layer.get_weights()[0] for layer in (whole, pruned)]
    return [
        place
        for place in range(kernels[0].shape[-1])
        if any(
            np.array_equal(kernels[0][..., place], kernels[1][..., other])
            for other in range(kernels[1].shape[-1])
        )
    ]


def test_the_channels_of_the_largest_scores_stay():
    network = chain(layers.Conv2D(4, 1, name="conv", use_bias=False), layers.BatchNormalization())
    kernel = np.float32([[[[1, -3, 2, 0.5], [1, 0, 2, 0.5]]]])  # L1: 2, 3, 4, 1
    network.get_layer("conv").set_weights([kernel])
    assert kept_channels(network, "conv", keep=0.5, score="kernel", multiple=1) == [1, 2]
    gamma, variance = [-9, 1, 1, 9], np.float32([4, 1, 1, 1]) - 1e-3  # 2 * 9/2, 3, 4, 9
    network.layers[2].set_weights([np.float32(gamma), np.zeros(4), np.zeros(4), variance])
    assert kept_channels(network, "conv", keep=0.5, multiple=1) == [0, 3]


def test_what_is_added_falls_together_by_the_mean_of_its_scores():
    inputs = keras.Input((4, 4, 2))
    one, other = (layers.Conv2D(4, 1, name=name, use_bias=False)(inputs) for name in "ab")
    x = layers.GlobalAveragePooling2D()(layers.Add()([one, other]))
    network = keras.Model(inputs, layers.Dense(2)(x))
    network.get_layer("a").set_weights([np.float32([[[[9, 0, 1.5, 1], [0, 0, 0, 0]]]])])
    network.get_layer("b").set_weights([np.float32([[[[0, 0, 0.5, 3], [0, 2, 0, 0]]]])])
    # With mean squares of 1: a 1.96 0 0.33 0.22, b 0 1.10 0.27 1.65
    for name in "ab":
        assert kept_channels(network, name, keep=0.5, multiple=1) == [0, 3]


@pytest.mark.parametrize(
    ("keep", "multiple", "filters"), [(0.5, 8, 16), (0.7, 8, 24), (0.3, 4, 8), (1.0, 8, 30)]
)
def test_the_number_is_a_multiple(keep, multiple, filters):
    network = chain(layers.Conv2D(30, 1, name="conv"))
    assert prune(network, keep=keep, multiple=multiple).get_layer("conv").filters == filters


def test_a_sequential_network_is_taken():
    network = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(16, 3), layers.Flatten()])
    network.add(layers.Dense(2))
    assert prune(network, keep=0.5).count_params() == 9 * 8 + 8 + 36 * 8 * 2 + 2


def broadcast():
    inputs = keras.Input((8, 8, 2))
    sums = layers.Add(name="sum")([layers.Conv2D(8, 1)(inputs), layers.Conv2D(1, 1)(inputs)])
    return keras.Model(inputs, layers.Conv2D(2, 1)(sums))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            lambda: chain(layers.Conv2D(8, 1, name="small")),
            "leave the layer small empty. Received: keep=0.4 of its 8 channels, in multiples of 8",
        ),
        (
            lambda: chain(layers.Conv2D(9, 1), layers.Reshape((64, 9, 1), name="r")),
            "layer r .*know",
        ),
        (lambda: chain(layers.Conv2D(8, 1, groups=2, name="g")), "layer g .*of groups"),
        (
            lambda: chain(layers.DepthwiseConv2D(1, depth_multiplier=2, name="d")),
            "layer d .*several channels of one",
        ),
        (lambda: chain(layers.Dense(8, name="d")), "layer d .*between positions"),
        (
            lambda: chain(layers.Conv2D(8, 1, activation="sigmoid", name="s")),
            "layer s .*not 0 at 0",
        ),
        (
            lambda: chain(layers.Conv2D(8, 1), layers.BatchNormalization(axis=1, name="b")),
            "layer b .*another axis",
        ),
        (broadcast, r"layer sum \(Add\), which repeats"),
        (lambda: chain(layers.Conv2D(8, 1), layers.Softmax(name="s")), "layer s .*not 0 at 0"),
    ],
)
def test_what_it_does_not_understand_is_named(network, message):
    with pytest.raises(UsageError, match=message) as caught:
        prune(network(), keep=0.4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings", [{"keep": 1.1}, {"keep": -0.1}, {"score": "taylor"}, {"multiple": 0}]
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError, match=f"{next(iter(settings))} must be"):
        prune(chain(layers.Conv2D(8, 1)), **{"keep": 0.5, **settings})
