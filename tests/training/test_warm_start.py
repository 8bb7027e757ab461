"""A run that starts from the weights of another: the same weights, a new training."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest

from tests.training.test_train import interrupted
from tfdistill import data, records
from tfdistill.config import DataConfig, DistillationConfig, ModelConfig, RunConfig, TrainingConfig
from tfdistill.training import evaluation, learners, train
from tfdistill.training.runner import finished
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow

DIGITS = DataConfig(train_examples=96, validation=100)
SHORT = TrainingConfig(epochs=3, batch_size=32, learning_rate=0.01, select="last")
NETWORK = ModelConfig("cnn2", width=0.25)
FIRST = RunConfig("first", "first", 0, DIGITS, NETWORK, SHORT)
WARM = dataclasses.replace(FIRST, name="warm", seed=7, start="first")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study folder with a finished run to start from."""
    folder = tmp_path_factory.mktemp("study")
    train.run(FIRST, folder)
    return folder


@pytest.fixture(scope="module")
def warm(study):
    """The record of the warm run, which a new learner was trained for."""
    return train.run(WARM, study)


def weights(study, name, part):
    return evaluation.load_network(study, name, data.load(DIGITS), part).get_weights()


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_it_starts_from_the_other_runs_weights_and_leaves_them(study, warm):
    before = weights(study, "first", "last")
    start = learners.network(WARM, data.load(DIGITS), study).get_weights()
    assert equal(start, before)
    assert not equal(weights(study, "warm", "last"), before)
    assert equal(weights(study, "first", "last"), before)
    # Its first epoch goes on below where the other one began.
    first = records.read(records.run_folder(study, "first"))
    assert warm.history["loss"][0] < first.history["loss"][0]


def test_it_starts_from_the_weights_that_the_other_run_selects(study, warm, tmp_path):
    """The best weights of the run are those of another here."""
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    folder = records.run_folder(tmp_path, "first")
    shutil.copy(records.run_folder(study, "warm") / "last.keras", folder / "best.keras")
    record, other = records.read(folder), warm
    record.weights["best"] = other.weights["last"]
    record.files["best.keras"] = other.files["last.keras"]
    for select, found in (("best", "warm"), ("last", "first")):
        record.config["training"]["select"] = select
        records.write(folder, record)
        start = learners.network(WARM, data.load(DIGITS), tmp_path).get_weights()
        assert equal(start, weights(study, found, "last"))


def test_it_needs_the_run_that_it_starts_from(study, warm, tmp_path):
    taught = dataclasses.replace(WARM, teachers=("teacher",), distillation=DistillationConfig())
    assert taught.needs == ("teacher", "first")
    assert finished(WARM, study)
    # Another first run: what started from it must be retrained.
    shutil.copytree(study, tmp_path / "study")
    first = records.run_folder(tmp_path / "study", "first")
    records.write(first, dataclasses.replace(records.read(first), weights=warm.weights))
    assert finished(WARM, tmp_path / "study") is None


def test_a_taught_student_starts_warm_too(study):
    taught = dataclasses.replace(
        WARM,
        name="taught",
        teachers=("first",),
        distillation=DistillationConfig(1.0, 2.0),
        stop_epoch=1,
    )
    session = Session()
    record = train.run(taught, study, session)
    # It starts as its own teacher, so there is nothing left to learn but batch statistics.
    cold = train.run(dataclasses.replace(taught, name="cold", start=None), study, session)
    assert record.history["soft_loss"][0] < 0.5 * cold.history["soft_loss"][0]


def test_a_reused_learner_starts_warm_and_goes_on_when_it_was_interrupted(study, warm):
    session = Session()
    cold = dataclasses.replace(WARM, name="cold-before", start=None, stop_epoch=1)
    train.run(cold, study, session)
    parted = dataclasses.replace(WARM, name="parted")
    with interrupted(session, 1, 0.0):
        train.run(parted, study, session)
    record = train.run(parted, study, session)
    assert record.weights == warm.weights and record.history == warm.history


def test_a_network_of_another_shape_is_refused(study):
    wider = dataclasses.replace(WARM, name="wider", model=ModelConfig("cnn2", width=0.5))
    with pytest.raises(UsageError, match="Start it from another run") as error:
        train.run(wider, study)
    assert "from the run first" in str(error.value)
    assert not records.run_folder(study, "wider").exists()


def test_weights_in_a_file_start_every_student(study, tmp_path):
    path = tmp_path / "start.weights.h5"
    network = evaluation.load_network(study, "first", data.load(DIGITS))
    network.save_weights(path)
    from_file = dataclasses.replace(
        WARM, name="from-file", model=dataclasses.replace(NETWORK, weights=str(path)), start=None
    )
    built = learners.network(from_file, data.load(DIGITS), study)
    assert equal(built.get_weights(), network.get_weights())
    keras.backend.clear_session()
