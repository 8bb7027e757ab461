"""Networks from before strided convolutions were padded on both sides stay what they were."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.models import earlier
from tfdistill import data, models
from tfdistill.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from tfdistill.config.networks import Family
from tfdistill.config.registry import NETWORKS
from tfdistill.models import saved
from tfdistill.models.blocks import classify, conv, norm, pixels
from tfdistill.models.fingerprint import architecture_hash, weights_hash
from tfdistill.models.weights.files import load_weights
from tfdistill.training import evaluation, train
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError
from tfdistill.utils.progress import Silent

SHAPE, CLASSES = (16, 16, 3), 5
NOW = ModelConfig("resnet8", width=0.25)
EARLIER: set[bool] = set()  # holds something while `changing` is a network from before


def changing(config, input_shape, num_classes, mean, std):
    """A network whose name stands for another one after the package was updated.

    Small, and of the same weights: its convolution is padded otherwise.
    """
    if EARLIER:
        return earlier.one_convolution(input_shape, num_classes, mean, std)
    inputs, x = pixels(input_shape, mean, std)
    x = keras.layers.Activation("relu", name="features")(norm(conv(x, 4, 3, 2)))
    return classify(inputs, x, num_classes, "changing")


@pytest.fixture
def run(monkeypatch):
    """A run of a network from before; it is one of today when EARLIER is cleared."""
    monkeypatch.setitem(NETWORKS, "changing", Family(f"{__name__}:changing", ("changing",)))
    EARLIER.add(True)
    data_config = DataConfig(train_examples=64, validation=100, test_examples=100)
    training = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.01, select="last")
    yield RunConfig("first", "first", 0, data_config, ModelConfig("changing"), training)
    EARLIER.clear()


@pytest.fixture(scope="module")
def before():
    """A network from before with weights of no symmetry, its batch norms too."""
    network, generator = earlier.resnet8(SHAPE, CLASSES), np.random.default_rng(0)
    network.set_weights([generator.uniform(0.1, 1, w.shape) for w in network.weights])
    return network


@pytest.fixture
def photos():
    return np.random.default_rng(1).integers(0, 256, (4, *SHAPE)).astype("uint8")


def answers(network, photos):
    return keras.ops.convert_to_numpy(network(photos, training=False))


@pytest.mark.slow
def test_a_keras_file_keeps_its_own_padding(before, photos, tmp_path):
    before.save(tmp_path / "before.keras")
    expected = answers(before, photos)
    loaded = keras.models.load_model(tmp_path / "before.keras")
    taken = saved.load(tmp_path / "before.keras", SHAPE, CLASSES, outputs="logits")
    for network in (loaded, taken):
        np.testing.assert_array_equal(answers(network, photos), expected)
    assert architecture_hash(loaded) == architecture_hash(before)
    now = models.build(NOW, SHAPE, CLASSES)
    now.set_weights(before.get_weights())
    assert abs(answers(now, photos) - expected).max() > 0.01 * abs(expected).max()


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_from_before_are_not_taken_for_those_of_today(before, tmp_path, suffix):
    path = tmp_path / f"before{suffix}"
    before.save_weights(path) if suffix == ".weights.h5" else before.save(path)
    with pytest.raises(UsageError, match="of a network that pads its convolutions otherwise") as no:
        models.build(dataclasses.replace(NOW, weights=str(path)), SHAPE, CLASSES)
    assert "\n" not in str(no.value) and str(path) in str(no.value)


def test_weights_of_networks_with_paddings_of_their_own_are_taken(tmp_path):
    def padding(outside):
        inner = keras.Sequential([keras.Input((9, 9, 3)), keras.layers.ZeroPadding2D(1)])
        inner.add(keras.layers.Conv2D(2, 3))
        parts = [keras.layers.ZeroPadding2D(1)] if outside else []
        size = 7 if outside else 9
        return keras.Sequential([keras.Input((size, size, 3)), *parts, inner])

    first, second = padding(True), padding(True)
    first.save_weights(tmp_path / "first.weights.h5")
    load_weights(second, tmp_path / "first.weights.h5")
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UsageError, match="pads its convolutions otherwise"):
        load_weights(padding(False), tmp_path / "first.weights.h5")


@pytest.mark.slow
def test_hashes_tell_them_apart(before):
    now = models.build(NOW, SHAPE, CLASSES)
    now.set_weights(before.get_weights())
    assert weights_hash(now) == weights_hash(before)
    assert architecture_hash(now) != architecture_hash(before)
    assert architecture_hash(now) == architecture_hash(models.build(NOW, SHAPE, CLASSES))


class Stop(Silent):
    """Interrupts a training in an epoch, and keeps the epoch in which it began."""

    def __init__(self, epoch):
        self.stop, self.began = epoch, None

    def step(self, epoch, epochs, share):
        self.began = epoch if self.began is None else self.began
        if epoch >= self.stop:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_training_from_before_begins_anew(tmp_path, run, eagerly):
    with pytest.raises(KeyboardInterrupt):
        train.run(run, tmp_path, Session(Stop(1)))
    assert (tmp_path / "runs/first/state.npz").exists()
    EARLIER.clear()
    again = Stop(0)
    with pytest.raises(KeyboardInterrupt):
        train.run(run, tmp_path, Session(again))
    assert again.began == 0


@pytest.mark.slow
def test_a_run_from_before_stays_and_starts_no_network_of_today(tmp_path, run, eagerly):
    record, images = train.run(run, tmp_path), data.load(run.data)
    expected = architecture_hash(evaluation.build(run.model, images))
    EARLIER.clear()
    network = evaluation.load_network(tmp_path, "first", images)
    assert weights_hash(network) == record.weights["last"]
    assert architecture_hash(network) == expected
    with pytest.raises(UsageError, match="from the run first, .* of other padding"):
        train.run(dataclasses.replace(run, name="warm", start="first"), tmp_path)
