"""Under a distribution strategy: two logical devices, or two processes, train as one does."""

import contextlib
import dataclasses
import json
import socket
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from tests.forked import Forked
from tfdistill import Distiller, FeatureLoss, Population, records
from tfdistill.cli.main import main
from tfdistill.config import (
    DataConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.losses import AttentionTransfer
from tfdistill.training import runner
from tfdistill.utils import checks
from tfdistill.utils.progress import Silent


def network(seed):
    start = keras.initializers.GlorotUniform(seed)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(
        4,
        3,
        activation="relu",
        kernel_initializer=start,
        kernel_regularizer=keras.regularizers.L2(0.1),
        name="features",
    )(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, kernel_initializer=start)(x))


def trained(strategy):
    """Return losses and weights of a student after two epochs of the same batches."""
    random = np.random.default_rng(0)
    x = random.normal(size=(24, 8, 8, 1)).astype("float32")
    y = np.arange(24, dtype="int32") % 3
    with strategy.scope():
        feature = FeatureLoss(AttentionTransfer(), weight=0.1)
        settings = {"alpha": 0.7, "temperature": 2.0, "features": [feature]}
        distiller = Distiller(network(1), network(2), **settings)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    history = distiller.fit(batches, epochs=2, verbose=0, validation_data=(x, y)).history
    return history, distiller.student.get_weights()


def two_devices():
    """Give this process two devices; return what trains on both."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert both.num_replicas_in_sync == 2
    return both


def population(strategy):
    """Return losses and weights of two students and one alone after two epochs in one step."""
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 8, 8, 1)).astype("float32")
    y = np.arange(20, dtype="int32") % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with strategy.scope():
        members = [Distiller(network(seed), alpha=0.1 * seed, temperature=2.0) for seed in (1, 3)]
        members.append(network(5))
        for member in members:
            member.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
        together = Population(members, network(2))
        together.compile()
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)  # the last has 4 images
    history = together.fit(batches, epochs=2, verbose=0, validation_data=batches).history
    return history, together.get_weights()


def trains_as_one(train, strategy, names):
    """Train under a strategy and on one device, and compare losses and weights."""
    history, weights = train(strategy)
    expected, alone = train(tf.distribute.get_strategy())
    for one, other in zip(weights, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert history.keys() == expected.keys() >= names
    for name in expected:
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-4, err_msg=name)


OF_A_DISTILLER = {"soft_loss", "hard_loss", "feature_loss", "val_accuracy"}
OF_MEMBERS = {"0/soft_loss", "2/accuracy", "val_1/loss"}


def compare():
    trains_as_one(trained, two_devices(), OF_A_DISTILLER)


def compare_populations():
    trains_as_one(population, two_devices(), OF_MEMBERS)


def compare_workers():
    """Train as one of the workers that TF_CONFIG names; each sees its half of every batch."""
    workers = tf.distribute.MultiWorkerMirroredStrategy()
    assert workers.num_replicas_in_sync == 2
    trains_as_one(trained, workers, OF_A_DISTILLER)
    trains_as_one(population, workers, OF_MEMBERS)


def compare_studies(folder):
    """Do a study on both devices, stopped and resumed on the way, and on one."""
    two_devices()
    one, both = Path(folder) / "one", Path(folder) / "both"
    runner.run_study(STUDY, one)
    training = dataclasses.replace(STUDY.training, strategy="mirrored")
    mirrored = dataclasses.replace(STUDY, training=training)
    with pytest.raises(Stopped):
        runner.run_study(mirrored, both, Stop("distilled-0"))
    runner.run_study(mirrored, both)
    for expected in records.read_all(one):
        record = records.read(records.run_folder(both, expected.name))
        assert record.config["training"] == {**expected.config["training"], "strategy": "mirrored"}
        assert record.environment["replicas"] == 2 and "replicas" not in expected.environment
        for name, values in expected.history.items():
            np.testing.assert_allclose(record.history[name], values, rtol=2e-3, err_msg=name)
        for name, value in expected.last.items():
            np.testing.assert_allclose(record.last[name], value, rtol=2e-2, err_msg=name)
    refused = {
        "Received: batch_size=31": {"batch_size": 31},
    }
    for message, changed in refused.items():
        other = dataclasses.replace(mirrored, training=dataclasses.replace(training, **changed))
        with pytest.raises(checks.UsageError, match=message):
            runner.run_study(other, Path(folder) / "refused")
    odd = dataclasses.replace(mirrored.data, validation=99)
    with pytest.raises(checks.UsageError, match="validation images, 99, whose last batch of 32 "):
        runner.run_study(dataclasses.replace(mirrored, data=odd), Path(folder) / "refused")
    assert not (Path(folder) / "refused").exists()


class Stopped(Exception):
    pass


class Stop(Silent):
    """Ends a study after the first epoch of a run."""

    def __init__(self, name):
        self.name, self.names = name, []

    def begin(self, names):
        self.names = names

    def epoch(self, epoch, epochs, logs):
        if self.name in self.names:
            raise Stopped


STUDY = StudyConfig(
    study="single",
    seeds=[0],
    data=DataConfig(validation=100, train_examples=104),
    teacher=ModelConfig("cnn2", width=0.125, dropout=0.0),
    training=TrainingConfig(epochs=2, batch_size=32, learning_rate=0.002, weight_decay=0.01),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trial", "needs_folder"),
    [(compare, False), (compare_populations, False), (compare_studies, True)],
    ids=["distiller", "population", "study"],
)
def test_two_logical_devices_train_as_one(trial, needs_folder, tmp_path):
    process = Forked(trial, *([str(tmp_path)] if needs_folder else []))
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]


@pytest.mark.slow
def test_two_processes_train_as_one():
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in free:
            each.bind(("localhost", 0))
        places = [f"localhost:{each.getsockname()[1]}" for each in free]
    settings = {"cluster": {"worker": places}}
    workers = [
        Forked(
            compare_workers,
            TF_CONFIG=json.dumps(settings | {"task": {"type": "worker", "index": index}}),
        )
        for index in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate()
        assert worker.returncode == 0, errors[-3000:]


MIRRORED = ("--training.strategy", "mirrored")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (MIRRORED, "training.strategy=mirrored needs two or more GPUs. Received: a machine with "),
        ((*MIRRORED, "--workers", "2"), "each run takes all devices. Received: 2 workers."),
        ((*MIRRORED, "--training.jit", "on"), "Received: training.jit=on with "),
        ((*MIRRORED, "--training.ema", "0.9"), "Received: training.ema=0.9 with "),
        (("--training.strategy", "horovod"), "training.strategy must be one of: none, mirrored."),
    ],
)
def test_devices_that_there_are_not_are_one_line(keys, message, tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**to_dict(STUDY), "output": str(tmp_path / "out")}))
    assert main(["run", str(path), *keys]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("tfdistill: error: ") and errors.count("\n") == 1
    assert message in errors
    assert not (tmp_path / "out").exists()
