"""The command `tfdistill`: finds the command that is asked for, and words every error."""

import os
import sys
from collections.abc import Iterable

import cyclopts

from tfdistill import __version__
from tfdistill.cli import options
from tfdistill.cli.commands import COMMANDS, GOES_ON, GROUPS
from tfdistill.models import saved_model_safety
from tfdistill.utils import checks, signals, storage, tensorflow
from tfdistill.utils.text import printable

DESCRIPTION = (
    "Knowledge distillation for image classification: train teachers, distil students, compare."
)
EPILOGUE = """\
`tfdistill COMMAND --help` explains a command and lists its options.

A first student, two minutes on two cores: `tfdistill quickstart`
One for your own photos: `tfdistill distill PHOTOS --teacher TEACHER`"""
ADVICE = "The same command resumes where this one stopped."


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 1 a run failed, 2 wrong input.

    Without arguments it takes those of this process, and SIGTERM, SIGHUP and Ctrl-C, too.
    """
    tensorflow.for_commands()
    if arguments is not None:
        return _answer(arguments)
    given = sys.argv[1:]
    command = COMMANDS.get(" ".join(given[:2])) or COMMANDS.get(" ".join(given[:1]))
    return signals.run(lambda: _answer(given), ADVICE if command in GOES_ON else "")


def app(commands: dict) -> cyclopts.App:
    """Return the command line of functions.

    Args:
        commands: The functions by their names, of one word or of two, of which the first is one of
            `GROUPS`.
    """
    found = cyclopts.App(
        name="tfdistill",
        help=DESCRIPTION,
        help_epilogue=EPILOGUE,
        version=f"tfdistill {__version__}",
        default_parameter=options.PARAMETER,
        suppress_keyboard_interrupt=False,  # of Ctrl-C, `signals` says what is to be said
    )
    for place, (name, command) in enumerate(commands.items()):
        *group, last = name.split()
        if group and group[0] not in found:
            about = GROUPS[group[0]]
            found.command(
                cyclopts.App(
                    name=group, help=about, sort_key=place, version_flags=[], help_epilogue=""
                )
            )
        parent = found[group[0]] if group else found
        parent.command(command, name=last, sort_key=place, version_flags=[], help_epilogue="")
    return found


def _answer(arguments: list[str]) -> int:
    try:
        os.getcwd()
    except FileNotFoundError:
        return _refused(
            "The folder that this command was started in was removed. Go to another.", 2
        )
    try:
        with saved_model_safety.trust_ends():
            status = app(COMMANDS)(
                arguments, exit_on_error=False, print_error=False, result_action="return_value"
            )
        return status or 0
    except (checks.UsageError, cyclopts.CycloptsError) as error:
        return _refused(str(error), 2, getattr(error, "__notes__", ()))
    except checks.Refused as error:
        return _refused(str(error), 1)
    except OSError as error:
        line = storage.problem(error)
        if line is None:
            raise
        return _refused(line, 2)
    except Exception as error:
        if (found := checks.of_reader(error)) is None:
            raise
        return _refused(str(found), 2)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # rich ends the process with status 1
            raise error.__context__ from None
        raise


def _refused(text: str, status: int, notes: Iterable[str] = ()) -> int:
    print(f"tfdistill: error: {printable(' '.join(text.split()))}", file=sys.stderr)
    for note in filter(None, notes):
        print(note, file=sys.stderr)
    return status
