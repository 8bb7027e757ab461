"""Under a distribution strategy: two logical devices, or two processes, train as one does."""

import contextlib
import dataclasses
import json
import socket

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from tests.conftest import SINGLE
from tests.forked import Forked
from tfdistill import Distiller, FeatureLoss, Population, records
from tfdistill.cli.main import main
from tfdistill.config import StudyConfig, build
from tfdistill.losses import AttentionTransfer
from tfdistill.training import runner
from tfdistill.utils import checks, machine
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


def population(strategy):
    """Return losses and weights of a student and of one alone after two epochs in one step."""
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 8, 8, 1)).astype("float32")
    y = np.arange(20, dtype="int32") % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with strategy.scope():
        members = [Distiller(network(3), alpha=0.3, temperature=2.0), network(5)]
        for member in members:
            member.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
        together = Population(members, network(2))
        together.compile()
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)  # the last has 4 images
    history = together.fit(batches, epochs=2, verbose=0, validation_data=batches).history
    return history, together.get_weights()


LEARNERS = {
    trained: {"soft_loss", "hard_loss", "feature_loss", "val_accuracy"},
    population: {"0/soft_loss", "1/accuracy", "val_0/loss"},
}


@pytest.fixture(scope="module")
def alone():
    """What training on one device gives."""
    return [train(tf.distribute.get_strategy()) for train in LEARNERS]


def compare(strategy, alone):
    """Train under a strategy, and compare losses and weights with those of one device."""
    for (train, names), (expected, expected_weights) in zip(LEARNERS.items(), alone, strict=True):
        history, weights = train(strategy)
        for one, other in zip(weights, expected_weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert history.keys() == expected.keys() >= names
        for name in expected:
            np.testing.assert_allclose(history[name], expected[name], rtol=1e-4, err_msg=name)


def compare_workers(alone):
    """Train as one of the workers that TF_CONFIG names; each sees its half of every batch."""
    workers = tf.distribute.MultiWorkerMirroredStrategy()
    assert workers.num_replicas_in_sync == 2
    compare(workers, alone)


def compare_devices(alone, one, both):
    """Train on two devices; then do a study there, stopped and resumed on the way."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    devices = machine.strategy("mirrored")  # the one of the study: a second would disturb it
    assert devices.num_replicas_in_sync == 2
    compare(devices, alone)
    training = dataclasses.replace(STUDY.training, strategy="mirrored")
    mirrored = dataclasses.replace(STUDY, training=training)
    with pytest.raises(Stopped):
        runner.run_study(mirrored, both, Stop("teacher"))
    runner.run_study(mirrored, both)
    for expected in records.read_all(one):
        record = records.read(records.run_folder(both, expected.name))
        assert record.config["training"] == {**expected.config["training"], "strategy": "mirrored"}
        assert record.environment["replicas"] == 2 and "replicas" not in expected.environment
        for name, values in expected.history.items():
            np.testing.assert_allclose(record.history[name], values, rtol=2e-3, err_msg=name)
        for name, value in expected.last.items():
            np.testing.assert_allclose(record.last[name], value, rtol=2e-2, err_msg=name)
    other = both.with_name("refused")
    uneven = dataclasses.replace(training, batch_size=31)
    with pytest.raises(checks.UsageError, match="Received: batch_size=31"):
        runner.run_study(dataclasses.replace(mirrored, training=uneven), other)
    odd = dataclasses.replace(mirrored.data, validation=99)
    with pytest.raises(checks.UsageError, match="validation images, 99, whose last batch of 32 "):
        runner.run_study(dataclasses.replace(mirrored, data=odd), other)
    assert not other.exists()


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


STUDY = build(StudyConfig, SINGLE)


@pytest.mark.slow
def test_two_logical_devices_train_as_one(alone, single, tmp_path):
    process = Forked(compare_devices, alone, single / "out", tmp_path / "both")
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]


@pytest.mark.slow
def test_two_processes_train_as_one(alone):
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in free:
            each.bind(("localhost", 0))
        places = [f"localhost:{each.getsockname()[1]}" for each in free]
    settings = {"cluster": {"worker": places}}
    workers = [
        Forked(
            compare_workers,
            alone,
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
    path.write_text(yaml.safe_dump({**SINGLE, "output": str(tmp_path / "out")}))
    assert main(["run", str(path), *keys]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("tfdistill: error: ") and errors.count("\n") == 1
    assert message in errors
    assert not (tmp_path / "out").exists()
