"""The study of distilled ensembles: its runs by architecture, and its tables of records."""

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
from tfdistill.studies import distilled_ensembles as study
from tfdistill.utils.checks import UsageError

NETWORKS = [{"name": "wrn-28-2"}, {"name": "resnet8", "width": 0.5}]


def config(**changes):
    values = {"seeds": [3, 5], "data": DataConfig("tfds:cifar10")}
    return StudyConfig(**(values | {"settings": {"networks": NETWORKS}} | changes))


def test_every_architecture_has_its_own_chain_of_runs():
    runs = {run.name: run for run in study.runs(config())}
    assert list(runs)[6:] == [
        "resnet8-w0.5-single-3",
        "resnet8-w0.5-single-5",
        "resnet8-w0.5-ensemble",
        "resnet8-w0.5-distilled-3",
        "resnet8-w0.5-distilled-5",
        "resnet8-w0.5-ensemble-of-distilled",
    ]
    for name in ("wrn-28-2", "resnet8-w0.5"):
        singles = (f"{name}-single-3", f"{name}-single-5")
        assert runs[singles[0]].needs == ()
        assert runs[f"{name}-ensemble"].members == runs[f"{name}-distilled-5"].teachers == singles
        last = runs[f"{name}-ensemble-of-distilled"]
        assert last.members == (f"{name}-distilled-3", f"{name}-distilled-5")
        assert not last.trained and last.model is None and last.needs == last.members


def test_distilled_networks_are_of_their_teachers_kind_and_seeds():
    taught = TrainingConfig(epochs=7)
    settings = DistillationConfig(1.0, 2.0, average="logits")
    runs = study.runs(config(student_training=taught, distillation=settings))
    distilled = [run for run in runs if run.teachers]
    assert [run.seed for run in distilled] == [3, 5] * 2
    assert {run.model for run in distilled} == {
        ModelConfig("wrn-28-2"),
        ModelConfig("resnet8", width=0.5),
    }
    assert all(run.training == taught and run.distillation == settings for run in distilled)
    assert all(run.average == "logits" for run in runs if not run.trained)


def test_without_a_list_the_teacher_is_the_only_architecture():
    runs = study.runs(StudyConfig(seeds=[0], teacher=ModelConfig("cnn4")))
    assert {run.model for run in runs} == {ModelConfig("cnn4"), None}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"settings": {}, "teacher": None}, "needs networks"),
        ({"settings": {"networks": [{"name": "cnn2"}] * 2}}, "list of one or more different"),
        ({"settings": {"network": []}}, "networks"),
        ({"settings": {"networks": [{"nam": "cnn2"}]}}, "nam"),
        ({"student": ModelConfig("cnn4")}, "does not use student"),
        ({"teacher_data": DataConfig()}, "does not use teacher_data"),
        ({"self_distillation": DistillationConfig()}, "does not use self_distillation"),
    ],
)
def test_settings_that_make_no_study_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        study.runs(config(**changes))


def records(runs, accuracies, **more):
    """Records of runs, in their order, with these test accuracies."""
    for run, accuracy in zip(runs, accuracies, strict=True):
        figures = {"test_accuracy": accuracy}
        values = {"best": figures, "last": figures, "config": to_dict(run)} | more
        yield Record(run.name, run.row, run.seed, "", **values)


# Two singles, their ensemble, two distilled, their ensemble; first of wrn-28-2, then of resnet8.
FOUND = (0.80, 0.82, 0.85, 0.83, 0.84, 0.845, 0.60, 0.60, 0.59, 0.61, 0.61, 0.63)


def test_a_line_for_each_architecture_and_for_the_published():
    accuracy, _ = study.tables(list(records(study.runs(config()), FOUND)))
    assert accuracy.columns[2:] == ("single", "ensemble", "distilled", "ensemble of distilled")
    assert accuracy.rows == (
        ("wrn-28-2", "2", "81.00 ± 1.41", "85.00", "83.50 ± 0.71", "84.50"),
        ("wrn-28-2, published", "10", "95.22 ± 0.14", "96.33", "95.89 ± 0.07", "96.21"),
        ("resnet8, width 0.5", "2", "60.00 ± 0.00", "59.00", "61.00 ± 0.00", "63.00"),
    )


def test_what_a_distilled_network_keeps_is_a_share_of_a_gain():
    _, kept = study.tables(list(records(study.runs(config()), FOUND)))
    rows = {row[0]: row[1:] for row in kept.rows}
    # Differences of 3 and 2 points: 2.5 +- 25.452 * 0.7071 / sqrt(2), of two lines at once.
    assert rows["wrn-28-2"] == ("+4.00", "+2.50, -10.23 to +15.23", "62", "+1.00")
    # 95.89 - 95.22 of 96.33 - 95.22
    assert rows["wrn-28-2, published"] == ("+1.11", "+0.67", "60", "+0.32")
    # An ensemble that is no better has no gain of which something could be kept.
    assert rows["resnet8, width 0.5"] == ("-1.00", "+1.00, +1.00 to +1.00", "–", "+2.00")


def test_every_part_of_a_study_has_tables():
    found = list(records(study.runs(config()), FOUND))
    for count in range(len(found)):
        for table in study.tables(found[:count]):
            assert all(len(row) == len(table.columns) for row in table.rows)
    accuracy, kept = study.tables(found[:2])
    assert accuracy.rows[0] == ("wrn-28-2", "2", "81.00 ± 1.41", "–", "–", "–")
    assert kept.rows[0] == ("wrn-28-2", "–", "–", "–", "–")


def test_a_diverged_network_is_in_no_mean():
    found = list(records(study.runs(config()), FOUND))
    found[1] = dataclasses.replace(found[1], status=DIVERGED)
    assert study.tables(found)[0].rows[0][1:3] == ("1", "80.00")


def test_the_published_rows_are_those_of_the_runs():
    runs = study.runs(config(settings={"networks": [{"name": "wrn-34-1"}]}))
    assert {run.row for run in runs} <= set(study.PUBLISHED)
    assert study.PUBLISHED["wrn-34-1: distilled"] == pytest.approx(0.9437)
    assert len(study.PUBLISHED) == 24
