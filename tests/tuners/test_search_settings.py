"""A search goes on with what it was begun with, and with nothing else."""

import shutil

import keras
import keras_tuner as kt
import numpy as np
import pytest
import tensorflow as tf

from tfdistill import SoftTargets, tuners
from tfdistill.utils.checks import UsageError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("eagerly")]

X = np.linspace(-1.0, 1.0, 64, dtype="float32").reshape(16, 4)
Y = np.arange(16, dtype="int32") % 2
FIT = {"epochs": 1, "batch_size": 8, "shuffle": False, "validation_data": (X, Y), "verbose": 0}
LAYERS = keras.layers


def teacher(value=0.5):
    network = keras.Sequential([keras.Input((4,)), LAYERS.Dense(2)])
    network.set_weights([np.full((4, 2), value, "float32"), np.zeros(2, "float32")])
    return network


def student(units=3, widths=(3,), initializer="glorot_uniform", started=None):
    def build(hp):
        hp.Choice("width", list(widths))
        hidden = LAYERS.Dense(units, activation="relu", kernel_initializer=initializer)
        network = keras.Sequential([keras.Input((4,)), hidden, LAYERS.Dense(2)])
        if started:
            network.layers[0].set_weights(
                [np.full((4, units), started, "float32"), np.zeros(units, "float32")]
            )
        return network

    return build


def sgd(rate=0.1):
    return lambda hp: keras.optimizers.SGD(rate)


