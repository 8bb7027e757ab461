"""Exact resume: after every epoch one file holds all that the next epoch depends on.

Keras's own BackupAndRestore leaves out the state of random-number generators (so dropout differs
afterwards), the history and the best epoch so far, and writes two files that a kill can separate.
"""

import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfdistill.distillation.moving_average import MovingAverage
from tfdistill.utils import checks, storage
from tfdistill.utils.progress import Silent

STATE = "state.npz"
SUM = "sha256"
BESIDE = "beside-"


class TrainingState:
    """Where a training stands, in memory and, after every epoch, on disk.

    It may be of several models that are trained together; lists hold one entry for each, in order.
    One of which `stopped` is true has ended before the others and keeps its figures. What stands in
    `beside` (arrays by name) is kept with the state.

    Args:
        folder: Where the state is kept.
        key: Hash of what is trained and how; a state with another key is not used.
        learners: The compiled models that are fitted, their optimisers built.
        networks: The network in each of them whose best weights are kept.
        averages: The average of each network's weights, which then stands for them wherever they
            are used but in training; empty where there is none.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        learners: Sequence[keras.Model],
        networks: Sequence[keras.Model],
        averages: Sequence[MovingAverage] = (),
    ):
        self.folder = Path(folder)
        self.key = key
        self.learners = list(learners)
        self.networks = list(networks)
        self.averages = list(averages)
        self.epochs_done = 0
        self.histories: list[dict[str, list[float]]] = [{} for _ in self.learners]
        self.failures = [""] * len(self.learners)
        self.stopped = [False] * len(self.learners)
        self.beside: dict[str, np.ndarray] = {}
        self.problem = ""
        self._spent = 0.0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent so far, over all interruptions."""
        return self._spent + time.monotonic() - self._began

    @property
    def failed(self) -> bool:
        """Whether the training of every model failed."""
        return all(self.failures)

    @property
    def over(self) -> bool:
        """Whether no model is left to train."""
        return all(
            stopped or failure for stopped, failure in zip(self.stopped, self.failures, strict=True)
        )

    def best_epoch(self, place: int) -> int:
        """Epoch (0, 1, ...) of a model's highest validation accuracy, the first of equals."""
        return int(np.argmax(self.histories[place]["val_accuracy"]))

    def restore(self, epochs: int | None = None) -> bool:
        """Take up the last finished epoch of an interrupted training, if there was one.

        Args:
            epochs: Where training is to stop; a state beyond it is not used. None means anywhere.

        Returns:
            Whether there was one that can be used; if it is damaged, `problem` says so.
        """
        if not (self.folder / STATE).exists():
            return False
        try:
            saved = _load(self.folder / STATE)
            meta = _meta(self.folder / STATE, saved)
            if meta["key"] != self.key or epochs is not None and meta["epochs_done"] > epochs:
                return False
            arrays = self._fitting(saved)
            for place, failure in enumerate(meta["failures"]):
                if not failure:
                    _load(self._best_file(place))
        except storage.DamagedError as error:
            self.problem = f"{error.problem}; the run is trained from the start"
            return False
        for variable, array in zip(self._variables, arrays, strict=True):
            variable.assign(array)
        self.epochs_done, self._spent = meta["epochs_done"], meta["seconds"]
        self.histories, self.failures = meta["histories"], meta["failures"]
        self.stopped = meta.get("stopped", self.stopped)
        names = [name for name in saved if name.startswith(BESIDE)]
        self.beside = {name.removeprefix(BESIDE): saved[name] for name in names}
        return True

    def finish_epoch(self, logs: Sequence[dict[str, float]]) -> None:
        """Add an epoch's figures, keep weights that are the best so far, save the state."""
        for place, (history, figures) in enumerate(zip(self.histories, logs, strict=True)):
            if self.failures[place] or self.stopped[place]:
                continue
            for name, value in figures.items():
                history.setdefault(name, []).append(float(value))
            if self.best_epoch(place) == self.epochs_done:
                # Before the state: if killed in between, the epoch is repeated, to the same end.
                self._keep_best(place)
            self.stopped[place] = bool(self.learners[place].stop_training)
        self.epochs_done += 1
        self._save()

    def fail(self, place: int, message: str) -> None:
        """Note that a model's training cannot go on."""
        self.failures[place] = self.failures[place] or message
        if self.failed:
            self._save()

    def load_last(self, place: int) -> None:
        """Give a network its weights of the last epoch: those in memory, or their average."""
        if self.averages:
            self.averages[place].copy_to_model()

    def load_best(self, place: int) -> None:
        """Give a network its weights of the best epoch."""
        saved = _load(self._best_file(place))
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
        kept = self.averages or self.networks
        variables = kept[place].variables
        _save(self._best_file(place), {f"v{i}": v.numpy() for i, v in enumerate(variables)})

    @property
    def _variables(self) -> list:
        # An optimiser's hold its slots, its step and the loss scale; a model's the states of
        # random-number generators.
        groups = [
            *((learner.variables, learner.optimizer.variables) for learner in self.learners),
            [average.variables for average in self.averages],
        ]
        return [variable for group in groups for variables in group for variable in variables]

    def _save(self) -> None:
        meta = {
            "key": self.key,
            "epochs_done": self.epochs_done,
            "histories": self.histories,
            "failures": self.failures,
            "stopped": self.stopped,
            "seconds": self.seconds,
        }
        arrays = {f"v{i}": variable.numpy() for i, variable in enumerate(self._variables)}
        beside = {BESIDE + name: array for name, array in self.beside.items()}
        _save(self.folder / STATE, {"meta": np.array(json.dumps(meta)), **arrays, **beside})

    def _fitting(self, saved: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return the arrays of the variables, in their order."""
        names = [f"v{i}" for i in range(len(self._variables))]
        arrays = [saved[name] for name in names if name in saved]
        if [array.shape for array in arrays] != [tuple(each.shape) for each in self._variables]:
            raise storage.DamagedError(self.folder / STATE, "is damaged (arrays do not fit)")
        return arrays


def unfinished(state: TrainingState, epochs: int, progress: Silent) -> bool:
    """Take up a training where it stood, and return whether there is something left to train.

    Args:
        state: Of the training.
        epochs: Where it is to stop.
        progress: Where to tell that it is resumed, or why it cannot be.
    """
    if state.restore(epochs):
        progress.resume(state.epochs_done, epochs)
    elif state.problem:
        progress.say(state.problem)
    return state.epochs_done < epochs and not state.over


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
            if not math.isfinite(loss) and not self.state.stopped[place]:
                self.state.fail(place, self._failure(loss, batch))
        if self.state.over:
            self.model.stop_training = True
        if self.steps:
            self.progress.step(self.present, self.epochs, (batch + 1) / self.steps)

    def on_epoch_end(self, epoch, logs=None):
        if not self.state.failed:
            each = self.split(logs)
            self.state.finish_epoch(each)
            if self.state.over:
                self.model.stop_training = True
            shared = set.intersection(*map(set, each))
            means = {name: statistics.fmean(logs[name] for logs in each) for name in shared}
            self.progress.epoch(epoch, self.epochs, means)

    def _failure(self, loss: float, batch: int) -> str:
        steps = f" of {self.steps}" if self.steps else ""
        return (
            f"the loss became {loss} in epoch {self.present + 1} of {self.epochs}, step "
            f"{batch + 1}{steps}; lower the learning rate"
        )


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays and the SHA-256 of all of them."""
    whole: dict[str, Any] = {**arrays, SUM: np.array(_sum(arrays))}
    with storage.appearing(path) as temporary:
        np.savez(temporary, **whole)


def _load(path: Path) -> dict[str, np.ndarray]:
    """Return what `_save` was given; of an earlier version's file, all that it holds.

    Raises:
        DamagedError: The file is missing, or its arrays are not those that were written.
    """
    try:
        with np.load(path) as saved:
            arrays = {name: saved[name] for name in saved.files}
    except FileNotFoundError:
        raise storage.DamagedError(path, "is missing") from None
    except Exception as error:  # damaged archives and headers raise what they please
        line = checks.first_line(error).rstrip(".")
        raise storage.DamagedError(path, f"is damaged ({line})") from None
    written = arrays.pop(SUM, None)
    if written is not None and str(written) != _sum(arrays):
        raise storage.DamagedError(path, "is damaged (its checksum is not that of its content)")
    return arrays


def _meta(path: Path, saved: dict[str, np.ndarray]) -> dict:
    try:
        return json.loads(str(saved["meta"]))
    except (KeyError, ValueError) as error:
        raise storage.DamagedError(path, f"is damaged ({error})") from None


def _sum(arrays: dict[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {arrays[name].shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()
