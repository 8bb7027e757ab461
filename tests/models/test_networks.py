"""Our own networks: published sizes, raw pixels in, float32 logits out, save and load."""

import keras
import numpy as np
import pytest

from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.models import blocks
from tfdistill.models.flops import flops

pytestmark = pytest.mark.slow

# Millions of weights with batch-norm statistics, as published for 32x32x3 images.
PUBLISHED = [
    ("resnet20", 10, 0.274),
    ("resnet8x4", 100, 1.24),
    ("resnet32x4", 100, 7.44),
    ("resnet18", 10, 11.18),
    ("resnet34", 10, 21.30),
    ("wrn-16-2", 10, 0.69),
    ("wrn-40-2", 10, 2.25),
]
SMALL = ["cnn2", "cnn4", "resnet8", "resnet8x4", "resnet18", "resnet18-imagenet", "wrn-10-1"]
SMALL += ["mlperf_resnet8", "dscnn6"]


@pytest.fixture
def pixels():
    """Return uint8 [4, 16, 16, 3]."""
    return np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype("uint8")


def _small(name, **settings):
    width = {} if name.startswith("wrn") else {"width": 0.25}
    return models.build(ModelConfig(name, **width, **settings), (16, 16, 3), 5, 127.5, 127.5)


@pytest.mark.parametrize(("name", "classes", "millions"), PUBLISHED)
def test_number_of_weights_is_the_published_one(name, classes, millions):
    network = models.build(ModelConfig(name), (32, 32, 3), classes)
    digits = len(str(millions).split(".")[1])
    assert round(network.count_params() / 1e6, digits) == millions
    assert network.name == name


def test_the_network_of_mlperf_tiny_has_the_published_size():
    network = models.build(ModelConfig("mlperf_resnet8"), (32, 32, 3), 10, 127.5, 64.0)
    assert network.count_params() == 78_666
    # 32^2 (27 + 2 * 144) 16, 16^2 (144 + 288 + 16) 32, 8^2 (288 + 576 + 32) 64, 64 * 10
    assert flops(network, (32, 32, 3)) == 2 * (5_160_960 + 3_670_016 + 3_670_016 + 640)
    assert network.get_layer("layer2.0.conv1").padding == "same"  # on the far side alone
    wide = models.build(ModelConfig("mlperf_resnet8", width=2.5), (32, 32, 3), 10)
    assert wide.get_layer("features").output.shape == (None, 8, 8, 160)


def test_a_depthwise_network_has_the_multiply_adds_worked_out_by_hand():
    network = models.build(ModelConfig("dscnn6"), (32, 32, 3), 10)
    pixels = [1024 * (9 * 16 + 16 * 32), 256 * (9 * 32 + 32 * 64), 256 * (9 * 64 + 64 * 64)]
    pixels += [64 * (9 * 64 + 64 * 128), 64 * (9 * 128 + 128 * 128), 64 * (9 * 128 + 128 * 128)]
    assert flops(network, (32, 32, 3)) == 2 * (1024 * 27 * 16 + sum(pixels) + 1280)
    assert network.count_params() == 57_194


def test_imagenet_resnet50_has_the_published_number_of_weights():
    network = models.build(ModelConfig("resnet50-imagenet"), (64, 64, 3), 1000)
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    assert trainable == 25_557_032  # torchvision's resnet50


def test_cnn4_flattens_4608_values_of_a_128_pixel_image():
    network = models.build(ModelConfig("cnn4"), (128, 128, 3), 10)
    hidden = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)][0]
    assert hidden.kernel.shape == (4608, 128)


@pytest.mark.parametrize("size", [8, 45, 46])
def test_cnn4_takes_small_images(size):
    network = models.build(ModelConfig("cnn4"), (size, size, 1), 10)
    assert network.output_shape == (None, 10)


@pytest.mark.parametrize("name", SMALL)
def test_logits_features_and_uint8_and_the_same_saved_and_loaded(name, pixels, tmp_path):
    network = _small(name)
    logits = network(pixels, training=False).numpy()
    assert logits.shape == (4, 5)
    assert logits.dtype == "float32"
    assert network.get_layer("features").output.shape[0] is None
    assert len(network.get_layer("features").output.shape) == 4
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(pixels.astype("float32"), training=False), logits)


