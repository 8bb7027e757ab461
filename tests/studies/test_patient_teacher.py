"""The study of patient teachers: what differs between its variants, its tables and its figure."""

import dataclasses

import pytest

from tfdistill.config import (
    AugmentConfig,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.records import DIVERGED, Record
from tfdistill.studies.patient_teacher import study as study
from tfdistill.training import train
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError

CROPS = DataConfig(augment=AugmentConfig(pad_crop=1, views=4))


def config(**changes):
    values = {
        "seeds": [0, 1],
        "data": CROPS,
        "teacher": ModelConfig("resnet8"),
        "student": ModelConfig("cnn2"),
        "distillation": DistillationConfig(1.0, 5.0),
        "settings": {"epochs": [40, 3]},
    }
    return StudyConfig(**(values | changes))


def test_all_variants_at_all_lengths_and_seeds():
    teacher, *students = study.runs(config())
    assert teacher.name == "teacher" and teacher.needs == ()
    assert len({run.name for run in students}) == len(students) == 5 * 2 * 2
    assert {(run.row, run.training.epochs, run.seed) for run in students} == {
        (f"{variant}, {epochs} epochs", epochs, seed)
        for variant in study.VARIANTS
        for epochs in (3, 40)
        for seed in (0, 1)
    }
    assert all(run.needs == ("teacher",) for run in students)


def test_variants_differ_in_what_the_teacher_sees_and_in_mixup_alone():
    runs = {run.row: run for run in study.runs(config(seeds=[0], settings={"epochs": [3]}))}
    found = {
        variant: (run.distillation.teacher_view, run.data.augment.mixup, run.distillation.alpha)
        for variant in study.VARIANTS
        for run in [runs[study.row(variant, 3)]]
    }
    assert found == {
        "hard labels": ("same", 0.0, 0.0),
        "fixed teacher": ("fixed", 0.0, 1.0),
        "independent crops": ("independent", 0.0, 1.0),
        "same crops": ("same", 0.0, 1.0),
        "same crops and mixup": ("same", 1.0, 1.0),
    }
    plain = DistillationConfig(1.0, 5.0)
    for variant in study.VARIANTS:
        run = runs[study.row(variant, 3)]
        augment = dataclasses.replace(run.data.augment, mixup=0.0)
        assert dataclasses.replace(run.data, augment=augment) == CROPS
        assert dataclasses.replace(run.distillation, teacher_view="same", alpha=1.0) == plain


def test_hard_labels_have_their_whole_weight_whatever_the_weights_of_the_others():
    weighted = DistillationConfig(1.0, 5.0, hard_weight=0.1, soft_weight=2.0)
    (labels,) = (
        run
        for run in study.runs(config(seeds=[0], distillation=weighted, settings={"epochs": [3]}))
        if run.row == study.row(study.LABELS, 3)
    )
    taught = labels.distillation
    assert (taught.alpha, taught.hard_weight, taught.soft_weight) == (0.0, None, None)


def test_training_of_teacher_and_students():
    short, other = TrainingConfig(learning_rate=0.3), TrainingConfig(epochs=2)
    many = DataConfig(train_examples=300)
    teacher, *students = study.runs(
        config(training=other, student_training=short, teacher_data=many)
    )
    assert (teacher.training, teacher.data) == (other, many)
    assert {run.training.epochs for run in students} == {3, 40}
    assert {run.training.learning_rate for run in students} == {0.3}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"teacher": None}, "needs a teacher"),
        ({"student_training": TrainingConfig(epochs=9)}, "does not use student_training.epochs"),
        ({"data": DataConfig(augment=AugmentConfig(mixup=0.2))}, "Set settings.mixup instead"),
        ({"data": DataConfig(augment=AugmentConfig(cutmix=1.0))}, "Set settings.mixup instead"),
        ({"settings": {"epochs": [3, 3]}}, "settings.epochs must be a list of one or more differ"),
        ({"settings": {"epochs": [0]}}, "settings.epochs must be a whole number, at least 1"),
        ({"settings": {"mixup": 0.0}}, "settings.mixup must be a finite number > 0"),
        ({"settings": {"epoch": [3]}}, "epochs"),
        ({"self_distillation": DistillationConfig()}, "does not use self_distillation"),
    ],
)
def test_settings_that_make_no_study_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        study.runs(config(**changes))


