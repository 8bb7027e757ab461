"""Two processes on one folder: the second says so, changes nothing; a dead one does not block."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tfdistill.cli.main import main
from tfdistill.config import StudyConfig, build
from tfdistill.export import versions
from tfdistill.training import study_folder
from tfdistill.utils import storage
from tfdistill.utils.checks import UsageError

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
from tfdistill.training import study_folder
with study_folder.alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""
HOLD_MODEL = """
import sys, time
from pathlib import Path
from tfdistill.export import versions
with versions.new_version(Path(sys.argv[1])) as new:
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


def ended_process():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def files(folder):
    paths = [
        path for path in folder.rglob("*") if path.is_file() and path.name != study_folder.LOCK
    ]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


@pytest.mark.parametrize("command", ["run", "sweep", "cache build", "export"])
def test_a_second_process_says_so_and_changes_nothing(command, study, holder, capsys):
    path, folder = study
    folder.mkdir()
    study_folder.write_config(build(StudyConfig, CONFIG), folder)
    holder(HOLD_STUDY, folder)
    before = files(folder)
    assert main([*command.split(), str(folder if command == "export" else path)]) == 2
    assert capsys.readouterr().err == (
        f"tfdistill: error: Another process is working in {folder}. Wait for it, or choose "
        "another --output.\n"
    )
    assert files(folder) == before and len(before) == 1


def test_what_a_killed_process_held_is_free(study, holder):
    process = holder(HOLD_STUDY, study[1])
    process.send_signal(signal.SIGKILL)
    process.wait()
    with study_folder.alone(study[1]):
        pass


@pytest.mark.slow
def test_a_run_touches_no_hidden_file_of_the_user_or_of_another_host(single, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(single / "out", folder)
    shutil.rmtree(folder / "runs/distilled-0")  # the one that is to do
    ended = ended_process()
    names = [".env.2024", "thesis/.draft.20241101.docx", f".coverage.host.4242.{ended}"]
    hidden = [f".best.{ended}.keras", f".tfdistill.{ended}.best.keras"]
    hidden += [f".tfdistill.other-host.{ended}.best.keras"]
    own = storage.temporary_name(Path("best.keras"))
    hidden += [own.replace(f".{os.getpid()}.", f".{os.getppid()}.")]
    names += [f"runs/distilled-0/{name}" for name in hidden]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / f".backup.{ended}").mkdir()
    left = folder / "runs/distilled-0" / own.replace(f".{os.getpid()}.", f".{ended}.")
    left.write_text("half")
    assert main(["run", str(single / "study.yaml"), "--output", str(folder)]) == 0
    assert not left.exists()
    assert [(folder / name).read_text() for name in names] == names
    assert (folder / f".backup.{ended}").is_dir()


def test_two_hosts_share_a_study(study, holder, monkeypatch):
    folder = study[1]
    here, ended = storage.temporary_name(Path("state.npz")), ended_process()
    monkeypatch.setattr(storage.platform, "node", lambda: "node-7.cluster")
    storage._host.cache_clear()
    try:
        there = storage.temporary_name(Path("state.npz"))
        names = [name.replace(f".{os.getpid()}.", f".{ended}.") for name in (here, there)]
        folder.mkdir()
        for name in names:
            (folder / name).write_text("half")
        storage.write_json(folder / "state.npz", {})  # on node-7
        assert [(folder / name).exists() for name in names] == [True, False]
    finally:
        monkeypatch.undo()
        storage._host.cache_clear()
    storage.write_json(folder / "state.npz", {})  # on this host
    assert not (folder / names[0]).exists()


HOUR = 3600


@pytest.mark.parametrize(
    "host, process, hours, kept",
    [
        ("node-7", "ended", 23, True),  # it may live there
        ("node-7", "ended", 25, False),
        ("node-7", "living", 25, False),  # the number says nothing of another machine
        ("here", "ended", 0, False),
        ("here", "living", 23, True),
        ("here", "living", 25, False),  # the number is another program's by now
        ("a container of this name", "ended", 23, True),
        ("this host before it was started again", "ended", 25, False),
    ],
)
def test_what_may_still_be_written_stays(tmp_path, host, process, hours, kept):
    number = {"ended": ended_process(), "living": os.getppid()}[process]
    own = storage.temporary_name(tmp_path / "state.npz").replace(f".{os.getpid()}.", f".{number}.")
    here = storage._host()
    hosts = {"here": here, "node-7": "node-7-0a1b2c3d"}
    name = own.replace(here, hosts.get(host, f"{here.rpartition('-')[0]}-00000000"))
    left = tmp_path / name
    left.write_text("half")
    written = time.time() - hours * HOUR
    os.utime(left, (written, written))
    storage.write_json(tmp_path / "state.npz", {})
    assert left.exists() == kept


def test_a_file_that_two_hosts_write_at_once_is_one_of_both(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    with storage.appearing(path) as here:
        here.write_text("here")
        monkeypatch.setattr(storage.platform, "node", lambda: "node-7.cluster")
        storage._host.cache_clear()
        try:
            with storage.appearing(path) as there:  # by a process of the same number
                assert there != here
                there.write_text("there")
        finally:
            monkeypatch.undo()
            storage._host.cache_clear()
        assert path.read_text() == "there"
    assert path.read_text() == "here"
    assert [found.name for found in tmp_path.iterdir()] == ["record.json"]


def test_a_hidden_folder_under_the_name_of_a_temporary_file_stays(tmp_path):
    own = storage.temporary_name(tmp_path / "record.json")
    folder = tmp_path / own.replace(f".{os.getpid()}.", f".{ended_process()}.")
    folder.mkdir()
    storage.write_json(tmp_path / "record.json", {})
    assert folder.is_dir()


@pytest.mark.parametrize("name", ["report.html", "results.csv", "deployment.json"])
def test_a_study_does_not_write_over_files_of_the_user(name, study, capsys):
    path, folder = study
    folder.mkdir()
    (folder / name).write_text("mine")
    assert main(["run", str(path)]) == 2
    assert f"{folder} holds no study, but would lose its {name}" in capsys.readouterr().err
    assert [file.name for file in folder.iterdir()] == [name]


def test_two_exports_of_a_model_and_the_second_after_a_kill(tmp_path, holder):
    model = tmp_path / "saved_models" / "digits"
    process = holder(HOLD_MODEL, model)
    before = files(model)
    with pytest.raises(UsageError, match="Another process is exporting"):
        versions.new_version(model).__enter__()
    assert files(model) == before
    process.send_signal(signal.SIGKILL)
    process.wait()
    with versions.new_version(model) as new:
        (new.folder / "whole").write_text("whole")
    assert sorted(path.name for path in model.iterdir()) == [versions.LOCK, "1"]
    assert [path.name for path in (model / "1").iterdir()] == ["whole"]
