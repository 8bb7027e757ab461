"""Exact resume: after every epoch one file holds all that the next epoch depends on.

Keras's own BackupAndRestore leaves out the state of random-number generators (so dropout differs
afterwards), the history and the best epoch so far, and writes two files that a kill can separate.
"""

import json
import math
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from tfdistill import records
from tfdistill.progress import Silent

STATE, BEST_WEIGHTS = "state.npz", "best.npz"


@dataclass
class TrainingState:
    """Where a training stands, in memory and, after every epoch, on disk.

    Args:
        folder: The run's folder.
        key: Hash of the run's configuration; a state with another key is not used.
        learner: The compiled model that is fitted, its optimiser built.
        network: The network in it whose best weights are kept.
    """

    folder: Path
    key: str
    learner: keras.Model
    network: keras.Model
    history: dict[str, list[float]] = field(default_factory=dict)
    failure: str = ""
    spent: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return len(self.history.get("loss", ()))

    @property
    def best_epoch(self) -> int:
        """Epoch (0, 1, ...) of the highest validation accuracy, the first of equals."""
        return int(np.argmax(self.history["val_accuracy"]))

    @property
    def seconds(self) -> float:
        """Time spent so far, over all interruptions."""
        return self.spent + time.monotonic() - self.began

    def restore(self) -> bool:
        """Take up the last finished epoch of an interrupted training, if there was one."""
        try:
            with np.load(self.folder / STATE) as saved:
                meta = json.loads(str(saved["meta"]))
                arrays = [saved[f"v{i}"] for i in range(len(self._variables))]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            return False
        if meta["key"] != self.key:
            return False
        for variable, array in zip(self._variables, arrays, strict=True):
            variable.assign(array)
        self.history, self.failure, self.spent = meta["history"], meta["failure"], meta["seconds"]
        return True

    def finish_epoch(self, logs: dict[str, float]) -> None:
        """Add an epoch's figures, keep its weights if they are the best so far, save the state."""
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        if self.best_epoch == self.epochs_done - 1:
            # Before the state: if killed in between, the epoch is repeated and rewrites the same.
            arrays = {f"v{i}": v.numpy() for i, v in enumerate(self.network.variables)}
            with records.appearing(self.folder / BEST_WEIGHTS) as path:
                np.savez(path, **arrays)
        self._save()

    def fail(self, message: str) -> None:
        """Note that the training cannot go on."""
        self.failure = message
        self._save()

    def load_best(self) -> None:
        """Give the network its weights of the best epoch."""
        with np.load(self.folder / BEST_WEIGHTS) as saved:
            for i, variable in enumerate(self.network.variables):
                variable.assign(saved[f"v{i}"])

    def clear(self) -> None:
        """Remove the files, once the run's record is written."""
        for name in (STATE, BEST_WEIGHTS):
            (self.folder / name).unlink(missing_ok=True)

    @property
    def _variables(self) -> list:
        # The optimiser's hold its slots, its step and the loss scale; the model's the states of
        # random-number generators.
        return [*self.learner.variables, *self.learner.optimizer.variables]

    def _save(self) -> None:
        meta = {
            "key": self.key,
            "history": self.history,
            "failure": self.failure,
            "seconds": self.seconds,
        }
        arrays = {f"v{i}": variable.numpy() for i, variable in enumerate(self._variables)}
        with records.appearing(self.folder / STATE) as path:
            np.savez(path, meta=json.dumps(meta), **arrays)


class EpochEnd(keras.callbacks.Callback):
    """Saves the state after every epoch, shows progress, stops at a loss that is no number."""

    def __init__(self, state: TrainingState, progress: Silent, epochs: int, steps: int):
        super().__init__()
        self.state = state
        self.progress = progress
        self.epochs = epochs
        self.steps = steps
        self.present = state.epochs_done

    def on_epoch_begin(self, epoch, logs=None):
        self.present = epoch

    def on_train_batch_end(self, batch, logs=None):
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            self.model.stop_training = True
            self.state.fail(
                f"the loss became {loss} in epoch {self.present + 1} of {self.epochs}, step "
                f"{batch + 1} of {self.steps}; lower the learning rate"
            )
        self.progress.step(self.present, self.epochs, (batch + 1) / self.steps)

    def on_epoch_end(self, epoch, logs=None):
        if not self.state.failure:
            self.state.finish_epoch(logs)
            self.progress.epoch(epoch, self.epochs, logs)
