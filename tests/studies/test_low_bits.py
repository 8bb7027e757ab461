"""The study of few bits: who goes on from where, what is compared, and its file at the end."""

import dataclasses

import numpy as np
import pytest
import yaml

from tests.conftest import MYSTERIES
from tfdistill import data, records
from tfdistill.cli.main import main
from tfdistill.config import (
    DataConfig,
    ModelConfig,
    QuantizeConfig,
    StudyConfig,
    TrainingConfig,
    build,
    to_dict,
)
from tfdistill.export.format import open_model
from tfdistill.records import Record
from tfdistill.studies.low_bits import study
from tfdistill.training import evaluation, runner, train
from tfdistill.utils.checks import UsageError


def config(**changes):
    values = {
        "seeds": [3, 5],
        "teacher": ModelConfig("resnet8"),
        "student": ModelConfig("cnn2"),
        "student_training": TrainingConfig(
            epochs=9, steps=90, warmup_epochs=1.0, learning_rate=0.01, optimizer="sgd"
        ),
        "settings": {"weight_bits": [8, 4], "epochs": 2, "learning_rate": 0.001},
    }
    return StudyConfig(**(values | changes))


def by_name(**changes):
    return {run.name: run for run in study.runs(config(**changes))}


def test_who_is_taught_and_starts_where():
    runs = by_name()
    assert len(runs) == 1 + 2 * 4 + 2 * 2 * 4
    found = {
        name: (
            run.start,
            bool(run.teachers),
            run.trained,
            run.quantize and run.quantize.weight_bits,
        )
        for name, run in runs.items()
        if run.seed == 5
    }
    assert found == {
        "alone-5": (None, False, True, None),
        "taught-5": (None, True, True, None),
        "alone-on-5": ("alone-5", False, True, None),
        "taught-on-5": ("taught-5", True, True, None),
        **{
            name: value
            for bits in (8, 4)
            for name, value in {
                f"alone-after-{bits}-bits-5": ("alone-on-5", False, False, bits),
                f"taught-after-{bits}-bits-5": ("taught-on-5", False, False, bits),
                f"alone-aware-{bits}-bits-5": ("alone-5", False, True, bits),
                f"taught-aware-{bits}-bits-5": ("taught-5", True, True, bits),
            }.items()
        },
    }


def test_all_go_on_for_the_same_steps_and_differ_in_the_rounding_alone():
    runs = by_name()
    on = TrainingConfig(epochs=2, learning_rate=0.001, optimizer="sgd")
    assert runs["taught-on-3"].training == runs["taught-aware-4-bits-3"].training == on
    aware, in_float = runs["taught-aware-4-bits-3"], runs["taught-on-3"]
    names = {"name": in_float.name, "row": in_float.row}
    assert dataclasses.replace(aware, quantize=None, **names) == in_float
    assert aware.quantize == QuantizeConfig(weight_bits=4)
    after = runs["taught-after-4-bits-3"]
    assert after.quantize == aware.quantize and after.model == aware.model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": None}, "needs a teacher"),
        ({"settings": {"weight_bits": [4, 16]}}, "settings.weight_bits must be from 2 to 8"),
        ({"settings": {"weight_bits": []}}, "settings.weight_bits"),
        ({"settings": {"activation_bits": 1}}, "settings.activation_bits must be .* at least 2"),
        ({"settings": {"ranges": "fixed"}}, "settings.ranges must be one of: average, learned"),
        ({"settings": {"epochs": 0}}, "settings.epochs"),
        ({"settings": {"calibration": 0}}, "settings.calibration"),
        ({"settings": {"learning_rate": 0.0}}, "settings.learning_rate"),
        (
            {"student_training": TrainingConfig(precision="mixed_bfloat16")},
            "A network that rounds computes in float32. Received: .* for the run alone-after-8",
        ),
    ],
)
def test_settings_that_make_no_study_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        study.runs(config(**changes))


# Test accuracy of the seeds 3 and 5.
FOUND = {
    study.LABELS_FLOAT: (0.60, 0.62),
    study.TAUGHT_FLOAT: (0.64, 0.66),
    study.row(study.TAUGHT_AFTER, 8): (0.63, 0.66),
    study.row(study.LABELS_AFTER, 4): (0.40, 0.44),
    study.row(study.TAUGHT_AFTER, 4): (0.50, 0.52),
    study.row(study.LABELS_AWARE, 4): (0.57, 0.58),
    study.row(study.TAUGHT_AWARE, 4): (0.61, 0.63),
}


def results():
    for run in study.runs(config()):
        figures = {"test_accuracy": FOUND.get(run.row, (0.6, 0.6))[run.seed == 5], "test_nll": 1.0}
        yield Record(run.name, run.row, run.seed, "", to_dict(run), best=figures, last=figures)


