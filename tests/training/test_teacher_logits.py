"""Teacher caches from the command line: built once, verified, refused where there is none."""

import shutil

import numpy as np
import pytest
import yaml

from tfdistill.cli.main import main
from tfdistill.cli.options import study_of
from tfdistill.config import AugmentConfig, DataConfig, ModelConfig, StudyConfig
from tfdistill.training import runner, teacher_logits
from tfdistill.training.session import Session

CONFIG = """
study: single
seeds: [0]
data:
  source: digits
  train_examples: 96
  validation: 100
  augment: {pad_crop: 1, views: 2}
teacher: {name: cnn2, width: 0.125}
training: {epochs: 1, batch_size: 32}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A study whose teacher is trained and asked, and whose students are not trained yet."""
    folder = tmp_path_factory.mktemp("caches")
    (folder / "study.yaml").write_text(CONFIG)
    command = ["cache", "build", str(folder / "study.yaml"), "--output", str(folder / "out")]
    assert main(command) == 0
    return folder


def logits_of(folder):
    (path,) = folder.glob("cache/teacher-*/logits.npy")
    return path


@pytest.mark.slow
def test_build_trains_the_teacher_alone_and_stores_its_logits(built, capsys):
    out = built / "out"
    assert [path.name for path in (out / "runs").iterdir()] == ["teacher"]
    assert np.load(logits_of(out)).shape == (2, 1, 96, 10)
    assert main(["cache", "build", str(built / "study.yaml"), "--output", str(out)]) == 0
    assert "built before" in capsys.readouterr().out


@pytest.mark.slow
def test_verify_runs_the_teacher_again(built, capsys):
    assert main(["cache", "verify", str(built / "out"), "--rows", "40"]) == 0
    assert "good" in capsys.readouterr().out
    config = study_of(built / "out")
    table, good = teacher_logits.verification(runner.plan(config), built / "out", 40, Session())
    assert good and table.rows[0][1] == "40" and table.rows[0][3] == "100.00"


@pytest.mark.slow
def test_a_damaged_cache_is_named_and_mended(built, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(built / "out", out)
    with logits_of(out).open("r+b") as file:
        file.seek(-40, 2)
        file.write(b"\x00\x01\x02\x03")
    assert main(["cache", "verify", str(out)]) == 2
    assert "damaged" in capsys.readouterr().err
    assert main(["cache", "build", str(built / "study.yaml"), "--output", str(out)]) == 0
    assert logits_of(out).read_bytes() == logits_of(built / "out").read_bytes()
    assert main(["cache", "verify", str(out)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"cache": None}, {"teacher": None}, {"data": {"views": None}}])
def test_a_study_without_use_for_a_cache_says_so(built, tmp_path, change, capsys):
    values = yaml.safe_load(CONFIG)
    if "data" in change:
        values["data"]["augment"]["views"] = None
    else:
        values |= change
    if "teacher" in change:
        values["student"] = {"name": "cnn2"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values))
    out = tmp_path / "out"
    assert main(["cache", "build", str(tmp_path / "study.yaml"), "--output", str(out)]) == 2
    error = capsys.readouterr().err
    assert "No student of this study can be taught by stored logits" in error
    assert error.count("\n") == 1 and not out.exists()


def test_where_a_cache_lies_follows_from_what_it_holds(tmp_path):
    def folder(views):
        data = DataConfig(augment=AugmentConfig(pad_crop=1, views=views))
        config = StudyConfig(study="single", data=data, teacher=ModelConfig("cnn2"))
        taught = next(run for run in runner.plan(config) if run.teachers)
        return teacher_logits.folder_of(taught, tmp_path)

    assert folder(2) == folder(2) and folder(2) != folder(3)
    assert folder(2).parent == tmp_path / "cache" and folder(2).name.startswith("teacher-")
