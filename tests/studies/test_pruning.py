"""The study of pruned students: who is cut from whom, who stands against it, what is compared."""

import pytest
import yaml

from tests.conftest import MYSTERIES
from tfdistill.cli.main import main
from tfdistill.config import ModelConfig, PruneConfig, StudyConfig, TrainingConfig, to_dict
from tfdistill.records import Record
from tfdistill.studies import pruning
from tfdistill.utils.checks import UsageError


def config(**changes):
    values = {
        "seeds": [3, 5],
        "teacher": ModelConfig("resnet8"),
        "student": ModelConfig("cnn2", width=2.0),
        "student_training": TrainingConfig(epochs=9, warmup_epochs=1.0, learning_rate=0.01),
        "settings": {"keep": [0.75, 0.25], "epochs": 2, "learning_rate": 0.001},
    }
    return StudyConfig(**(values | changes))


def by_name(**changes):
    return {run.name: run for run in pruning.runs(config(**changes))}


def test_each_step_is_cut_from_the_student_that_was_taught_behind_the_one_before():
    runs = by_name()
    assert runs["pruned-75-5"].prune == PruneConfig("whole-5", 0.75)
    assert runs["pruned-25-5"].prune == PruneConfig("pruned-75-5", 0.25 / 0.75)
    cut = runs["pruned-25-cut-5"]
    assert cut.prune == runs["pruned-25-5"].prune and not cut.trained
    labels = runs["pruned-25-labels-5"]
    assert labels.prune == cut.prune and labels.trained and not labels.teachers
    rounded = runs["pruned-25-8-bits-5"]
    assert rounded.start == "pruned-25-5" and rounded.quantize.weight_bits == 8
    assert "pruned-75-8-bits-5" not in runs and "pruned-75-labels-5" not in runs


def test_all_have_had_the_same_steps_in_the_end():
    runs = by_name()

    def epochs(name):
        run = runs[name]
        before = run.start or (run.prune.base if run.prune else None)
        own = run.training.epochs if run.trained else 0
        return own + (epochs(before) if before else 0)

    last = ("pruned-25-3", "pruned-25-labels-3", "pruned-25-8-bits-3", "narrow-on-3", "whole-on-3")
    assert [epochs(name) for name in (*last, "alone-on-3", "narrow-8-bits-3")] == [9 + 2 * 2] * 7
    assert runs["narrow-on-3"].model == runs["alone-3"].model == ModelConfig("cnn2", width=0.5)
    on = runs["narrow-on-3"].training
    assert (on.learning_rate, on.warmup_epochs, on.epochs) == (0.001, 0.0, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": None}, "needs a teacher"),
        ({"settings": {"keep": []}}, "settings.keep"),
        ({"settings": {"keep": [0.5, 0.75]}}, "settings.keep must fall from step to step"),
        ({"settings": {"keep": [0.5, 0.5]}}, "settings.keep"),
        ({"settings": {"keep": [1.0]}}, "settings.keep must be a number above 0 and below 1"),
        ({"settings": {"multiple": 0}}, "settings.multiple"),
        ({"settings": {"epochs": 0}}, "settings.epochs"),
        ({"settings": {"learning_rate": -1.0}}, "settings.learning_rate"),
        ({"settings": {"calibration": 0}}, "settings.calibration"),
    ],
)
def test_settings_that_make_no_study_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        pruning.runs(config(**changes))


# Test accuracy of the seeds 3 and 5.
FOUND = {
    pruning.taught(0.25): (0.60, 0.63),
    pruning.taught(0.25, "on labels"): (0.58, 0.60),
    pruning.taught(0.25, "taught, 8 bits"): (0.60, 0.62),
    pruning.NARROW_ON: (0.59, 0.60),
    pruning.NARROW_8: (0.58, 0.60),
    pruning.WHOLE_ON: (0.70, 0.71),
    pruning.ALONE_ON: (0.55, 0.57),
}


def results():
    for run in pruning.runs(config()):
        figures = {"test_accuracy": FOUND.get(run.row, (0.5, 0.5))[run.seed == 5]}
        values = {"best": figures, "last": figures, "parameters": 1000, "flops": 30_000}
        yield Record(run.name, run.row, run.seed, "", to_dict(run), **values)


def test_the_pruned_student_is_held_against_narrow_whole_and_unrounded_ones():
    size, compared = pruning.tables(list(results()))
    rows = {row[0]: row for row in size.rows}
    assert rows["pruned to 25 %, taught"][2:] == (
        *["61.50 ± 2.12"] * 2,
        "1.00 k",
        "4.00 k",
        "30.0 k",
    )
    assert rows["pruned to 25 %, taught, 8 bits"][5] == "1.00 k"
    lines = {row[0]: row[2].partition(",")[0] for row in compared.rows}
    assert lines == {
        "pruned for narrow from the start": "+2.00",
        "behind the last cut, the teacher for labels": "+2.50",
        "what fewer channels cost, pruned": "-9.00",
        "what 8 bits cost": "-0.50",
        "pruned for narrow, both of 8 bits": "+2.00",
        "narrow, the teacher for labels": "+3.50",
    }


def test_of_every_part_of_a_study_there_are_tables():
    found = list(results())
    for count in range(0, len(found), 4):
        for table in pruning.tables(found[:count]):
            assert all(len(row) == len(table.columns) for row in table.rows)


def test_a_cut_that_would_empty_a_layer_is_refused_before_anything_is_trained(tmp_path, capsys):
    values = MYSTERIES | {
        "study": "pruning",
        "data": MYSTERIES["data"] | {"normalize": [0.5, 0.25]},
        "settings": {"keep": [0.5], "multiple": 64},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values))
    assert main(["run", str(path), "--output", str(tmp_path / "out")]) == 2
    assert "would leave the layer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
