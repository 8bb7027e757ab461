"""Networks of keras.applications: their own preprocessing inside, any weights, clear failures."""

import urllib.request

import keras
import numpy as np
import pytest
from keras.src.utils import file_utils

from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.models.applications import application
from tfdistill.utils.checks import UsageError


@pytest.fixture
def images():
    """Return uint8 [2, 32, 32, 3]."""
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")


@pytest.mark.slow
def test_mobilenet_prepares_its_pixels_and_survives_saving(images, tmp_path):
    network = models.build(ModelConfig("keras:MobileNetV2"), (32, 32, 3), 5, mean=9.0, std=9.0)
    logits = np.asarray(network(images, training=False))
    assert logits.shape == (2, 5)
    assert network.get_layer("features").output.shape == (None, 1, 1, 1280)
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(images, training=False), logits)

    plain = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    plain.set_weights(network.get_weights()[:-2])
    pooled = np.asarray(plain(images.astype("float32") / 127.5 - 1, training=False))
    kernel, bias = network.get_weights()[-2:]
    np.testing.assert_allclose(logits, pooled @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_channels_are_swapped_and_centred_for_vgg(images):
    network = application("VGG16", (32, 32, 3), 5)
    first = keras.Model(network.input, network.get_layer("block1_conv1").output)
    kernel = np.zeros((3, 3, 3, 64), "float32")
    kernel[1, 1, 0, 0] = 1  # lets the first channel through
    network.get_layer("block1_conv1").set_weights([kernel, np.zeros(64, "float32")])
    seen = np.asarray(first(images))[..., 0]
    blue = images[..., 2].astype("float32") - 103.939
    np.testing.assert_allclose(seen, np.maximum(blue, 0), rtol=1e-5, atol=1e-3)


@pytest.mark.slow
def test_grey_images_are_repeated(images):
    network = application("MobileNetV3Small", (32, 32, 1), 5)
    assert network(images[..., :1], training=False).shape == (2, 5)


@pytest.mark.slow
def test_published_backbone_weights_come_from_a_file(tmp_path):
    path = str(tmp_path / "mobilenet_v3_no_top.h5")
    backbone = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    backbone.save(path)  # the old format, in which Keras publishes
    config = ModelConfig("keras:MobileNetV3Small", weights=path)
    network = models.build(config, (32, 32, 3), 5)
    for one, other in zip(backbone.weights, network.weights[:-2], strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.slow
def test_a_failed_download_says_what_to_do(monkeypatch, tmp_path):
    nowhere = urllib.request.ProxyHandler({"https": "http://127.0.0.1:9"})
    monkeypatch.setattr(urllib.request, "_opener", urllib.request.build_opener(nowhere))
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    config = ModelConfig("keras:MobileNetV3Small", weights="imagenet")
    with pytest.raises(UsageError, match="could not be downloaded.*local weights file") as caught:
        models.build(config, (32, 32, 3), 5)
    assert "\n" not in str(caught.value)
