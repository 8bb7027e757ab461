"""Wrong options and places of every command, made from what its function declares."""

from dataclasses import dataclass

from cyclopts import App
from hypothesis import strategies as st

from tfdistill.cli.commands import COMMANDS
from tfdistill.cli.options import PARAMETER

WHOLE = ("x", "-3", "1.5", "maybe", "1e999", "[1]", ".nan", "2147483648")


@dataclass(frozen=True)
class Case:
    """A wrong command line, and what its message must name."""

    options: tuple[str, ...]
    names: tuple[str, ...]


def declared(name: str) -> list:
    """Return what a command takes, as cyclopts sees it."""
    app = App(default_command=COMMANDS[name], default_parameter=PARAMETER)
    found = app.assemble_argument_collection(parse_docstring=True)
    return [each for each in found if each.name != "*"]


def _is(argument, kind) -> bool:
    return kind in (argument.hint, *getattr(argument.hint, "__args__", ()))


OPTIONS = {
    name: [each for each in declared(name) if each.name.startswith("--")] for name in COMMANDS
}
FLAGS = {name: [at for at in found if _is(at, bool)] for name, found in OPTIONS.items()}
VALUED = {name: [at for at in found if not _is(at, bool)] for name, found in OPTIONS.items()}
NUMBERS = {name: [at for at in found if _is(at, int)] for name, found in VALUED.items()}
PLACES = {
    name: [at.name for at in declared(name) if at.required and not at.name.startswith("--")]
    for name in COMMANDS
}
OPTIONAL = {"studies": ["single"], "keys": ["data"]}


def words(name: str) -> list[str]:
    """Return what may stand in the places of a command; of files, none is there."""
    places = [{"SHELL": "bash"}.get(place, f"no-{place}") for place in PLACES[name]]
    needed = [at.name for at in OPTIONS[name] if at.required]
    return [*places, *(word for option in needed for word in (option, "no-file"))]


def _some(draw, among: dict[str, list]):
    name = draw(st.sampled_from(sorted(name for name, found in among.items() if found)))
    return name, draw(st.sampled_from(among[name]))


def _mixed(draw, name: str, wrong: list[str], names: tuple[str, ...]) -> Case:
    """Return a command with the wrong words before or after its places."""
    parts = [words(name), wrong]
    first, second = parts if draw(st.booleans()) else reversed(parts)
    return Case((*name.split(), *first, *second), names)


@st.composite
def wrong_numbers(draw) -> Case:
    """A value that is no whole number, or out of range."""
    name, option = _some(draw, NUMBERS)
    text = draw(st.sampled_from(WHOLE))
    wrong = [f"{option.name}={text}"] if draw(st.booleans()) else [option.name, text]
    return _mixed(draw, name, wrong, (option.name[2:], text, "whole number"))


@st.composite
def unknown_options(draw) -> Case:
    """An option that there is not, or one misspelt."""
    name, option = _some(draw, OPTIONS)
    odd = draw(st.sampled_from([option.name[:-1], f"{option.name}x", "--ключ", "--0x"]))
    if odd in [each.name for each in OPTIONS[name]]:
        odd = "--0x"
    shape = draw(st.sampled_from([[f"{odd}=1"], [odd, "1"], [odd]]))
    return _mixed(draw, name, shape, (odd[2:],))


@st.composite
def lost_values(draw) -> Case:
    """An option without its value: another stands there, or nothing."""
    name, option = _some(draw, VALUED)
    last = draw(st.sampled_from([[], ["--help-me=1"]]))
    return Case((*name.split(), *words(name), option.name, *last), (option.name,))


@st.composite
def valued_flags(draw) -> Case:
    """A value for an option that takes none."""
    name, flag = _some(draw, FLAGS)
    value = draw(st.sampled_from(["", "2", "maybe"]))
    return _mixed(draw, name, [f"{flag.name}={value}"], (flag.name,))


@st.composite
def wrong_places(draw) -> Case:
    """A place with nothing in it, or a word too many."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    full = words(name)
    count = len(PLACES[name])
    if count and draw(st.booleans()):
        kept = draw(st.integers(0, count - 1))
        return Case((*name.split(), *full[:kept], *full[count:]), (PLACES[name][kept],))
    if "IMAGES" in PLACES[name]:  # takes all that there is
        return Case((*name.split(), full[0]), ("IMAGES",))
    return Case((*name.split(), *full, *OPTIONAL.get(name, ()), "again"), ("again",))


WRONG = {
    "options: no whole number, or one out of range": wrong_numbers(),
    "options: an unknown or misspelt one": unknown_options(),
    "options: one without its value": lost_values(),
    "options: a value for one that takes none": valued_flags(),
    "options: a place with nothing in it or a word too many": wrong_places(),
}


def fault(case: Case, status: int, error: str, written: list[str]) -> str | None:
    """Return what is wrong with the answer to a wrong command line; None where nothing is."""
    if status != 2:
        return f"exit status {status}"
    if error.count("\n") != 1 or not error.startswith("tfdistill: error: "):
        return f"not one line: {error[:300]!r}"
    lost = [name for name in case.names if name not in error]
    if lost:
        return f"{lost[0]!r} is not named: {error.strip()!r}"
    return f"written: {written}" if written else None