def opened(folder, kind=tuners.GridSearch, objective="val_loss", oracle=None, **changes):
    about = {"student": student(), "teacher": teacher(), "alpha": [0.1], "temperature": [2.0]}
    about |= {"optimizer": sgd()}
    own = {name: changes.pop(name) for name in ("seeds", "overwrite", "seed") if name in changes}
    hypermodel = tuners.DistillationHyperModel(**{**about, **changes})
    settings = {"directory": folder, "project_name": "s", **own, **(oracle or {})}
    return kind(hypermodel, objective, **settings)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a finished search of one trial."""
    folder = tmp_path_factory.mktemp("searched")
    opened(folder, seed=5).search(X, Y, **FIT)
    return folder


def assert_refused(error, folder, *parts):
    text = str(error.value)
    assert "\n" not in text and text.startswith(f"{folder}/s holds another search: ")
    assert text.endswith("another project_name, or overwrite=True to start over.")
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"alpha": [0.1, 0.5]}, ("alpha is Choice(", "values=[0.1, 0.5]")),
        ({"alpha": 0.1}, ("alpha is Choice(", "and Fixed(value=0.1")),
        ({"alpha": {"min": 0.1, "max": 0.5, "step": 0.4}}, ("alpha is Choice(", "Float(")),
        ({"temperature": None}, ("temperature is Choice(", "not given here")),
        ({"student": student(widths=(3, 5))}, ("width is Choice(", "[3, 5]")),
        ({"student": student(units=4)}, ("the network is ",)),
        ({"student": student(initializer="he_normal")}, ("the network is ",)),
        ({"student": student(started=0.5)}, ("the weights that every network begins with is",)),
        ({"teacher": teacher(0.25)}, ("the teacher's weights is ",)),
        ({"teacher": None}, ("the teacher's network is ", "not given here")),
        ({"optimizer": sgd(0.01)}, ("optimizer.learning_rate is 0.1", "and 0.0099")),
        ({"optimizer": "adam"}, ("optimizer is SGD there and Adam here",)),
        ({"soft_loss": SoftTargets(divergence="cross_entropy")}, ("'cross_entropy' here",)),
        ({"objective": "val_accuracy"}, ("val_loss (min) there and val_accuracy (max) here",)),
        ({"kind": tuners.RandomSearch}, ("GridOracle there and RandomOracle here",)),
        ({"seed": 6}, ("the tuner's seed is 5 there and 6 here",)),
    ],
)
def test_a_folder_of_another_search_is_refused_when_it_is_opened(searched, changes, parts):
    with pytest.raises(UsageError) as error:
        opened(searched, **changes)
    assert_refused(error, searched, *parts)


def other(array):
    changed = array.copy()
    changed[-1] = 1 - changed[-1]
    return changed


BATCHES = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


@pytest.mark.parametrize(
    "data, changes, part",
    [
        ((X, Y), {"epochs": 2}, "epochs is 1 there and 2 here"),
        ((X, Y), {"batch_size": 4}, "batch_size is 8 there and 4 here"),
        ((X, Y), {"shuffle": True}, "shuffle is False there and True here"),
        ((X, Y), {"class_weight": {0: 1.0, 1: 2.0}}, "class_weight is None there and not given"),
        ((X, Y), {"validation_data": (X, other(Y))}, "validation_data.1 is int32 (16,) "),
        ((X, other(Y)), {}, "y is int32 (16,) "),
        ((other(X), Y), {}, "x is float32 (16, 4) "),
        ((X[:8], Y[:8]), {}, "float32 (8, 4) "),
        ((BATCHES,), {}, "cardinality 2 here"),
        ((X, Y), {"callbacks": [keras.callbacks.EarlyStopping(patience=3)]}, "EarlyStopping."),
    ],
)
def test_other_data_or_another_training_are_refused_before_it_begins(searched, data, changes, part):
    with pytest.raises(UsageError) as error:
        opened(searched, seed=5).search(*data, **{**FIT, **changes})
    assert_refused(error, searched, part)


def test_the_same_goes_on_whatever_shows_or_looks(searched):
    tuner = opened(searched)  # a seed that is not given is the one that is there
    before = tuner.results()
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)
    tuner.search(x=X, y=Y, callbacks=[look], **{**FIT, "verbose": 1})
    assert tuner.results().equals(before) and len(before) == 1


def test_overwrite_starts_over_and_what_was_not_begun_may_be_changed(searched, tmp_path):
    shutil.copytree(searched, tmp_path, dirs_exist_ok=True)
    opened(tmp_path, overwrite=True, alpha=[0.3])
    tuner = opened(tmp_path, alpha=[0.9])
    tuner.search(X, other(Y), **FIT)
    assert list(tuner.results()["alpha"]) == [0.9]
    with pytest.raises(UsageError, match="holds another search: alpha is"):
        opened(tmp_path)


def test_data_sets_are_told_apart_by_what_can_be_seen(tmp_path):
    fit = {"epochs": 1, "verbose": 0, "validation_data": BATCHES}
    opened(tmp_path).search(BATCHES, **fit)
    opened(tmp_path).search(lambda epoch: BATCHES, **fit)
    with pytest.raises(UsageError, match="x is .* of cardinality 2 there and .* 4 here"):
        opened(tmp_path).search(BATCHES.repeat(2), **fit)


@pytest.mark.parametrize(
    "kind, first, second, part",
    [
        (tuners.Hyperband, {"max_epochs": 2}, {"max_epochs": 4}, "max_epochs is 2 there and 4"),
        (tuners.BayesianOptimization, {"beta": 2.0}, {"beta": 3.0}, "beta is 2.0 there and 3.0"),
    ],
)
def test_settings_of_what_proposes_trials_are_compared(tmp_path, kind, first, second, part):
    class Formula(kind):
        def train(self, trials, *fit_args, **fit_kwargs):
            return [[{"score": trial.hyperparameters.values["a"]}] for trial in trials]

    def tune(settings):
        hp = kt.HyperParameters()
        hp.Float("a", 0.0, 1.0)
        about = {"hyperparameters": hp, "directory": tmp_path, "seed": 0, **settings}
        return Formula(None, kt.Objective("score", "max"), **about)

    tune(first).search(verbose=0)
    with pytest.raises(UsageError, match=part):
        tune(second)


def test_a_folder_of_an_earlier_version_goes_on_and_says_so(searched, tmp_path, caplog):
    shutil.copytree(searched, tmp_path, dirs_exist_ok=True)
    (tmp_path / "s/settings.json").unlink()
    opened(tmp_path)
    assert "earlier version" in caplog.text
    with pytest.raises(UsageError, match="holds another search: alpha"):
        opened(tmp_path, alpha=[0.9])


def test_lambdas_and_subclasses_are_no_difference_between_processes(tmp_path):
    class Own(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    def build(hp):
        hp.Choice("a", [1, 2])
        network = keras.Sequential([keras.Input((4,)), LAYERS.Dropout(0.5), LAYERS.Dense(1)])
        network.compile("sgd", Own() if hp["a"] == 1 else (lambda y, z: (y - z) ** 2))
        return network

    def tune():
        return tuners.GridSearch(build, "val_loss", directory=tmp_path)

    targets = Y.astype("float32")[:, None]
    fit = {"validation_data": (X, targets), "verbose": 0}
    tune().search(X, targets, **fit)
    tune().search(X, targets, **fit)
