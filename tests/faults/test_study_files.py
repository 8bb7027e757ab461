"""A study's own files, changed by hand: each wrong one is refused in one line that names it."""

import dataclasses
import json
import lzma
import resource
import shutil

import numpy as np
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

pytestmark = pytest.mark.slow

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


@pytest.mark.parametrize("size", [0, 40, len(WRITTEN) // 2])
def test_a_configuration_that_is_cut_says_what_to_do(study, capsys, size):
    path = study / "config.yaml"
    given = ["run", "mysteries/small", "--output", str(study), "--dry-run"]
    path.write_text(WRITTEN[:size])
    try:
        for command in (given, ["report", str(study)]):
            assert main(command) == 2
            told = capsys.readouterr().err
            assert f"{path} is damaged" in told and "Remove it and give" in told
    finally:
        path.write_text(WRITTEN)


def test_a_dry_run_lists_runs_whose_files_are_damaged_to_be_done_again(study, capsys, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    path = records.run_folder(folder, "single-0") / "record.json"
    path.write_bytes(path.read_bytes()[:99])
    assert main(["run", str(folder / "config.yaml"), "--output", str(folder), "--dry-run"]) == 0
    said = capsys.readouterr().out
    [line] = [line for line in said.splitlines() if line.startswith("single-0 ")]
    assert line.endswith("to do again")
    assert f"{path} is damaged" in "".join(said.splitlines())


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


def of_kind(kind, settings, extra):
    changed = {**TAUGHT.config, "kind": kind, "settings": settings}
    return dataclasses.replace(TAUGHT, config=changed, extra=extra)


@pytest.mark.parametrize("kind", study_files.EXTRAS)
def test_what_a_kind_of_run_measures_is_read(kind, tmp_path):
    for extra in (study_files.EXTRAS[kind][1], {}):
        written = of_kind(kind, study_files.EXTRAS[kind][0], extra)
        records.write(tmp_path, written)
        assert records.read(tmp_path) == written


@pytest.mark.parametrize("kind", study_files.EXTRAS)
def test_what_no_kind_of_run_measures_is_one_line_that_names_it(kind, tmp_path):
    path = tmp_path / "record.json"
    for name, (settings, extra) in study_files.extras(kind).items():
        values = json.loads(json.dumps({"format": 2, **of_kind(kind, settings, extra).__dict__}))
        values.pop("predictions")
        path.write_text(json.dumps({**values, "checksum": storage.digest(values)}))
        with pytest.raises(storage.DamagedError, match=str(path)) as error:
            records.read(tmp_path)
        assert "\n" not in str(error.value), name
        told = str(error.value)
        assert "extra" in told or "config.settings" in told or name.endswith("is deep"), name


def packed(path, *parts):
    """Pack a file as an archive is."""
    with lzma.open(path, "wb", preset=0) as file:
        for part in parts:
            file.write(part)


ONE = json.dumps({"format": 2, **{k: v for k, v in TAUGHT.__dict__.items() if k != "predictions"}})
SAID = {"labels": [1], "classes": [1], "probabilities": [0.5]}
ARCHIVES = {
    "spaces without end": [b" " * 2**24] * 3,
    "a line without end": [b"[" + b"0," * 2**24],
    "deep": [b"[" * 100_000],
    "no JSON": [b"x\n"],
    "no record": [b"[]\n"],
    "no end of a line": [ONE.encode()],
    "predictions a list": [json.dumps({**json.loads(ONE), "predictions": [1]}).encode() + b"\n"],
    **{
        f"{name} {value}": [
            json.dumps({**json.loads(ONE), "predictions": {**SAID, name: value}}).encode() + b"\n"
        ]
        for name, value in (
            ("labels", [-1]),
            ("labels", [70_000]),
            ("classes", ["1"]),
            ("classes", None),
            ("probabilities", [2.0]),
            ("probabilities", []),
        )
    },
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_wrong_archive_is_one_line_that_names_it(case, tmp_path):
    path = tmp_path / "records.jsonl.xz"
    packed(path, *ARCHIVES[case])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(storage.DamagedError, match=str(path)) as error:
        records.read_archive(path)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_an_archive_that_is_cut_or_goes_on_is_damaged(tmp_path):
    path = tmp_path / "records.jsonl.xz"
    records.write_archive(path, [TAUGHT])
    whole = path.read_bytes()
    assert records.read_archive(path) == [TAUGHT]
    for wrong in (whole[:-9], whole[:40], whole + b"more", whole + whole, b""):
        path.write_bytes(wrong)
        with pytest.raises(storage.DamagedError, match=f"{path}.*Put a whole copy"):
            records.read_archive(path)


def test_predictions_that_are_none_are_one_line_that_names_them(tmp_path):
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1, [("label", "<u2")]))
    folder = records.run_folder(tmp_path, TAUGHT.name)
    folder.mkdir(parents=True)
    path = folder / "predictions.npy"
    kinds = {(10**12,): "<u2", (3,): "<u2", (4,): [("label", "<u2")], (): "<f2"}
    for shape, dtype in kinds.items():
        described = {**header, "shape": shape, "descr": dtype}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, described)
            file.write(bytes(24))
        record = dataclasses.replace(TAUGHT, files={path.name: storage.sha256(path)})
        with pytest.raises(storage.DamagedError, match=str(path)):
            records.with_predictions(tmp_path, record)
