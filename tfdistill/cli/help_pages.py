"""The page of `tfdistill COMMAND --help`: what its dataclasses say of their fields."""

import argparse
import dataclasses
import json
import types
import typing

from tfdistill.cli.commands import COMMANDS, HELP
from tfdistill.config.building import dataclass_in
from tfdistill.config.schema import explained

_PARTS = {int: "N", float: "X", bool: "true|false", list: "[...]", dict: "{...}"}


def page(name: str) -> str:
    """Return the page of a command.

    Args:
        name: One of `COMMANDS`.

    Example:
        >>> print(page("doctor"))
        usage: tfdistill doctor [--data_dir PATH]
        ...
    """
    command = COMMANDS[name]
    # argparse only lays the page out.
    parser = argparse.ArgumentParser(
        usage=f"tfdistill {name} {command.usage}",
        description=command.about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    for place, about in command.places.items():
        parser.add_argument(place, metavar=place.upper(), help=about)
    options = parser.add_argument_group("options")
    options.add_argument("-h", *HELP, action="store_true", help=HELP["--help"])
    for flag, about in command.flags.items():
        options.add_argument(flag, action="store_true", help=about)
    _add(parser, options, command.options, "", {})
    return parser.format_help()


def _add(parser, group, cls, prefix: str, expanded: dict[type, str]) -> None:
    """Add the options of a dataclass; each one inside it gets a group, where it stands first."""
    about, hints, inside = explained(cls), typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        key, text = f"{prefix}{field.name}", about[field.name].replace("%", "%%")
        inner = dataclass_in(hints[field.name])
        if inner in expanded:
            text += f" Keys as of --{expanded[inner]}."
            group.add_argument(f"--{key}.KEY", metavar="VALUE", help=text)
        elif inner:
            expanded[inner] = key
            inside[key] = text.rstrip("."), inner
        else:
            metavar = _metavar(field.name, hints[field.name])
            group.add_argument(f"--{key}", metavar=metavar, help=text + _default(field))
    for key, (text, inner) in inside.items():
        _add(parser, parser.add_argument_group(text), inner, f"{key}.", expanded)


def _metavar(name: str, hint) -> str:
    first = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
    return _PARTS.get(typing.get_origin(first) or first, name.upper())


def _default(field: dataclasses.Field) -> str:
    made = field.default_factory is not dataclasses.MISSING
    value = field.default_factory() if made else field.default
    if value in (None, "", [], {}):
        return ""
    return f" Default: {value if isinstance(value, str) else json.dumps(value)}."