def test_what_rounding_costs_is_against_the_same_student_in_float():
    accuracy, compared = study.tables(list(results()))
    rows = {row[0]: row for row in accuracy.rows}
    assert list(rows)[:5] == ["teacher", "student alone", *[study.TAUGHT], *list(FOUND)[:2]]
    assert rows[study.TAUGHT_FLOAT][4] == "–"
    assert rows["8 bits: taught, rounded afterwards"][4] == "-0.50"
    assert rows["4 bits: on labels, rounded afterwards"][4] == "-19.00"
    assert rows["4 bits: taught, rounded in training"][2:5] == (*["62.00 ± 1.41"] * 2, "-3.00")
    lines = {row[0]: row[2].partition(",")[0] for row in compared.rows}
    four = {words: value for words, value in lines.items() if words.startswith("4 bits, ")}
    assert list(lines)[: len(four)] == list(four)  # the fewest bits first
    assert list(four.values()) == ["+11.00", "+4.50", "-14.00", "-3.00", "-19.00", "+20.00"]
    assert lines["in float, the teacher for labels"] == "+4.00"
    first = study.comparisons(list(results()))[0]
    assert first.rows["4 bits: taught, rounded in training"].seeds == 2


def test_every_part_of_a_study_has_tables_and_a_picture_where_there_is_something():
    found = list(results())
    for count in range(0, len(found), 4):
        for table in study.tables(found[:count]):
            assert all(len(row) == len(table.columns) for row in table.rows)
        [(_, picture, _)] = study.figures(found[:count])
        assert bool(picture) is any(record.config["quantize"] for record in found[:count])
    [(_, picture, _)] = study.figures(found)
    assert all(f">{text}<" in picture for text in ("float", "8", "4", *study.WAYS))


def do_some(config, folder, names):
    """Do some runs of a study; of the others leave records, as if they had been done before."""
    for run in runner.plan(config):
        if run.name in names:
            done = train.run(run, folder)
            continue
        # The best of all is in float, and the best that rounds was not taught.
        right = {"taught-on-0": 1.0, "alone-aware-4-bits-0": 0.99}.get(run.name, 0.0)
        figures = done.best | {"validation_accuracy": right}
        needed = records.to_repeat(records.read_runs(folder, run.needs))
        weights = {each: run.name for each in ("best", "last")}
        values = {"config": to_dict(run), "needed": needed, "weights": weights, "files": {}}
        values |= {"best": figures, "last": figures, "row": run.row, "seed": run.seed}
        records.write(
            records.run_folder(folder, run.name),
            dataclasses.replace(done, name=run.name, **values),
        )


@pytest.mark.slow
@pytest.mark.usefixtures("forked_probes")
def test_a_study_ends_with_a_report_and_the_file_of_its_best_rounded_student(tmp_path, capsys):
    values = MYSTERIES | {
        "study": "low_bits",
        "seeds": [0],
        "training": MYSTERIES["training"] | {"select": "last"},
        "data": MYSTERIES["data"] | {"normalize": [0.5, 0.25]},
        "settings": {"weight_bits": [4], "epochs": 1, "calibration": 50},
        "export": {
            "formats": ["litert-int8-aware"],
            "folder": str(tmp_path / "models"),
            "check_images": 200,
        },
    }
    path, out = tmp_path / "study.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(values))
    names = "teacher", "taught-0", "taught-aware-4-bits-0"
    do_some(build(StudyConfig, values), out, names)
    assert main(["run", str(path), "--output", str(out)]) == 0, capsys.readouterr().err
    assert "4 bits: taught, rounded in training" in (out / "report.html").read_text()
    assert len(records.read_all(out)) == 1 + 4 + 4
    [exported] = (tmp_path / "models").glob("*-student/1")
    assert "taught-aware-4-bits-0" in (exported / "model_card.json").read_text()
    images = data.load(build(DataConfig, values["data"]))
    network = evaluation.load_network(out, "taught-aware-4-bits-0", images)
    expected = network.predict(images.test.images, verbose=0).argmax(1)
    model = open_model(exported / "model.int8-aware.tflite")
    agree = model(images.test.images)["class_id"] == expected
    counts = np.bincount(expected, minlength=10)
    assert agree.mean() >= 0.98 and (counts >= 20).sum() >= 3
    assert (np.bincount(expected[agree], minlength=10) >= 0.8 * counts)[counts >= 20].all()
    settings = ["--settings.activation_bits", "4", "--output", str(tmp_path / "other")]
    assert main(["run", str(path), *settings]) == 2
    assert "no activations of fewer than 8 bits" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
