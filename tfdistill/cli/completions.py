"""The scripts with which bash, zsh and fish complete `tfdistill`: cyclopts writes them.

It completes what a function declares, so that here the keys of a study are options, too.
"""

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from tfdistill.cli import main

# Cyclopts takes every word that is a command's name for a part of the command, also the
# configuration in `run quickstart`. With these, only the first word is, and that behind `cache`.
_FIRST_WORD = {
    "bash": (
        'if [[ " $all_commands " =~ " $word " ]]; then',
        'if [[ "|{groups}|" == *"|${{cmd_path[*]}}|"* && " $all_commands " =~ " $word " ]]; then',
    ),
    "fish": (
        'if string match -q -- "* $word *" " $all_commands "',
        'if contains -- "$subcommands" "" {groups}; and '
        'string match -q -- "* $word *" " $all_commands "',
    ),
}


def script(shell: Literal["bash", "zsh", "fish"], commands: dict[str, Callable]) -> str:
    """Return the script for a shell.

    Args:
        shell: Its name.
        commands: The functions of the commands by their names.

    Example:
        >>> print(script("bash", COMMANDS))
        # Bash completion for tfdistill
        ...
    """
    declared = {name: _with_keys(command) for name, command in commands.items()}
    text = main.app(declared).generate_completion(shell=shell)
    if shell in _FIRST_WORD:
        theirs, ours = _FIRST_WORD[shell]
        groups = {name.partition(" ")[0] for name in commands if " " in name}
        joined = "|".join(["", *groups]) if shell == "bash" else " ".join(groups)
        text = text.replace(theirs, ours.format(groups=joined))
    return f"{text}\ncompdef _cyclopts_tfdistill tfdistill" if shell == "zsh" else text


def _with_keys(command: Callable) -> Callable:
    """Return a command whose words `*keys` are options of their own."""
    signature = inspect.signature(command)
    parameters = list(signature.parameters.values())
    words = [each for each in parameters if each.kind is each.VAR_POSITIONAL]
    keys = [each for one in words for each in typing.get_args(one.annotation) if is_dataclass(each)]
    if not keys:
        return command
    parameters.remove(words[0])
    options = Annotated[keys[0], Parameter(name="*")]  # type: ignore[valid-type]  # at run time
    parameters.append(
        inspect.Parameter("study", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=options)
    )

    @functools.wraps(command)
    def declared(*_, **__):
        raise NotImplementedError

    # What `inspect` takes for the function's own.
    declared.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return declared
