"""A run done again from its record alone, in processes of their own."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tests import forked
from tfdistill import data, records
from tfdistill.cli.main import main
from tfdistill.config import AugmentConfig, DataConfig, ModelConfig, StudyConfig, TrainingConfig
from tfdistill.training import reproduction, runner
from tfdistill.training.session import Session
from tfdistill.utils import machine
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow

CONFIG = StudyConfig(
    study="mysteries",
    seeds=[0, 1],
    data=DataConfig(
        train_examples=64,
        validation=100,
        test_examples=50,
        augment=AugmentConfig(flip=True, views=2),
    ),
    teacher=ModelConfig("cnn2", width=0.125),
    training=TrainingConfig(epochs=2, batch_size=32),
)
STUDENT = "distilled-1"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of a finished study with two teachers and students of their stored logits."""
    folder = tmp_path_factory.mktemp("study") / "out"
    wanted = {STUDENT, "ensemble"}
    runs = runner.plan(CONFIG)
    wanted = runner.with_needs(runs, wanted)
    runner.do_runs(CONFIG, [run for run in runs if run.name in wanted], folder, Session())
    return folder


@pytest.fixture
def copied(study, tmp_path):
    """A copy of the student's record alone, which may be changed."""
    shutil.copytree(study / "runs" / STUDENT, tmp_path / STUDENT)
    return tmp_path / STUDENT


def test_another_process_gets_the_same_bits_from_the_record_alone(copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = records.read(copied)
    record.config["cache"]["folder"] = str(tmp_path / "logits")
    records.write(copied, record)
    done = forked.tfdistill("reproduce", copied / "record.json", COLUMNS="200")
    output, errors = done.communicate()
    assert done.returncode == 0, output + errors
    assert "Equal to the bit." in output and " NO" not in output
    again = tmp_path / "results" / f"{STUDENT}-reproduced"
    first, second = records.read(copied), records.read(again / "runs" / STUDENT)
    assert first.weights == second.weights and first.history == second.history
    assert first.best == second.best and first.images == second.images
    assert {path.name for path in (again / "runs").iterdir()} == {"single-0", "single-1", STUDENT}
    assert any((again / "cache").iterdir())
    assert not (tmp_path / "logits").exists()  # the user's own stored logits are left alone


def test_a_record_holds_what_its_bits_follow_from(study):
    record = records.read(study / "runs" / STUDENT)
    assert [each["config"]["name"] for each in record.needed] == ["single-0", "single-1"]
    assert record.environment["threads"] == machine.threads()
    images = data.load(CONFIG.data)
    assert record.images == images.hashes and set(record.images) == {"train", "validation", "test"}
    labels = images.train.labels.copy()
    labels[3] = (labels[3] + 1) % 10
    other = dataclasses.replace(images, train=dataclasses.replace(images.train, labels=labels))
    assert other.hashes["train"] != images.hashes["train"]
    assert other.hashes["test"] == images.hashes["test"]


def test_what_differs_from_a_record_of_an_earlier_version_is_shown(study, tmp_path, capsys):
    """The runs that it needs stand beside it. The status is 1."""
    folder = shutil.copytree(study, tmp_path / "old")
    record = records.read(folder / "runs" / "ensemble")
    record.best["test_nll"] = float(np.nextafter(record.best["test_nll"], 9))
    changed = dataclasses.replace(
        record, versions={**record.versions, "keras": "3.0.0"}, images={"test": "0" * 64}
    )
    records.write(folder / "runs" / "ensemble", changed)
    for path in folder.glob("runs/*/record.json"):
        values = json.loads(path.read_text())
        for name in ("environment", "needed", "files", "checksum"):
            values.pop(name, None)
        path.write_text(json.dumps(values))
    given = ["reproduce", str(folder / "runs" / "ensemble"), "--output", str(tmp_path / "again")]
    assert main(given) == 1
    printed = capsys.readouterr().out
    wrong = [line for line in printed.splitlines() if " NO" in line]
    assert len(wrong) == 1 and wrong[0].startswith("best test_nll")
    assert "Not equal to the bit." in printed and reproduction.UNKNOWN in printed
    assert "3.0.0" in printed and "images: test" in printed and "000000000000" in printed


def test_what_cannot_be_reproduced_is_one_line(copied, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, message in (
        ([tmp_path / "nowhere"], "There is no record at"),
        ([copied, "--output", tmp_path / "full"], "is not empty"),
    ):
        assert main(["reproduce", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    record = records.read(copied)
    records.write(copied, dataclasses.replace(record, needed=[]))
    with pytest.raises(UsageError, match="needs the run single-0, of which there is no record"):
        reproduction.reproduce(copied, tmp_path / "again")
    later = {**record.config, "sharpness": 3}
    records.write(copied, dataclasses.replace(record, config=later))
    with pytest.raises(UsageError, match="written by a later version .*'sharpness'"):
        reproduction.reproduce(copied, tmp_path / "again")
    assert not (tmp_path / "again").exists()
