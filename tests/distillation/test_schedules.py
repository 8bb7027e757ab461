"""Learning-rate schedules at the steps where they turn."""

import keras
import pytest

from tfdistill.config import TrainingConfig
from tfdistill.distillation import schedules


def rates(steps, steps_per_epoch=10, **settings):
    rate = schedules.learning_rate(TrainingConfig(**settings), steps_per_epoch)
    return [float(rate(step)) for step in steps]


def test_constant_is_a_number():
    assert schedules.learning_rate(TrainingConfig(learning_rate=0.3), 10) == 0.3


def test_cosine_falls_from_the_peak_through_half_to_zero():
    values = rates([0, 50, 100], schedule="cosine", learning_rate=0.2, epochs=10)
    assert values == pytest.approx([0.2, 0.1, 0.0], abs=1e-7)


def test_warm_up_rises_from_zero_and_the_cosine_ends_at_zero():
    values = rates(
        [0, 10, 20, 60, 100], schedule="cosine", learning_rate=0.2, warmup_epochs=2, epochs=10
    )
    assert values == pytest.approx([0.0, 0.1, 0.2, 0.1, 0.0], abs=1e-7)


def test_steps_fall_at_the_first_step_of_a_milestone():
    settings = {"schedule": "steps", "learning_rate": 1.0, "milestones": [2, 4], "epochs": 6}
    values = rates([0, 19, 20, 39, 40, 59], **settings)
    assert values == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_steps_after_a_warm_up_fall_at_the_same_epochs():
    settings = {"schedule": "steps", "learning_rate": 1.0, "milestones": [3], "epochs": 6}
    assert rates([29, 30], warmup_epochs=1, **settings) == pytest.approx([1.0, 0.1])


def test_a_warm_up_before_a_constant_rate():
    assert rates([5, 10, 99], learning_rate=0.4, warmup_epochs=1) == pytest.approx([0.2, 0.4, 0.4])


def test_a_warm_up_survives_serialisation():
    rate = schedules.learning_rate(TrainingConfig(schedule="cosine", warmup_epochs=1), 10)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate))
    assert [float(again(s)) for s in (3, 40)] == [float(rate(s)) for s in (3, 40)]


def test_steps_without_milestones_are_constant():
    assert schedules.learning_rate(TrainingConfig(schedule="steps", learning_rate=0.3), 10) == 0.3
