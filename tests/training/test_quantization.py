"""Runs of few bits: from another run's weights, trained or only rounded; resumed, loaded, told."""

import dataclasses

import numpy as np
import pytest

from tfdistill import data, records
from tfdistill.config import (
    AugmentConfig,
    CacheConfig,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    QuantizeConfig,
    RunConfig,
    TrainingConfig,
    formats,
    to_dict,
)
from tfdistill.models.fingerprint import weights_hash
from tfdistill.quantization import calibrate, quantize_aware
from tfdistill.quantization.layers import FakeQuantize, count_params
from tfdistill.training import evaluation, learners, runner, train
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError

DIGITS = DataConfig(
    train_examples=200,
    validation=100,
    normalize=[0.5, 0.25],
    augment=AugmentConfig(pad_crop=1, views=2),
)
NETWORK = ModelConfig("cnn2", width=0.125)
SHORT = TrainingConfig(epochs=2, batch_size=50, learning_rate=0.02, select="last")
FIRST = RunConfig("first", "first", 0, DIGITS, NETWORK, SHORT)
BITS = QuantizeConfig(weight_bits=3, calibration=70)
ROUNDED = dataclasses.replace(FIRST, name="rounded", start="first", trained=False, quantize=BITS)
LOWER = dataclasses.replace(SHORT, epochs=3, learning_rate=0.001)
AWARE = dataclasses.replace(
    ROUNDED,
    name="aware",
    trained=True,
    training=LOWER,
    teachers=("first",),
    distillation=DistillationConfig(),
    cache=CacheConfig(),
)


@pytest.fixture(scope="module")
def session():
    return Session()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, session):
    """A study folder with the run that others start from, and both kinds of few bits."""
    place = tmp_path_factory.mktemp("study")
    for config in (FIRST, ROUNDED, AWARE):
        train.run(config, place, session)
    return place


@pytest.fixture(scope="module")
def images():
    return data.load(DIGITS)


def ranges_of(network):
    return [layer.range for layer in network.layers if isinstance(layer, FakeQuantize)]


@pytest.mark.slow
class TestRuns:
    def test_what_is_only_rounded_is_the_other_run_with_ranges_of_its_images(self, folder, images):
        first = evaluation.load_network(folder, "first", images)
        rounded = evaluation.load_network(folder, "rounded", images)
        kernels = [layer for layer in rounded.layers if hasattr(layer, "weight_bits")]
        assert [layer.weight_bits for layer in kernels] == [8, 3, 8]
        in_float = [layer.kernel for layer in first.layers if hasattr(layer, "kernel")]
        for layer, kernel in zip(kernels, in_float, strict=True):
            np.testing.assert_array_equal(layer.kernel.numpy(), kernel.numpy())
        # Evenly chosen, without views: 70 of 200.
        places = [place * 200 // 70 for place in range(70)]
        expected = calibrate(quantize_aware(first, 3), images.train.images[places])
        assert ranges_of(rounded) == ranges_of(expected)
        record = records.read(records.run_folder(folder, "rounded"))
        logits = expected.predict(images.test.images, verbose=0)
        accuracy = np.mean(logits.argmax(1) == images.test.labels)
        assert record.figures["test_accuracy"] == pytest.approx(accuracy)
        assert record.weights["last"] == weights_hash(rounded)

    def test_training_goes_on_from_there_with_ranges_that_move(self, folder, images):
        start = learners.network(AWARE, images, folder)
        assert ranges_of(start) == ranges_of(evaluation.load_network(folder, "rounded", images))
        aware = evaluation.load_network(folder, "aware", images)
        image, *others = zip(ranges_of(aware), ranges_of(start), strict=True)
        assert image[0] == image[1]
        assert all(one != other for one, other in others)
        record = records.read(records.run_folder(folder, "aware"))
        assert len(record.history["loss"]) == 3
        first = records.read(records.run_folder(folder, "first"))
        assert record.parameters == first.parameters == count_params(aware) < aware.count_params()
        assert record.flops == first.flops
        assert record.figures["test_agreement"] > 0.5

    def test_interrupted_it_goes_on_to_the_same_bit(self, folder, session):
        parted = dataclasses.replace(AWARE, name="parted")
        train.run(dataclasses.replace(parted, stop_epoch=1), folder, session)
        found = train.run(parted, folder, session)
        whole = records.read(records.run_folder(folder, "aware"))
        assert (found.weights, found.history) == (whole.weights, whole.history)

    def test_of_a_network_with_a_dead_layer_the_study_goes_on(self, folder, images, tmp_path):
        dead = evaluation.load_network(folder, "first", images)
        convolution = next(layer for layer in dead.layers if hasattr(layer, "kernel"))
        convolution.set_weights([np.zeros_like(weight) for weight in convolution.get_weights()])
        dead.save(tmp_path / "dead.keras")
        saved = {"model": ModelConfig("saved", path=str(tmp_path / "dead.keras")), "start": None}
        alone = {"teachers": (), "distillation": None, "cache": None}
        for config in (ROUNDED, dataclasses.replace(AWARE, **alone)):
            record = train.run(dataclasses.replace(config, **saved), tmp_path)
            assert record.status == records.DIVERGED
            assert record.message.startswith(f"The range of {convolution.name} has collapsed")
            assert records.read(records.run_folder(tmp_path, config.name)) == record

    def test_it_is_finished_until_the_run_that_it_starts_from_changes(self, folder):
        runs = (ROUNDED, AWARE)
        assert all(runner.finished(run, folder) for run in runs)
        other = QuantizeConfig(weight_bits=4, calibration=70)
        changed = [dataclasses.replace(run, quantize=other) for run in runs]
        assert not any(runner.finished(run, folder) for run in changed)


def test_a_run_without_it_has_the_hash_of_before():
    values = to_dict(FIRST)
    assert values["quantize"] is None
    before = {name: value for name, value in values.items() if name != "quantize"}
    assert records.run_key(values, []) == records.run_key(before, [])
    assert records.run_key(to_dict(ROUNDED), []) != records.run_key(before, [])
    assert formats.current_run(before, formats.FORMAT) == values


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_bits": 9}, r"quantize.weight_bits must be from 2 to 8. Received: .*=9"),
        ({"weight_bits": 1}, r"quantize.weight_bits must be a whole number, at least 2"),
        ({"activation_bits": 16}, "quantize.activation_bits must be from 2 to 8"),
        ({"ranges": "fixed"}, "quantize.ranges must be one of: average, learned"),
        ({"calibration": 0}, "quantize.calibration must be a whole number, at least 1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(UsageError, match=message):
        QuantizeConfig(**settings)


def test_mixed_precision_is_refused():
    with pytest.raises(UsageError, match="training.precision=mixed_bfloat16 for the run aware"):
        precision = dataclasses.replace(LOWER, precision="mixed_bfloat16")
        dataclasses.replace(AWARE, training=precision)


def test_a_layer_that_cannot_be_rounded_is_named_before_anything_is_trained():
    odd = ModelConfig("cnn2-dropout-in-evaluation", width=0.125, dropout=0.5)
    with pytest.raises(UsageError, match="Quantisation cannot take .*dropout"):
        train.check(dataclasses.replace(AWARE, model=odd), Session())
    train.check(AWARE, Session())
