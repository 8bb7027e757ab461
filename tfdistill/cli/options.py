"""Words after a command to the configuration of a study: its YAML file, and `--KEY VALUE` over it.

The keys are those of the configuration's dataclasses, so its own reader takes them and words what
is wrong; the other options of a command are parameters of its function.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cyclopts

from tfdistill.config import (
    DataConfig,
    StudyConfig,
    build,
    check_keys,
    formats,
    read_yaml,
    with_option,
)
from tfdistill.config.registry import STUDIES
from tfdistill.utils import checks, storage

CONFIGS = Path(__file__).parents[1] / "configs"
# Of every option: an underscore stays, none has a --no-..., and of two the last holds.
PARAMETER = cyclopts.Parameter(negative=(), name_transform=str, allow_repeating=True)


def _whole(_, tokens, allowed: str = "a whole number") -> int:
    """Return the whole number of an option; cyclopts itself would take 1.5 for one."""
    text = tokens[-1].value
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(f"must be {allowed}. Received: {checks.shown(text)}.")
    return int(text)


def _whole_or_null(hint, tokens) -> int | None:
    null = tokens[-1].value == "null"
    return None if null else _whole(hint, tokens, "a whole number or null")


Whole = Annotated[int, cyclopts.Parameter(converter=_whole)]
WholeOrNull = Annotated[int | None, cyclopts.Parameter(converter=_whole_or_null)]


@dataclass(frozen=True)
class Images:
    """The keys of a command that takes images and no study.

    Args:
        data: The images.
    """

    data: DataConfig = field(default_factory=DataConfig)


@dataclass(frozen=True)
class Given:
    """What was given to a command that takes keys: names are checked and values not yet.

    Args:
        place: The file or folder.
        keys: The dataclass that the keys are of.
        pairs: Keys and texts, in order: of two with one key, the last holds.
    """

    place: Path
    keys: type
    pairs: tuple[tuple[str, str], ...]

    def over(self, values: dict) -> dict:
        """Return plain data, as `build` takes it, with the values put in their places."""
        for key, text in self.pairs:
            values = with_option(self.keys, values, key, text)
        return values

    def images(self, path: str | Path | None) -> DataConfig | None:
        """Return the images that a study's file and the keys `data.KEY` over it name.

        Args:
            path: The file; None for none.

        Returns:
            The images; None where neither names any.

        Raises:
            UsageError: The file cannot be read, or a key or value of either is wrong.
        """
        start = {}
        if path:
            start = {"data": read_yaml(path).get("data", {})}
            check_keys(StudyConfig, start, str(path))
        values = self.over(start)
        return build(DataConfig, values["data"], "data") if "data" in values else None


def read(words: Iterable, keys: type = StudyConfig, command: Callable | None = None) -> Given:
    """Return what stands after a command: one place, and keys before and after it.

    Args:
        words: As typed, without the options that are parameters of the command's function.
        keys: The dataclass that the keys are of.
        command: Its function, whose options a misspelt key may mean.

    Raises:
        UsageError: No place or two, an unknown key, or one without its value.

    Example:
        >>> read(["--seeds", "[0]", "study.yaml"]).pairs
        (('seeds', '[0]'),)
    """
    places, pairs, waiting = [], [], [str(word) for word in words]
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-") or word == "-":
            places.append(word)
            continue
        option, equals, value = word.partition("=")
        key = option.removeprefix("--")
        _check_name(keys, key, command)
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise checks.UsageError(
                    f"{option} needs a value. Received: none. Write {option} VALUE."
                )
            value = waiting.pop(0)
        pairs.append((key, value))
    if not places:
        raise checks.UsageError(
            "The command needs a path besides its options. Received: none. Its --help says which."
        )
    if places[1:]:
        raise checks.UsageError(
            f"The command cannot use {checks.shown(places[1])}. Leave it out, or write the name of "
            "its option before it."
        )
    return Given(Path(places[0]), keys, tuple(pairs))


def study_config(
    words: Sequence,
    command: Callable | None = None,
    fixed: dict[str, str] | None = None,
    suffix: str = "",
) -> StudyConfig:
    """Return the study that a YAML file and the keys around it describe; its `output` is set.

    Args:
        words: The path of the file, and `--KEY VALUE` or `--KEY=VALUE`.
        command: The function of the command that they stand after.
        fixed: Values that the command sets itself.
        suffix: Of the default output folder's name.

    Raises:
        UsageError: The file cannot be read, or a key or value is wrong.

    Example:
        >>> study_config(["configs/quickstart.yaml", "--training.epochs", "3"]).training.epochs
        3
    """
    given = read(words, StudyConfig, command)
    place = configuration(given.place)
    values = given.over(_checked(place)) | (fixed or {})
    if values.get("output") is None:
        values["output"] = _default_output(place, suffix)
    config = build(StudyConfig, values)
    if not fixed:
        _check_settings(config)
    return config


def configuration(place: Path) -> Path:
    """Return a file of the user's, or else the configuration of that name that comes along.

    Args:
        place: A path, or a name, such as `mysteries/small` or `configs/quickstart.yaml`.

    Raises:
        UsageError: Neither is there.
    """
    parts = place.parts[1:] if place.parts[:1] == ("configs",) else place.parts
    within = CONFIGS.joinpath(*parts)
    found = [place, within, within.with_name(f"{within.name}.yaml")]
    if place.is_absolute() or ".." in parts:
        found = [place]
    there = next((each for each in found if each.is_file()), None)
    if there is None and not place.exists():
        name = str(Path(*parts).with_suffix(""))
        raise checks.UsageError(
            f"Cannot read the configuration {checks.shown(str(place))}: No such file or directory."
            f"{checks.nearest(name, shipped())} Give the path of a YAML file, or the name of one "
            "that comes along, as `tfdistill studies` has them."
        )
    return there or place


def shipped() -> list[str]:
    """Return the names of the configurations that come along."""
    files = (path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml"))
    return sorted(str(path.with_suffix("")) for path in files)


def study_of(folder: Path) -> StudyConfig:
    """Return the configuration of the study in a folder.

    Raises:
        UsageError: There is none.
    """
    path = folder / "config.yaml"
    if not path.exists():
        raise checks.UsageError(
            f"{folder} holds no study: there is no {path}. Give the folder of one."
        )
    storage.unmarked(path)  # a damaged file is refused before it is read
    values = _checked(path)
    try:
        config = build(StudyConfig, values)
        checks.one_of("study", config.study, STUDIES)
        return config
    except checks.UsageError as error:
        raise checks.UsageError(f"{path} is no configuration of a study: {error}") from None


def study_file(model: Path) -> Path | None:
    """Return the configuration file of the study in whose folder a model lies."""
    candidates = [folder / "config.yaml" for folder in model.resolve().parents[:3]]
    return next((path for path in candidates if path.exists()), None)


def named(command: Callable) -> list[str]:
    """Return the names of the options of a command that are parameters of its function."""
    app = cyclopts.App(default_command=command, default_parameter=PARAMETER)
    names = [name for each in app.assemble_argument_collection() for name in each.names]
    return [name[2:] for name in names if name.startswith("--")]


def _check_name(keys: type[Any], key: str, command: Callable | None) -> None:
    """Raise unless there is such a key, at any depth."""
    first = key.partition(".")[0]
    name = first.removesuffix("+") if first == key else first
    if name not in keys.__dataclass_fields__:
        others = named(command) if command else []
        checks.known_keys("command line", [name], [*keys.__dataclass_fields__, *others])
    with_option(keys, {}, key, "")  # of deeper keys, too


def _checked(path: Path) -> dict:
    values = read_yaml(path)
    if isinstance(values, dict):  # the configuration that a study has written has a format
        values = formats.current(values, formats.number(path, values))
    check_keys(StudyConfig, values, str(path))
    return values


def _check_settings(config: StudyConfig) -> None:
    study = STUDIES[checks.one_of("study", config.study, STUDIES)]
    if config.settings and not hasattr(study, "Settings"):
        raise checks.UsageError(
            f"settings must be empty: the study {config.study} has none of its own. "
            f"Received: settings={checks.shown(config.settings)}. Remove them."
        )


def _default_output(path: Path, suffix: str) -> str:
    file = path.resolve()
    plain = file.parent.name in ("configs", "")
    name = file.stem if plain else f"{file.parent.name}-{file.stem}"
    return os.path.join("results", f"{name}{suffix}")
