"""The command `tfdistill`: finds the command that is asked for, and words every error."""

import sys

from tfdistill import __version__
from tfdistill.cli.commands import COMMANDS
from tfdistill.models import saved_model_safety
from tfdistill.utils import checks, signals, storage

DESCRIPTION = (
    "Knowledge distillation for image classification: train teachers, distil students, compare."
)
EPILOG = """\
`tfdistill COMMAND --help` explains a command and lists its options.
A first study, four minutes on two cores:  tfdistill run configs/quickstart.yaml"""
GOES_ON = "The same command resumes where this one stopped."


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 1 a run failed, 2 wrong input.

    Without arguments it takes those of this process, and SIGTERM and Ctrl-C, too.
    """
    if arguments is not None:
        return _answer(arguments)
    given = sys.argv[1:]
    command = COMMANDS.get(_name(given))
    return signals.run(lambda: _answer(given), GOES_ON if command and command.goes_on else "")


def _answer(arguments: list[str]) -> int:
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(f"usage: tfdistill COMMAND ...\n\n{DESCRIPTION}\n\n{_commands()}\n\n{EPILOG}")
            return 0
        if arguments[0] == "--version":
            print(f"tfdistill {__version__}")
            return 0
        name = _name(arguments)
        if name not in COMMANDS:
            return _unknown(name, arguments[1:])
        with saved_model_safety.trust_ends():
            return COMMANDS[name].action(arguments[len(name.split()) :])
    except checks.UsageError as error:
        print(f"tfdistill: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except checks.Refused as error:
        print(f"tfdistill: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        line = storage.problem(error)
        if line is None:
            raise
        print(f"tfdistill: error: {' '.join(line.split())}", file=sys.stderr)
        return 2


def _name(arguments: list[str]) -> str:
    """Return the command's name: the first word, or two where the second belongs to it."""
    both = " ".join(arguments[:2])
    return both if both in COMMANDS else " ".join(arguments[:1])


def _unknown(word: str, more: list[str]) -> int:
    parts = {name.partition(" ")[2]: each for name, each in COMMANDS.items()}
    parts = {part: each for part, each in parts.items() if f"{word} {part}" in COMMANDS}
    if not parts:
        checks.one_of("command", word, dict.fromkeys(name.split()[0] for name in COMMANDS))
    if more and more[0] not in ("-h", "--help"):
        checks.one_of(word, more[0], parts)
    start = "usage:"
    for part, each in parts.items():
        print(f"{start} tfdistill {word} {part} {each.usage}")
        start = "      "
    print("\n" + "\n".join(f"{part}: {each.about}" for part, each in parts.items()))
    return 0 if more else 2


def _commands() -> str:
    lines = ["commands:"]
    for name, command in COMMANDS.items():
        shown, first = f"{name} {command.words}".rstrip(), True
        for line in command.brief.splitlines():
            fits = first and len(shown) <= 17
            lines += [] if fits or not first else [f"  {shown}"]
            lines.append(f"  {shown if fits else '':17} {line}")
            first = False
    return "\n".join(lines)
