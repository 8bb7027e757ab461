"""The study of images without labels: its runs, its tables and its figure."""

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
from tfdistill.records import Record
from tfdistill.studies.label_free import study
from tfdistill.training import runner
from tfdistill.utils.checks import UsageError

STEPS = TrainingConfig(epochs=2, steps=20, batch_size=20, labelled_share=0.25, select="last")


def config(**changes):
    values = {
        "study": "label_free",
        "seeds": [0, 1],
        "data": DataConfig(validation=100),
        "teacher": ModelConfig("cnn2"),
        "student": ModelConfig("cnn2", width=0.125),
        "training": STEPS,
        "distillation": DistillationConfig(0.9, 4.0),
        "settings": {"budgets": [100, 50]},
    }
    return StudyConfig(**(values | changes))


def test_every_row_has_as_many_steps_and_the_same_seeds():
    runs = runner.plan(config())
    students = [run for run in runs if run.name != "teacher"]
    assert len(students) == 2 * (2 * 3 + 3)
    assert {run.training.steps for run in students} == {20}
    assert {run.seed for run in students} == {0, 1}
    assert len({run.name for run in runs}) == len(runs)


def test_what_each_row_sees_and_learns():
    runs = {run.row: run for run in runner.plan(config())}
    seen = {
        row: (
            run.data.train_examples,
            run.data.labelled_examples,
            run.distillation and run.distillation.alpha,
        )
        for row, run in runs.items()
    }
    assert seen == {
        "teacher": (None, None, None),
        "100 labels alone": (100, None, None),
        "no labels, teacher on 100 images": (100, None, 1.0),
        "100 labels, teacher on all images": (None, 100, 0.9),
        "50 labels alone": (50, None, None),
        "no labels, teacher on 50 images": (50, None, 1.0),
        "50 labels, teacher on all images": (None, 50, 0.9),
        "no labels, teacher on all images": (None, None, 1.0),
        "all labels alone": (None, None, None),
        "all labels and the teacher": (None, None, 0.9),
    }


def test_without_a_share_nothing_is_mixed_and_more_images_are_for_those_without_labels():
    plain = dataclasses.replace(STEPS, labelled_share=None)
    more = DataConfig(validation=100, unlabelled="more")
    runs = {run.row: run for run in runner.plan(config(training=plain, data=more))}
    assert study.mixed(50) not in runs
    assert [row for row, run in runs.items() if run.data.unlabelled] == [study.NO_LABELS]


def test_several_teachers_teach_together():
    runs = runner.plan(config(settings={"budgets": [50], "teachers": 3}))
    assert [run.name for run in runs[:4]] == ["teacher-0", "teacher-1", "teacher-2", "ensemble"]
    assert len({run.seed for run in runs[:3]}) == 3
    taught = [run for run in runs if run.teachers]
    assert {run.teachers for run in taught} == {("teacher-0", "teacher-1", "teacher-2")}


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"teacher": None}, "needs a teacher"),
        ({"training": dataclasses.replace(STEPS, steps=None)}, "as many steps"),
        ({"training": dataclasses.replace(STEPS, select="best")}, "to 'last'"),
        ({"settings": {"budgets": [0]}}, "budgets"),
        (
            {"teacher": ModelConfig("saved", path="t.keras"), "settings": {"teachers": 2}},
            "Several teachers are trained ones",
        ),
    ],
)
def test_what_the_study_cannot_do(changes, line):
    with pytest.raises(UsageError, match=line):
        runner.plan(config(**changes))


def record(run, accuracy):
    figures = {"test_accuracy": accuracy, "validation_accuracy": accuracy, "test_ece": 0.1}
    return Record(
        run.name,
        run.row,
        run.seed,
        "key",
        to_dict(run),
        best=figures,
        last=figures,
        parameters=666,
    )


def records():
    """Labels alone 0.5 and 0.6, without labels 0.7, all labels 0.72; seed 1 half a point above."""
    accuracy = {study.alone(50): 0.5, study.alone(100): 0.6, study.ALL_LABELS: 0.72}
    runs = runner.plan(config())
    return [record(run, accuracy.get(run.row, 0.7) + 0.005 * run.seed) for run in runs]


def test_gains_are_over_as_many_labels_alone():
    families = {family.title: family for family in study.comparisons(records())}
    others = ["50 labels, other rows", "100 labels, other rows"]
    assert list(families) == ["100 labels", "all labels", "50 labels", *others]
    main = {title: family for title, family in families.items() if title not in others}
    found = {title: family.rows[study.NO_LABELS] for title, family in main.items()}
    differences = {title: round(100 * row.difference, 6) for title, row in found.items()}
    assert differences == {"100 labels": 10.0, "all labels": -2.0, "50 labels": 20.0}
    assert set(families[others[0]].rows) == {study.mixed(50), study.on_labelled(50)}


def test_tables_have_every_row_and_a_gain_for_each_number_of_labels():
    accuracy, gains = study.tables(records())
    assert [row[0] for row in accuracy.rows][:2] == ["teacher", "100 labels alone"]
    assert gains.columns == ("", "over 50 labels", "over 100 labels", "over all labels")
    first = gains.rows[0]
    assert first[0] == study.NO_LABELS
    assert [cell.split(",")[0] for cell in first[1:]] == ["+20.00", "+10.00", "-2.00"]
    last = gains.rows[-1]
    assert last[0] == study.ALL_TAUGHT and last[1] == "–" and last[3].startswith("-2.00")


def test_the_figure_has_a_line_for_each_way_to_learn():
    [(_, picture, _)] = study.figures(records())
    for name in ("labels alone", study.NO_LABELS, study.ALL_LABELS, "teacher"):
        assert name in picture
    assert study.figures([each for each in records() if "alone" not in each.row]) == []
