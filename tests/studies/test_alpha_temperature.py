"""The alpha x temperature study: its runs, and what its tables say of whole and partial results."""

import dataclasses
import math

import pytest

from tfdistill.config import (
    DataConfig,
    DistillationConfig,
    FeatureConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.records import DIVERGED, Record
from tfdistill.reporting.verdicts import verdict
from tfdistill.studies.alpha_temperature import label_weight, own_rate, study
from tfdistill.utils.checks import UsageError


def config(**changes):
    values = {"seeds": [3, 5], "teacher": ModelConfig("resnet18"), "student": ModelConfig("cnn2")}
    return StudyConfig(**(values | changes))


def small(**changes):
    return config(settings={"alphas": [0.5, 0.9], "temperatures": [1.0, 5.0], **changes})


def taught(runs, prefix="a0", suffix=""):
    return [run for run in runs if run.name.startswith(prefix) and suffix in run.name]


def test_the_whole_grid_has_45_cells_and_40_more_with_the_factor():
    runs = study.runs(config(settings={"baseline_seeds": [7, 8]}))
    cells = taught(runs)
    assert len(cells) == (45 + 40) * 2
    # One teacher, four students alone; four weights of labels alone, same size alone and at two
    # pairs, and similarity, by seed.
    assert len(runs) == 1 + 4 + len(cells) + 4 * 2 + 3 * 2 + 2
    assert len({run.name for run in runs}) == len(runs)
    assert len({run.row for run in cells}) == 85


@pytest.mark.parametrize("kinds, count", [([False], 45), ([True], 45), ([True, False], 85)])
def test_only_both_grids_share_the_cells_at_temperature_1(kinds, count):
    runs = study.runs(config(seeds=[0], settings={"scale_by_t2": kinds}))
    configurations = [run.distillation for run in taught(runs)]
    assert len(configurations) == count
    assert {taught.scale_by_t2 for taught in configurations} == set(kinds)


def test_the_cells_of_a_seed_stand_together():
    seeds = [run.seed for run in taught(study.runs(small()))]
    assert seeds == [3] * 4 + [5] * 4 + [3] * 2 + [5] * 2


def test_every_student_needs_only_the_teacher_and_is_trained_as_configured():
    short, long = TrainingConfig(epochs=3), TrainingConfig(epochs=9)
    runs = study.runs(config(training=long, student_training=short))
    teacher, *students = runs
    assert teacher.name == "teacher" and teacher.needs == () and teacher.training == long
    for run in students:
        same_size = run.name.startswith("same-size")
        assert run.training == (long if same_size else short)
        assert run.model == ModelConfig("resnet18" if same_size else "cnn2")
        assert run.needs == (() if "alone" in run.name else ("teacher",))


def test_a_cell_changes_nothing_of_the_distillation_but_its_place_in_the_grid():
    runs = study.runs(config(distillation=DistillationConfig(divergence="cross_entropy")))
    found = {run.name: run for run in runs}
    cell = found["a0.25-T7.5-t2-s5"]
    assert cell.row == "alpha 0.25, T 7.5, T²" and cell.seed == 5
    assert cell.distillation == DistillationConfig(0.25, 7.5, "cross_entropy", True)
    assert found["a0.25-T7.5-s5"].distillation.scale_by_t2 is False
    assert found["similarity-s3"].distillation.alpha == 0
    assert found["similarity-s3"].distillation.features == [
        FeatureConfig("similarity_preserving", 3000)
    ]


def test_a_saved_teacher_is_not_trained_and_has_no_same_size_student():
    runs = study.runs(config(teacher=ModelConfig("saved", path="teacher.keras")))
    assert not runs[0].trained
    assert not any(run.name.startswith("same-size") for run in runs)


def test_a_grid_of_the_teachers_own_size_repeats_no_run():
    runs = study.runs(config(student=None))
    kinds = [(run.seed, str(run.distillation)) for run in runs if run.teachers]
    assert len(set(kinds)) == len(kinds)


def test_without_a_teacher_there_is_no_study():
    with pytest.raises(UsageError, match="needs a teacher"):
        study.runs(config(teacher=None))


def made_up(run, test, validation=0.5, **changes):
    figures = {"test_accuracy": test, "validation_accuracy": validation}
    last = figures | {"test_accuracy": test - 0.1}
    values = {"best": figures, "last": last, "config": to_dict(run)}
    return Record(run.name, run.row, run.seed, "", **(values | changes))


# Deviations of 0.1 points: the cell at alpha 0.9, T 5 is far above, that with the factor far below.
MEANS = {"a0.9-T5-s": 0.66, "a0.9-T5-t2-s": 0.56, "a0.5-T5-t2-s": 0.62, "same-size-a0": 0.9}
MEANS |= {"same-size-alone": 0.92}


# Labels alone are best at half their weight.
MEANS |= {"labels-c0.5": 0.63, "labels-c0.1": 0.60}
# Cells with the factor are better at smaller rates.
MEANS = {"a0.9-T5-t2-w0.1": 0.645, "a0.9-T5-t2-w0.3": 0.61, "a0.5-T5-t2-w": 0.62} | MEANS


def results(seeds=(0, 1, 2), **grid):
    for run in study.runs(
        StudyConfig(
            seeds=list(seeds),
            data=DataConfig("tfds:cifar10"),
            teacher=ModelConfig("resnet18"),
            student=ModelConfig("cnn2"),
            settings={
                "alphas": [0.5, 0.9],
                "temperatures": [1.0, 5.0],
                "label_weights": [],
                **grid,
            },
        )
    ):
        means = [mean for prefix, mean in MEANS.items() if run.name.startswith(prefix)]
        mean = 0.92 if run.name == "teacher" else (means or [0.61])[0]
        # The weights that the validation images like best are not those of the best test accuracy.
        validation = 0.7 if run.name.startswith("a0.5-T5-t2-s") else mean
        luck = (run.seed + sum(map(ord, run.row))) % 3 - 1  # not the same for all rows of a seed
        yield made_up(run, mean + 0.001 * luck, validation)


def test_the_grid_marks_what_differs_and_says_how_many():
    _, plain, scaled, published = study.tables(list(results()))
    assert plain.columns == ("alpha", "T 1", "T 5")
    assert plain.rows[1] == ("0.9", "61.00 ± 0.10", "▲66.00 ± 0.10")
    assert plain.rows[0] == ("0.5", "61.00 ± 0.10", "61.00 ± 0.10")
    assert "1 of 4 cells differs from the student alone (61.00 ± 0.10, 3 runs)" in plain.note
    assert (
        "▲ 1 above, ▼ 0 below" in plain.note
        and "Three seeds are too few for a claim." in plain.note
    )
    assert scaled.rows[1] == ("0.9", "61.00 ± 0.10", "▼56.00 ± 0.10")
    assert "▲ 1 above, ▼ 1 below" in scaled.note
    assert published.rows[1][:4] == ("0.25", "61.08", "60.86", "61.03")


def test_the_summary_takes_the_best_cell_of_the_validation_images():
    rows = {row[0]: row[1:] for row in study.tables(list(results()))[0].rows}
    best = rows["best of the grid with the factor T²: alpha 0.5, T 5"]
    assert best[:3] == ("3", "62.00 ± 0.10", "52.00 ± 0.10") and best[3].startswith("+1.00, +0.")
    gain, published = rows["best of the grid without T²: alpha 0.9, T 5"][3:]
    assert gain.startswith("+5.00, +4.") and published == "62.57"
    assert rows["student alone"][-1] == "61.28" and rows["teacher"][-1] == "91.54"
    # Against the same network alone, which has 92.00.
    gain, published = rows["same size, alpha 0.5, T 10"][3:]
    assert gain.startswith("-2.00, -2.") and published == "90.21"
    assert rows["similarity-preserving"][3].startswith("+0.00, -")


def test_a_study_of_other_images_has_no_published_figures():
    own = [
        dataclasses.replace(record, config=record.config | {"data": {"source": "folder:mine"}})
        for record in results()
    ]
    tables = study.tables(own)
    assert len(tables) == 3 and "published" not in tables[0].columns
    assert all(len(row) == len(tables[0].columns) for row in tables[0].rows)


def test_the_verdict_counts_the_cells_of_both_grids_and_claims_nothing_of_three_seeds():
    said = verdict(study.comparisons(list(results())))
    assert said.startswith("Without T²: 1 of 4 rows is above the student alone and none below")
    assert "With the factor T²: 1 of 4 rows is above the student alone and 1 below" in said
    assert "the best on validation images, alpha 0.5 at T 5, has +1.0" in said
    assert said.endswith("Three seeds are too few for a claim.")


def test_one_run_a_cell_is_not_tested():
    tables = study.tables(list(results(seeds=[0])))
    assert "One run a cell: no test." in tables[1].note
    assert not any(mark in cell for row in tables[1].rows for cell in row for mark in "▲▼±")


def test_every_part_of_a_study_has_tables():
    found = list(results())
    for count in range(0, len(found), 3):
        summary, *grids = study.tables(found[:count])
        assert len(summary.rows) >= min(count, 1)
        assert all(len(row) == len(table.columns) for table in grids for row in table.rows)
    unfinished = study.tables(found[:6])[1]
    assert unfinished.rows == (("0.5", "61.10", "60.90"),)


def test_a_diverged_cell_is_left_blank():
    found = [
        dataclasses.replace(record, status=DIVERGED) if record.name == "a0.9-T1-s0" else record
        for record in results(seeds=[0])
    ]
    assert study.tables(found)[1].rows[1] == ("0.9", "–", "66.00")


def test_labels_alone_have_no_soft_loss_and_the_weight_of_their_row():
    runs = study.runs(config(settings={"label_weights": [0.5, 0.1]}))
    found = [run for run in runs if run.name.startswith("labels-c0.1")]
    assert [run.seed for run in found] == [3, 5]
    assert found[0].row == "labels alone, weight 0.1"
    assert (found[0].distillation.alpha, found[0].distillation.hard_weight) == (0.0, 0.1)


@pytest.mark.parametrize("weights", [[0.0], [1.0], [1.5], [0.5, 0.5]])
@pytest.mark.parametrize("name", ["label_weights", "loss_weights"])
def test_a_weight_lies_between_0_and_1_and_is_given_once(name, weights):
    with pytest.raises(UsageError, match=f"settings.{name}"):
        study.runs(config(settings={name: weights}))


@pytest.mark.parametrize("given", [{"loss_weights": [0.5]}, {"weighted_cells": [[0.5, 4.0]]}])
def test_weights_without_cells_and_cells_without_weights_are_refused(given):
    with pytest.raises(UsageError, match="are those of settings.weighted_cells"):
        study.runs(config(settings={"loss_weights": [], **given}))


@pytest.mark.parametrize("name", ["same_size", "weighted_cells"])
@pytest.mark.parametrize("pair", [[0.5], [1.5, 4.0], [0.5, 0.0]])
def test_a_cell_is_a_pair_of_alpha_and_temperature(name, pair):
    with pytest.raises(UsageError, match=f"settings.{name}"):
        study.runs(config(settings={name: [pair]}))


def test_a_weighted_cell_has_its_whole_loss_times_the_weight():
    runs = study.runs(
        config(settings={"weighted_cells": [[0.75, 5.0]], "loss_weights": [0.5, 0.1]})
    )
    found = [run for run in runs if "-w" in run.name]
    assert [run.name for run in found] == [
        f"a0.75-T5-t2-w{weight}-s{seed}" for seed in (3, 5) for weight in ("0.5", "0.1")
    ]
    assert found[1].row == "alpha 0.75, T 5, T², loss x 0.1"
    last = found[1].distillation
    assert last.scale_by_t2 and last.temperature == 5
    assert last.hard_weight == pytest.approx(0.025) and last.soft_weight == pytest.approx(0.075)


def test_cells_with_the_factor_stand_at_their_best_rate_against_the_best_of_labels_alone():
    settings = {"label_weights": [0.5], "weighted_cells": [[0.5, 5.0], [0.9, 5.0]]}
    found = list(results(**settings, loss_weights=[0.3, 0.1]))
    tables = {table.title: table for table in study.tables(found)}
    table = tables["With the factor T², at other learning rates"]
    assert table.columns[:5] == ("", "loss x 1", "loss x 0.3", "loss x 0.1", "best")
    half, most = table.rows
    # Validation images like the first cell as it is; of the second, 56 % so, the smallest rate.
    assert half[:2] == ("alpha 0.5, T 5", "62.00 ± 0.10") and half[4] == "1"
    assert most[1:5] == ("56.00 ± 0.10", "61.00 ± 0.10", "64.50 ± 0.10", "0.1")
    assert most[5].startswith("+1.50, +1.")  # labels alone have 63.00 at their best weight
    first, second = study.comparisons(found)[:2]
    assert first.title == "without T²" and second.title == own_rate.KIND
    assert second.baseline == "labels alone at weight 0.5"
    assert second.rows[0.5, 5.0].difference == pytest.approx(-0.01)
    assert not any(
        "loss x" in str(row) for family in study.comparisons(found) for row in family.rows
    )


def test_labels_alone_stand_beside_the_cell_of_their_weight():
    found = {table.title: table for table in study.tables(list(results(label_weights=[0.5, 0.1])))}
    table = found["Labels alone with a smaller weight"]
    assert [row[0] for row in table.rows] == ["0.1", "0.5", "1"]
    _, half, one = table.rows
    assert half[2] == "63.00 ± 0.10" and half[3].startswith("+2.00, +1.")
    assert half[4:6] == ("alpha 0.5, T 5", "61.00 ± 0.10") and half[6].startswith("-2.00, -")
    assert one[3:] == ("–", "–", "–", "–")  # no cell leaves the labels their whole weight


def test_a_grid_is_compared_with_the_best_weight_of_labels_alone():
    plain, scaled = study.comparisons(list(results(label_weights=[0.5, 0.1])))[:2]
    assert plain.baseline == "labels alone at weight 0.5" and plain.title == "without T²"
    assert plain.rows[0.9, 5.0].difference == pytest.approx(0.03)
    assert scaled.rows[0.9, 5.0].difference == pytest.approx(-0.07)


@pytest.mark.parametrize(
    "alpha, temperature, scaled, weight",
    [(0.5, 1, False, 1), (0.9, 10, False, 0.19), (0.9, 10, True, 9.1), (0.25, 1, True, 1)],
)
def test_the_effective_weight_of_a_cell(alpha, temperature, scaled, weight):
    assert label_weight.effective(alpha, temperature, scaled) == pytest.approx(weight)


def test_the_weight_explains_what_follows_from_it_and_the_published_grid_to_three_quarters():
    cells = {(a, t): (a, t) for a in (0.1, 0.5, 0.9) for t in (1, 5, 20)}
    top = {cell: 0.6 - math.log(label_weight.effective(*cell) / 0.5) ** 2 for cell in cells}
    _, count, weight, added, best = label_weight.fit_line("made up", top, False)
    assert (count, weight, best) == ("9", "1.00", "0.5") and added.endswith("(4 parameters)")
    rows = study.tables(list(results(label_weights=[0.5])))[-2].rows
    assert rows == (("published", "45", "0.76", "0.66 (12 parameters)", "0.34"),)


def test_the_figure_has_a_panel_for_each_grid_and_none_without_labels_alone():
    ((_, svg, caption),) = study.figures(list(results(label_weights=[0.5])))
    for words in ("without T²", "with the factor T²", "labels alone, best weight", "published"):
        assert f">{words}<" in svg
    assert "c = (1 - alpha) + alpha / T" in caption
    assert study.figures(list(results())) == []
