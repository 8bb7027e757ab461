"""Teachers in bfloat16: near to float32, said aloud, and nothing of the networks is changed."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.small_teachers import BATCH, CLASSES, ROUNDED, TOP, network, settings
from tfdistill import UsageError, models
from tfdistill.config import ModelConfig
from tfdistill.teacher_cache import build, open_cache
from tfdistill.teacher_cache.forward import Forward, _inner_layers
from tfdistill.utils import machine

pytest_plugins = ["tests.stored_logits"]
layers = keras.layers


class Told:
    """Keeps what it is told."""

    def __init__(self):
        self.said, self.warned = [], []
        self.say, self.warn = self.said.append, self.warned.append


def nested():
    """A network inside another, with a softmax that is left out, as users' teachers are."""
    inputs = keras.Input((8, 8, 3))
    x = network(5)(layers.Rescaling(0.5)(inputs))
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.Activation("relu")(x)))


class Subclassed(keras.Model):
    """A network without a configuration."""

    def __init__(self):
        super().__init__()
        self.inner = [layers.Flatten(), layers.Dense(16, "relu"), layers.Dense(CLASSES)]

    def call(self, x):
        x = keras.ops.cast(x, "float32") / 255
        for layer in self.inner:
            x = layer(x)
        return x


def mixed():
    """Built for float16, but for its last layer: it computes as it was built."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Flatten(dtype="mixed_float16"),
            layers.Dense(8, dtype="mixed_float16"),
            layers.Dense(CLASSES, dtype="float32"),
        ]
    )


def subclassed():
    made = Subclassed()
    made(np.zeros((1, 8, 8, 3)))
    return made


NETWORKS = {"functional": lambda: network(1), "nested": nested, "subclassed": subclassed}


def logits(net, pictures, precision):
    forward = Forward([net], ["it"], pictures, None, precision, "off")
    return forward(tf.constant(pictures.train.images)).numpy()[0]


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_networks_compute_in_bfloat16_and_are_left_as_they_were(pictures, make):
    net = make()
    before = [(layer.name, layer.dtype_policy.name) for layer in net._flatten_layers()]
    exact, rounded = logits(net, pictures, "float32"), logits(net, pictures, "bfloat16")
    difference = np.abs(exact - rounded).max() / np.abs(exact).max()
    assert 1e-4 < difference < 2e-2, difference  # 8 bits are 0.4 %
    assert [(layer.name, layer.dtype_policy.name) for layer in net._flatten_layers()] == before
    np.testing.assert_allclose(net(pictures.train.images), exact, rtol=1e-4, atol=1e-4)


def test_pixels_and_the_last_layer_stay_in_float32():
    assert sorted(layer.__class__.__name__ for layer in _inner_layers(network(1))) == [
        "BatchNormalization",
        "Conv2D",
        "Flatten",
    ]
    found = [layer.__class__.__name__ for layer in _inner_layers(nested())]
    assert found == ["Conv2D", "Flatten", "BatchNormalization", "Dense", "Activation"]


def test_a_network_of_mixed_precision_keeps_its_own(pictures):
    net = mixed()
    exact, rounded = logits(net, pictures, "float32"), logits(net, pictures, "bfloat16")
    assert {layer.dtype_policy.name for layer in net.layers[1:-1]} == {"mixed_float16"}
    np.testing.assert_array_equal(exact, rounded)


@keras.saving.register_keras_serializable("tests")
class OwnScale(layers.Layer):
    """A layer of a user that multiplies with float32, whatever it is given."""

    def call(self, x):
        return tf.reshape(x, [-1, 192]) * tf.ones([192], tf.float32)


def test_a_layer_that_cannot_is_refused_in_one_line(pictures):
    start = [keras.Input((8, 8, 3)), layers.Conv2D(3, 1)]
    net = keras.Sequential([*start, OwnScale(), layers.Dense(CLASSES)])
    with pytest.raises(UsageError, match="Teacher it cannot be computed in bfloat16") as refusal:
        logits(net, pictures, "bfloat16")
    text = str(refusal.value)
    assert "\n" not in text and text.endswith("Set cache.precision to float32.")
    assert {layer.dtype_policy.name for layer in net.layers} == {"float32"}
    logits(net, pictures, "float32")


class Fixed(layers.Layer):
    """A layer around a function that was traced with float32, as from a file: it fails when run."""

    def call(self, x):
        function = tf.raw_ops.Identity if x.dtype == "float32" else self.fail
        return function(input=x)

    def fail(self, input):
        with tf.control_dependencies([tf.debugging.Assert(False, ["not float32"])]):
            return tf.identity(input)


def test_what_fails_only_when_it_is_run_is_refused_in_one_line(pictures):
    start = [keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(4)]
    net = keras.Sequential([*start, Fixed(), layers.Dense(CLASSES)])
    with pytest.raises(UsageError, match="Teacher it cannot be computed in bfloat16") as refusal:
        logits(net, pictures, "bfloat16")
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_a_saved_model_is_refused_in_one_line(pictures, tmp_path):
    network(1).export(tmp_path / "saved", verbose=False)
    net = models.build(ModelConfig("saved", path=str(tmp_path / "saved")), (8, 8, 3), CLASSES)
    with pytest.raises(UsageError, match="it cannot .*A SavedModel, which computes as it was sav"):
        logits(net, pictures, "bfloat16")


@pytest.mark.parametrize("top", [False, True], ids=["all classes", "top_k"])
def test_a_cache_in_bfloat16_is_told_named_and_verified(
    pictures, teachers, finished, tmp_path, top
):
    cache = dataclasses.replace(TOP, precision="bfloat16") if top else ROUNDED
    told = Told()
    stored = build(tmp_path, teachers, pictures, settings(), cache, progress=told)
    text = "\n".join(told.said + told.warned)
    assert "bfloat16 is" in text and "computed in bfloat16" in text
    for name in ("one", "two"):
        assert f"{name} in bfloat16 differs from float32 by at most" in text
    assert f"of {2 * BATCH} images" in text
    assert ("the 2 largest" in text) == top
    assert stored.manifest["fingerprint"]["precision"] == "bfloat16"
    assert "precision" not in open_cache(finished).manifest["fingerprint"]
    found = open_cache(tmp_path).verify(teachers, pictures, settings(), rows=30)
    assert found.largest_difference < 1e-3 and found.agreement == 1.0
    if not top:
        exact = open_cache(finished).logits()[1, pictures.train.ids]
        difference = np.abs(stored.logits()[1, pictures.train.ids] - exact).max()
        assert 0 < difference < 2e-2 * np.abs(exact).max()


@pytest.mark.parametrize(
    "speed, hardware, warned, said",
    [
        (2.5, True, False, "2.5 times as fast as float32 here"),
        (0.25, False, True, "4.0 times slower than float32 here .*not in hardware.*float32."),
        (1.1, False, True, "1.1 times as fast as .*not in hardware.*Set cache.precision: float32"),
        (0.5, True, True, "2.0 times slower"),
        (1.5, None, False, "hardware not known"),
    ],
)
def test_one_line_says_whether_it_pays(monkeypatch, speed, hardware, warned, said):
    from tfdistill.teacher_cache import building

    monkeypatch.setattr(machine, "speed_of_bfloat16", lambda: speed)
    monkeypatch.setattr(machine, "has_bfloat16", lambda: hardware)
    told = Told()
    building._tell_speed(told)
    (line,) = told.warned if warned else told.said
    assert len(told.said + told.warned) == 1
    assert re.search(said, line), line


def test_a_device_without_it_is_an_error_of_one_line(monkeypatch, pictures, teachers, tmp_path):
    def missing():
        raise tf.errors.UnimplementedError(None, None, "no kernel\nfor bfloat16")

    monkeypatch.setattr(machine, "speed_of_bfloat16", missing)
    with pytest.raises(UsageError, match="cannot be computed on .*no kernel.*float32") as refusal:
        build(tmp_path, teachers, pictures, settings(), ROUNDED)
    assert "\n" not in str(refusal.value) and not list(tmp_path.glob("v*"))


def test_the_timing_gives_a_ratio_and_the_flags_an_answer():
    assert 0.01 < machine.speed_of_bfloat16() < 100
    assert machine.has_bfloat16() in (True, False, None)