def test_independent_crops_need_a_number_of_views():
    endless = DataConfig(augment=AugmentConfig(pad_crop=1))
    runs = study.runs(config(data=endless))
    (run,) = (run for run in runs if run.name == "independent-crops-3-0")
    with pytest.raises(UsageError, match="data.augment.views of 2 or more"):
        train.check(run, Session())


# Test accuracy of the seeds 0 and 1 by variant, after 3 and after 40 epochs.
FOUND = {
    study.LABELS: ((0.50, 0.52), (0.60, 0.60)),
    study.FIXED: ((0.55, 0.55), (0.58, 0.60)),
    study.INDEPENDENT: ((0.51, 0.53), (0.61, 0.62)),
    study.SAME: ((0.56, 0.57), (0.65, 0.66)),
    study.MATCHING: ((0.49, 0.50), (0.70, 0.72)),
}


def made_up(run, accuracy, **changes):
    figures = {"test_accuracy": accuracy, "test_agreement": 0.9, "test_teacher_kl": 0.25}
    if not run.teachers:
        figures = {"test_accuracy": accuracy}
    values = {"best": {"test_accuracy": accuracy + 0.01}, "last": figures}
    values |= {"config": to_dict(run)} | changes
    return Record(run.name, run.row, run.seed, "", **values)


def results():
    last = TrainingConfig(select="last")
    teacher, *students = study.runs(config(training=last))
    yield made_up(teacher, 0.80)
    for run in students:
        variant = run.row.rsplit(",", 1)[0]
        yield made_up(run, FOUND[variant][run.training.epochs == 40][run.seed])


def test_gains_are_over_hard_labels_of_the_same_length():
    summary, _ = study.tables(list(results()))
    rows = {row[0]: row[1:] for row in summary.rows}
    assert list(rows)[0] == "teacher" and len(rows) == 11
    assert rows["teacher"] == ("1", "81.00", "80.00", "–", "–", "–")
    assert rows["hard labels, 3 epochs"][1:4] == ("52.00 ± 1.41", "51.00 ± 1.41", "–")
    assert rows["independent crops, 3 epochs"][3].startswith("+1.00, ")
    assert rows["same crops and mixup, 3 epochs"][3].startswith("-1.50, ")
    assert rows["same crops and mixup, 40 epochs"][3].startswith("+11.00, +")
    gain, *others = rows["fixed teacher, 40 epochs"][3:]
    assert gain.startswith("-1.00, -") and others == ["90.00 ± 0.00", "0.250 ± 0.000"]


def test_lengths_stand_side_by_side_the_shortest_first():
    _, lengths = study.tables(list(results()))
    assert lengths.columns == ("", "3 epochs", "40 epochs", "gain of the longest")
    assert lengths.rows[1] == ("fixed teacher", "55.00 ± 0.00", "59.00 ± 1.41", "+4.00")
    assert lengths.rows[4] == ("same crops and mixup", "49.50 ± 0.71", "71.00 ± 1.41", "+21.50")


def test_an_interval_needs_two_seeds_that_both_rows_have():
    found = [record for record in results() if record.name != "hard-labels-40-1"]
    rows = {row[0]: row[1:] for row in study.tables(found)[0].rows}
    assert rows["same crops, 40 epochs"][3] == "+5.50"


def test_every_part_of_a_study_has_tables_and_a_figure():
    found = list(results())
    for count in range(len(found)):
        for table in study.tables(found[:count]):
            assert all(len(row) == len(table.columns) for row in table.rows)
    for count in (0, 1, 2, len(found) // 2, len(found) - 1):
        ((_, svg, _),) = study.figures(found[:count])
        assert bool(svg) == (count > 1)
    diverged = [dataclasses.replace(record, status=DIVERGED) for record in found]
    assert study.tables(diverged)[0].rows == ()


def test_the_figure_has_a_line_for_each_variant_and_the_lengths_as_ticks():
    ((_, svg, _),) = study.figures(list(results()))
    for text in (*study.VARIANTS, "teacher", ">3<", ">40<", "epochs of the training"):
        assert text in svg
    some = [record for record in results() if "fixed" not in record.name]
    assert "fixed" not in study.figures(some)[0][1]
