"""A user's callbacks in a search: a set of its own for each trial, which goes on after a kill.

Trials that are trained in one step are one model to Keras, with figures like `val_0/loss`. A
callback that is written for one model would find none of its figures there, and stop all of them.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfdistill.training.resume import TrainingState
from tfdistill.utils import checks

Callbacks = Sequence[keras.callbacks.Callback]
_PLAIN = (bool, int, float, str, type(None))
_COLLECTIONS = {"list": list, "tuple": tuple, "set": set}
_KERAS = ("_model", "_params", "model", "params", "validation_data")
_ARRAY, _OPERATION, _DICT = "array", "operation", "dict"


def check(callbacks: Callbacks, population: int) -> None:
    """Raise at a callback that cannot do in a search what it does in `fit`.

    Args:
        callbacks: What `search` was given.
        population: How many trials are trained together.

    Raises:
        UsageError: `BackupAndRestore`; where trials are trained together, one that writes one file.
    """
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise checks.UsageError(
                f"A search resumes by itself. Received: the callback {name}. Leave it out."
            )
        files = keras.callbacks.ModelCheckpoint, keras.callbacks.CSVLogger
        if population > 1 and isinstance(callback, files):
            raise checks.UsageError(
                f"The callback {name} writes one file, which all trials that are trained together "
                f"would write over. Received: population={population}. Give population=1, or leave "
                "it out."
            )


class TrialCallbacks(keras.callbacks.Callback):
    """Lets each trial's callbacks see its model and its figures alone, as if it were trained alone.

    A trial whose callbacks stop it is stopped (`TrainingState.stopped`); others that are trained
    with it go on. What callbacks have noted until the end of an epoch (attributes that are numbers,
    text, arrays and lists or dictionaries of them) is kept with the training's state.

    Args:
        state: Of the training; its `learners` are the trials' models.
        each: The callbacks of each trial.
        split: Turns Keras's logs into one dictionary for each trial; None means that there is one.
        say: Told what begins anew where a training is resumed.

    Raises:
        UsageError: In training, a callback stops one of several trials within an epoch.
    """

    def __init__(
        self,
        state: TrainingState,
        each: Sequence[Callbacks],
        split: Callable[[dict], list[dict]] | None,
        say: Callable[[str], None],
    ):
        super().__init__()
        self._state, self._each, self._split, self._say = state, each, split, say
        self._begun = [[_encoded(callback)[0] for callback in callbacks] for callbacks in each]
        self._last: list[dict] = [{} for _ in each]
        self._ended = {place for place, stopped in enumerate(state.stopped) if stopped}

    def set_params(self, params: dict) -> None:
        super().set_params(params)
        for callback in sum(map(list, self._each), []):
            callback.set_params(params)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        for learner, callbacks in zip(self._state.learners, self._each, strict=True):
            for callback in callbacks:
                callback.set_model(learner)

    def on_train_begin(self, logs=None):
        for callback in sum(map(list, self._each), []):
            if self._state.epochs_done and isinstance(callback, keras.callbacks.CSVLogger):
                callback.append = True  # it would begin its file anew
        for callback, own in self._calls(logs):
            callback.on_train_begin(own)
        if self._state.epochs_done:
            self._take_up()

    def on_train_end(self, logs=None):
        self._end({*range(len(self._each))})

    def on_epoch_begin(self, epoch, logs=None):
        self._end({place for place, stopped in enumerate(self._state.stopped) if stopped})
        for callback, own in self._calls(logs):
            callback.on_epoch_begin(epoch, own)

    def on_epoch_end(self, epoch, logs=None):
        for callback, own in self._calls(logs):
            callback.on_epoch_end(epoch, own)
        self._state.beside = self._noted()

    def on_train_batch_begin(self, batch, logs=None):
        for callback, own in self._calls(logs):
            callback.on_train_batch_begin(batch, own)

    def on_train_batch_end(self, batch, logs=None):
        for callback, own in self._calls(logs):
            callback.on_train_batch_end(batch, own)
            model = callback.model
            if self._split and model.stop_training and math.isfinite(own.get("loss", 0.0)):
                raise checks.UsageError(
                    f"Trials that are trained together can be stopped between epochs only. "
                    f"Received: {type(callback).__name__}, which stops one within an epoch. Give "
                    "population=1."
                )

    def on_test_begin(self, logs=None):
        for callback, own in self._calls(logs):
            callback.on_test_begin(own)

    def on_test_end(self, logs=None):
        for callback, own in self._calls(logs):
            callback.on_test_end(own)

    def on_test_batch_begin(self, batch, logs=None):
        for callback, own in self._calls(logs):
            callback.on_test_batch_begin(batch, own)

    def on_test_batch_end(self, batch, logs=None):
        for callback, own in self._calls(logs):
            callback.on_test_batch_end(batch, own)

    def _calls(self, logs: dict | None) -> Iterator[tuple[keras.callbacks.Callback, dict]]:
        """Yield the callbacks of the trials that go on, with their figures."""
        logs = {} if logs is None else logs
        each = [logs]
        if self._split:
            each = self._split(logs) if logs else [{} for _ in self._each]
        for place, (callbacks, own) in enumerate(zip(self._each, each, strict=True)):
            if self._state.stopped[place] or self._state.failures[place]:
                continue
            for callback in callbacks:
                yield callback, own
            self._last[place] = own
            if self._split:
                logs |= {_joint_name(place, name): value for name, value in own.items()}

    def _end(self, places: set[int]) -> None:
        """End the callbacks of trials: of one that was stopped, before the others go on."""
        for place in sorted(places - self._ended):
            for callback in self._each[place]:
                callback.on_train_end(self._last[place])
        self._ended |= places

    def _noted(self) -> dict[str, np.ndarray]:
        """Return as arrays what the callbacks have noted since the beginning."""
        arrays: dict[str, np.ndarray] = {}
        notes: list[list[dict]] = []
        for callbacks, begun in zip(self._each, self._begun, strict=True):
            notes.append([])
            for callback, before in zip(callbacks, begun, strict=True):
                values, lost = _encoded(callback)
                changed = {k: v for k, v in values.items() if not _same(v, before.get(k, ...))}
                packed = {name: _packed(value, arrays) for name, value in changed.items()}
                name = type(callback).__qualname__
                notes[-1].append({"callback": name, "values": packed, "lost": lost})
        return {"notes": np.array(json.dumps(notes)), **arrays}

    def _take_up(self) -> None:
        arrays = dict(self._state.beside)
        notes = json.loads(str(arrays.pop("notes", "[]")))
        for callbacks, of_trial in zip(self._each, notes, strict=False):
            left = list(of_trial)
            for callback in callbacks:
                name = type(callback).__qualname__
                note = next((note for note in left if note["callback"] == name), None)
                if note is None:
                    continue
                left.remove(note)
                for attribute, value in note["values"].items():
                    setattr(callback, attribute, _decoded(value, arrays))
                if note["lost"]:
                    self._say(
                        f"The callback {name} begins anew in part: {', '.join(note['lost'])} "
                        "cannot be kept"
                    )


def _joint_name(place: int, name: str) -> str:
    """Return how the figure of a trial is called among those of all."""
    if name.startswith("val_"):
        return f"val_{place}/{name.removeprefix('val_')}"
    return f"{place}/{name}"


def _encoded(callback: keras.callbacks.Callback) -> tuple[dict[str, Any], list[str]]:
    """Return the attributes of a callback that can be kept, and the names of those that cannot."""
    values, lost = {}, []
    for name, value in vars(callback).items():
        if name in _KERAS:
            continue
        try:
            values[name] = _encode(value)
        except TypeError:
            # Of Keras's own, files and writers are opened again.
            if not callable(value) and not type(callback).__module__.startswith("keras."):
                lost.append(name)
    return values, lost


def _encode(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        return np.array(value)
    for name, kind in _COLLECTIONS.items():
        if type(value) is kind:
            return {name: [_encode(part) for part in value]}
    if isinstance(value, dict):
        return {_DICT: [[_encode(key), _encode(part)] for key, part in value.items()]}
    name = getattr(value, "__name__", "")
    if callable(value) and getattr(keras.ops, name, None) is value:
        return {_OPERATION: name}  # which of two figures is the better one
    raise TypeError(type(value))


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        both = isinstance(first, np.ndarray) and isinstance(second, np.ndarray)
        return both and first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[k], second[k]) for k in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and first == second


def _packed(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return an encoded value as JSON, its arrays put aside."""
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, dict):
        return {key: _packed(part, arrays) for key, part in value.items()}
    return [_packed(part, arrays) for part in value] if isinstance(value, list) else value


def _decoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == _ARRAY:
        return arrays[content][()]
    if kind == _OPERATION:
        return getattr(keras.ops, content)
    if kind == _DICT:
        return {_decoded(key, arrays): _decoded(part, arrays) for key, part in content}
    return _COLLECTIONS[kind](_decoded(part, arrays) for part in content)
