"""Configurations in YAML files: read, checked for unknown keys, hashed."""

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


def _dataclass_in(hint):
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)
