"""Shared parts of the tests: small real networks and images."""

import collections
import contextlib
import gc
import io
import os
import shutil
import subprocess

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Each file of a network would be opened in a process of its own; tests/faults/test_foreign.py does.
os.environ["TFDISTILL_OPEN_SECONDS"] = "0"

import filelock
import numpy as np
import pytest
import yaml

from tests import forked
from tfdistill.config import (
    AugmentConfig,
    DataConfig,
    ModelConfig,
    PopulationConfig,
    StudyConfig,
    TrainingConfig,
)

MYSTERIES = {
    "seeds": [0, 1],
    "data": {"source": "digits", "validation": 100, "train_examples": 200},
    "teacher": {"name": "cnn2", "width": 0.125},
    "training": {"epochs": 2, "batch_size": 32, "learning_rate": 0.02},
}
SINGLE = {
    "study": "single",
    "seeds": [0],
    "data": {"source": "digits", "validation": 100, "train_examples": 104, "test_examples": 100},
    "teacher": {"name": "cnn2", "width": 0.125},
    "training": {"epochs": 2, "batch_size": 32, "learning_rate": 0.002, "weight_decay": 0.01},
}
LEARNING_SPEED = StudyConfig(
    study="learning_speed",
    seeds=[0],
    data=DataConfig(validation=100, train_examples=64, augment=AugmentConfig(flip=True, views=2)),
    teacher=ModelConfig("cnn2", width=0.25),
    student=ModelConfig("cnn2", width=0.25, dropout=0.5),
    training=TrainingConfig(epochs=2, batch_size=32, learning_rate=0.01, select="last"),
    settings={"cells": [[0.5, 4.0]], "flawed_cells": [[0.5, 4.0]]},
    population=PopulationConfig(size=5),
)


def pytest_collection_modifyitems(items):
    """Begin with the files of many slow tests: at the end, no process waits long for another."""
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish():
    """Leave what the imports made out of garbage collections: a fifth of the time of a training.

    Keras is imported where it is used: the process that hands out tests to others needs none.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def _seeded():
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep decoded images of the tests out of the user's cache."""
    before = os.environ.get("TFDISTILL_CACHE")
    os.environ["TFDISTILL_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TFDISTILL_CACHE"]
    else:
        os.environ["TFDISTILL_CACHE"] = before


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Return a function that has a folder made by one of the processes that share the tests.

    What it returns is for all of them: a test that changes anything takes a copy.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def made(name, make):
        folder = shared / "made_once" / name
        folder.parent.mkdir(exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if not folder.exists():
                folder.mkdir()
                try:
                    make(folder)
                except BaseException:
                    shutil.rmtree(folder)
                    raise
        return folder

    return made


@pytest.fixture(scope="session")
def mysteries(made_once):
    """A folder with `tiny.yaml`, its finished study `out`, and what the command `printed`."""

    def make(folder):
        path = folder / "tiny.yaml"
        path.write_text(yaml.safe_dump({**MYSTERIES, "output": str(folder / "out")}))
        process = forked.tfdistill("run", path)
        printed, errors = process.communicate()
        assert process.returncode == 0, errors
        (folder / "printed").write_text(printed)

    return made_once("mysteries", make)


@pytest.fixture(scope="session")
def single(made_once):
    """A folder with `study.yaml` of a teacher and a student alone and taught, its finished study
    `out`, and what the command `printed`."""
    from tfdistill.cli.main import main

    def make(folder):
        path = folder / "study.yaml"
        path.write_text(yaml.safe_dump(SINGLE))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(["run", str(path), "--output", str(folder / "out")]) == 0
        (folder / "printed").write_text(printed.getvalue())

    return made_once("single", make)


@pytest.fixture(scope="session")
def learning_speed(made_once):
    """The folder of the finished study LEARNING_SPEED."""
    from tfdistill.training.runner import run_study

    return made_once("learning_speed", lambda folder: run_study(LEARNING_SPEED, folder))


@contextlib.contextmanager
def untraced():
    """For one or two steps, or networks that are soon left: tracing takes four times as long.

    Other tests run the same steps in a graph.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture
def eagerly():
    """For a test of what one or two steps compute."""
    with untraced():
        yield


@pytest.fixture
def with_xla():
    """For a test of XLA, which Keras leaves out once a training of an earlier test asked for
    TensorFlow's own deterministic operations.
    """
    from tfdistill.utils import machine

    machine.make_repeatable("on")


@pytest.fixture
def forked_probes():
    """For a test of exports that is not about the start of the processes that check them."""
    with forked.probes():
        yield


@pytest.fixture
def small_network():
    """Return a function that builds a small convolutional network of 3 classes on 8x8x1 images."""

    import keras

    def build(channels=4, dropout=0.0, penalty=None, batch_norm=False, dtype=None):
        layers = keras.layers
        inputs = keras.Input((8, 8, 1))
        x = layers.Conv2D(channels, 3, kernel_regularizer=penalty, dtype=dtype)(inputs)
        if batch_norm:
            x = layers.BatchNormalization(dtype=dtype)(x)
        x = layers.Activation("relu", name="features", dtype=dtype)(x)
        x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
        x = layers.Dropout(dropout, dtype=dtype)(x) if dropout else x
        return keras.Model(inputs, layers.Dense(3, dtype="float32")(x))

    return build


@pytest.fixture
def images():
    """24 random images of 3 classes: float32 [24, 8, 8, 1] and int32 [24]."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(24, 8, 8, 1)).astype("float32"), np.arange(24, dtype="int32") % 3


@pytest.fixture
def disk(tmp_path):
    """Return a function that makes an empty file system of some size and gives its folder."""
    mounted = []

    def make(size="1m"):
        folder = tmp_path / f"disk-{size}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a file system can only be mounted by root")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
