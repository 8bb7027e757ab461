"""YAML files of unknown origin: read with bounded work, and never turned into anything but data.

No tag makes an object, no name of a class is imported, a key that stands twice is an error, and
aliases, which can stand for gigabytes in a few lines, are counted before anything is built.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tfdistill.utils import checks

MAX_BYTES = 256 * 1024
MAX_VALUES = 20_000
MAX_DEPTH = 50
# The core schema of YAML 1.2 (https://yaml.org/spec/1.2.2, 10.3.2), where PyYAML follows YAML 1.1:
# `no` and `1:30` are text, 010 is ten and 1e-3 a number.
_TAG = "tag:yaml.org,2002:"
_CORE = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "merge": "<<",  # of YAML 1.1: parts that several networks share are written once
}


class _TooDeep(Exception):
    pass


class _Loader(yaml.SafeLoader):
    """Plain data only, of bounded depth; dates stay text."""

    depth = 0
    yaml_implicit_resolvers: dict[str, Any] = {}
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.depth == MAX_DEPTH:
            raise _TooDeep
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_core(self, node: Any) -> Any:
        """Return what a word of the core schema stands for."""
        text, kind = self.construct_scalar(node), node.tag.removeprefix(_TAG)
        if not re.fullmatch(_CORE[kind], text):  # behind a tag, as `!!int 3.5`
            raise ValueError(f"{checks.shown(text)} is no {node.tag}")
        if kind == "null":
            return None
        if kind == "bool":
            return text[0] in "tT"
        if kind == "int":
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        return float(re.sub(r"\.(?=[iInN])", "", text))  # Python's infinity has no dot


for _kind, _words in _CORE.items():
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_words})\Z"), None)
    _Loader.add_constructor(_TAG + _kind, _Loader.construct_core)
for _kind in ("str", "seq", "map"):
    _Loader.add_constructor(_TAG + _kind, yaml.SafeLoader.yaml_constructors[_TAG + _kind])
_Loader.add_constructor(None, _Loader.construct_undefined)  # type: ignore[type-var]


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that either version of YAML would take for something else."""


for _kind in ("int", "float"):
    _Dumper.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_CORE[_kind]})\Z"), None)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Args:
        path: A file of at most 256 kB, UTF-8.

    Raises:
        UsageError: It cannot be read, is no YAML, holds no mapping, or is too large or too deep.

    Example:
        >>> read_yaml("configs/quickstart.yaml")["seeds"]
        [0, 1, 2, 3, 4]
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise checks.UsageError(
            f"Cannot read the configuration {str(path)!r}: {reason}. Give the path of a YAML file."
        ) from None
    if len(data) > MAX_BYTES:
        raise checks.UsageError(
            f"{path} is larger than {MAX_BYTES // 1024} kB, which no configuration is. Give the "
            "path of a YAML file."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise checks.UsageError(
            f"{path} is not YAML: byte {error.start} is no UTF-8 text. Save it as UTF-8."
        ) from None
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        found = "an empty file" if values is None else type(values).__name__
        raise checks.UsageError(f"{path} must hold keys and values. Received: {found}.")
    return values


def yaml_text(values: Any) -> str:
    """Return plain data as YAML, which `read_yaml` reads as the same.

    Example:
        >>> yaml_text({"note": "1e3", "alpha": 0.5})
        "note: '1e3'\\nalpha: 0.5\\n"
    """
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def parse_yaml(text: str, where: str) -> Any:
    """Return the data that a text of YAML stands for.

    Args:
        text: One document.
        where: Names it in messages.

    Raises:
        UsageError: As `read_yaml`.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, where)
        return loader.construct_document(node)
    except checks.UsageError:
        raise
    except _TooDeep:
        raise checks.UsageError(
            f"{where} is nested deeper than {MAX_DEPTH} levels. Flatten it."
        ) from None
    except yaml.YAMLError as error:
        raise checks.UsageError(f"{where} is not YAML: {_one_line(error)}.") from None
    except Exception as error:  # a value that its own tag cannot read raises anything
        raise checks.UsageError(f"{where} holds an unreadable value: {_one_line(error)}.") from None
    finally:
        if loader is not None:
            loader.dispose()


def _check(root: yaml.Node, where: str) -> None:
    """Count all values as if every alias were written out, and check the keys."""
    waiting, count = [root], 0
    while waiting:
        node = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            raise checks.UsageError(
                f"{where} holds more than {MAX_VALUES} values, aliases written out. Shorten it."
            )
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, where)
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _check_keys(node: yaml.MappingNode, where: str) -> None:
    """Make every key text, as in JSON, and find those that stand twice."""
    lines: dict[str, int] = {}
    for place, (key, value) in enumerate(node.value):
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise checks.UsageError(
                f"{where}: the key {checks.shown(key.value)} stands twice, in lines "
                f"{lines[key.value]} and {line}. Remove one of them."
            )
        lines[key.value] = line
        if key.tag.removeprefix(_TAG) in ("null", "bool", "int", "float"):
            text = yaml.ScalarNode(f"{_TAG}str", key.value, key.start_mark, key.end_mark)
            node.value[place] = text, value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
