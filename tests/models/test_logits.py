"""The logits of networks that end in softmax or sigmoid."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfdistill.models.logits import ACTIVATIONS, features_network, final_activation, logits_network


def start():
    inputs = keras.Input((6,))
    return inputs, layers.Dense(4, activation="relu")(inputs)


def functional(*last):
    inputs, x = start()
    for layer in last:
        x = layer(x)
    return keras.Model(inputs, x)


def nested():
    inner = functional(layers.Dense(3, activation="softmax"))
    return keras.Sequential([keras.Input((6,)), layers.Rescaling(2.0), inner])


def image_network():
    return keras.applications.MobileNetV3Small((32, 32, 3), weights=None, classes=5)


ENDS = {
    "an activation": (lambda: functional(layers.Dense(3, activation="softmax")), "softmax"),
    "a layer": (lambda: functional(layers.Dense(3), layers.Softmax()), "softmax"),
    "an Activation": (lambda: functional(layers.Dense(3), layers.Activation("softmax")), "softmax"),
    "an operation": (lambda: functional(layers.Dense(3), ops.softmax), "softmax"),
    "one sigmoid": (lambda: functional(layers.Dense(1, activation="sigmoid")), "sigmoid"),
    "a network within": (nested, "softmax"),
    "Keras's own network": (image_network, "softmax"),
}


@pytest.mark.slow
@pytest.mark.parametrize("build, activation", ENDS.values(), ids=ENDS)
def test_what_stands_before_the_last_activation_gives_the_networks_outputs(build, activation):
    network = build()
    x = np.random.default_rng(0).uniform(0, 255, (4, *network.input_shape[1:])).astype("float32")
    assert final_activation(network) == activation
    logits = logits_network(network)
    assert final_activation(logits) in ("linear", None)
    np.testing.assert_array_equal(ACTIVATIONS[activation](logits(x)), network(x))
    assert [id(v) for v in logits.variables] == [id(v) for v in network.variables]


def test_a_layer_used_twice_gives_the_logits_of_its_last_use():
    inputs = keras.Input((3,))
    shared = layers.Dense(3, activation="softmax")
    network = keras.Model(inputs, shared(shared(inputs)))
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    np.testing.assert_array_equal(ops.softmax(logits_network(network)(x)), network(x))


@pytest.mark.parametrize(
    "build, told",
    [
        (lambda: functional(layers.Dense(3)), "linear"),
        (lambda: functional(layers.Dense(3), layers.Lambda(ops.softmax)), None),
        (lambda: functional(layers.Dense(3, activation="softmax"), layers.Reshape((3,))), None),
        (lambda: functional(layers.Dense(3), layers.Dropout(0.5)), None),
    ],
)
def test_a_network_that_ends_in_logits_or_does_not_tell_is_left_as_it_is(build, told):
    network = build()
    assert final_activation(network) == told
    assert logits_network(network) is network


@pytest.mark.parametrize("flat, features", [(True, 6), (False, 4 * 4 * 3)])
def test_features_stand_before_a_convolution_that_is_the_last_layer(flat, features):
    # MobileNet ends so: a 1 x 1 convolution of pooled maps, a Reshape and an Activation.
    inputs = keras.Input((4, 4, 6))
    x = layers.GlobalAveragePooling2D(keepdims=True)(inputs) if flat else inputs
    x = layers.Flatten()(layers.Conv2D(3, 1)(x))  # of 4 x 4 positions: features
    network = keras.Model(inputs, layers.Activation("linear")(x))
    found = features_network(network)
    assert found.output_shape == (None, features)
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype("float32")
    expected = images.mean(axis=(1, 2)) if flat else network.predict(images, verbose=0)
    np.testing.assert_allclose(found.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-6)
