"""A user's callbacks in a search: for each trial what they do alone, and on after a kill."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill import tuners
from tfdistill.utils.checks import UsageError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("eagerly")]

K = keras.callbacks
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(32, 4)).astype("float32")
Y = GENERATOR.integers(0, 2, 32)
SEEN = {"validation_data": (X[:16], Y[:16]), "verbose": 0}
FIT = {"epochs": 6, "batch_size": 16, "shuffle": False, **SEEN}


def network(hp=None):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


keras.utils.set_random_seed(1)
TEACHER = network()


class Kill(K.Callback):
    """Ends the process, as far as the search is concerned, where an epoch begins."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


class Notes(K.Callback):
    """Notes what it sees, in several kinds of attributes, and stops where its rule says so."""

    def __init__(self, file, stop=99):
        super().__init__()
        self.file, self.stop = str(file), stop
        self.losses, self.extremes, self.by_epoch, self.seen = [], np.zeros(2), {}, set()

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        self.extremes = np.array([min(self.losses), max(self.losses)])
        self.by_epoch[epoch] = (logs["val_loss"], float(self.model.alpha))
        self.seen.add(epoch)
        if len(self.by_epoch) == self.stop:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        kernel = float(np.abs(self.model.student.get_weights()[0]).sum())
        found = {"losses": self.losses, "extremes": self.extremes.tolist(), "kernel": kernel}
        found |= {"epochs": list(self.by_epoch.items()), "seen": sorted(self.seen)}
        with open(self.file, "a") as file:
            file.write(json.dumps(found) + "\n")


def search(folder, callbacks, population=1, kill=None, **fit):
    hypermodel = tuners.DistillationHyperModel(
        network,
        TEACHER,
        alpha=[0.1, 0.9],
        temperature=[2.0],
        optimizer=lambda hp: keras.optimizers.SGD(0.5),
    )
    tuner = tuners.GridSearch(
        hypermodel, "val_loss", population=population, directory=folder, project_name="s"
    )
    more = [] if kill is None else [Kill(kill)]
    tuner.search(X, Y, callbacks=[*callbacks, *more], **{**FIT, **fit})
    return tuner


def histories(folder):
    files = sorted(folder.glob("s/trial_*/seed-0.json"))
    return [json.loads(file.read_text())["history"] for file in files]


def assert_same(found, expected, rtol):
    assert len(found) == len(expected) == 2
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, values in other.items():
            np.testing.assert_allclose(one[name], values, rtol=rtol, err_msg=name)


