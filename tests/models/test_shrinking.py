"""Networks that see their images smaller than they are stored."""

import keras
import numpy as np
import pytest

from tfdistill import Distiller, FeatureLoss, models
from tfdistill.config import ModelConfig
from tfdistill.utils.checks import UsageError

LARGE = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")


def build(name="cnn2", size=None, shape=(32, 32, 3), **settings):
    keras.utils.set_random_seed(0)
    return models.build(ModelConfig(name, input_size=size, **settings), shape, 5, 100.0, 50.0)


@pytest.mark.parametrize("name", ["cnn2", "resnet8"])
def test_it_answers_as_the_small_network_does_to_the_averaged_image(name):
    network, small = build(name, 16, width=0.25), build(name, shape=(16, 16, 3), width=0.25)
    assert network.input_shape == (None, 32, 32, 3)
    averaged = LARGE.reshape(4, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(network(LARGE), small(averaged), rtol=1e-4, atol=1e-5)
    assert network.count_params() == small.count_params()
    kinds = [type(layer) for layer in small.layers[1:]]
    assert [type(layer) for layer in network.layers][-len(kinds) :] == kinds
    assert network.get_layer("features").output.shape == small.get_layer("features").output.shape


def test_a_ratio_that_is_no_whole_number_is_averaged_and_resized():
    flat = np.full((1, 32, 32, 3), 130.0, "float32")
    network, small = build("cnn2", 12), build("cnn2", shape=(12, 12, 3))
    expected = small(np.full((1, 12, 12, 3), 130.0, "float32"))
    np.testing.assert_allclose(network(flat), expected, rtol=1e-5)


@pytest.mark.slow
def test_it_is_saved_and_loaded_and_its_layers_can_be_compared(tmp_path):
    network, teacher = build("cnn2", 16, width=0.5), build("cnn2", 16)
    network.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(again(LARGE), network(LARGE))
    distiller = Distiller(student=again, teacher=teacher, features=[FeatureLoss("probabilistic")])
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert distiller.fit(LARGE, np.arange(4), verbose=0).history["feature_loss"][0] >= 0


@pytest.mark.parametrize("size, shape", [(64, (32, 32, 3)), (16, (32, 24, 3))])
def test_images_that_it_cannot_shrink(size, shape):
    with pytest.raises(UsageError, match="must not be larger than the images"):
        build("cnn2", size, shape)
