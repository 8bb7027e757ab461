"""Search spaces: dotted keys, their values, and what is refused."""

import dataclasses

import pytest

from tfdistill.config import ModelConfig, StudyConfig, SweepConfig, TrainingConfig
from tfdistill.tuners import search_spaces
from tfdistill.utils.checks import UsageError


def with_space(space, **others):
    return dataclasses.replace(StudyConfig(), sweep=SweepConfig(space=space, **others))


def test_values_stand_at_their_keys_and_leave_the_rest():
    config = StudyConfig(teacher=ModelConfig("resnet8"), training=TrainingConfig(epochs=7))
    changed = search_spaces.with_values(
        config, {"distillation.alpha": 0.3, "data.augment.cutout": 2}
    )
    assert changed.distillation.alpha == 0.3
    assert changed.data.augment.cutout == 2
    assert changed.distillation.temperature == config.distillation.temperature
    assert config.distillation.alpha != 0.3


def test_a_part_that_is_null_begins_as_what_stands_for_it():
    config = StudyConfig(teacher=ModelConfig("resnet8"), training=TrainingConfig(epochs=7))
    values = {"student.width": 0.5, "student_training.learning_rate": 0.02}
    changed = search_spaces.with_values(config, values)
    assert changed.student == ModelConfig("resnet8", width=0.5)
    assert changed.student_training == TrainingConfig(epochs=7, learning_rate=0.02)
    assert changed.teacher == ModelConfig("resnet8") and changed.training.learning_rate == 0.001


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "at least one key"),
        ({"distillation.alpa": [0.1]}, "unknown key 'alpa'. Did you mean 'alpha'"),
        ({"distilation.alpha": [0.1]}, "Did you mean 'distillation'"),
        ({"distillation.alpha": []}, "one or more different values"),
        ({"distillation.alpha": [0.5, 0.5]}, "one or more different values"),
        ({"distillation.alpha": [0.5, 1.5]}, "from 0 to 1. Received: distillation.alpha=1.5"),
        ({"distillation.alpha": {"min": 0.1, "max": 2.0, "step": 0.1}}, "alpha=2.0"),
        ({"distillation.alpha": {"min": 0.9, "max": 0.1, "step": 0.1}}, "min < max"),
        ({"distillation.alpha": {"min": 0.1, "max": 0.9}}, "a step for the grid tuner"),
        ({"distillation.alpha": {"min": 0.1, "max": 0.9, "stop": 1}}, "unknown key 'stop'"),
        ({"distillation": [0.1]}, "group of keys; name one of them: alpha"),
        ({"distillation.alpha.x": [0.1]}, "has no key 'x'"),
        ({"student.dropout": [None, 0.5]}, "must list numbers, texts or true and false"),
        ({"student_training.learning_rate": ["fast"]}, "learning_rate"),
    ],
)
def test_a_space_that_cannot_be_tried_is_refused_in_one_line(space, message):
    with pytest.raises(UsageError, match=message) as caught:
        search_spaces.check(with_space(space))
    assert "\n" not in str(caught.value)


def test_a_range_without_a_step_is_for_tuners_that_draw():
    space = {"distillation.temperature": {"min": 1.0, "max": 20.0, "sampling": "log"}}
    search_spaces.check(with_space(space, tuner="random"))
    declared = search_spaces.hyperparameters(space)
    assert 1.0 <= declared.get("distillation.temperature") <= 20.0


def test_hyperparameters_have_the_values_of_the_space():
    space = {
        "distillation.temperature": [1, 2.5],
        "student_training.epochs": {"min": 2, "max": 6, "step": 2},
        "distillation.divergence": ["kl", "cross_entropy"],
        "distillation.standardize": [True, False],
    }
    found = {part.name: list(part.values) for part in search_spaces.hyperparameters(space).space}
    assert found["distillation.temperature"] == [1.0, 2.5]
    assert found["student_training.epochs"] == [2, 4, 6]
    assert found["distillation.divergence"] == ["kl", "cross_entropy"]
    assert found["distillation.standardize"] == [True, False]
