"""Wrong options and places of every command, made from what the commands declare."""

import dataclasses
import typing

import yaml
from hypothesis import strategies as st

from tests.faults.configurations import Case, Field, fields, right_value, wrong_value
from tfdistill.cli.commands import COMMANDS
from tfdistill.config import StudyConfig

# Wrong for every field that is not free text, and what of it must stand in the message.
PLAINLY_WRONG = {
    "x": "x'",
    "-3": "-3",
    "maybe": "'maybe'",
    "no such": "'no such'",
    "{odd: 1}": "odd",
    "[{odd: 1}]": "odd",
    ".nan": "nan",
    "1e999": "",
}
LEAVES = {name: fields(command.options) for name, command in COMMANDS.items()}
# A study's own values are drawn by `configurations`.
OTHERS = [name for name, command in COMMANDS.items() if command.options is not StudyConfig]
WITH_FLAGS = [name for name, command in COMMANDS.items() if command.flags]
WITH_OPTIONS = [name for name, found in LEAVES.items() if found]


def bounded(field: Field) -> bool:
    """Return whether it is one value, and not every text is a right one."""
    mappings = [option for option in field.options if (typing.get_origin(option) or option) is dict]
    return not mappings and (str not in field.options or bool(field.choices))


CHECKED = {name: found for name in OTHERS if (found := list(filter(bounded, LEAVES[name])))}


def words(name: str) -> list[str]:
    """Return what may stand in the places of a command; none of it is there."""
    return [f"no-{place.strip('[].')}" for place in COMMANDS[name].places]


def text_of(value) -> str:
    """Return a value as it is typed."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


@st.composite
def right_options(draw, name: str) -> list[str]:
    """Up to two options of a command that are right."""
    found = list(filter(bounded, LEAVES[name]))
    chosen = draw(st.lists(st.sampled_from(found), max_size=2)) if found else []
    return [f"--{field.key}={text_of(draw(right_value(field)))}" for field in chosen]


@st.composite
def mixed(draw, name: str, wrong: list[str], names: tuple[str, ...]) -> Case:
    """A command with its places, some right options and the wrong words."""
    before, after = draw(right_options(name)), draw(right_options(name))
    keys = {option.partition("=")[0].removeprefix("--") for option in wrong if option[:2] == "--"}
    after = [one for one in after if one.partition("=")[0].removeprefix("--") not in keys]
    arguments = draw(
        st.sampled_from(
            [
                [*words(name), *before, *wrong, *after],
                [*before, *wrong, *after, *words(name)],
            ]
        )
    )
    return Case("", (*name.split(), *arguments), names)


@st.composite
def wrong_values(draw) -> Case:
    """A value that its option cannot have; of two, the second."""
    name = draw(st.sampled_from(sorted(CHECKED)))
    field = draw(st.sampled_from(CHECKED[name]))
    plain = draw(st.booleans())
    text = draw(st.sampled_from(list(PLAINLY_WRONG)) if plain else wrong_value(field).map(text_of))
    wrong = [f"--{field.key}={text}"] if draw(st.booleans()) else [f"--{field.key}", text]
    if {"-h", "--help"} & set(wrong):
        wrong = [f"--{field.key}={text}"]
    received = PLAINLY_WRONG[text] if plain else ""
    return draw(mixed(name, wrong, (field.key.rpartition(".")[2], received)))


@st.composite
def unknown_options(draw) -> Case:
    """An option that there is not, or one misspelt, at any depth, or a misspelt flag."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    keys = [field.key for field in LEAVES[name]] + [flag[2:] for flag in COMMANDS[name].flags]
    key = draw(st.sampled_from([*keys, "help"]))
    parent, _, last = key.rpartition(".")
    place = draw(st.integers(0, len(last) - 1))
    dropped = last[:place] + last[place + 1 :]
    odd, meant = draw(
        st.sampled_from(
            [(dropped, last), (last + "x", last), (last.upper(), ""), ("ключ", ""), ("a b", "")]
        )
    )
    if f"{parent}.{odd}".lstrip(".") in keys or not odd:
        odd, meant = "0x", ""
    option = f"--{parent}.{odd}" if parent else f"--{odd}"
    shape = draw(st.sampled_from([[f"{option}=1"], [option, "1"], [option]]))
    hint = (f"Did you mean {meant!r}?",) if meant else ()
    return draw(mixed(name, shape, ("unknown key", odd, *hint)))


@st.composite
def lost_values(draw) -> Case:
    """An option without its value: another stands there, or nothing."""
    name = draw(st.sampled_from(WITH_OPTIONS))
    key = draw(st.sampled_from(LEAVES[name])).key
    last = draw(st.sampled_from([[], [f"--{draw(st.sampled_from(LEAVES[name])).key}=1"]]))
    arguments = (*name.split(), *words(name), f"--{key}", *last)
    return Case("", arguments, (f"--{key} needs a value",))


@st.composite
def valued_flags(draw) -> Case:
    """A value for an option that takes none."""
    name = draw(st.sampled_from(WITH_FLAGS))
    flag = draw(st.sampled_from([*COMMANDS[name].flags, "--help"]))
    value = draw(st.sampled_from(["", "1", "true", "no"]))
    return draw(mixed(name, [f"{flag}={value}"], (f"{flag} takes no value", repr(value))))


@st.composite
def wrong_places(draw) -> Case:
    """A place with nothing in it, or a word too many."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    places, full = list(COMMANDS[name].places), words(name)
    needed = [place for place in places if not place.startswith("[")]
    many = any(place.endswith("...") for place in places)
    options = draw(right_options(name))
    if needed and (many or draw(st.booleans())):
        kept = draw(st.integers(0, len(needed) - 1))
        missing = needed[kept].strip(".").upper()
        case = Case("", (*full[:kept], *options), (f"needs {missing}", "Received: none"))
    else:
        case = Case("", (*full, *options, "again"), ("'again'",))
    return dataclasses.replace(case, options=(*name.split(), *case.options))


WRONG = {
    "options: a value of another type or out of range": wrong_values(),
    "options: an unknown or misspelt one": unknown_options(),
    "options: one without its value": lost_values(),
    "options: a value for one that takes none": valued_flags(),
    "options: a place with nothing in it or a word too many": wrong_places(),
}
