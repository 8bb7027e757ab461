"""Studies over several workers: the same bits, also where one is killed; nothing left behind."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import forked
from tests.conftest import LEARNING_SPEED
from tests.forked import Forked, wait_until
from tfdistill import records
from tfdistill.cli.main import main
from tfdistill.config import (
    DataConfig,
    DistillationConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.training import runner, study_folder
from tfdistill.training.workers import pool, processes, worker
from tfdistill.training.workers.messages import Hello, Setup, Told
from tfdistill.utils import checks, tensorflow
from tfdistill.utils.progress import Silent

CONFIG = StudyConfig(
    study="single",
    seeds=[0, 1],
    data=DataConfig(validation=100, train_examples=96),
    teacher=ModelConfig("cnn2", width=0.125),
    training=TrainingConfig(epochs=2, batch_size=32, learning_rate=0.02),
    distillation=DistillationConfig(alpha=1.0, temperature=2.0),
    threads=1,
)
ONE_SEED = dataclasses.replace(CONFIG, seeds=[0])
LONG = dataclasses.replace(ONE_SEED, training=dataclasses.replace(CONFIG.training, epochs=2000))


class ForkedWorker(Forked):
    """The process of a worker, with TensorFlow imported: what `ProcessHandle` needs of Popen."""

    def __init__(self, driver, environment):
        reader, writer = forked._CONTEXT.Pipe(duplex=False)
        super().__init__(_work, driver, reader, **environment)
        reader.close()
        self.stdin = os.fdopen(os.dup(writer.fileno()), "wb")
        writer.close()

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def wait(self, timeout=forked.LONG):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a worker", timeout)
        return self.returncode


def _work(driver, reader):
    os.dup2(reader.fileno(), 0)
    reader.close()
    processes.work(driver)


@pytest.fixture
def forked_workers(monkeypatch):
    """Fork workers, of a process that has imported TensorFlow; return those that were started."""
    found = []

    def start(handle, theirs, environment):
        found.append(ForkedWorker(theirs, environment))
        return found[-1]

    monkeypatch.setattr(processes.ProcessHandle, "_started", start)
    return found


class Shown(Silent):
    """Remembers what is told of the runs of all workers."""

    def __init__(self, begun=lambda shown, number, names: None):
        self.lines, self.begun, self.parts, self.do = [], [], 0, begun

    def part(self):
        self.parts += 1
        return Part(self, self.parts)

    def skip(self, name, why):
        self.lines.append(f"{name}: {why}")

    def say(self, text):
        self.lines.append(text)


class Part(Shown):
    def __init__(self, whole, number):
        self.whole, self.number, self.lines = whole, number, whole.lines

    def begin(self, names):
        self.names = names
        self.whole.begun.append((self.number, names))
        self.whole.do(self.whole, self.number, names)

    def resume(self, epoch, epochs):
        self.say(f"{self.names[0]} resumed")

    def end(self, name, outcome):
        self.say(f"{name}: {outcome}")


def run_here(config, folder):
    runner.run_study(config, Path(folder))


def run_command(arguments, until=None):
    """`tfdistill` with workers that are forked.

    If there is something to wait for, the first is started as a user's, and the others then: they
    would train all the while that it starts.
    """
    started, workers = processes.ProcessHandle._started, []

    def start(handle, *given):
        if until and not workers:
            workers.append(started(handle, *given))
            return workers[0]
        if until:
            wait_until(lambda: states(until), workers[0])
        return ForkedWorker(*given)

    processes.ProcessHandle._started = start
    sys.argv = ["tfdistill", *arguments]
    sys.exit(main())


def written(config, folder):
    """Write a configuration as a file; return its path."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**to_dict(config), "output": str(folder / "out")}))
    return path


def results(folder):
    """Return all that follows from the bits of the networks."""

    def of(run):
        return run.name, run.key, run.weights, run.best, run.last, run.history, threads(run)

    return list(map(of, records.read_all(folder)))


