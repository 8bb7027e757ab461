"""Runs of a part of another run's channels: only pruned, taught on, rounded; resumed and told."""

import dataclasses
import shutil

import numpy as np
import pytest

from tests.conftest import untraced
from tfdistill import data, prune, records
from tfdistill.config import (
    CacheConfig,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    PruneConfig,
    QuantizeConfig,
    RunConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.training import evaluation, learners, preflight, runner, train
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError

DIGITS = DataConfig(train_examples=100, validation=50, test_examples=100, normalize=[0.5, 0.25])
# Convolutions of 8 and 16 channels, and 10 logits from 2 x 2 x 16 features.
NETWORK = ModelConfig("cnn2", width=0.25)
SHORT = TrainingConfig(epochs=2, batch_size=50, learning_rate=0.02, select="last")
WHOLE = RunConfig("whole", "whole", 0, DIGITS, NETWORK, SHORT)
HALF = PruneConfig("whole", 0.5, multiple=4)
CUT = dataclasses.replace(WHOLE, name="cut", prune=HALF, trained=False)
TAUGHT = dataclasses.replace(
    CUT,
    name="taught",
    trained=True,
    teachers=("whole",),
    distillation=DistillationConfig(),
    cache=CacheConfig(),
)
AGAIN = dataclasses.replace(CUT, name="again", prune=PruneConfig("taught", 0.5, multiple=2))
BITS = dataclasses.replace(
    CUT, name="bits", start="taught", quantize=QuantizeConfig(calibration=40)
)


@pytest.fixture(scope="module")
def session():
    return Session()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, session):
    """A study folder with a run, what pruning makes of it, and what goes on from there."""
    place = tmp_path_factory.mktemp("study")
    with untraced():
        for config in (WHOLE, CUT, TAUGHT, AGAIN, BITS):
            train.run(config, place, session)
    return place


def weights(folder, name):
    return evaluation.load_network(folder, name, data.load(DIGITS)).get_weights()


def record(folder, name):
    return records.read(records.run_folder(folder, name))


@pytest.mark.slow
class TestRuns:
    def test_what_is_only_pruned_has_the_weights_that_were_kept(self, folder):
        images = data.load(DIGITS)
        whole = evaluation.load_network(folder, "whole", images)
        expected = prune(whole, 0.5, multiple=4)
        for found, weight in zip(weights(folder, "cut"), expected.get_weights(), strict=True):
            np.testing.assert_array_equal(found, weight)
        # 3 x 3 x 1 x 4 + 4, 3 x 3 x 4 x 8 + 8, 4 x 8 x 10 + 10.
        assert record(folder, "cut").parameters == 40 + 296 + 330
        logits = expected.predict(images.test.images, verbose=0)
        accuracy = np.mean(logits.argmax(1) == images.test.labels)
        assert record(folder, "cut").figures["test_accuracy"] == pytest.approx(accuracy)
        assert record(folder, "whole").flops > 2 * record(folder, "cut").flops > 0

    def test_training_begins_with_them(self, folder):
        start = learners.network(TAUGHT, data.load(DIGITS), folder)
        for found, weight in zip(start.get_weights(), weights(folder, "cut"), strict=True):
            np.testing.assert_array_equal(found, weight)
        assert record(folder, "taught").weights != record(folder, "cut").weights

    def test_what_was_taught_is_pruned_again_and_rounded(self, folder):
        taught = weights(folder, "taught")
        assert [kernel.shape for kernel in taught[::2]] == [(3, 3, 1, 4), (3, 3, 4, 8), (32, 10)]
        again = weights(folder, "again")
        assert [kernel.shape for kernel in again[::2]] == [(3, 3, 1, 2), (3, 3, 2, 4), (16, 10)]
        assert set(again[0].ravel()) <= set(taught[0].ravel())
        rounded = [weight for weight in weights(folder, "bits") if weight.ndim > 1]
        for found, weight in zip(rounded, taught[::2], strict=True):
            np.testing.assert_array_equal(found, weight)

    def test_interrupted_it_goes_on_to_the_same_bit(self, folder, session, eagerly):
        parted = dataclasses.replace(TAUGHT, name="parted")
        train.run(dataclasses.replace(parted, stop_epoch=1), folder, session)
        found, whole = train.run(parted, folder, session), record(folder, "taught")
        assert (found.weights, found.history) == (whole.weights, whole.history)

    def test_it_is_finished_until_what_it_was_pruned_from_changes(self, folder, tmp_path):
        assert all(runner.finished(run, folder) for run in (CUT, TAUGHT, AGAIN, BITS))
        changed = dataclasses.replace(CUT, prune=dataclasses.replace(HALF, multiple=2))
        assert not runner.finished(changed, folder)
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        trained_again = dataclasses.replace(record(folder, "whole"), weights={"last": "others"})
        records.write(records.run_folder(tmp_path, "whole"), trained_again)
        assert not runner.finished(CUT, tmp_path)


def test_a_run_without_it_has_the_hash_of_before():
    values = to_dict(WHOLE)
    before = {name: value for name, value in values.items() if name != "prune"}
    assert values["prune"] is None
    assert records.run_key(values, []) == records.run_key(before, [])
    assert records.run_key(to_dict(CUT), []) != records.run_key(before, [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0.0}, "prune.keep must be a number above 0 and below 1. Received: .*=0"),
        ({"keep": 1.0}, "prune.keep must be a number above 0 and below 1"),
        ({"keep": 0.5, "multiple": 0}, "prune.multiple must be a whole number, at least 1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(UsageError, match=message):
        PruneConfig("whole", **settings)


def test_a_step_that_would_empty_a_layer_is_found_before_anything_is_trained():
    runs = {run.name: run for run in (WHOLE, TAUGHT, AGAIN)}
    preflight.check_pruned(AGAIN, runs, Session())
    # 8 channels, then 4 in multiples of 4, then a third of these in multiples of 4: none.
    emptied = dataclasses.replace(AGAIN, prune=PruneConfig("taught", 0.3, multiple=4))
    with pytest.raises(UsageError, match="would leave the layer .* empty. Received: keep=0.3 of"):
        preflight.check_pruned(emptied, runs, Session())
