"""Plain data to configurations: every value is held against the type of its field.

What is wrong is named by its key, as `student_training.epochs` or `distillation.features[0].loss`.
"""

import dataclasses
import math
import types
import typing

from tfdistill.config.yaml_files import parse_yaml
from tfdistill.utils import checks

_KINDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}


class _Mismatch(Exception):
    """A value of another type than its field's."""


def build(cls, values, key: str = "", default=None):
    """Return an instance of a configuration's dataclass.

    Whole numbers become floats where the field is one. Values of a nested dataclass stand for its
    default's where the field has one.

    Args:
        cls: The dataclass; its fields may be dataclasses, lists and mappings of them, or optional.
        values: What a YAML file holds: a mapping of fields.
        key: Where it stands, for messages; empty at the top.
        default: An instance that has the fields that are not among the values; None takes the
            defaults of `cls`.

    Raises:
        UsageError: An unknown or missing key, a value of another type, or one that `cls` refuses.

    Example:
        >>> build(TrainingConfig, {"epochs": 3, "learning_rate": 1}).learning_rate
        1.0
    """
    if not isinstance(values, dict):
        checks.of_type(key or "the configuration", values, "keys and values")
    checks.known_keys(key or "the configuration", values, _fields(cls))
    hints, built = typing.get_type_hints(cls), {}
    for name, value in values.items():
        built[name] = _field(_fields(cls)[name], hints[name], value, _joined(key, name))
    needed = [] if default else [name for name, at in _fields(cls).items() if _needed(at)]
    missing = [name for name in needed if name not in built]
    if missing:
        raise checks.UsageError(f"{_joined(key, missing[0])} must be given. Received: none.")
    try:
        return dataclasses.replace(default, **built) if default else cls(**built)
    except checks.UsageError as error:
        raise checks.UsageError(_at(key, str(error))) from None


def _at(key: str, text: str) -> str:
    """Return a class's message with the key where the class stands.

    It says `augment.flip` or `model.width` wherever it stands: here in `data`, or as the student.
    """
    last = key.rpartition(".")[2]
    if not key or f"{key}." in text:
        return text
    return text.replace(f"{last}.", f"{key}.") if f"{last}." in text else f"{key}: {text}"


def check_keys(cls, values, where: str) -> None:
    """Raise at a key, at any depth, that the dataclass `cls` does not have."""
    if not isinstance(values, dict):
        checks.of_type(where, values, "keys and values")
    hints = typing.get_type_hints(cls)
    checks.known_keys(where, values, hints)
    for key, value in values.items():
        inner = dataclass_in(hints[key])
        if inner is not None and isinstance(value, dict):
            check_keys(inner, value, f"{where}, {key}")


def with_option(cls, values: dict, key: str, text: str) -> dict:
    """Return `values` with a value given on the command line.

    Args:
        cls: The dataclass that the values are of.
        values: Plain data, as `build` takes it; not changed.
        key: Dotted, as `training.epochs`.
        text: The value as YAML, or text where the field takes it; a list of texts also as `a,b`.

    Raises:
        UsageError: An unknown key.

    Example:
        >>> with_option(StudyConfig, {}, "training.epochs", "3")
        {'training': {'epochs': 3}}
    """
    return _with_parts(cls, values, key.split("."), text, "command line")


def dataclass_in(hint):
    """Return the dataclass that a field's type is, or is besides null; None without one."""
    return next((option for option in _options(hint) if dataclasses.is_dataclass(option)), None)


def _with_parts(cls, values, parts: list[str], text: str, where: str) -> dict:
    values = dict(values) if isinstance(values, dict) else {}
    name, *deeper = parts
    # As `--seeds+ 5`, which adds to a list.
    adds, name = not deeper and name.endswith("+"), name if deeper else name.removesuffix("+")
    hints = typing.get_type_hints(cls)
    checks.known_keys(where, [name], hints)
    hint, here = hints[name], values.get(name)
    inner = dataclass_in(hint)
    if adds:
        return values | {name: _added(_fields(cls)[name], here, _given(text, hint))}
    if not deeper:
        return values | {name: _merged(inner, here, _given(text, hint))}
    if inner:
        return values | {name: _with_parts(inner, here, deeper, text, f"{where}, {name}")}
    if dict not in map(_plain, _options(hint)):
        raise checks.UsageError(
            f"{where}, {name}: unknown key {checks.shown('.'.join(deeper))}. {name} is one value."
        )
    # The keys of `sweep.space` are dotted themselves; a study's settings are nested.
    path = [".".join(deeper)] if typing.get_args(hint) else deeper
    return values | {name: _placed(here, path, _given(text, typing.Any))}


