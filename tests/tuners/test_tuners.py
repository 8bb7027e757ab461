"""Tuners: real trainings, several seeds, kills, one compiled step, and a chief with workers."""

import contextlib
import io
import json
import shutil
import signal
import socket
from pathlib import Path

import keras
import keras_tuner as kt
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests import search_process as sp
from tests.forked import Forked
from tfdistill import SoftTargets, tuners
from tfdistill.utils import progress
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tuner of an uninterrupted grid."""
    return sp.search("grid", tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def whole(finished):
    """The tables of an uninterrupted grid."""
    return finished.results(), finished.seed_results()


@pytest.fixture(scope="module")
def one_trial(tmp_path_factory):
    """The folder of a search of one trial with two seeds; beside it, the lines that it `shown`."""
    folder, text = tmp_path_factory.mktemp("one"), io.StringIO()
    lines = progress.Lines(Console(file=text, width=80, soft_wrap=True), every=0.0)
    sp.search("grid", folder, max_trials=1, progress=lines)
    (folder / "shown").write_text(text.getvalue())
    return folder / "search"


def start(kind, folder, file=None, **environment):
    return Forked(sp.main, kind, str(folder), file and str(file), **environment)


def kill_at(file, kind, folder, **environment):
    """Kill a search in the training that keeps its state in the file."""
    process = start(kind, folder, file, **environment)
    assert "there\n" in process.stdout, process.stderr.read()[-2000:]
    process.send_signal(signal.SIGKILL)
    process.communicate()


def assert_same(tuner, tables):
    pd.testing.assert_frame_equal(tuner.results(), tables[0])
    pd.testing.assert_frame_equal(tuner.seed_results(), tables[1])


def test_a_killed_grid_goes_on_to_the_same_figures(whole, tmp_path):
    kill_at(tmp_path / "search/trial_1/seed-1/state.npz", "grid", tmp_path)
    tuner = sp.tuner_of("grid", tmp_path, seeds=(0, 1))
    assert len(tuner.oracle.trials) == 2 and not (tmp_path / "search/trial_2").exists()
    tuner.search(sp.batches, **sp.FIT)
    assert_same(tuner, whole)
    points = tuner.results()[["alpha", "temperature"]]
    assert len(points.drop_duplicates()) == len(points) == 3
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.usefixtures("eagerly")
def test_an_epoch_that_is_done_is_not_done_again(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            began.append(epoch)
            if len(began) == 2:
                raise KeyboardInterrupt

    began = []
    for _ in range(2):
        tuner = sp.tuner_of("random", tmp_path, max_trials=1)
        with contextlib.suppress(KeyboardInterrupt):
            tuner.search(sp.batches, callbacks=[Stop()], **sp.FIT)
    assert began == [0, 1, 1]


def test_a_display_shows_every_epoch_and_the_objective(one_trial):
    shown = (one_trial.parent / "shown").read_text().splitlines()
    assert shown[0] == f"Search in {one_trial}"
    assert any("trial 0, seed 1: epoch 2/2" in line for line in shown)
    assert "trial 0, seed 1: val_loss " in shown[-1]


def test_each_seed_keeps_its_figures_and_history(one_trial):
    tuner = sp.tuner_of("grid", one_trial.parent, max_trials=1, seeds=(0, 1))
    for seed in (0, 1):
        done = json.loads((one_trial / f"trial_0/seed-{seed}.json").read_text())
        assert len(done["history"]["val_loss"]) == 2
        assert done["figures"]["val_loss"] == min(done["history"]["val_loss"])
    row, seeds = tuner.results().iloc[0], tuner.seed_results()["val_loss"]
    assert row["mean"] == pytest.approx(seeds.mean()) and row["n"] == 2
    assert row["std"] == pytest.approx(seeds.std()) and row["std"] > 0
    trial = tuner.oracle.get_best_trials()[0]
    assert trial.score == pytest.approx(row["mean"])


def test_a_compiled_distiller_serves_all_trials_and_trains_the_same(whole, tmp_path):
    calls = []

    class Counting(SoftTargets):
        def call(self, y_true, y_pred):
            calls.append(1)
            return super().call(y_true, y_pred)

    hypermodel = tuners.DistillationHyperModel(
        lambda hp: sp.network(),
        sp.teacher(),
        soft_loss=Counting(),
        optimizer=lambda hp: keras.optimizers.Adam(0.05),
        **sp.GRID,
    )
    settings = {"max_trials": 2, "seeds": (1,), "directory": tmp_path}
    tuner = tuners.GridSearch(hypermodel, "val_loss", **settings)
    tuner.search(sp.batches, **sp.FIT)
    assert 0 < len(calls) <= 2  # tracing a train step; the other training adds nothing
    last = tuner.seed_results().iloc[-1]

    keras.utils.set_random_seed(1)
    rebuilt = hypermodel.build(tuner.oracle.trials[last["trial"]].hyperparameters)
    keras.utils.set_random_seed(1)
    history = rebuilt.fit(sp.batches(0), **sp.FIT).history
    assert min(history["val_loss"]) == pytest.approx(last["val_loss"], rel=1e-6)


def test_the_best_model_has_the_figures_of_its_best_epoch(finished, tmp_path):
    tuner = finished
    model = tuner.get_best_models()[0]
    table = tuner.seed_results()
    seeds = table[table["trial"] == tuner.oracle.get_best_trials()[0].trial_id]
    figures = model.evaluate(sp.IMAGES, sp.LABELS, verbose=0, return_dict=True)
    assert figures["loss"] == pytest.approx(seeds["val_loss"].min(), rel=1e-5)
    model.student.save(tmp_path / "student.keras")
    again = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(again(sp.IMAGES), model.student(sp.IMAGES))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name, fault",
    [
        ("trial_0/checkpoint.weights.h5", flip),
        ("trial_0/checkpoint.weights.h5", Path.unlink),
        ("trial_0/build_config.json", flip),
        ("trial_0/seed-1.json", flip),
        ("trial_0/seed-1.json", Path.unlink),
        ("tuner0.json", flip),
    ],
)
def test_damaged_files_of_a_search_are_named_and_not_used(one_trial, tmp_path, name, fault):
    shutil.copytree(one_trial, tmp_path / "search")
    fault(tmp_path / "search" / name)
    with pytest.raises(UsageError, match=f"{name}.*overwrite=True") as error:
        tuner = sp.tuner_of("grid", tmp_path, max_trials=1, seeds=(0, 1))
        tuner.results()
        tuner.get_best_models()
    assert "\n" not in str(error.value)


def test_weights_of_an_earlier_version_are_loaded(one_trial, tmp_path):
    shutil.copytree(one_trial, tmp_path / "search")
    path = tmp_path / "search/trial_0/build_config.json"
    path.write_text(json.dumps(json.loads(path.read_text())["build_config"]))
    before, after = (
        sp.tuner_of("grid", folder, max_trials=1, seeds=(0, 1)).get_best_models()[0]
        for folder in (one_trial.parent, tmp_path)
    )
    np.testing.assert_array_equal(before.student(sp.IMAGES), after.student(sp.IMAGES))


def test_a_search_goes_on_only_with_its_seeds(one_trial):
    with pytest.raises(UsageError, match=r"begun with seeds=\[0, 1\].*seeds=\[0, 1, 2\]"):
        sp.tuner_of("grid", one_trial.parent, max_trials=1, seeds=(0, 1, 2))


def test_a_damaged_state_begins_its_training_anew(one_trial, tmp_path, caplog):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    tuner = sp.tuner_of("grid", tmp_path, max_trials=1, seeds=(0, 1))
    with pytest.raises(KeyboardInterrupt):
        tuner.search(sp.batches, callbacks=[Stop()], **sp.FIT)
    flip(tmp_path / "search/trial_0/seed-0/state.npz")
    again = sp.search("grid", tmp_path, max_trials=1)
    assert "state.npz is damaged" in caplog.text and "trained from the start" in caplog.text
    whole = sp.tuner_of("grid", one_trial.parent, max_trials=1, seeds=(0, 1))
    pd.testing.assert_frame_equal(again.seed_results(), whole.seed_results())


@pytest.mark.usefixtures("eagerly")
def test_hyperband_goes_on_with_the_training_of_the_earlier_trial(tmp_path):
    tuner = sp.tuner_of("hyperband", tmp_path, max_epochs=2)
    tuner.search(sp.batches, **sp.FIT)
    table = tuner.results().dropna(subset="tuner/trial_id")
    assert len(table) > 0
    for _, row in table.iterrows():
        later, earlier = (
            json.loads((tmp_path / f"search/trial_{name}/seed-0.json").read_text())["history"]
            for name in (row["trial"], row["tuner/trial_id"])
        )
        assert later["loss"][: len(earlier["loss"])] == earlier["loss"]
        assert len(later["loss"]) == row["tuner/epochs"] > len(earlier["loss"])


def test_trials_trained_together_are_those_alone_and_shown_one_after_the_other(
    whole, tmp_path, capsys
):
    tuner = sp.tuner_of("grid", tmp_path, seeds=(0, 1), population=2)
    tuner.search(sp.batches, **{**sp.FIT, "verbose": 1})
    pd.testing.assert_frame_equal(tuner.results(), whole[0], rtol=1e-5)
    printed = capsys.readouterr().out
    assert printed.count("Complete [") == len(tuner.results()) == 3
    assert f"Best {tuner.oracle.objective.name} So Far" in printed


@pytest.mark.usefixtures("eagerly")
def test_a_plain_hypermodel_works(tmp_path, capsys):
    def build(hp):
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.SGD(hp.Choice("rate", [0.01, 0.1]))
        model.compile(optimizer, loss, metrics=["accuracy"])
        return model

    settings = {"seeds": (0, 1), "directory": tmp_path, "project_name": "plain"}
    tuner = tuners.GridSearch(build, "val_accuracy", **settings)
    data = sp.IMAGES, sp.LABELS
    tuner.search(*data, epochs=2, validation_data=data, verbose=0)
    assert capsys.readouterr().out == ""
    assert list(tuner.results()["rate"]) == [0.01, 0.1]
    best = tuner.get_best_models()[0].evaluate(*data, verbose=0, return_dict=True)["accuracy"]
    table = tuner.seed_results()
    seeds = table[table["trial"] == tuner.oracle.get_best_trials()[0].trial_id]
    assert best == pytest.approx(seeds["val_accuracy"].max())
    tuner.results_summary()
    tuner.search_space_summary()
    assert "rate" in capsys.readouterr().out
    assert tuner.get_best_hyperparameters()[0]["rate"] in (0.01, 0.1)


def test_a_hypermodel_may_fit_by_itself(tmp_path):
    class Own(kt.HyperModel):
        def build(self, hp):
            hp.Choice("rate", [1.0, 2.0])
            model = sp.network()
            model.compile("sgd", "mse")
            return model

        def fit(self, hp, model, callbacks):
            return hp["rate"]

    tuner = tuners.GridSearch(Own(), directory=tmp_path)
    tuner.search()
    assert list(tuner.results()["mean"]) == [1.0, 2.0]


@pytest.mark.usefixtures("eagerly")
def test_a_loss_that_is_no_number_fails_its_trial_only(tmp_path):
    def optimizer(hp):
        return keras.optimizers.SGD(hp.Choice("rate", [1e38, 0.01]))

    hypermodel = tuners.DistillationHyperModel(
        lambda hp: sp.network(), sp.teacher(), optimizer=optimizer
    )
    tuner = tuners.GridSearch(hypermodel, "val_loss", directory=tmp_path)
    tuner.search(sp.batches, **sp.FIT)
    assert list(tuner.results()["status"]) == ["FAILED", "COMPLETED"]
    assert "lower the learning rate" in tuner.seed_results()["failure"][0]
    assert "lower the learning rate" in tuner.oracle.trials["0000"].message


@pytest.mark.usefixtures("eagerly")
def test_an_error_ends_the_search_as_it_is(tmp_path):
    tuner = sp.tuner_of("random", tmp_path)
    with pytest.raises(UsageError, match="objective 'val_loss' is not among"):
        tuner.search(sp.batches, epochs=1, steps_per_epoch=3, verbose=0)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"alpha": 1.5}, "alpha must be a number from 0 to 1. Received: alpha=1.5"),
        ({"alpha": [0.1, -1.0]}, "alpha=-1.0"),
        ({"alpha": []}, "alpha must be a list of one or more different values"),
        ({"alpha": {"min": 0.5, "max": 0.1}}, "alpha needs min < max"),
        ({"alpha": {"min": 0.5, "max": 0.9, "stpe": 1}}, "Did you mean 'step'"),
        ({"temperature": 0.0}, "temperature must be a number from 0.001 to 1000"),
        ({"temperature": {"min": 1, "max": 4, "sampling": "lin"}}, "temperature.sampling"),
        ({"temperature": 2.0, "soft_loss": keras.losses.MeanSquaredError()}, "no temperature"),
        ({"optimizer": keras.optimizers.Adam()}, "optimizer must be a name or a function"),
    ],
)
def test_a_wrong_space_is_refused_at_once(settings, message):
    with pytest.raises(UsageError, match=message):
        tuners.DistillationHyperModel(lambda hp: sp.network(), **settings)


@pytest.mark.parametrize("seeds", [(), (0, 0), (-1,)])
def test_wrong_seeds_are_refused(seeds, tmp_path):
    with pytest.raises(UsageError, match="seeds must be"):
        sp.tuner_of("grid", tmp_path, seeds=seeds)


def test_a_chief_and_two_workers_find_what_one_process_finds(whole, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    oracle = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    oracle |= {"no_proxy": "127.0.0.1", "CUDA_VISIBLE_DEVICES": ""}
    chief = start("grid", tmp_path, KERASTUNER_TUNER_ID="chief", **oracle)
    processes = [chief]
    try:
        state, worker = tmp_path / "search/trial_0/seed-1/state.npz", "tuner0"
        kill_at(state, "grid", tmp_path, KERASTUNER_TUNER_ID=worker, **oracle)
        for name in ("tuner0", "tuner1"):
            processes.append(start("grid", tmp_path, KERASTUNER_TUNER_ID=name, **oracle))
        for process in processes:
            _, errors = process.communicate()
            assert process.returncode == 0, errors[-2000:]
    finally:
        for process in processes:
            process.kill()
    assert_same(sp.tuner_of("grid", tmp_path, seeds=(0, 1)), whole)


def test_a_worker_without_a_chief_ends_with_one_line(tmp_path):
    oracle = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": "9"}
    worker = start(
        "grid", tmp_path, KERASTUNER_TUNER_ID="tuner0", TFDISTILL_ORACLE_TIMEOUT="0.5", **oracle
    )
    _, errors = worker.communicate()
    assert worker.returncode == 1
    assert errors.splitlines()[-1].startswith("Cannot reach the oracle at 127.0.0.1:9 ")
