"""Oracles: the same trials whatever happens, with trainings replaced by a formula."""

import keras_tuner as kt
import pandas as pd
import pytest

from tfdistill import tuners
from tfdistill.tuners.oracles import GridOracle, wait_for_oracle
from tfdistill.utils import storage
from tfdistill.utils.checks import UsageError

KINDS = {
    "grid": (tuners.GridSearch, {}),
    "random": (tuners.RandomSearch, {"max_trials": 4, "seed": 0}),
    "bayesian": (
        tuners.BayesianOptimization,
        {"max_trials": 3, "num_initial_points": 2, "seed": 0},  # a proposal takes seconds
    ),
    "hyperband": (tuners.Hyperband, {"max_epochs": 4, "factor": 2, "seed": 0}),
}


def space_of(kind):
    hp = kt.HyperParameters()
    if kind == "grid":
        hp.Float("alpha", 0.1, 0.9, step=0.4)
        hp.Choice("temperature", [1.0, 4.0])
    else:
        hp.Float("alpha", 0.0, 1.0)
        hp.Float("temperature", 1.0, 40.0, sampling="log")
    return hp


def tuner_of(kind, folder, population=1, **settings):
    tuner, own = KINDS[kind]

    class Formula(tuner):
        def train(self, trials, *fit_args, **fit_kwargs):
            return [
                [{"score": self.score(trial) + seed} for seed in self.seeds] for trial in trials
            ]

        def score(self, trial):
            values = trial.hyperparameters.values
            distance = (values["alpha"] - 0.3) ** 2 + (values["temperature"] - 5) ** 2 / 100
            return -distance * (1 + 1 / values.get("tuner/epochs", 1))

    own = {**own, "hyperparameters": space_of(kind), "directory": folder, **settings}
    return Formula(None, kt.Objective("score", "max"), population=population, **own)


def search(*args, **settings):
    tuner = tuner_of(*args, **settings)
    tuner.search(verbose=0)
    return tuner


class Killed(BaseException):
    pass


def killed_before_write(monkeypatch, number, *args):
    """Search until the file of this number would be written; return whether there was one."""
    written = []

    def write_json(path, value, write=storage.write_json):
        written.append(path)
        if len(written) > number:
            raise Killed
        write(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_json", write_json)
        try:
            search(*args)
        except Killed:
            return True
    return False


@pytest.mark.parametrize(
    "kind, population, stride",
    [
        pytest.param("grid", 1, 3, marks=pytest.mark.slow),  # 10 files a trial: each kind of them
        pytest.param("grid", 2, 3, marks=pytest.mark.slow),
        ("random", 1, 3),
        ("random", 3, 3),
        pytest.param("bayesian", 2, 11, marks=pytest.mark.slow),
        pytest.param("hyperband", 1, 19, marks=pytest.mark.slow),
        pytest.param("hyperband", 2, 13, marks=pytest.mark.slow),
    ],
)
def test_killed_before_any_file_the_same_trials_follow(
    kind, population, stride, tmp_path, monkeypatch
):
    expected = search(kind, tmp_path / "whole", population).results()
    number = 0
    while killed_before_write(monkeypatch, number, kind, tmp_path / f"{number}", population):
        found = search(kind, tmp_path / f"{number}", population)
        pd.testing.assert_frame_equal(found.results(), expected)
        number += stride
    assert number >= 2 * len(expected)


def test_a_grid_has_every_point_once(tmp_path):
    table = search("grid", tmp_path).results()
    points = list(zip(table["alpha"], table["temperature"], strict=True))
    assert points == [(a, t) for a in (0.1, 0.5, 0.9) for t in (1.0, 4.0)]
    assert (table["status"] == "COMPLETED").all()


def test_a_grid_goes_up_to_the_end_of_a_range():
    hp = kt.HyperParameters()
    hp.Float("alpha", 0.1, 0.9, step=0.2)
    oracle = GridOracle(kt.Objective("score", "max"), hyperparameters=hp)
    found = [point["alpha"] for point in oracle._grid()]
    assert found == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])