def threads(run):
    return run.environment["threads"]


def states(folder):
    """Return where trainings in a study's folder stand on the disk."""
    return list(folder.rglob("state.npz"))


def none_left(folder):
    """Return whether nothing is left of workers in a study's folder."""
    left = [path for path in folder.rglob(".*") if path.name.startswith(".tfdistill")]
    return not left and not (folder / worker.MARKER).exists()


@pytest.mark.slow
def test_workers_give_the_bits_of_one_process_though_one_is_killed(
    learning_speed, tmp_path, forked_workers
):
    config = dataclasses.replace(LEARNING_SPEED, threads=len(os.sched_getaffinity(0)))
    killed = []

    def kill(shown, number, names):
        if len(names) > 1 and not killed:  # those that are trained in one step are one task
            killed.append(names[0])
            process = forked_workers[number - 1]
            wait_until(lambda: states(tmp_path / "together"), process)
            process.kill()
            process.wait()

    shown = Shown(kill)
    found = runner.run_study(config, tmp_path, shown, workers=2)
    assert results(tmp_path) == results(learning_speed)
    assert [record.name for record in found] == [run.name for run in runner.plan(config)]
    assert {record.environment["threads"] for record in found} == {config.threads}
    assert [each.poll() for each in forked_workers].count(-signal.SIGKILL) == 1
    assert len(forked_workers) == 3 and None not in [each.poll() for each in forked_workers]
    [lost] = [line for line in shown.lines if "signal 9" in line]
    assert f"another goes on with {killed[0]} and " in lost
    assert f"{killed[0]} resumed" in shown.lines
    # Several students read the teacher's logits, and none waits for another to store them.
    assert sum(line.startswith("teacher logits: done") for line in shown.lines) == 1
    assert not [line for line in shown.lines if line.startswith("waiting")]
    assert none_left(tmp_path)


@pytest.mark.slow
def test_a_run_that_ends_worker_after_worker_is_given_up(tmp_path, forked_workers):
    def kill(shown, number, names):
        if names == ["alone-0"]:
            forked_workers[number - 1].kill()

    shown = Shown(kill)
    with pytest.raises(checks.UsageError) as error:
        runner.run_study(ONE_SEED, tmp_path / "out", shown, workers=2)
    assert str(error.value) == (
        "3 workers have ended at alone-0: the last was killed by signal 9, as the system does "
        "when memory runs out. Free memory or take fewer --workers, and give the same command "
        "again: it resumes."
    )
    assert [names for _, names in shown.begun].count(["alone-0"]) == 3
    assert None not in [each.poll() for each in forked_workers]
    with study_folder.alone(tmp_path / "out"):
        pass


