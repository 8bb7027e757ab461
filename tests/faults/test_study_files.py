"""A study's own files, changed by hand: each wrong one is refused in one line that names it."""

import json

import pytest

from tests.faults import study_files
from tfdistill import records
from tfdistill.cli.main import main
from tfdistill.config import (
    DataConfig,
    DistillationConfig,
    ModelConfig,
    RunConfig,
    StudyConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.training import study_folder
from tfdistill.utils import storage

FIGURES = {"epoch": 1, "validation_accuracy": 0.5, "test_accuracy": 0.25, "test_nll": 1.5}
DIAGRAM = {"count": [3.0, 1.0], "confidence": [0.5, 0.9], "accuracy": [0.25, 1.0]}
CONFIG = StudyConfig(seeds=[0])


def record(name, **changes):
    run = RunConfig(name, "row", 0, DataConfig(), ModelConfig(), TrainingConfig(), **changes)
    return records.Record(
        name,
        "row",
        0,
        "key",
        to_dict(run),
        best=FIGURES,
        last=FIGURES,
        history={"loss": [2.0, 1.0], "val_accuracy": [0.25, 0.5]},
        calibration=DIAGRAM,
        weights={"best": "1", "last": "2"},
        versions={"keras": "3"},
        images={"test": "4"},
        environment={"threads": 2},
        files={},
        needed=[] if name == "single-0" else records.to_repeat([record("single-0")]),
    )


TAUGHT = record("distilled-0", teachers=("single-0",), distillation=DistillationConfig())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    study_folder.write_config(CONFIG, folder)
    for each in (record("single-0"), TAUGHT):
        records.write(records.run_folder(folder, each.name), each)
    return folder


WRITTEN = storage.marked(study_folder.yaml_text({"format": 2, **to_dict(CONFIG)}))
CONFIGURATIONS = study_files.configurations(WRITTEN)
# As a file holds it, with lists for tuples.
RECORDS = study_files.records(json.loads(json.dumps({"format": 2, **TAUGHT.__dict__})))


def test_the_study_itself_is_read(study, capsys):
    assert records.read(records.run_folder(study, TAUGHT.name)) == TAUGHT
    assert main(["report", str(study)]) == 0
    assert "25.00" in capsys.readouterr().out


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_wrong_configuration_is_one_line_that_names_it(study, capsys, case):
    path = study / "config.yaml"
    whole = path.read_bytes()
    path.write_bytes(CONFIGURATIONS[case])
    try:
        assert main(["report", str(study)]) == 2
        with pytest.raises(ValueError, match=str(study)) as error:
            study_folder.check_folder(CONFIG, study)
    finally:
        path.write_bytes(whole)
    [line] = capsys.readouterr().err.splitlines()
    assert str(path) in line and "\n" not in str(error.value)


@pytest.mark.parametrize("case", RECORDS)
def test_a_wrong_record_is_one_line_that_names_it(study, case):
    path = records.run_folder(study, TAUGHT.name) / "record.json"
    whole = path.read_bytes()
    path.write_bytes(RECORDS[case])
    try:
        with pytest.raises(ValueError, match=str(path)) as error:
            records.read_all(study)
    finally:
        path.write_bytes(whole)
    assert "\n" not in str(error.value)
