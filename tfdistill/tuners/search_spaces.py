"""Search spaces: dotted keys of a study's configuration, with the values to try.

`student.width: [0.5, 1.0]` tries two values, `{min: 0.001, max: 0.1, sampling: log}` draws from a
range. A key or value that the configuration does not allow is refused before anything is started.
"""

import dataclasses
from typing import Any

from tfdistill.config import StudyConfig
from tfdistill.utils import checks

RANGE_KEYS = ("min", "max", "step", "sampling")
SAMPLINGS = ("linear", "log")
# What stands for a part of the configuration that is null.
_FALLBACKS = {
    "student": "teacher",
    "student_training": "training",
    "self_distillation": "distillation",
}


def check(config: StudyConfig) -> None:
    """Raise at the first key or value of the search space that cannot be tried."""
    space = config.sweep.space
    if not space:
        raise checks.UsageError(
            "sweep.space must name at least one key. Received: sweep.space={}. Example: "
            "{distillation.alpha: [0.1, 0.5, 0.9]}."
        )
    for key, values in space.items():
        if isinstance(values, list):
            checks.different(f"sweep.space: {key}", values)
            tried: Any = values
        else:
            tried = _checked_range(key, values, config.sweep.tuner)
        for value in tried:
            if value is None or isinstance(value, (list, dict)):
                raise checks.UsageError(
                    f"sweep.space: {key} must list numbers, texts or true and false. Received: "
                    f"{value!r}."
                )
            with_values(config, {key: value})


def with_values(config: StudyConfig, values: dict[str, object]) -> StudyConfig:
    """Return a configuration with the values of some dotted keys.

    Raises:
        UsageError: A key that the configuration does not have, or a value that it refuses.

    Example:
        >>> with_values(config, {"distillation.alpha": 0.5, "student.width": 0.25})
    """
    for key, value in values.items():
        config = _replaced(config, key.split("."), value, "sweep.space")
    return config


def hyperparameters(space: dict[str, list | dict]):
    """Return a search space as Keras Tuner's `HyperParameters`."""
    import keras_tuner

    declared = keras_tuner.HyperParameters()
    for key, values in space.items():
        if isinstance(values, list):
            if any(isinstance(value, float) for value in values):
                values = [float(value) for value in values]
            declared.Choice(key, values)
            continue
        numbers = (values["min"], values["max"], values.get("step", 1))
        whole = all(isinstance(value, int) for value in numbers)
        kind = declared.Int if whole else declared.Float
        given = {name: values[name] for name in ("step", "sampling") if name in values}
        kind(key, values["min"], values["max"], **given)
    return declared


def _checked_range(key: str, values: dict, tuner: str) -> tuple[float, float]:
    checks.known_keys(f"sweep.space: {key}", values, RANGE_KEYS)
    if not {"min", "max"} <= set(values) or not values["min"] < values["max"]:
        raise checks.UsageError(
            f"sweep.space: {key} needs a list of values, or min and max with min < max. Received: "
            f"{values!r}."
        )
    if "sampling" in values:
        checks.one_of(f"sweep.space: {key}: sampling", values["sampling"], SAMPLINGS)
    if "step" in values:
        checks.positive(f"sweep.space: {key}: step", values["step"])
    elif tuner == "grid":
        raise checks.UsageError(
            f"sweep.space: {key} needs a list of values or a step for the grid tuner. Received: "
            f"{values!r}."
        )
    return values["min"], values["max"]


def _replaced(part, path: list[str], value, where: str):
    """Return a dataclass with the value at the end of a path of keys."""
    key, *rest = path
    checks.known_keys(where, [key], type(part).__dataclass_fields__)
    if rest:
        inner = getattr(part, key)
        if inner is None and key in _FALLBACKS:
            inner = getattr(part, _FALLBACKS[key])
        if not dataclasses.is_dataclass(inner):
            raise checks.UsageError(
                f"{where}: {key} has no key {rest[0]!r}. Received: {key}={inner!r}."
            )
        value = _replaced(inner, rest, value, f"{where}: {key}")
    elif dataclasses.is_dataclass(getattr(part, key)):
        known = ", ".join(getattr(part, key).__dataclass_fields__)
        raise checks.UsageError(f"{where}: {key} is a group of keys; name one of them: {known}.")
    try:
        return dataclasses.replace(part, **{key: value})
    except TypeError:
        raise checks.UsageError(f"{where}: {key} cannot be {value!r}.") from None