@pytest.mark.slow
def test_what_fails_is_not_tried_again_and_is_told_as_of_one_process(
    tmp_path, forked_workers, capsys
):
    wild = dataclasses.replace(CONFIG.training, learning_rate=1e30)
    path = written(dataclasses.replace(ONE_SEED, training=wild), tmp_path)
    assert main(["run", str(path), "--workers", "2"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("teacher: the loss became") == 1
    assert "distilled-0: left out, because teacher failed" in printed
    assert {record.status for record in records.read_all(tmp_path / "out")} == {records.DIVERGED}
    assert len(forked_workers) == 2 and none_left(tmp_path / "out")

    # What is wrong with a cache is known when its teacher is trained.
    caches = tmp_path / "caches"
    (caches / "teacher").mkdir(parents=True)
    (caches / "teacher" / "manifest.json").write_text('{"format": 1}')
    kept = dataclasses.replace(CONFIG.cache, folder=str(caches))
    path = written(dataclasses.replace(ONE_SEED, cache=kept), tmp_path)
    assert main(["run", str(path), "--workers", "2", "--output", str(tmp_path / "two")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("tfdistill: error: ") and errors.count("\n") == 1
    assert str(caches / "teacher") in errors


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_as_it_ends_one(tmp_path):
    path = written(LONG, tmp_path)
    process = Forked(run_command, ["run", str(path), "--workers", "2"], tmp_path / "out")
    wait_until(lambda: len(states(tmp_path / "out")) == 2, process)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (
        130,
        "tfdistill: stopped by Ctrl-C. The same command resumes where this one stopped.\n",
    )
    assert "2 workers of 1 thread each" in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert none_left(tmp_path / "out")


@pytest.mark.slow
def test_no_worker_outlives_the_process_that_gives_it_work(tmp_path):
    path = written(LONG, tmp_path)
    process = Forked(run_command, ["run", str(path), "--workers", "2"])
    wait_until(lambda: states(tmp_path / "out"), process)
    process.kill()
    process.communicate()  # ends when no process has its output any more
    with study_folder.alone(tmp_path / "out"):
        pass
    assert states(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "workers must be a whole number, at least 1. Received: workers=0."),
        (["--workers", "-3"], "workers must be a whole number, at least 1. Received: workers=-3."),
        (["--workers", "1.5"], "must be a whole number"),
        (["--workers", "two"], "must be a whole number"),
        (["--workers", "100000"], "workers must be at most"),
        (["--threads", "0"], "threads must be a whole number, at least 1"),
        (["--threads", "5000"], "threads must be at most 1024. Received: threads=5000."),
        (["--executor", "slurm"], "executor"),
        (["--address", "here:6379"], "An address is of a Ray cluster"),
        (["--workers", "2000", "--executor", "ray"], "workers must be at most 1024"),
    ],
)
def test_workers_that_cannot_be_had_are_refused_before_anything_is_written(
    options, message, tmp_path, capsys
):
    path = written(CONFIG, tmp_path)
    assert main(["run", str(path), *options]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and message in errors
    assert not (tmp_path / "out").exists()


def test_what_is_not_installed_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    path = written(CONFIG, tmp_path)
    assert main(["run", str(path), "--executor", "ray", "--workers", "2"]) == 2
    assert 'pip install "tfdistill[ray]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_threads_that_cannot_be_set_any_more_are_refused(tmp_path):
    tensorflow.start()
    other = dataclasses.replace(CONFIG, threads=3 + len(os.sched_getaffinity(0)))
    with pytest.raises(checks.UsageError, match="set before TensorFlow computes"):
        runner.run_study(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"token": "of another folder of that name"}, "does not see the study's folder"),
        ({"folder": "/no/such/folder"}, "does not see the study's folder /no/such/folder"),
        ({"working_folder": "/no/such/place"}, "does not see the folder /no/such/place"),
    ],
)
def test_a_worker_that_does_not_see_the_folder_says_so(changed, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / worker.MARKER).write_text("secret")
    setup = dataclasses.replace(Setup(str(tmp_path), str(tmp_path), "secret", CONFIG), **changed)
    assert message in worker.Worker(setup, print).hello().problem
    with pytest.raises(checks.UsageError, match=message):
        pool.check(worker.Worker(setup, print).hello())


@pytest.mark.parametrize("name", ["tfdistill", "keras", "files"])
def test_workers_of_another_version_are_refused(name):
    there = {**worker.code(), name: "0.0.1"}
    with pytest.raises(checks.UsageError, match=r"node-7 whose .* is 0\.0\.1, not") as error:
        pool.check(Hello("node-7", there))
    assert "\n" not in str(error.value)
    pool.check(Hello("node-7", worker.code()))


def test_messages_about_steps_and_epochs_are_few():
    told = []
    now = Told(told.append)
    for epoch in range(100):
        now.step(epoch, 100, 0.5)
        now.epoch(epoch, 100, {"loss": 1.0})
    assert len(told) == 1
    now.begin(["a"])
    now.say("something")
    now.end("a", "done")
    shown = Shown()
    for each in told:
        each(shown.part())
    assert shown.lines == ["something", "a: done"] and shown.begun == [(2, ["a"])]