def _added(field: dataclasses.Field, here, given):
    """Return a list with what is added to it, or what is given where there is no list."""
    before = _default(field) if here is None else here
    if not isinstance(before, list):
        return given
    return [*before, *(given if isinstance(given, list) else [given])]


def _merged(cls, first, second):
    """Return the values of `second`, and those of `first` beside them in a dataclass `cls`."""
    if not (cls and isinstance(first, dict) and isinstance(second, dict)):
        return second
    inner = {name: dataclass_in(hint) for name, hint in typing.get_type_hints(cls).items()}
    merged = {key: _merged(inner.get(key), first.get(key), part) for key, part in second.items()}
    return first | merged


def _placed(values, path: list[str], given) -> dict:
    """Return nested mappings with a value put in place."""
    values = values if isinstance(values, dict) else {}
    name, *deeper = path
    return values | {name: _placed(values.get(name), deeper, given) if deeper else given}


def _given(text: str, hint):
    try:
        value = parse_yaml(text, "the value")
    except checks.UsageError:
        return text  # where text is not allowed, the type of the field says so
    if list[str] in _options(hint) and isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if str in _options(hint) and not (value is None and types.NoneType in _options(hint)):
        lists = [option for option in _options(hint) if _plain(option) is list]
        return value if lists and isinstance(value, list) else text
    return value


def _field(field: dataclasses.Field, hint, value, key: str):
    default = _default(field)
    inner = dataclass_in(hint)
    if inner and isinstance(value, dict) and isinstance(default, inner):
        return build(inner, value, key, default)
    try:
        return _converted(hint, value, key)
    except _Mismatch:
        return checks.of_type(key, value, _allowed(hint))


def _converted(hint, value, key: str):
    for option in _options(hint):
        try:
            return _converted_to(option, value, key)
        except _Mismatch:
            continue
    raise _Mismatch


def _converted_to(option, value, key: str):
    if option is typing.Any:
        return value
    if dataclasses.is_dataclass(option):
        return build(option, _instance_of(dict, value), key)
    plain, inner = _plain(option), typing.get_args(option)
    if plain in (list, tuple):
        parts = _instance_of((list, tuple), value)
        kind = inner[0] if inner else typing.Any
        found = [_item(kind, part, f"{key}[{place}]") for place, part in enumerate(parts)]
        return plain(found)
    if plain is dict:
        kind = inner[1] if inner else typing.Any
        _text_keys(_instance_of(dict, value), key)
        return {name: _item(kind, part, _joined(key, name)) for name, part in value.items()}
    if isinstance(value, bool) and plain is not bool:
        raise _Mismatch
    if plain is float:
        return _finite(_instance_of((int, float), value))
    return _instance_of(plain, value)


def _item(hint, value, key: str):
    try:
        return _converted(hint, value, key)
    except _Mismatch:
        return checks.of_type(key, value, _allowed(hint))


def _text_keys(values: dict, key: str) -> None:
    for name in values:
        if not isinstance(name, str):
            checks.of_type(f"a key of {key}", name, "text")


def _instance_of(kinds, value):
    if not isinstance(value, kinds):
        raise _Mismatch
    return value


def _finite(value) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise _Mismatch from None
    if not math.isfinite(number):
        raise _Mismatch
    return number


def _allowed(hint) -> str:
    return " or ".join(map(_kind, _options(hint)))


def _kind(option) -> str:
    if option is types.NoneType:
        return "null"
    if dataclasses.is_dataclass(option):
        return f"keys and values (keys: {', '.join(_fields(option))})"
    plain, inner = _plain(option), typing.get_args(option)
    if plain in (list, tuple):
        return f"a list, each part {_allowed(inner[0])}" if inner else "a list"
    if plain is dict:
        return f"keys and values, each value {_allowed(inner[1])}" if inner else "keys and values"
    return _KINDS.get(plain, "anything")


def _options(hint) -> tuple:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _plain(option):
    return typing.get_origin(option) or option


def _fields(cls) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(cls)}


def _default(field: dataclasses.Field):
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _needed(field: dataclasses.Field) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _joined(key: str, name) -> str:
    return f"{key}.{name}" if key else str(name)