def test_uint8_batches_of_tf_data_train(pixels):
    tf = pytest.importorskip("tensorflow")
    network = _small("cnn2")
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = network.get_layer("logits").kernel.numpy()
    batches = tf.data.Dataset.from_tensor_slices((pixels, [0, 1, 2, 3])).batch(2)
    history = network.fit(batches, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert abs(network.get_layer("logits").kernel.numpy() - before).max() > 0


def test_pixels_are_normalised_by_channel():
    inputs, x = blocks.pixels((1, 1, 3), mean=[100, 50, 0], std=[50, 25, 100])
    value = keras.Model(inputs, x).predict(np.full((1, 1, 1, 3), 200, "uint8"), verbose=0)
    np.testing.assert_allclose(value.ravel(), [2, 6, 2], rtol=1e-6)


def test_without_mean_and_std_the_network_sees_the_pixels():
    inputs, x = blocks.pixels((1, 1, 1))
    value = keras.Model(inputs, x).predict(np.full((1, 1, 1, 1), 200.0), verbose=0)
    assert value.item() == 200


def test_mixed_precision_keeps_normalisation_and_logits_in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = _small("resnet8")
        seen = keras.Model(network.input, network.get_layer("normalize").output)
        # 200.4 is 200 in bfloat16.
        value = seen(np.full((1, 16, 16, 3), 200.4, "float32"))
        logits = network(np.zeros((2, 16, 16, 3), "uint8"))
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_allclose(np.asarray(value), (200.4 - 127.5) / 127.5, rtol=1e-5)
    assert logits.dtype == "float32"
    assert network.get_layer("features").compute_dtype == "bfloat16"


def test_layers_of_one_shape_start_with_different_weights_of_the_fan_out_scale():
    network = models.build(ModelConfig("resnet20"), (8, 8, 3), 10)
    kernels = [
        layer.kernel.numpy()
        for layer in network.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel.shape == (3, 3, 64, 64)
    ]
    assert len(kernels) == 5
    assert abs(kernels[0] - kernels[1]).max() > 0.01
    np.testing.assert_allclose(kernels[0].std(), (2 / (9 * 64)) ** 0.5, rtol=0.05)


def test_dropout_is_what_was_asked_for():
    rates = {}
    for name, dropout in (("cnn4", None), ("cnn4", 0.25), ("wrn-10-1", 0.3), ("cnn2", None)):
        network = models.build(ModelConfig(name, dropout=dropout), (16, 16, 3), 5)
        found = [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)]
        rates[name, dropout] = sorted(set(found))
    expected = [[0.5], [0.25], [0.3], []]
    assert list(rates.values()) == expected


def test_seed_decides_the_initial_weights():
    kernels = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        kernels.append(_small("resnet8").get_layer("logits").kernel.numpy())
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert abs(kernels[0] - kernels[2]).max() > 0


STAGES = [  # name, width, (height, channels) of each stage's output on 32x32 images
    ("resnet20", 0.5, {"stage1": (32, 8), "stage2": (16, 16), "features": (8, 32)}),
    ("resnet8x4", 0.25, {"stage1": (32, 16), "stage2": (16, 32), "features": (8, 64)}),
    (
        "resnet50-imagenet",
        0.125,
        {"stage1": (8, 32), "stage2": (4, 64), "stage3": (2, 128), "features": (1, 256)},
    ),
    ("wrn-16-2", 1.0, {"stage1": (32, 32), "stage2": (16, 64), "stage3": (8, 128)}),
]


@pytest.mark.parametrize(("name", "width", "expected"), STAGES)
def test_the_output_of_every_stage_has_a_name(name, width, expected):
    network = models.build(ModelConfig(name, width=width), (32, 32, 3), 5)
    named = [layer for layer in network.layers if layer.name.startswith(("stage", "features"))]
    outputs = {layer.name: layer.output.shape[2:] for layer in named}
    assert {name: outputs[name] for name in expected} == expected
    assert set(outputs) == {*expected, "features"}


def test_a_stage_ends_where_the_next_one_begins():
    network = models.build(ModelConfig("wrn-16-1"), (32, 32, 3), 5)
    after = network.layers[network.layers.index(network.get_layer("stage2")) + 1]
    assert after.input is network.get_layer("stage2").output
    kernels = {layer.kernel.shape[2:] for layer in _convolutions(after)}
    assert kernels == {(32, 64)}


def _convolutions(layer):
    """Yield the first convolutions after a layer."""
    for node in layer._outbound_nodes:
        after = node.operation
        if isinstance(after, keras.layers.Conv2D):
            yield after
        else:
            yield from _convolutions(after)
