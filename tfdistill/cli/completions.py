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
    return f"{text}\ncompdef _cyclopts_tfdistill tfdistill" if shell == "zsh" else text


def _with_keys(command: Callable) -> Callable:
    """Return a command whose words `*keys` are options of their own."""
    signature = inspect.signature(command)
    parameters = list(signature.parameters.values())
    words = next((each for each in parameters if each.kind is each.VAR_POSITIONAL), None)
    found = typing.get_args(words.annotation) if words else ()
    keys = next(filter(is_dataclass, found), None)
    if keys is None:
        return command
    parameters.remove(words)
    options = Annotated[keys, Parameter(name="*")]
    parameters.append(
        inspect.Parameter("study", words.KEYWORD_ONLY, default=None, annotation=options)
    )

    @functools.wraps(command)
    def declared(*_, **__):
        raise NotImplementedError

    declared.__signature__ = signature.replace(parameters=parameters)
    return declared
