"""The study of assistants and warm starts: who teaches whom, and what is compared with what."""

import dataclasses

import pytest

from tfdistill.config import (
    DataConfig,
    DistillationConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.records import DIVERGED, Record
from tfdistill.studies import assistants as study
from tfdistill.utils.checks import UsageError


def config(**changes):
    values = {
        "seeds": [3, 5],
        "teacher": ModelConfig("resnet14"),
        "student": ModelConfig("cnn2"),
        "settings": {"assistant": {"name": "resnet8", "width": 0.25}},
    }
    return StudyConfig(**(values | changes))


def by_name(**changes):
    return {run.name: run for run in study.runs(config(**changes))}


def test_who_is_taught_by_whom_and_starts_where():
    runs = by_name()
    assert len(runs) == 1 + 6 * 2
    found = {name: (run.teachers, run.start) for name, run in runs.items() if run.seed == 5}
    assert found == {
        "assistant-5": (("teacher",), None),
        "alone-5": ((), None),
        "continued-5": ((), "alone-5"),
        "taught-5": (("teacher",), None),
        "assisted-5": (("assistant-5",), None),
        "warm-5": (("teacher",), "alone-5"),
    }
    assert runs["teacher"].needs == ()
    assert runs["warm-5"].needs == ("teacher", "alone-5")


def test_networks_images_and_training():
    short, long = TrainingConfig(epochs=3), TrainingConfig(epochs=9)
    many = DataConfig(train_examples=300)
    runs = by_name(training=long, student_training=short, teacher_data=many)
    assert runs["teacher"].data == many and runs["teacher"].model == ModelConfig("resnet14")
    assert runs["assistant-3"].model == ModelConfig("resnet8", width=0.25)
    assert runs["teacher"].training == long
    assert runs["assistant-3"].training == short and runs["assistant-3"].data == DataConfig()
    for name in ("alone", "continued", "taught", "assisted", "warm"):
        run = runs[f"{name}-3"]
        assert (run.model, run.training, run.data) == (ModelConfig("cnn2"), short, DataConfig())


def test_an_assistant_given_by_name_has_the_usual_width():
    runs = by_name(settings={"assistant": {"name": "resnet8"}})
    assert runs["assistant-3"].model == ModelConfig("resnet8")


def test_the_warm_start_differs_from_its_control_in_the_teacher_alone():
    runs = by_name()
    warm, control = runs["warm-3"], runs["continued-3"]
    untaught = {"teachers": (), "distillation": None, "cache": None}
    assert dataclasses.replace(warm, name=control.name, row=control.row, **untaught) == control
    taught = dataclasses.replace(runs["taught-3"], name="warm-3", row=warm.row, start="alone-3")
    assert taught == warm


def test_a_saved_teacher_is_not_trained():
    runs = by_name(teacher=ModelConfig("saved", path="teacher.keras"))
    assert not runs["teacher"].trained


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"teacher": None}, "needs a teacher"),
        ({"settings": {"helper": {"name": "cnn2"}}}, "assistant"),
        ({"settings": {"assistant": {"name": "cnn2", "width": 0}}}, "model.width must be"),
        ({"self_distillation": DistillationConfig()}, "does not use self_distillation"),
    ],
)
def test_settings_that_make_no_study_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        study.runs(config(**changes))


# Test accuracy of the seeds 3 and 5.
FOUND = {
    study.ASSISTANT: (0.75, 0.77),
    study.ALONE: (0.60, 0.62),
    study.CONTINUED: (0.61, 0.62),
    study.TAUGHT: (0.63, 0.65),
    study.ASSISTED: (0.64, 0.65),
    study.WARM: (0.66, 0.66),
}


def results(**changes):
    for run in study.runs(config(training=TrainingConfig(select="last"))):
        accuracy = FOUND[run.row][run.seed == 5] if run.row in FOUND else 0.8
        figures = {"test_accuracy": accuracy}
        if run.teachers:
            figures["test_agreement"] = 0.9
        values = {"best": {"test_accuracy": 0.5}, "last": figures, "parameters": 1234}
        yield Record(run.name, run.row, run.seed, "", to_dict(run), **(values | changes))


def test_the_gain_of_a_student_is_over_the_student_alone():
    accuracy, _ = study.tables(list(results()))
    rows = {row[0]: row[1:] for row in accuracy.rows}
    assert tuple(rows) == study.ROWS
    assert rows["teacher"] == ("1,234", "1", "50.00", "80.00", "–", "–")
    assert rows["student alone"][3:] == ("61.00 ± 1.41", "–", "–")
    taught = ("64.50 ± 0.71", "+3.50", "90.00 ± 0.00")
    assert rows["student taught by the assistant"][3:] == taught
    assert rows["warm start, then taught by the teacher"][4] == "+5.00"


def test_comparisons_pair_the_seeds():
    _, compared = study.tables(list(results()))
    rows = {row[0]: row[1:] for row in compared.rows}
    assert rows["the teacher for labels"] == ("2", "+3.00, +3.00 to +3.00", "+3.00 to +3.00")
    # Differences of 1 and 0 points, one degree of freedom: 0.5 +- 12.706 * 0.7071 / sqrt(2) for the
    # line alone, 0.5 +- 63.657 * 0.7071 / sqrt(2) for all five.
    interval = ("+0.50, -5.85 to +6.85", "-31.33 to +32.33")
    assert rows["the assistant for the teacher"] == ("2", *interval)
    assert rows["labels for twice as long"][1].startswith("+0.50, ")
    assert rows["after a warm start: the teacher for labels"][1].startswith("+4.50, ")
    assert rows["taught by the teacher: a warm start for new weights"][1].startswith("+2.00, ")


def test_a_diverged_run_leaves_its_seed_out_of_the_pairs():
    found = [
        dataclasses.replace(record, status=DIVERGED) if record.name == "taught-3" else record
        for record in results()
    ]
    accuracy, compared = study.tables(found)
    assert {row[0]: row[4] for row in accuracy.rows}["student taught by the teacher"] == "65.00"
    assert [row[0] for row in compared.rows] == [
        "labels for twice as long",
        "after a warm start: the teacher for labels",
    ]


def test_every_part_of_a_study_has_tables():
    found = list(results())
    for count in range(len(found)):
        for table in study.tables(found[:count]):
            assert all(len(row) == len(table.columns) for row in table.rows)