def test_a_grid_leaves_out_what_is_not_active():
    hp = kt.HyperParameters()
    hp.Choice("loss", ["kl", "mse"])
    hp.Choice("temperature", [1.0, 4.0], parent_name="loss", parent_values=["kl"])
    oracle = GridOracle(kt.Objective("score", "max"), hyperparameters=hp)
    found = []
    while (point := oracle.populate_space("0"))["status"] == "RUNNING":
        found.append(point["values"])
        oracle._tried_so_far.add(oracle._compute_values_hash(point["values"]))
    assert found == [
        {"loss": "kl", "temperature": 1.0},
        {"loss": "kl", "temperature": 4.0},
        {"loss": "mse"},
    ]


def test_a_grid_refuses_a_range_without_step(tmp_path):
    hp = kt.HyperParameters()
    hp.Float("alpha", 0.0, 1.0)
    with pytest.raises(UsageError, match="'alpha' from 0.0 to 1.0 without a step"):
        search("grid", tmp_path, hyperparameters=hp)


def test_more_trials_go_on_from_a_finished_search(tmp_path):
    search("random", tmp_path / "a", max_trials=2)
    more = search("random", tmp_path / "a", max_trials=4).results()
    once = search("random", tmp_path / "b", max_trials=4).results()
    pd.testing.assert_frame_equal(more, once)


def test_seed_zero_is_a_seed(tmp_path):
    assert tuner_of("random", tmp_path).oracle.seed == 0


def project(folder):
    return folder / "untitled_project"


def edit(file, **changes):
    storage.write_checked(file, {**storage.read_checked(file), **changes})


def test_without_its_own_file_an_oracle_is_rebuilt_from_the_trials(tmp_path):
    expected = search("random", tmp_path / "a").results()
    search("random", tmp_path / "b", max_trials=2)
    (project(tmp_path / "b") / "oracle.json").unlink()
    found = search("random", tmp_path / "b", max_trials=4).results()
    pd.testing.assert_frame_equal(found, expected)


def test_the_trials_are_believed_rather_than_the_oracle(tmp_path):
    search("grid", tmp_path)
    file = project(tmp_path) / "oracle.json"
    edit(file, ongoing_trials={"tuner0": "0003"}, end_order=["0001", "0000"], tried_so_far=[])
    edit(project(tmp_path) / "trial_0002" / "trial.json", status="RUNNING", owner="tuner0")
    edit(project(tmp_path) / "trial_0004" / "trial.json", status="RUNNING", owner="tuner0")

    oracle = tuner_of("grid", tmp_path).oracle
    assert oracle.end_order == ["0001", "0000", "0003", "0005"]
    assert oracle.ongoing_trials == {}
    assert len(oracle._tried_so_far) == 6
    again = [oracle.create_trial(name).trial_id for name in ("tuner0", "tuner1")]
    assert again == ["0002", "0004"]
    assert oracle.create_trial("tuner2").status == "STOPPED"


def test_a_chief_gives_a_trial_back_to_the_worker_that_had_it(tmp_path, monkeypatch):
    search("grid", tmp_path)
    edit(project(tmp_path) / "trial_0002" / "trial.json", status="RUNNING", owner="tuner7")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    oracle = tuner_of("grid", tmp_path).oracle
    assert oracle.create_trial("tuner1").status == "STOPPED"
    assert oracle.create_trial("tuner7").trial_id == "0002"
    assert oracle.tuner_ids == {"tuner7"}


@pytest.mark.parametrize("name", ["oracle.json", "trial_0001/trial.json"])
def test_a_torn_file_is_named_in_one_line(name, tmp_path):
    search("grid", tmp_path)
    (project(tmp_path) / name).write_text('{"half": ')
    with pytest.raises(UsageError, match=f"Cannot read .*{name}.*overwrite=True") as error:
        tuner_of("grid", tmp_path)
    assert "\n" not in str(error.value)


def test_a_lost_trial_is_named(tmp_path):
    search("grid", tmp_path)
    (project(tmp_path) / "trial_0001" / "trial.json").unlink()
    with pytest.raises(UsageError, match="lost trial_0001/trial.json"):
        tuner_of("grid", tmp_path)


def test_overwrite_begins_anew(tmp_path):
    search("grid", tmp_path)
    tuner = tuner_of("grid", tmp_path, overwrite=True)
    assert not tuner.oracle.trials and not list(project(tmp_path).glob("trial_*"))


def test_an_oracle_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "9")
    with pytest.raises(UsageError, match="Cannot reach the oracle at 127.0.0.1:9 ") as error:
        wait_for_oracle(timeout=0.0)
    assert "\n" not in str(error.value)
