"""The list of studies as text: what each asks, where it comes from, what it costs."""

import dataclasses
import textwrap
from types import ModuleType

import yaml

from tfdistill.config.registry import STUDIES
from tfdistill.utils import checks

WIDTH = 80


def pages() -> str:
    """Return all studies: question, source, commands and their cost."""
    return "\n\n".join(_summary(name, study) for name, study in STUDIES.items())


def page(name: str) -> str:
    """Return one study with its own settings and their defaults.

    Raises:
        UsageError: There is no such study; the message lists those that there are.
    """
    study = STUDIES[checks.one_of("study", name, STUDIES)]
    return f"{_summary(name, study)}\n\n{_settings(study)}"


def _summary(name: str, study: ModuleType) -> str:
    lines = [name, *_filled("  ", study.QUESTION), *_filled("  Source: ", f"{study.SOURCE}.")]
    for command, cost in study.COMMANDS.items():
        lines += [f"  {command}", *_filled("      ", cost)]
    return "\n".join(lines)


def _settings(study: ModuleType) -> str:
    if not hasattr(study, "Settings"):
        return "  It has no settings of its own."
    about = (study.Settings.__doc__ or "").partition("Args:")[2]
    values = dataclasses.asdict(study.Settings())
    # Lists on one line each; YAML would put plain settings on one line, too.
    style = None if any(isinstance(value, list | dict) for value in values.values()) else False
    defaults = yaml.safe_dump(
        {"settings": values}, sort_keys=False, width=WIDTH, default_flow_style=style
    )
    return f"  Its settings:\n{textwrap.dedent(about).strip()}\n\n{defaults}"


def _filled(start: str, text: str) -> list[str]:
    indent = " " * (len(start) - len(start.lstrip()) + (2 if start.strip() else 0))
    return textwrap.wrap(start + text, WIDTH, subsequent_indent=indent)
