"""Exact resume: after every epoch one file holds all that the next epoch depends on.

Keras's own BackupAndRestore leaves out the state of random-number generators (so dropout differs
afterwards), the history and the best epoch so far, and writes two files that a kill can separate.
"""

import json
import math
import statistics
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from tfdistill import records
from tfdistill.progress import Silent

STATE = "state.npz"


class TrainingState:
    """Where a training stands, in memory and, after every epoch, on disk.

    It may be of several models that are trained together; lists hold one entry for each, in order.

    Args:
        folder: Where the state is kept.
        key: Hash of what is trained and how; a state with another key is not used.
        learners: The compiled models that are fitted, their optimisers built.
        networks: The network in each of them whose best weights are kept.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        learners: Sequence[keras.Model],
        networks: Sequence[keras.Model],
    ):
        self.folder = Path(folder)
        self.key = key
        self.learners = list(learners)
        self.networks = list(networks)
        self.epochs_done = 0
        self.histories: list[dict[str, list[float]]] = [{} for _ in self.learners]
        self.failures = [""] * len(self.learners)
        self._spent = 0.0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent so far, over all interruptions."""
        return self._spent + time.monotonic() - self._began

    @property
    def failed(self) -> bool:
        """Whether no model is left to train."""
        return all(self.failures)

    def best_epoch(self, place: int) -> int:
        """Epoch (0, 1, ...) of a model's highest validation accuracy, the first of equals."""
        return int(np.argmax(self.histories[place]["val_accuracy"]))

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
        self.epochs_done, self._spent = meta["epochs_done"], meta["seconds"]
        self.histories, self.failures = meta["histories"], meta["failures"]
        return True

    def finish_epoch(self, logs: Sequence[dict[str, float]]) -> None:
        """Add an epoch's figures, keep weights that are the best so far, save the state."""
        for place, (history, figures) in enumerate(zip(self.histories, logs, strict=True)):
            if self.failures[place]:
                continue
            for name, value in figures.items():
                history.setdefault(name, []).append(float(value))
            if self.best_epoch(place) == self.epochs_done:
                # Before the state: if killed in between, the epoch is repeated, to the same end.
                self._keep_best(place)
        self.epochs_done += 1
        self._save()

    def fail(self, place: int, message: str) -> None:
        """Note that a model's training cannot go on."""
        self.failures[place] = self.failures[place] or message
        if self.failed:
            self._save()

    def load_best(self, place: int) -> None:
        """Give a network its weights of the best epoch."""
        with np.load(self._best_file(place)) as saved:
            for i, variable in enumerate(self.networks[place].variables):
                variable.assign(saved[f"v{i}"])

    def clear(self) -> None:
        """Remove the files, once the results are written; and the folder, if nothing is left."""
        (self.folder / STATE).unlink(missing_ok=True)
        for place in range(len(self.networks)):
            self._best_file(place).unlink(missing_ok=True)
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _best_file(self, place: int) -> Path:
        return self.folder / f"best-{place}.npz"

    def _keep_best(self, place: int) -> None:
        variables = self.networks[place].variables
        with records.appearing(self._best_file(place)) as path:
            np.savez(path, **{f"v{i}": v.numpy() for i, v in enumerate(variables)})

    @property
    def _variables(self) -> list:
        # An optimiser's hold its slots, its step and the loss scale; a model's the states of
        # random-number generators.
        pairs = ((learner.variables, learner.optimizer.variables) for learner in self.learners)
        return [variable for pair in pairs for variables in pair for variable in variables]

    def _save(self) -> None:
        meta = {
            "key": self.key,
            "epochs_done": self.epochs_done,
            "histories": self.histories,
            "failures": self.failures,
            "seconds": self.seconds,
        }
        arrays = {f"v{i}": variable.numpy() for i, variable in enumerate(self._variables)}
        with records.appearing(self.folder / STATE) as path:
            np.savez(path, meta=json.dumps(meta), **arrays)


class EpochEnd(keras.callbacks.Callback):
    """Saves the state after every epoch, shows progress, stops at a loss that is no number.

    Args:
        state: Of the training.
        progress: Where to show progress; None shows nothing.
        epochs: Epochs of the whole training.
        steps: Steps of an epoch, where they are known.
        split: Turns Keras's logs into one dictionary for each model; None means that there is one.
    """

    def __init__(
        self,
        state: TrainingState,
        progress: Silent | None,
        epochs: int,
        steps: int | None = None,
        split: Callable[[dict], list[dict]] | None = None,
    ):
        super().__init__()
        self.state = state
        self.progress = progress or Silent()
        self.epochs = epochs
        self.steps = steps
        self.split = split or (lambda logs: [logs])
        self.present = state.epochs_done

    def on_epoch_begin(self, epoch, logs=None):
        self.present = epoch

    def on_train_batch_end(self, batch, logs=None):
        for place, figures in enumerate(self.split(logs)):
            loss = float(figures["loss"])
            if not math.isfinite(loss):
                self.state.fail(place, self._failure(loss, batch))
        if self.state.failed:
            self.model.stop_training = True
        if self.steps:
            self.progress.step(self.present, self.epochs, (batch + 1) / self.steps)

    def on_epoch_end(self, epoch, logs=None):
        if not self.state.failed:
            each = self.split(logs)
            self.state.finish_epoch(each)
            shared = set.intersection(*map(set, each))
            means = {name: statistics.fmean(logs[name] for logs in each) for name in shared}
            self.progress.epoch(epoch, self.epochs, means)

    def _failure(self, loss: float, batch: int) -> str:
        steps = f" of {self.steps}" if self.steps else ""
        return (
            f"the loss became {loss} in epoch {self.present + 1} of {self.epochs}, step "
            f"{batch + 1}{steps}; lower the learning rate"
        )
