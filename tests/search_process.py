"""A small search, for tests in this process and in processes that are killed."""

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tfdistill import tuners

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.normal(size=(24, 8, 8, 1)).astype("float32")
LABELS = np.arange(24, dtype="int32") % 3


def network(width=3, dropout=0.3):
    """Return a network of 3 classes on 8x8x1 images."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(width, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(dropout)(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def teacher():
    """Return the same teacher in every process."""
    keras.utils.set_random_seed(99)
    return network(5, dropout=0.0)


def batches(first_epoch):
    """Return batches whose order depends on the epoch only."""
    epochs = range(first_epoch, 4)
    order = np.concatenate([np.random.default_rng(e).permutation(24) for e in epochs])
    return tf.data.Dataset.from_tensor_slices((IMAGES[order], LABELS[order])).batch(8)


FIT = {
    "epochs": 2,
    "steps_per_epoch": 3,
    "shuffle": False,
    "validation_data": (IMAGES, LABELS),
    "verbose": 0,
}
GRID = {"alpha": [0.1, 0.9], "temperature": [1.0, 4.0]}
RANGES = {
    "alpha": {"min": 0.0, "max": 1.0},
    "temperature": {"min": 1.0, "max": 40.0, "sampling": "log"},
}
KINDS = {
    "grid": (tuners.GridSearch, GRID, {"max_trials": 3}),
    "random": (tuners.RandomSearch, RANGES, {"max_trials": 4, "seed": 3}),
    "bayesian": (
        tuners.BayesianOptimization,
        RANGES,
        {"max_trials": 5, "num_initial_points": 2, "seed": 3},
    ),
    "hyperband": (tuners.Hyperband, RANGES, {"max_epochs": 4, "factor": 2, "seed": 0}),
}


def tuner_of(kind, folder, **settings):
    """Return a tuner of the kind in the folder."""
    tuner, space, own = KINDS[kind]
    hypermodel = tuners.DistillationHyperModel(
        lambda hp: network(), teacher(), optimizer=lambda hp: keras.optimizers.Adam(0.05), **space
    )
    own = {**own, "directory": folder, "project_name": "search", **settings}
    return tuner(hypermodel, "val_loss", **own)


class WaitAt(keras.callbacks.Callback):
    """Says that a file is there, where an epoch begins, and waits to be killed."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def on_epoch_begin(self, epoch, logs=None):
        if Path(self.file).exists():
            print("there", flush=True)
            time.sleep(1000)


def search(kind, folder, callbacks=None, **settings):
    """Run a search to its end and return its tuner."""
    tuner = tuner_of(kind, folder, seeds=(0, 1), **settings)
    tuner.search(batches, callbacks=callbacks, **FIT)
    return tuner


def main(kind, folder, file=None):
    """Run a search in a process of its own, which waits where there is the file."""
    try:
        search(kind, folder, callbacks=[WaitAt(file)] if file else None)
    except ValueError as error:
        sys.exit(str(error))
