"""Networks on a part of a trained one's channels: what is shared, frozen, new and refused."""

import keras
import numpy as np
import pytest

from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.models.channel_split import split_upper
from tfdistill.models.fingerprint import weights_hash
from tfdistill.utils.checks import UsageError


@pytest.fixture
def pixels():
    """Return uint8 [16, 8, 8, 3]."""
    return np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype("uint8")


def trained(name, **settings):
    """Return a network with weights and batch-norm statistics that no new one has."""
    network = models.build(ModelConfig(name, **settings), (8, 8, 3), 4, 127.5, 64.0)
    generator = np.random.default_rng(1)
    learned = [weights for layer in network.layers[2:] for weights in layer.weights]
    for weights in learned:
        weights.assign(weights + generator.uniform(0.01, 0.1, weights.shape))
    return network


def fitted(network, pixels):
    """Return a network after one step."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True, jit_compile=False)
    network.train_on_batch(pixels, np.arange(len(pixels)) % 4)
    return network


def inner(network, layer, pixels, training=False):
    part = keras.Model(network.input, network.get_layer(layer).output)
    return np.asarray(part(pixels, training=training))


CUTS = [
    ("wrn-10-1", {"dropout": 0.5}, "stage1"),
    ("wrn-10-1", {}, "stage3"),
    ("resnet8", {}, "stage1"),
    ("resnet18-imagenet", {"width": 0.125}, "stage3"),
    ("cnn2", {"width": 0.25}, "features"),
    ("cnn4", {"width": 0.5}, "features"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings", "layer"), CUTS)
def test_below_the_cut_nothing_changes_and_above_all_does(name, settings, layer, pixels):
    base = trained(name, **settings)
    network = split_upper(base, layer, parts=4, part=1)
    start = {above.name: above.get_weights() for above in network.layers if above.trainable}
    fitted(network, pixels)
    expected = inner(base, layer, pixels)
    np.testing.assert_array_equal(inner(network, layer, pixels, training=True), expected)
    for above in network.layers:
        old = base.get_layer(above.name).get_weights()
        if not above.trainable:
            for before, now in zip(old, above.get_weights(), strict=True):
                np.testing.assert_array_equal(now, before)
        elif old:
            moved = zip(start[above.name], above.get_weights(), strict=True)
            assert any((before != now).any() for before, now in moved)
    assert network.count_params() < base.count_params()
    assert network.output_shape == (None, 4)


@pytest.mark.slow
def test_the_upper_part_sees_the_channels_of_its_part(pixels):
    base = trained("wrn-10-1")
    channels = inner(base, "stage1", pixels)
    names = [layer.name for layer in base.layers]
    above = names[names.index("stage1") + 1]
    for part in range(4):
        network = split_upper(base, "stage1", parts=4, part=part)
        seen = keras.Model(network.input, network.get_layer(above).input)(pixels)
        np.testing.assert_array_equal(seen, channels[..., 4 * part : 4 * part + 4])


@pytest.mark.slow
def test_the_trained_network_stays_as_it_is(pixels):
    base = trained("resnet8")
    before, trainable = weights_hash(base), len(base.trainable_weights)
    fitted(split_upper(base, "stage2", parts=2, part=0), pixels)
    assert weights_hash(base) == before
    assert len(base.trainable_weights) == trainable


@pytest.mark.slow
def test_one_part_is_the_whole_network_with_a_fresh_upper_part(pixels):
    base = trained("resnet8")
    network = split_upper(base, "stage1", parts=1, part=0)
    assert network.count_params() == base.count_params()
    fresh, old = network.get_layer("logits").kernel.numpy(), base.get_layer("logits").kernel.numpy()
    assert (fresh != old).all()
    images = inner(base, "normalize", pixels)
    np.testing.assert_array_equal(inner(network, "normalize", pixels), images)


def test_the_seed_in_force_decides_the_upper_part():
    inputs = keras.Input((4, 4, 3))
    start = keras.initializers.HeNormal(seed=7)
    x = keras.layers.Conv2D(4, 3, kernel_initializer=start, name="features")(inputs)
    x = keras.layers.Dense(5, kernel_initializer=start)(keras.layers.Flatten()(x))
    base = keras.Model(inputs, keras.layers.Dropout(0.5, seed=7)(x))
    kernels, drawn = [], []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        network = split_upper(base, "features", parts=2, part=1)
        kernels.append(network.layers[-2].kernel.numpy())
        drawn.append(np.asarray(network(np.ones((8, 4, 4, 3)), training=True)) == 0)
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).all()
    assert (drawn[0] != drawn[2]).any()


@pytest.mark.slow
def test_the_upper_part_of_a_frozen_network_is_trained(pixels):
    base = trained("resnet8")
    base.trainable = False
    network = split_upper(base, "stage2", parts=2, part=1)
    assert {layer.name for layer in network.layers if layer.trainable} >= {"features", "logits"}
    assert not network.layers[2].trainable  # its first convolution


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "wrn-10-1"])
def test_saved_and_loaded_it_is_the_same_and_as_frozen(name, pixels, tmp_path):
    network = fitted(split_upper(trained(name), "stage1", 4, 3), pixels)
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(pixels, training=False), network(pixels, training=False))
    assert len(loaded.trainable_weights) == len(network.trainable_weights)
    # So it can be loaded where tfdistill is not.
    assert {type(step).__module__.partition(".")[0] for step in loaded.operations} == {"keras"}


@pytest.mark.slow
def test_a_split_network_can_be_split_again(pixels):
    half = fitted(split_upper(trained("wrn-10-1"), "stage1", 2, 1), pixels)
    quarter = split_upper(half, "stage2", 4, 0)
    np.testing.assert_array_equal(inner(quarter, "stage2", pixels), inner(half, "stage2", pixels))


@pytest.mark.parametrize(
    ("layer", "parts", "part", "message"),
    [
        ("stage9", 2, 0, "stage9.*none of its feature maps.*: stage1, stage2, stage3, features"),
        ("image", 3, 0, "none of its feature maps"),
        ("logits", 2, 0, "none of its feature maps"),
        ("stage1", 3, 0, "divide the 16 channels of stage1. Received: parts=3"),
        ("stage1", 32, 0, "divide the 16 channels"),
        ("stage1", 0, 0, "split.parts must be a whole number, at least 1"),
        ("stage1", 4, 4, "from 0 to 3. Received: part=4 of 4"),
        ("stage1", 4, -1, "split.part must be a whole number"),
    ],
)
def test_what_cannot_be_split_is_refused_in_one_line(layer, parts, part, message):
    base = models.build(ModelConfig("wrn-10-1"), (8, 8, 3), 4)
    with pytest.raises(UsageError, match=message) as refused:
        split_upper(base, layer, parts, part)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, 16])  # 16: one channel, which an addition would broadcast
def test_a_cut_before_an_identity_shortcut_is_refused(parts):
    base = models.build(ModelConfig("resnet14"), (8, 8, 3), 4)
    names = [layer.name for layer in base.layers]
    within = names[names.index("stage1") - 7]  # the ReLU of the first of two blocks
    with pytest.raises(UsageError, match="shortcut keeps.*: stage1, stage2, features"):
        split_upper(base, within, parts, 0)


def test_a_cut_that_a_shortcut_skips_is_refused():
    base = models.build(ModelConfig("resnet8"), (8, 8, 3), 4)
    names = [layer.name for layer in base.layers]
    within = names[names.index("stage1") - 2]  # the batch norm that the shortcut is added to
    with pytest.raises(UsageError, match="which a shortcut skips"):
        split_upper(base, within, 2, 0)


def test_only_functional_networks_can_be_split():
    with pytest.raises(UsageError, match="none of its feature maps"):
        split_upper(keras.Sequential(name="empty"), "stage1", 2, 0)
