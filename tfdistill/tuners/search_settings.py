"""With what a search was begun, so that it goes on with nothing else.

Keras Tuner takes up whatever lies in the folder: another space, other data or another teacher would
be handed the trials of the one before.
"""

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfdistill.models.fingerprint import architecture_hash, weights_hash
from tfdistill.training.learners import network_of
from tfdistill.tuners import oracles
from tfdistill.utils import checks, storage
from tfdistill.utils.storage import digest

SETTINGS = "settings.json"
_DIGITS = 16  # of a hash, as in `storage.digest`
_PLAIN = (bool, int, float, str, type(None))
# What an oracle proposes depends on them; it may be given more trials.
_OF_ORACLES = {
    oracles.BayesianOracle: ("num_initial_points", "alpha", "beta"),
    oracles.HyperbandOracle: ("max_epochs", "factor"),
}
# Of a user's callbacks those that are known to decide what a training ends with.
_DECIDING = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.LearningRateScheduler,
)
_FREE_ARGUMENTS = ("self", "verbose", "callbacks")


def agree(folder: Path, here: Mapping[str, dict[str, str]], note: bool = True) -> None:
    """Raise unless the search in a folder was begun with these settings.

    Args:
        folder: The search's.
        here: Settings by name, of each part: "search", "fit".
        note: Write down those parts of which nothing is written there.

    Raises:
        UsageError: A setting differs, or the file cannot be read.
    """
    file = folder / SETTINGS
    there = oracles.read(file) if file.exists() else {}
    for part, settings in here.items():
        begun = there.get(part, settings)
        names = {**begun, **settings}
        different = [name for name in names if begun.get(name) != settings.get(name)]
        if different:
            name = different[0]
            more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
            raise checks.UsageError(
                f"{folder} holds another search: {name} is {begun.get(name, 'not given')} there "
                f"and {settings.get(name, 'not given')} here{more}. Give the same, another "
                "project_name, or overwrite=True to start over."
            )
    if note and not set(here) <= set(there):
        storage.write_checked(file, {**there, **here})


def of_search(tuner: Any) -> dict[str, str]:
    """Return what is known of a search before its data: space, objective, networks, teacher.

    Of a function that builds networks, what it builds at the first values is compared, twice: what
    differs from call to call, as drawn weights do, is left out.
    """
    oracle, hypermodel = tuner.oracle, tuner.hypermodel
    found = {"the tuner": type(oracle).__name__, "the objective": _objective(oracle.objective)}
    for name in _OF_ORACLES.get(type(oracle), ()):
        found[f"the tuner's {name}"] = repr(getattr(oracle, name))
    found |= {hp.name: _hyperparameter(hp) for hp in oracle.hyperparameters.space}
    if hypermodel is None:
        return found
    if (teacher := getattr(hypermodel, "teacher", None)) is not None:
        found["the teacher's network"] = architecture_hash(teacher)[:_DIGITS]
        found["the teacher's weights"] = weights_hash(teacher)[:_DIGITS]
    found |= _described("soft_loss", getattr(hypermodel, "soft_loss", None))
    built = [tuner._build_hypermodel(oracle.get_space()) for _ in range(2)]
    if all(isinstance(model, keras.Model) for model in built):
        first, second = map(_of_network, built)
        found |= {name: value for name, value in first.items() if second.get(name) == value}
        found["the weights that every network begins with"] = _given_weights(*built)
    return found


def of_fit(tuner: Any, arguments: tuple, settings: dict[str, Any]) -> dict[str, str]:
    """Return what `fit` is given: arrays as hashes, of data sets what can be seen of them.

    Args:
        tuner: The tuner.
        arguments: Those without names.
        settings: Those with names.
    """
    given = _named(arguments, settings)
    if isinstance(tuner.oracle, oracles.HyperbandOracle):
        given.pop("epochs", None)  # the oracle decides
    found: dict[str, str] = {}
    for name, value in given.items():
        if name not in _FREE_ARGUMENTS:
            found |= _described(name, value)
    for callback in keras.tree.flatten(settings.get("callbacks") or []):
        if isinstance(callback, _DECIDING):
            found |= _described(type(callback).__name__, _parameters(callback))
    return found


def _named(arguments: tuple, settings: dict[str, Any]) -> dict[str, Any]:
    try:
        bound = inspect.signature(keras.Model.fit).bind(None, *arguments, **settings)
    except TypeError:  # of a hypermodel with a `fit` of its own
        return {**{f"argument {place}": a for place, a in enumerate(arguments, 1)}, **settings}
    bound.apply_defaults()
    return bound.arguments


def _objective(objective: Any) -> str:
    each = objective.objectives if hasattr(objective, "objectives") else [objective]
    return ", ".join(f"{one.name} ({one.direction})" for one in each)


def _hyperparameter(hp: Any) -> str:
    config = {name: value for name, value in hp.get_config().items() if name != "name"}
    if not config.get("conditions"):
        config.pop("conditions", None)
    return f"{type(hp).__name__}({', '.join(f'{name}={v!r}' for name, v in config.items())})"


def _of_network(model: keras.Model) -> dict[str, str]:
    network = network_of(model)
    found = {"the network": architecture_hash(network, initializers=True)[:_DIGITS]}
    found |= _described("optimizer", model.optimizer)
    return found | _described("loss", getattr(model, "loss", None))


def _given_weights(first: keras.Model, second: keras.Model) -> str:
    pairs = zip(network_of(first).weights, network_of(second).weights, strict=False)
    arrays = [(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)) for a, b in pairs]
    return digest([_array(a) for a, b in arrays if np.array_equal(a, b)])


def _parameters(callback: keras.callbacks.Callback) -> dict[str, Any]:
    names = inspect.signature(type(callback).__init__).parameters
    values = {name: getattr(callback, name, None) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, _PLAIN)}


def _described(name: str, value: Any) -> dict[str, str]:
    """Return a value as texts by dotted name."""
    if value is None or isinstance(value, (*_PLAIN, type)):
        return {name: repr(value)}
    if isinstance(value, Mapping):
        parts = {str(key): part for key, part in value.items() if key != "name"}
        return _joined(name, parts)
    if isinstance(value, (list, tuple)) and not all(isinstance(part, _PLAIN) for part in value):
        return _joined(name, dict(enumerate(value)))
    if hasattr(value, "element_spec"):  # a data set of TensorFlow
        return {name: f"{value.element_spec} of cardinality {int(value.cardinality())}"}
    if hasattr(value, "__array__") or isinstance(value, (list, tuple)):
        return {name: _array(np.asarray(value))}
    if isinstance(value, keras.utils.PyDataset):
        return {name: f"{type(value).__qualname__} of {value.num_batches} batches"}
    if hasattr(value, "get_config"):
        return {name: type(value).__name__} | _described(name, value.get_config())
    if callable(value) and name == "x":  # from an epoch to a data set
        return _described(name, value(0))
    return {name: getattr(value, "__qualname__", type(value).__qualname__)}


def _joined(name: str, parts: Mapping[Any, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, part in parts.items():
        found |= _described(f"{name}.{key}", part)
    return found


def _array(array: np.ndarray) -> str:
    """Return what an array is, with its hash."""
    content = hashlib.sha256()
    if array.dtype.hasobject:
        content.update(repr(array.tolist()).encode())
    else:
        content.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return f"{array.dtype} {array.shape} {content.hexdigest()[:_DIGITS]}"
