"""Searches as a user does them: processes, some of them killed, on real digits."""

import contextlib
import dataclasses
import os
import random
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.forked import Forked, wait_until
from tfdistill import records
from tfdistill.config import (
    AugmentConfig,
    DataConfig,
    ModelConfig,
    PopulationConfig,
    StudyConfig,
    SweepConfig,
    TrainingConfig,
)
from tfdistill.tuners import sweeps, trials
from tfdistill.utils import tensorflow
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow

SWEEP = SweepConfig(
    space={"distillation.alpha": [0.1, 0.9], "distillation.temperature": [1.0, 4.0]},
    confirm_seeds=[7, 8],
)
IMAGES = DataConfig(train_examples=96, validation=100, test_examples=100)
CONFIG = StudyConfig(
    study="single",
    seeds=[0, 1],
    data=dataclasses.replace(IMAGES, augment=AugmentConfig(flip=True, views=2)),
    teacher_data=IMAGES,
    teacher=ModelConfig("cnn2", width=0.25),
    student=ModelConfig("cnn2", width=0.125),
    training=TrainingConfig(epochs=2, batch_size=32, learning_rate=0.01),
    sweep=SWEEP,
    population=PopulationConfig(size=2),
)


def work(folder):
    tensorflow.start()
    sweeps.search(CONFIG, Path(folder))


def start(folder, **variables):
    return Forked(work, str(folder), **variables)


def finish(process):
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def results(folder):
    """Everything a search leaves that a user reads: tables, weights, histories."""
    found = sweeps.trial_records(folder)
    kept = {run.name: (run.row, run.weights, run.history, run.figures) for run in found}
    return sweeps.tables(found), kept


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    sweeps.search(CONFIG, folder)
    return folder


def test_every_cell_has_a_record_for_each_seed_and_the_best_is_confirmed(whole):
    confirmation, table = sweeps.tables(sweeps.trial_records(whole))
    assert len(table.rows) == 4 and {row[2] for row in table.rows} == {"2"}
    assert [row[1] for row in confirmation.rows] == ["2", "2"]
    best = table.rows[0][1]
    assert f"The best trial: {best}." in confirmation.note
    seeds = {run.seed for run in sweeps.trial_records(whole) if run.row == sweeps.BEST}
    assert seeds == {7, 8}


def test_trials_are_compared_by_validation_accuracy_alone(whole):
    found = [run for run in sweeps.trial_records(whole) if run.name.startswith("trial-")]
    rows = records.by_row(found)
    best = max(rows, key=lambda row: records.spread(rows[row], "validation_accuracy").mean)
    assert sweeps.tables(found)[1].rows[0][1] == best


def test_a_finished_search_only_reads_its_results(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.glob("runs/*/record.json")}
    sweeps.search(CONFIG, whole)
    assert before == {path: path.stat().st_mtime_ns for path in whole.glob("runs/*/record.json")}


def test_a_killed_search_ends_with_the_same_results(whole, tmp_path):
    enough, written = random.Random(os.environ.get("PYTEST_SEED", "17")).randint(1, 40), set()

    def far_enough():
        for path in [*tmp_path.rglob("*.npz"), *tmp_path.rglob("*.json")]:
            with contextlib.suppress(FileNotFoundError):  # or written again
                written.add((path, path.stat().st_mtime_ns))
        return len(written) >= enough

    process = start(tmp_path)
    wait_until(far_enough, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    sweeps.search(CONFIG, tmp_path)
    assert results(tmp_path) == results(whole)


def test_two_workers_search_together_and_one_of_them_dies(whole, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    oracle = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    chief = start(tmp_path, KERASTUNER_TUNER_ID="chief", **oracle)
    one = start(tmp_path, KERASTUNER_TUNER_ID="tuner0", **oracle)
    other = start(tmp_path, KERASTUNER_TUNER_ID="tuner1", **oracle)
    wait_until(lambda: any(tmp_path.glob("together/*/state.npz")), other)
    other.send_signal(signal.SIGKILL)
    assert other.wait() == -signal.SIGKILL
    again = start(tmp_path, KERASTUNER_TUNER_ID="tuner1", **oracle)
    for process in (one, again, chief):
        finish(process)
    assert sorted(row[1:] for row in results(tmp_path)[0][1].rows) == sorted(
        row[1:] for row in results(whole)[0][1].rows
    )


def test_a_worker_that_cannot_reach_the_oracle_says_so(whole, monkeypatch):
    for name, value in (("TUNER_ID", "tuner9"), ("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", "1")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    monkeypatch.setenv("TFDISTILL_ORACLE_TIMEOUT", "0.1")
    with pytest.raises(UsageError, match=re.escape("127.0.0.1:1")):
        sweeps.search(CONFIG, whole)


def test_the_plan_tells_teachers_space_and_size():
    plan = sweeps.plan_table(CONFIG, Path("results"))
    assert ("teacher", "teacher", "to do") in plan.rows
    assert "4 trials, 2 seeds each" in plan.note


def test_a_key_that_would_change_the_teacher_is_refused():
    sweep = dataclasses.replace(SWEEP, space={"training.learning_rate": [0.1, 0.2]})
    config = dataclasses.replace(CONFIG, sweep=sweep)
    with pytest.raises(UsageError, match="would change the teacher from trial to trial"):
        trials.check(config)
