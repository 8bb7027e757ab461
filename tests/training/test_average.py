"""Runs with a moving average of the weights: what is measured and saved, exact resume, together."""

import dataclasses

import keras
import pytest

from tests.training.test_train import (
    DIGITS,
    DROPOUT,
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


OTHER = renamed(RUN, "other", distillation=DistillationConfig(0.2, 1.0))


@pytest.fixture(scope="module")
def session():
    return Session()


@pytest.fixture(scope="module")
def study(tmp_path_factory, session):
    """A study folder with a teacher whose weights are averaged."""
    folder = tmp_path_factory.mktemp("study")
    train.run(dataclasses.replace(TEACHER, training=AVERAGED), folder, session)
    return folder


@pytest.fixture(scope="module")
def record(study, session):
    return train.run(RUN, study, session)


@pytest.fixture(scope="module")
def other(study, session, record):
    """The record of a student that the same learner is trained for."""
    return train.run(OTHER, study, session)


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
def test_used_learners_a_stop_and_an_interruption_change_nothing(study, session, record, other):
    train.run(renamed(RUN, "early", stop_epoch=1), study, session)
    with interrupted(session, 2, 0.1):
        train.run(renamed(RUN, "early"), study, session)
    whole = train.run(renamed(RUN, "early"), study, session)
    assert whole.weights == record.weights != other.weights
    assert whole.history == record.history


@pytest.mark.slow
def test_training_is_what_it_is_without_the_average(study, session, record):
    plain = train.run(renamed(RUN, "plain", training=SHORT), study, session)
    assert plain.history["loss"] == record.history["loss"]
    assert plain.history["val_loss"] != record.history["val_loss"]
    assert plain.weights["last"] != record.weights["last"]


@pytest.mark.slow
def test_students_trained_together_are_those_trained_alone(study, session, record, other):
    runs = [renamed(RUN, "first"), renamed(OTHER, "second")]
    with interrupted(session, 1, 0.1):
        train.run_together(runs, study, session)
    found = train.run_together(runs, study, session)
    for one, alone in zip(found, (record, other), strict=True):
        assert one.weights == alone.weights
        assert one.history == alone.history and one.figures == alone.figures
