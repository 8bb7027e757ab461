"""The command as a user types it: real processes, real files, a tiny study on real digits."""

import os
import re
import shutil
import subprocess
import sys

import filelock
import pandas as pd
import pytest
import yaml

from tests import forked
from tests.conftest import MYSTERIES
from tfdistill.cli.commands import COMMANDS
from tfdistill.cli.main import main


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**MYSTERIES, "output": str(tmp_path / "out")}))
    return path


def tfdistill(*arguments):
    process = forked.tfdistill(*arguments)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


@pytest.fixture(scope="module")
def finished(mysteries, tmp_path_factory):
    """A finished tiny study: its folder, its configuration and what the command printed."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(mysteries, folder, dirs_exist_ok=True)
    for name in ("tiny.yaml", "printed"):
        text = (folder / name).read_text().replace(str(mysteries), str(folder))
        (folder / name).write_text(text)
    return folder / "out", folder / "tiny.yaml", (folder / "printed").read_text()


def greet(name: str, /, *, times: int = 1) -> int:
    """Say hello.

    Args:
        name: Whom.
        times: How often.
    """
    print(*["hello"] * times, name)
    return 3


def test_a_new_command_is_one_entry(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "greet", greet)
    assert main(["greet", "Ada", "--times", "2"]) == 3
    assert capsys.readouterr().out == "hello hello Ada\n"
    assert main(["--help"]) == 0
    assert re.search(r"greet +Say hello\.", capsys.readouterr().out)
    assert main(["completion", "bash"]) == 0
    assert "--times" in capsys.readouterr().out
    assert main(["greet"]) == 2
    assert "NAME" in capsys.readouterr().err


class TestStudy:
    @pytest.mark.slow
    def test_it_prints_progress_table_and_where_the_report_is(self, finished):
        folder, _, printed = finished
        assert "[1/10] single-0: test accuracy" in printed
        assert "ensemble of the single networks" in re.sub(r"\s+", " ", printed)
        assert printed.strip().endswith(f"Report: {folder / 'report.html'}")
        assert max(map(len, printed.splitlines()[-40:-1])) <= 80

    @pytest.mark.slow
    def test_the_folder_holds_report_csv_and_networks(self, finished):
        folder = finished[0]
        results = pd.read_csv(folder / "results.csv")
        assert len(results) == 10 and (results["status"] == "finished").all()
        assert results["best_test_accuracy"].between(0.05, 1.0).all()
        report = (folder / "report.html").read_text()
        assert "self-distilled" in report and "<svg" in report
        assert (folder / "runs" / "distilled-1" / "best.keras").exists()

    @pytest.mark.slow
    def test_run_again_it_only_prints_the_tables(self, finished):
        folder, path, printed = finished
        before = {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/*")}
        again = tfdistill("run", path)
        assert again.returncode == 0
        assert "single-0: test accuracy" not in again.stdout
        assert again.stdout.splitlines()[-10:] == printed.splitlines()[-10:]
        assert {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/*")} == before

    @pytest.mark.slow
    def test_a_removed_run_is_done_again_and_the_rest_is_kept(self, finished, tmp_path):
        folder = tmp_path / "copy"
        shutil.copytree(finished[0], folder)
        shutil.rmtree(folder / "runs" / "distilled-1")
        done = tfdistill("run", finished[1], "--output", folder)
        assert "single-0: finished before" in done.stdout
        assert "distilled-1: test accuracy" in done.stdout
        a, b = (pd.read_csv(f / "results.csv") for f in (finished[0], folder))
        assert list(a["weights_last"]) == list(b["weights_last"])

    @pytest.mark.slow
    def test_another_configuration_in_the_same_folder_is_refused(self, finished, capsys):
        folder, path, _ = finished
        before = (folder / "config.yaml").read_text()
        assert main(["run", str(path), "--training.epochs", "3"]) == 2
        assert "training.epochs is 2 there and 3 here" in capsys.readouterr().err
        assert (folder / "config.yaml").read_text() == before

    def test_a_second_process_is_told_and_stops(self, config, capsys):
        folder = config.parent / "out"
        folder.mkdir()
        with filelock.FileLock(folder / ".lock"):
            assert main(["run", str(config)]) == 2
        assert "Another process is working in" in capsys.readouterr().err
        assert [p.name for p in folder.iterdir()] == [".lock"]

    @pytest.mark.slow
    def test_a_diverging_run_is_reported_and_the_status_is_1(self, config):
        options = ["--training.optimizer=sgd", "--training.learning_rate=1e30", "--seeds=[0]"]
        done = tfdistill("run", config, *options)
        assert done.returncode == 1
        assert "single-0 failed: the loss became" in done.stderr
        assert "left out, because single-0 failed" in done.stdout
        assert "lower the learning rate" in (config.parent / "out" / "report.html").read_text()

    def test_a_dry_run_lists_the_runs_and_writes_nothing(self, config, capsys):
        assert main(["run", str(config), "--dry-run", "--seeds", "[0,1,2]"]) == 0
        printed = capsys.readouterr().out
        assert "13 runs" in printed and "single-*" in printed and "3 x 2 epochs" in printed
        told = " ".join(printed.split())  # lines of the table's width
        assert "2 rows, over the single networks" in told and "too few for a claim" in told
        assert not (config.parent / "out").exists()

    def test_a_dry_run_says_what_the_planned_seeds_could_show(self, config, capsys):
        def shown(*options):
            assert main(["run", str(config), "--dry-run", *options]) == 0
            (line,) = (x for x in capsys.readouterr().out.splitlines() if "2 rows, over" in x)
            return line.split()[-3:]

        seeds, assumed, difference = shown("--seeds=[0,1,2,3,4]")
        # Dunnett's critical value of two rows with eight degrees is 2.67, so that a difference of
        # (2.67 + 0.94) sqrt(2 / 5) deviations is seen four times in five.
        assert (seeds, assumed, difference) == ("5", "1.00", "2.3")
        assert shown("--seeds=[0,1,2,3,4]", "--deviation=0.5") == ["5", "0.50", "1.1"]
        assert main(["run", str(config), "--dry-run", "--deviation=-1"]) == 2

    @pytest.mark.slow
    def test_report_is_written_again(self, finished, tmp_path):
        folder = tmp_path / "copy"
        shutil.copytree(finished[0], folder)
        (folder / "report.html").unlink()
        assert main(["report", str(folder)]) == 0
        assert (folder / "report.html").exists()


class TestOtherCommands:
    @pytest.mark.slow
    def test_train_trains_one_student_alone_and_from_a_saved_teacher(self, finished, config):
        teacher = finished[0] / "runs" / "single-0" / "best.keras"
        options = ["--teacher.name=saved", f"--teacher.path={teacher}", "--teacher.width=1"]
        options += ["--student.name=cnn2", "--student.width=0.125"]
        done = tfdistill("train", config, "--seeds=[0]", *options)
        assert done.returncode == 0, done.stderr
        results = pd.read_csv(config.parent / "out" / "results.csv").set_index("run")
        assert list(results.index) == ["teacher", "alone-0", "distilled-0"]
        single = pd.read_csv(finished[0] / "results.csv").set_index("run").loc["single-0"]
        assert results.loc["teacher", "best_test_accuracy"] == single["best_test_accuracy"]

    @pytest.mark.slow
    def test_evaluate_gives_the_figure_of_the_record(self, finished, capsys):
        runs = finished[0] / "runs"
        student, teacher = (runs / name / "best.keras" for name in ("distilled-0", "single-0"))
        assert main(["evaluate", str(student), "--teacher", str(teacher)]) == 0
        printed = capsys.readouterr().out
        results = pd.read_csv(finished[0] / "results.csv").set_index("run")
        assert f"{100 * results.loc['distilled-0', 'best_test_accuracy']:.2f} %" in printed
        assert "agreement with the teacher" in printed

    def test_doctor_tells_device_versions_and_data(self, capsys, tmp_path):
        assert main(["doctor", "--data_dir", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        assert "XLA" in printed and "tensorflow" in printed and "digits" in printed
        assert "none found" in printed

    @pytest.mark.slow
    def test_a_terminal_without_dashes_is_shown_the_tables_all_the_same(self, finished):
        command = [sys.executable, "-m", "tfdistill", "report", finished[0]]
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert "Test accuracy in percent, mean ? standard deviation" in done.stdout

    @pytest.mark.slow
    @pytest.mark.parametrize("part", ["", "runs/single-0"])
    def test_a_study_is_exported_with_its_own_images_only(self, finished, tmp_path, capsys, part):
        options = ["--folder", str(tmp_path / "saved"), "--data.source", "digits"]
        assert main(["export", str(finished[0] / part), *options]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "on whose own images its networks are checked. Received: --config or" in error
        assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"distillation": {"alpha": 1.5}}, "alpha must be a number from 0 to 1"),
        ({"distillation": {"temperature": 0}}, "temperature must be a number from 0.001 to 1000"),
        ({"distilation": {}}, "unknown key 'distilation'. Did you mean 'distillation'?"),
        ({"data": {"sorce": "digits"}}, "unknown key 'sorce'. Did you mean 'source'?"),
        ({"study": "mystery"}, "study must be one of: alpha_temperature, assistants"),
        ({"teacher": {"name": "resnet19"}}, "resnet19"),
        ({"training": {"epochs": "many"}}, "training.epochs"),
        ({"training": {"batch_size": 500}}, "batch_size=500"),
        ({"data": {"source": "tfds:cifar10", "data_dir": "/nowhere"}}, "/nowhere"),
        ({"data": {"source": "folder:/nowhere"}}, "/nowhere"),
    ],
)
def test_wrong_input_is_one_line_status_2_and_nothing_written(config, capsys, change, message):
    values = {**yaml.safe_load(config.read_text()), **change}
    config.write_text(yaml.safe_dump(values))
    assert main(["run", str(config)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("tfdistill: error: ")
    assert error.count("\n") == 1
    assert [path.name for path in config.parent.iterdir()] == ["tiny.yaml"]


def test_an_unknown_option_names_the_nearest(config, capsys):
    assert main(["run", str(config), "--training.epoch", "3"]) == 2
    error = capsys.readouterr().err
    assert "command line, training: unknown key 'epoch'. Did you mean 'epochs'?" in error
    assert "Known keys: epochs, batch_size" in error


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["predict", "M", "a.png", "--top", "x"], ["--top", "'x'", "a whole number"]),
        (["predict", "M", "a.png", "--top", "1.5"], ["--top", "'1.5'", "a whole number"]),
        (["predict", "M"], ["IMAGES"]),
        (["predict", "M", "a.png", "--format=xml"], ["--format", "xml", "table", "json", "csv"]),
        (["predict", "M", "a.png", "--ormat=csv"], ["--ormat", "--format"]),
        (["export", "M", "--formats", "onnx,foo"], ["formats", "'foo'", "onnx", "litert-int8"]),
        (["export", "M", "--check_images", "x"], ["--check_images", "'x'", "or null"]),
        (["demo", "M", "--port", "70000"], ["port", "70000", "from 0 to 65535"]),
        (["evaluate", "M", "--data.sorce", "x"], ["'sorce'. Did you mean 'source'? Known keys:"]),
        (["evaluate", "M", "--batchsize", "3"], ["'batchsize'. Did you mean 'batch_size'?"]),
        (["evaluate", "M", "--config", "nowhere.yaml"], ["There is no model at M."]),
        (["cache", "verify", "F", "--rows", "0"], ["rows=0", "at least 1"]),
        (["report"], ["FOLDER"]),
        (["doctor", "x"], ["'x'"]),
        (["studies", "mistery"], ["mistery", "alpha_temperature", "mysteries"]),
        (["reproduce", "R", "--output"], ["--output"]),
        (["run"], ["CONFIG"]),
        (["run", "--seeds=[0]"], ["needs a path"]),
        (["run", "f.yaml", "g.yaml"], ["'g.yaml'"]),
        (["run", "f.yaml", "--dry-rum"], ["'dry-rum'. Did you mean 'dry-run'?"]),
        (["run", "f.yaml", "--training.epoch"], ["'epoch'. Did you mean 'epochs'?"]),
        (["run", "f.yaml", "--training.epochs"], ["--training.epochs needs a value"]),
        (["run", "f.yaml", "--dry-run=x"], ["--dry-run", "x"]),
        (["run", "nowhere.yaml"], ["nowhere.yaml", "No such file"]),
        (["cache", "make"], ["make", "build, verify"]),
        (["rum"], ["rum", "run", "train, studies"]),
    ],
)
def test_wrong_options_are_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, names):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("tfdistill: error: ") and error.count("\n") == 1
    assert all(name in error for name in names), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_images_of_a_file_that_is_wrong_are_named(finished, tmp_path, capsys):
    model, path = finished[0] / "runs" / "single-0" / "best.keras", tmp_path / "study.yaml"
    for text, message in (
        ("data: {sorce: digits}", f"{path}, data: unknown key 'sorce'. Did you mean 'source'?"),
        ("data: {image_size: 0}", "data.image_size must be a whole number, at least 1."),
        ("data: null", "data must be keys and values"),
    ):
        path.write_text(text)
        assert main(["evaluate", str(model), "--config", str(path)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


class TestSweep:
    @pytest.mark.parametrize(
        ("space", "message"),
        [
            ('{"distillation.alpa": [1]}', "Did you mean 'alpha'"),
            ('{"distillation.alpha": []}', "one or more different values"),
            ('{"distillation.alpha": [1.5]}', "from 0 to 1. Received: distillation.alpha=1.5"),
        ],
    )
    def test_a_wrong_space_is_one_line_and_writes_nothing(self, config, space, message, capsys):
        arguments = ["sweep", str(config), "--study", "single", f"--sweep.space={space}"]
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (config.parent / "out").exists()

    def test_a_dry_run_tells_what_would_be_searched(self, config, capsys):
        assert main(["sweep", str(config), "--study", "single", "--dry-run"]) == 0
        printed = capsys.readouterr().out
        assert "distillation.temperature" in printed and "9 trials, 2 seeds each" in printed
        assert not (config.parent / "out").exists()


def test_keys_may_stand_before_the_file(config, capsys):
    options = ["--seeds+", "5", "--student", "null"]
    assert main(["run", *options, str(config), "--training.epochs=3", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "13 runs" in printed and "single-5 " in printed and "3 x 3 epochs" in printed


@pytest.mark.parametrize("arguments", ["--help", "run --help", "keys"])
def test_help_that_nobody_reads_ends_with_the_status_of_a_closed_pipe(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tfdistill", *arguments.split()]
    status = subprocess.run(command, stdout=writer, stderr=subprocess.DEVNULL).returncode
    os.close(writer)
    assert status == 141


def test_cache_without_an_action_lists_both(capsys):
    assert main(["cache"]) == 0
    printed = capsys.readouterr().out
    assert "build" in printed and "verify" in printed


def test_cache_build_lists_what_it_would_do(config, capsys):
    assert main(["cache", "build", str(config), "--dry-run"]) == 0
    assert "10 runs" in capsys.readouterr().out
    assert not (config.parent / "out").exists()


def test_a_folder_that_was_removed_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir("gone")
    os.rmdir(tmp_path / "gone")
    assert main(["run", "x.yaml"]) == 2
    line = "The folder that this command was started in was removed. Go to another."
    assert capsys.readouterr().err == f"tfdistill: error: {line}\n"
