"""Two processes on one folder: the second says so, changes nothing; a dead one does not block."""

import os
import signal
import subprocess
import sys

import pytest
import yaml

from tfdistill import placing, runner
from tfdistill.checks import UsageError
from tfdistill.cli import main
from tfdistill.config import StudyConfig, build

CONFIG = {
    "study": "single",
    "seeds": [0],
    "data": {"source": "digits", "validation": 100, "train_examples": 96},
    "teacher": {"name": "cnn2", "width": 0.125},
    "training": {"epochs": 2, "batch_size": 32},
    "sweep": {"space": {"distillation.alpha": [0.1, 0.9]}, "confirm_seeds": [7]},
}
HOLD_STUDY = """
import sys, time
from pathlib import Path
from tfdistill import runner
with runner.alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""
HOLD_MODEL = """
import sys, time
from pathlib import Path
from tfdistill import placing
with placing.new_version(Path(sys.argv[1])) as new:
    (new.folder / "half").write_text("half")
    print("held", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def holder():
    """A function that starts a process which holds a folder; it is ended afterwards."""
    started = []

    def start(program, folder):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def study(tmp_path):
    """A configuration and the folder of its study, in which nothing is done yet."""
    path, folder = tmp_path / "tiny.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump({**CONFIG, "output": str(folder)}))
    return path, folder


def files(folder):
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != runner.LOCK]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


@pytest.mark.parametrize("command", ["run", "sweep", "cache build", "export"])
def test_a_second_process_says_so_and_changes_nothing(command, study, holder, capsys):
    path, folder = study
    folder.mkdir()
    runner.write_config(build(StudyConfig, CONFIG), folder)
    holder(HOLD_STUDY, folder)
    before = files(folder)
    assert main([*command.split(), str(folder if command == "export" else path)]) == 2
    assert capsys.readouterr().err == (
        f"tfdistill: error: Another process is working in {folder}. Wait for it, or choose "
        "another --output.\n"
    )
    assert files(folder) == before and len(before) == 1


def test_what_a_killed_process_held_and_left_is_no_obstacle(study, holder):
    folder = study[1]
    process = holder(HOLD_STUDY, folder)
    left = folder / "runs" / "teacher" / f".best.{process.pid}.keras"
    others = folder / "runs" / "teacher" / f".last.{os.getppid()}.keras"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    others.write_text("of a process that lives")
    process.send_signal(signal.SIGKILL)
    process.wait()
    with runner.alone(folder):
        assert not left.exists() and others.exists()


def test_two_exports_of_a_model_and_the_second_after_a_kill(tmp_path, holder):
    model = tmp_path / "saved_models" / "digits"
    process = holder(HOLD_MODEL, model)
    before = files(model)
    with pytest.raises(UsageError, match="Another process is exporting"):
        placing.new_version(model).__enter__()
    assert files(model) == before
    process.send_signal(signal.SIGKILL)
    process.wait()
    with placing.new_version(model) as new:
        (new.folder / "whole").write_text("whole")
    assert sorted(path.name for path in model.iterdir()) == [placing.LOCK, "1"]
    assert [path.name for path in (model / "1").iterdir()] == ["whole"]
