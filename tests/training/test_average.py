"""Runs with a moving average of the weights: what is measured and saved, exact resume, together."""

import dataclasses

import keras
import pytest

from tests.training.test_train import (
    DIGITS,
    DROPOUT,
    NETWORK,
    SHORT,
    STUDENT,
    TEACHER,
    interrupted,
    renamed,
)
from tfdistill import data, records
from tfdistill.config import DistillationConfig
from tfdistill.training import train
from tfdistill.training.session import Session

AVERAGED = dataclasses.replace(SHORT, ema=0.9)
RUN = renamed(STUDENT, "averaged", model=DROPOUT, training=AVERAGED)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study folder with a teacher whose weights are averaged."""
    folder = tmp_path_factory.mktemp("study")
    train.run(dataclasses.replace(TEACHER, training=AVERAGED), folder)
    return folder


@pytest.fixture(scope="module")
def record(study):
    return train.run(RUN, study)


@pytest.mark.slow
def test_training_is_what_it_is_without_the_average(study, record):
    plain = train.run(renamed(RUN, "plain", training=SHORT), study)
    assert plain.history["loss"] == record.history["loss"]
    assert plain.history["val_loss"] != record.history["val_loss"]
    assert plain.weights["last"] != record.weights["last"]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["best", "last"])
def test_saved_networks_and_figures_are_of_the_average(study, record, part):
    images = data.load(DIGITS)
    network = keras.saving.load_model(records.run_folder(study, RUN.name) / f"{part}.keras")
    figures = getattr(record, part)
    for examples, name in ((images.test, "test"), (images.validation, "validation")):
        guesses = network.predict(examples.images, verbose=0).argmax(-1)
        found = (guesses == examples.labels).mean()
        assert figures[f"{name}_accuracy"] == pytest.approx(found)
    shown = record.history["val_accuracy"][figures["epoch"] - 1]
    assert figures["validation_accuracy"] == pytest.approx(shown)


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(study, record):
    parted = renamed(RUN, "parted")
    with interrupted(session := Session(), 1, 0.1):
        train.run(parted, study, session)
    resumed = train.run(parted, study, session)
    assert resumed.weights == record.weights
    assert resumed.history == record.history


@pytest.mark.slow
def test_used_learners_and_a_stop_in_between_change_nothing(study, record):
    session = Session()
    train.run(renamed(RUN, "seed", seed=5), study, session)
    train.run(renamed(RUN, "early", stop_epoch=2), study, session)
    whole = train.run(renamed(RUN, "early"), study, session)
    assert whole.weights == record.weights and whole.history == record.history


@pytest.mark.slow
def test_students_trained_together_are_those_trained_alone(study, record):
    other = renamed(RUN, "other", model=NETWORK, distillation=DistillationConfig(0.2, 1.0))
    runs = [renamed(RUN, "first"), renamed(other, "second")]
    with interrupted(session := Session(), 1, 0.1):
        train.run_together(runs, study, session)
    found = train.run_together(runs, study, session)
    for one, alone in zip(found, (record, train.run(other, study)), strict=True):
        assert one.weights == alone.weights
        assert one.history == alone.history and one.figures == alone.figures