DECIDING = {
    "stop": lambda: [
        K.EarlyStopping("loss", patience=1, min_delta=0.08, restore_best_weights=True)
    ],
    "plateau": lambda: [
        K.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=0.05),
        K.EarlyStopping("loss", patience=3, min_delta=0.05),
        K.TerminateOnNaN(),
    ],
    "schedule": lambda: [K.LearningRateScheduler(lambda epoch, rate: rate * 0.5)],
}
EPOCHS = {"stop": 6, "plateau": 6, "schedule": 2}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return a function that gives the histories of trials that are trained one by one.

    A compiled step heeds a schedule, too.
    """
    known = {}

    def found(kind):
        if kind not in known:
            folder = tmp_path_factory.mktemp("alone")
            tf.config.run_functions_eagerly(kind != "schedule")
            search(folder, DECIDING[kind](), epochs=EPOCHS[kind])
            tf.config.run_functions_eagerly(True)
            known[kind] = histories(folder)
        return known[kind]

    return found


@pytest.mark.parametrize("kind", ["stop", "schedule"])  # "plateau" is below, with a kill
def test_trials_that_are_trained_together_have_callbacks_each(kind, alone, tmp_path):
    search(tmp_path, DECIDING[kind](), population=2, epochs=EPOCHS[kind])
    assert_same(histories(tmp_path), alone(kind), rtol=1e-5)


def test_early_stopping_ends_each_trial_at_an_epoch_of_its_own(alone):
    first, second = (history["loss"] for history in alone("stop"))
    assert first[1] - first[2] < 0.08 < first[0] - first[1] and len(first) == 3
    assert second[2] - second[3] < 0.08 < second[1] - second[2] and len(second) == 4


def test_each_trial_begins_with_the_learning_rate_of_the_first(alone):
    for history in alone("plateau"):
        assert history["learning_rate"][0] == 0.5 and history["learning_rate"][-1] < 0.06
    for history in alone("schedule"):
        assert history["learning_rate"] == [0.25, 0.125]


@pytest.mark.parametrize("kind, population", [("stop", 1), ("plateau", 2)])
def test_after_a_kill_callbacks_go_on_where_they_stood(kind, population, alone, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, DECIDING[kind](), population, kill=2)
    search(tmp_path, DECIDING[kind](), population)
    assert_same(histories(tmp_path), alone(kind), rtol=1e-5 if population > 1 else 0)


def notes_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_callback_of_ones_own_sees_one_trial_and_keeps_what_it_noted(tmp_path):
    search(tmp_path / "a", [Notes(tmp_path / "a.txt", stop=3)])
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "b", [Notes(tmp_path / "b.txt", stop=3)], population=2, kill=2)
    search(tmp_path / "b", [Notes(tmp_path / "b.txt", stop=3)], population=2)
    alone, together = (notes_of(tmp_path / f"{name}.txt") for name in "ab")
    assert [len(notes["losses"]) for notes in alone] == [6, 6]  # three epochs of two batches
    for one, other in zip(together, alone, strict=True):
        assert one["seen"] == other["seen"] == [0, 1, 2]
        np.testing.assert_allclose(one["losses"], other["losses"], rtol=1e-5)
        np.testing.assert_allclose(one["extremes"], other["extremes"], rtol=1e-5)
        np.testing.assert_allclose(one["kernel"], other["kernel"], rtol=1e-5)
        assert [epoch for epoch, _ in one["epochs"]] == [0, 1, 2]
        for (_, seen), (_, expected) in zip(one["epochs"], other["epochs"], strict=True):
            np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_a_log_of_figures_goes_on_after_a_kill_and_what_cannot_be_kept_is_said(tmp_path, caplog):
    class Holding(K.Callback):
        def __init__(self):
            super().__init__()
            self.generator = np.random.default_rng(0)

    file = tmp_path / "log.csv"
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, [K.CSVLogger(str(file)), Holding()], kill=2, epochs=3)
    assert "anew" not in caplog.text
    search(tmp_path, [K.CSVLogger(str(file)), Holding()], epochs=3)
    assert caplog.text.count("Holding begins anew in part: generator cannot be kept") == 1
    with open(file) as lines:  # the last trial's log is what is left
        assert [row["epoch"] for row in csv.DictReader(lines)] == ["0", "1", "2"]


def test_a_log_for_tensorboard_is_written_for_each_trial(tmp_path):
    found = []
    for population in (1, 2):
        folder = tmp_path / f"{population}"
        search(folder, [K.TensorBoard(str(folder / "logs"))], population, epochs=1)
        files = folder.rglob("events.out.tfevents*")
        found.append(sorted(str(file.parent.relative_to(folder)) for file in files))
    assert found[0] == found[1] and len(found[0]) == 6
    assert [name for name in found[0] if name.startswith("logs/0001/")] == found[0][3:]


@pytest.mark.parametrize(
    "callback, population, part",
    [
        (K.BackupAndRestore("backup"), 1, "A search resumes by itself. Received: the callback Ba"),
        (K.ModelCheckpoint("a.keras"), 2, "ModelCheckpoint writes one file, which all trials"),
        (K.CSVLogger("a.csv"), 2, "Received: population=2. Give population=1, or leave it out."),
    ],
)
def test_what_cannot_act_in_a_search_is_refused(callback, population, part, tmp_path):
    with pytest.raises(UsageError, match=part) as error:
        search(tmp_path, [callback], population)
    assert "\n" not in str(error.value) and not list(tmp_path.glob("s/trial_*"))


def test_one_of_several_trials_cannot_be_stopped_within_an_epoch(tmp_path):
    class Hasty(K.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    with pytest.raises(UsageError, match="Received: Hasty, .* Give population=1"):
        search(tmp_path, [Hasty()], population=2)


def test_no_callbacks_and_one_without_a_list_are_taken(tmp_path):
    hypermodel = tuners.DistillationHyperModel(network, TEACHER, alpha=[0.1], temperature=[2.0])
    for place, callbacks in enumerate(([], K.EarlyStopping())):
        tuner = tuners.GridSearch(hypermodel, "val_loss", directory=tmp_path / f"{place}")
        tuner.search(X, Y, callbacks=callbacks, **{**FIT, "epochs": 1})
        assert len(tuner.results()) == 1
