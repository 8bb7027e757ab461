"""Plain data to configurations, every value held against the type of its field, and back.

pydantic compares types, strictly, and this module words what it finds. What is wrong is named by
its key, as `student_training.epochs` or `distillation.features[0].loss`.
"""

import dataclasses
import functools
import json
import types
import typing
from typing import Any, NoReturn, TypeAlias

from tfdistill.config.yaml_files import parse_yaml
from tfdistill.utils import checks

Values: TypeAlias = dict[str, Any]

_KINDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
_UNKNOWN, _MISSING = "unexpected_keyword_argument", "missing"  # pydantic's names of errors


def build(cls: Any, values: Any, key: str = "", default: Any = None) -> Any:
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
    from pydantic import ValidationError  # a tenth of a second that `--help` need not wait for

    if not isinstance(values, dict):
        checks.of_type(key or "the configuration", values, "keys and values")
    values = _filled(cls, values, default)
    try:
        # Only as JSON: of Python's values, strict pydantic takes no mapping for a dataclass.
        return adapter(cls).validate_json(json.dumps(values, ensure_ascii=False).encode())
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    except (TypeError, ValueError) as error:  # a date, half a character, very many digits
        raise checks.UsageError(
            f"{key or 'The configuration'} holds an unreadable value: {checks.first_line(error)}"
        ) from None
    first: Any = min(found, key=lambda each: each["type"] != _UNKNOWN)
    _refuse(cls, values, key, first)


@functools.cache
def adapter(cls: Any) -> Any:
    """Return what pydantic makes of a dataclass or null."""
    from pydantic import ConfigDict, TypeAdapter

    # pydantic takes a configuration for `cls | None`, which hands it on to every dataclass inside,
    # and not for a dataclass, which would need an attribute of pydantic's.
    hint: Any = cls | None
    return TypeAdapter(hint, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))


def _filled(cls: Any, values: Values, default: Any) -> Values:
    """Return values and, beside those of a nested dataclass, the rest of its field's default."""
    filled = values if default is None else dataclasses.asdict(default) | values
    for name, inner in _nested(cls).items():
        value = values.get(name)
        if isinstance(value, dict):
            at = _default(_fields(cls)[name]) if default is None else getattr(default, name)
            inside = _filled(inner, value, at if isinstance(at, inner) else None)
            filled = filled | {name: inside}
    return filled


def _refuse(cls: type[Any], values: Values, key: str, error: Any) -> NoReturn:
    """Raise one of pydantic's errors in this package's words."""
    kind, place = error["type"], error["loc"]
    name = place[-1] if place else ""
    if kind in (_UNKNOWN, _MISSING):
        place = place[:-1]
    hint, value, where = _at_place(cls, values, key, place)
    if kind == "value_error":
        raise checks.UsageError(_at(where, str(error["ctx"]["error"])))
    if kind == _UNKNOWN:
        checks.known_keys(where or "the configuration", [name], _fields(dataclass_in(hint)))
    if kind == _MISSING:
        raise checks.UsageError(f"{_joined(where, name)} must be given. Received: none.")
    if kind == "json_invalid":  # nested deeper than pydantic reads
        checks.of_type(where or "the configuration", value, "keys and values, less deeply nested")
    checks.of_type(where, value, _allowed(hint))


def _at_place(
    hint: Any, value: Any, key: str, place: tuple[str | int, ...]
) -> tuple[Any, Any, str]:
    """Return type, value and key of what stands at a place, a path of keys and numbers."""
    for part in place:
        for option in _options(hint):
            plain, inner = _plain(option), typing.get_args(option)
            if dataclasses.is_dataclass(option) and part in _fields(option):
                hint, key = typing.get_type_hints(option)[part], _joined(key, part)
            elif plain is dict and isinstance(value, dict) and part in value:
                hint, key = inner[1], _joined(key, part)
            elif plain in (list, tuple) and isinstance(part, int):
                hint, key = inner[0], f"{key}[{part}]"
            else:
                continue  # as pydantic's name for one of several types, which is no part
            value = value[part]
            break
    return hint, value, key


def _at(key: str, text: str) -> str:
    """Return a class's message with the key where the class stands.

    It says `augment.flip` or `model.width` wherever it stands: here in `data`, or as the student.
    """
    last = key.rpartition(".")[2]
    if not key or f"{key}." in text:
        return text
    return text.replace(f"{last}.", f"{key}.") if f"{last}." in text else f"{key}: {text}"


def check_keys(cls: type[Any], values: Any, where: str) -> None:
    """Raise at a key, at any depth, that the dataclass `cls` does not have."""
    if not isinstance(values, dict):
        checks.of_type(where, values, "keys and values")
    hints = typing.get_type_hints(cls)
    checks.known_keys(where, values, hints)
    for key, value in values.items():
        inner = dataclass_in(hints[key])
        if inner is not None and isinstance(value, dict):
            check_keys(inner, value, f"{where}, {key}")


def with_option(cls: type[Any], values: Values, key: str, text: str) -> Values:
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


def to_dict(config: Any) -> Values:
    """Return a configuration as plain dictionaries, lists, numbers and strings."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def settings_of(cls: type[Any], config: Any) -> Any:
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
    return build(cls, config.settings, "settings")


def dataclass_in(hint: Any) -> type[Any] | None:
    """Return the dataclass that a field's type is, or is besides null; None without one."""
    found: Any = (option for option in _options(hint) if dataclasses.is_dataclass(option))
    return next(found, None)


@functools.cache
def _nested(cls: Any) -> dict[str, type[Any]]:
    """Return the fields that hold dataclasses: reading the hints of a record takes milliseconds."""
    hints = typing.get_type_hints(cls).items()
    return {name: inner for name, hint in hints if (inner := dataclass_in(hint))}


def _with_parts(cls: type[Any], values: Any, parts: list[str], text: str, where: str) -> Values:
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


def _added(field: dataclasses.Field[Any], here: Any, given: Any) -> Any:
    """Return a list with what is added to it, or what is given where there is no list."""
    before = _default(field) if here is None else here
    if not isinstance(before, list):
        return given
    return [*before, *(given if isinstance(given, list) else [given])]


def _merged(cls: Any, first: Any, second: Any) -> Any:
    """Return the values of `second`, and those of `first` beside them in a dataclass `cls`."""
    if not (cls and isinstance(first, dict) and isinstance(second, dict)):
        return second
    nested = _nested(cls)
    merged = {key: _merged(nested.get(key), first.get(key), part) for key, part in second.items()}
    return first | merged


def _placed(values: Any, path: list[str], given: Any) -> Values:
    """Return nested mappings with a value put in place."""
    values = values if isinstance(values, dict) else {}
    name, *deeper = path
    return values | {name: _placed(values.get(name), deeper, given) if deeper else given}


def _given(text: str, hint: Any) -> Any:
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


def _allowed(hint: Any) -> str:
    return " or ".join(map(_kind, _options(hint)))


def _kind(option: Any) -> str:
    if option is types.NoneType:
        return "null"
    if dataclasses.is_dataclass(option):
        return f"keys and values (keys: {', '.join(_fields(option))})"
    plain, inner = _plain(option), typing.get_args(option)
    if plain in (list, tuple):
        return f"a list, each part {_allowed(inner[0])}" if inner else "a list"
    if plain is dict:
        return f"keys and values, each value {_allowed(inner[1])}" if inner else "keys and values"
    return _KINDS[plain]


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _plain(option: Any) -> Any:
    return typing.get_origin(option) or option


def _fields(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(cls)}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _joined(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
