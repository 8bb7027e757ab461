"""The keys of a study, in groups: for `tfdistill keys`, and as the page docs/keys.md.

All is read off the configuration's dataclasses and their docstrings, and off the registries.
"""

import dataclasses
import json
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import NamedTuple

from tfdistill.config import StudyConfig
from tfdistill.config.choices import OneOf, words_of
from tfdistill.config.schema import explained

WIDTH = 80
_KINDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}
_KINDS |= {list: "list", dict: "keys and values", types.NoneType: "null"}
_MARKDOWN = """\
# Keys of a study

Written by `tfdistill keys --markdown > docs/keys.md`.

They stand in a study's YAML file, nested (`training: {epochs: 20}`), or after it on the command
line, dotted (`--training.epochs 20`, `--training.epochs=20`; `--seeds+ 5` adds to a list).
`tfdistill keys training` prints one part."""


class Key(NamedTuple):
    """One key: its dotted name, what its value may be, its default as YAML, and what it is."""

    name: str
    kind: str
    default: str  # empty where it is null, nothing or keys
    about: str


class Group(NamedTuple):
    """Keys that stand together: what their names begin with, what they are, and they."""

    name: str
    about: str
    keys: tuple[Key, ...]


def page(part: str | None = None) -> str:
    """Return the keys as text of at most 80 columns.

    Args:
        part: A key of the study, such as `training`; None for all.
    """
    found = [_within(group, part) if part else group for group in groups()]
    return "\n\n".join(_text(group) for group in found if group.keys)


def markdown() -> str:
    """Return the page docs/keys.md, with a table for each group."""
    lines = [_MARKDOWN]
    for group in groups():
        lines += ["", f"## {f'`{group.name}`' if group.name else 'The study'}", ""]
        lines += [f"{group.about}.", "", "| key | value | default | |", "| --- | --- | --- | --- |"]
        for key in group.keys:
            default = f"`{key.default}`" if key.default else ""
            lines.append(f"| `{key.name}` | {key.kind} | {default} | {key.about} |")
    return "\n".join(lines)


def groups(
    cls=StudyConfig, name: str = "", about: str = "A whole study", seen: dict | None = None
) -> Iterator[Group]:
    """Yield a dataclass's keys and, after them, those of the dataclasses in it.

    Args:
        cls: The dataclass.
        name: What stands before the names of its keys.
        about: What it is.
        seen: Dataclasses that were listed before, and where; one that stands twice is not again.
    """
    seen = {} if seen is None else seen
    said, hints, words = explained(cls), typing.get_type_hints(cls), words_of(cls)
    keys, inside = [], []
    for field in dataclasses.fields(cls):
        key, text = f"{name}.{field.name}".lstrip("."), said[field.name]
        inner, items = _inner(hints[field.name])
        if inner in seen:
            text += f" Keys as of `{seen[inner]}`."
        elif inner:
            seen[inner] = f"{key}{items}"
            inside.append((inner, seen[inner], text.rstrip(".")))
        keys.append(
            Key(key, _kind(hints[field.name], words.get(field.name)), _default(field), text)
        )
    yield Group(name, about, tuple(keys))
    for inner, key, text in inside:
        yield from groups(inner, key, text, seen)


def _within(group: Group, part: str) -> Group:
    keys = (key for key in group.keys if key.name.partition(".")[0] == part)
    return group._replace(keys=tuple(keys))


def _text(group: Group) -> str:
    lines = textwrap.wrap(f"{group.about}:", WIDTH)
    for key in group.keys:
        default = f" Default: {key.default}." if key.default else ""
        lines += textwrap.wrap(f"  {key.name}: {key.kind}", WIDTH, subsequent_indent=" " * 6)
        lines += textwrap.wrap(f"      {key.about}{default}", WIDTH, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _inner(hint) -> tuple[type | None, str]:
    """Return the dataclass that a field holds, and `[]` where it is a list of them."""
    for option in _options(hint):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return option, ""
        if typing.get_args(option) and dataclasses.is_dataclass(typing.get_args(option)[0]):
            return typing.get_args(option)[0], "[]"
    return None, ""


def _kind(hint, words: OneOf | None) -> str:
    kinds = dict.fromkeys(map(_word, _options(hint)))
    if words:
        known = words.shown() if words.shown else words.listed
        named = ", ".join(f"`{name}`" for name in known)
        kinds = {named if kind == _KINDS[str] else kind: None for kind in kinds}
    return " or ".join(kinds)


def _word(option) -> str:
    if typing.get_origin(option) is typing.Literal:
        return ", ".join(f"`{name}`" for name in typing.get_args(option))
    if dataclasses.is_dataclass(option):
        return "keys"
    return _KINDS.get(typing.get_origin(option) or option, "anything")


def _options(hint) -> tuple:
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if union else (hint,)


def _default(field: dataclasses.Field) -> str:
    made = field.default_factory
    value = field.default if made is dataclasses.MISSING else made()
    if value in (None, "", [], {}) or dataclasses.is_dataclass(value):
        return ""
    return value if isinstance(value, str) else json.dumps(value)
