"""Configurations in YAML files: read, checked for unknown keys, hashed."""

import copy
import dataclasses
import hashlib
import json
import types
import typing
from pathlib import Path

from tfdistill import checks


def to_dict(config) -> dict:
    """Return a configuration as plain dictionaries, lists, numbers and strings."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def of_dict(cls, values: dict):
    """Return the instance of a configuration's dataclass that `to_dict` gave these values of."""
    hints = typing.get_type_hints(cls)
    built = {}
    for key, value in values.items():
        inner = _dataclass_in(hints[key]) if isinstance(value, dict) else None
        built[key] = of_dict(inner, value) if inner else value
    return cls(**built)


def digest(*parts) -> str:
    """Return a short stable hash of JSON-able parts."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_yaml(path: str | Path) -> dict:
    """Return the mapping in a YAML file; raise `UsageError` where there is none."""
    import yaml

    try:
        text = Path(path).read_text()
    except OSError as error:
        raise checks.UsageError(
            f"Cannot read the configuration {path}: {error.strerror}. Give the path of a YAML file."
        ) from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise checks.UsageError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise checks.UsageError(
            f"{path} must hold keys and values. Received: {type(values).__name__}."
        )
    return values


def check_keys(cls, values: dict, where: str) -> None:
    """Raise at a key, at any depth, that the dataclass `cls` does not have."""
    hints = typing.get_type_hints(cls)
    checks.known_keys(where, values, hints)
    for key, value in values.items():
        inner = _dataclass_in(hints[key])
        if inner is not None and isinstance(value, dict):
            check_keys(inner, value, f"{where}, {key}")


def settings_of(cls, config):
    """Return a study's own settings, `config.settings`, as an instance of its dataclass.

    Args:
        cls: The dataclass; its fields may be dataclasses themselves, or lists of them.
        config: A `StudyConfig`, or a `RunConfig` of a kind with settings.

    Raises:
        UsageError: A key that `cls` does not have, or a value of another type.

    Example:
        >>> @dataclass(frozen=True)
        ... class Settings:
        ...     pairs: int = 20
        >>> settings_of(Settings, StudyConfig(settings={"pairs": 4})).pairs
        4
    """
    from jsonargparse import ArgumentError, ArgumentParser

    check_keys(cls, config.settings, "settings")
    parser = ArgumentParser(exit_on_error=False, env_prefix="")
    parser.add_class_arguments(cls, "settings")
    try:
        # A copy, because jsonargparse writes its own objects into lists.
        given = parser.parse_object({"settings": copy.deepcopy(config.settings)})
    except ArgumentError as error:
        raise checks.UsageError(" ".join(str(error).split())) from None
    return parser.instantiate(given).settings


def _dataclass_in(hint):
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)
