"""Inner activations: shared layers, right order, clear failures."""

import keras
import numpy as np
import pytest

from tfdistill.distillation.feature_extractor import tap
from tfdistill.models.cnn import cnn2
from tfdistill.utils.checks import UsageError


def test_gives_logits_and_activations_of_the_same_layers():
    network = cnn2((8, 8, 1), 3)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)).astype("uint8")
    tapped = tap(network, ["features", "normalize"])
    logits, (features, normalized) = tapped(pixels)
    np.testing.assert_array_equal(logits, network(pixels))
    np.testing.assert_array_equal(normalized, pixels)
    flat = keras.ops.reshape(features, (2, -1))
    np.testing.assert_allclose(network.get_layer("logits")(flat), logits, rtol=1e-6)
    assert tapped.get_layer("logits") is network.get_layer("logits")


def test_an_absent_layer_lists_the_present_ones():
    with pytest.raises(UsageError, match="must be one of: image, normalize, .*Did you mean 'feat"):
        tap(cnn2((8, 8, 1), 3), ["feature"])


def test_a_model_without_a_graph_cannot_be_tapped():
    class Subclassed(keras.Model):
        def call(self, images):
            return images

    with pytest.raises(UsageError, match="functional Keras model, .* Received: Subclassed"):
        tap(Subclassed(), ["features"])


def test_a_sequential_network_is_tapped_as_often_as_wanted():
    layers = keras.layers
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="features")])
    network.add(layers.Dense(2))
    pixels = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    for _ in range(2):
        logits, (features,) = tap(network, ["features"])(pixels)
        np.testing.assert_array_equal(logits, network(pixels))
        np.testing.assert_allclose(network.layers[-1](features), logits, rtol=1e-6)
    with pytest.raises(UsageError, match="Input"):
        tap(keras.Sequential([layers.Dense(3, name="features")]), ["features"])
