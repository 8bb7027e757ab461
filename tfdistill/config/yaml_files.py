"""YAML files of unknown origin: read with bounded work, and never turned into anything but data.

No tag makes an object, no name of a class is imported, a key that stands twice is an error, and
aliases, which can stand for gigabytes in a few lines, are counted before anything is built.
"""

import re
from pathlib import Path

import yaml

from tfdistill.utils import checks

MAX_BYTES = 256 * 1024
MAX_VALUES = 20_000
MAX_DEPTH = 50
# YAML 1.1, which PyYAML follows, reads 1e-3 as text; here it is a number, as in YAML 1.2.
_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)
_REPLACED = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")


class _TooDeep(Exception):
    pass


class _Loader(yaml.SafeLoader):
    """Plain data only, of bounded depth; dates stay text."""

    depth = 0

    def compose_node(self, parent, index):
        if self.depth == MAX_DEPTH:
            raise _TooDeep
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_REPLACED[0], _FLOAT, list("-+0123456789."))


def read_yaml(path: str | Path) -> dict:
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


def parse_yaml(text: str, where: str):
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
    """Count all values as if every alias were written out, and find keys that stand twice."""
    waiting, count = [root], 0
    while waiting:
        node = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            raise checks.UsageError(
                f"{where} holds more than {MAX_VALUES} values, aliases written out. Shorten it."
            )
        if isinstance(node, yaml.MappingNode):
            _no_key_twice(node, where)
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _no_key_twice(node: yaml.MappingNode, where: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise checks.UsageError(
                f"{where}: the key {checks.shown(key.value)} stands twice, in lines "
                f"{lines[key.value]} and {line}. Remove one of them."
            )
        lines[key.value] = line


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
