"""What stands after a command: its places, its options, and a study's YAML file under them."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from tfdistill.cli import help_pages
from tfdistill.cli.commands import COMMANDS, HELP, UNSAFE, Command
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
from tfdistill.models import saved_model_safety
from tfdistill.utils import checks, storage


@dataclass(frozen=True)
class Arguments:
    """What was given to a command, its names checked and its values not yet.

    Args:
        command: The command.
        places: What was given without a name, by place; None for a place that may be left out, a
            list for one that takes several.
        flags: Options without a value, as `--dry-run`.
        pairs: The other options, as keys and texts, in order: of two with one key, the last holds.
    """

    command: Command
    places: dict[str, str | list[str] | None]
    flags: frozenset[str]
    pairs: tuple[tuple[str, str], ...]

    @property
    def options(self):
        """The options: an instance of the command's dataclass.

        Raises:
            UsageError: A value of another type than its field's, or one that it refuses.
        """
        return build(self.command.options, self.over({}))

    @property
    def unsafe(self) -> bool:
        """Whether model files may run code of their own."""
        return not self.flags.isdisjoint(UNSAFE)

    def over(self, values: dict) -> dict:
        """Return plain data, as `build` takes it, with the options put in their places."""
        for key, text in self.pairs:
            values = with_option(self.command.options, values, key, text)
        return values

    def images(self, path: str | Path | None) -> DataConfig | None:
        """Return the images that a study's file and the options `--data.KEY` over it name.

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


def read(name: str, arguments: list[str]) -> Arguments:
    """Return what was given to a command; print its page and exit where that is asked for.

    Args:
        name: One of `COMMANDS`.
        arguments: What stands after it.

    Raises:
        UsageError: A missing place, one too many, an unknown option, or one without its value.

    Example:
        >>> read("predict", ["saved_models/digits", "a.png", "--top", "1"]).options.top
        1
    """
    command = COMMANDS[name]
    words, flags, pairs, waiting = [], set(), [], list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument in ("-h", "--help"):
            print(help_pages.page(name), end="")
            raise SystemExit(0)
        option, equals, value = argument.partition("=")
        if argument == "--":
            words, waiting = words + waiting, []
        elif not argument.startswith("-") or argument == "-":
            words.append(argument)
        elif argument in command.flags:
            flags.add(argument)
        else:
            _check_name(command, option, value)
            if not equals and (not waiting or waiting[0].startswith("--")):
                raise checks.UsageError(
                    f"{option} needs a value. Received: none. Write {option} VALUE."
                )
            pairs.append((option[2:], value if equals else waiting.pop(0)))
    return Arguments(command, _places(name, words), frozenset(flags), tuple(pairs))


def _check_name(command: Command, option: str, value: str) -> None:
    """Raise unless an option with a value is one of the command's."""
    flags = HELP | command.flags
    if option in flags:
        raise checks.UsageError(
            f"{option} takes no value. Received: {checks.shown(value)}. Write {option} alone."
        )
    key = option.removeprefix("--")
    keys = [field.name for field in dataclasses.fields(command.options)]
    first = key.partition(".")[0]
    named = first.removesuffix("+") if first == key else first
    checks.known_keys("command line", [named], [*keys, *(flag[2:] for flag in flags)])
    with_option(command.options, {}, key, "")  # of deeper keys, too


def _places(name: str, words: list[str]) -> dict[str, str | list[str] | None]:
    """Return what stands in the places of a command."""
    command, found, waiting = COMMANDS[name], {}, list(words)
    usage = f"Write: tfdistill {name} {command.usage}"
    for place, about in command.places.items():
        key = place.strip("[].")
        if not waiting and not place.startswith("["):
            raise checks.UsageError(
                f"tfdistill {name} needs {key.upper()}, {about}. Received: none. {usage}"
            )
        if place.endswith("..."):
            found[key], waiting = waiting, []
        else:
            found[key] = waiting.pop(0) if waiting else None
    if waiting:
        raise checks.UsageError(
            f"tfdistill {name} cannot use {checks.shown(waiting[0])}. Leave it out, or write the "
            f"name of its option before it. {usage}"
        )
    return found


@dataclass(frozen=True)
class StudyOptions:
    """A configuration, and whether only its plan or a rehearsal is asked for."""

    config: StudyConfig
    dry_run: bool
    rehearse: bool = False

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.config.output)


def study_options(
    command: str, arguments: list[str], fixed: dict[str, str] | None = None, suffix: str = ""
) -> StudyOptions:
    """Return the study that a YAML file and the options after it describe.

    Args:
        command: The command's name, for help and messages.
        arguments: The path of the file and options.
        fixed: Values that the command sets itself.
        suffix: Of the default output folder's name.
    """
    given = read(command, arguments)
    if given.unsafe:
        saved_model_safety.trust()
    path = given.places["config"]
    values = given.over(_checked(path)) | (fixed or {})
    if values.get("output") is None:
        values["output"] = _default_output(path, suffix)
    config = build(StudyConfig, values)
    if not fixed:
        _check_settings(config)
    return StudyOptions(config, "--dry-run" in given.flags, "--rehearse" in given.flags)


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
    return build(StudyConfig, _checked(str(path)))


def study_file(model: Path) -> Path | None:
    """Return the configuration file of the study in whose folder a model lies."""
    candidates = [folder / "config.yaml" for folder in model.resolve().parents[:3]]
    return next((path for path in candidates if path.exists()), None)


def _checked(path: str) -> dict:
    values = read_yaml(path)
    if isinstance(values, dict):  # the configuration that a study has written has a format
        values = formats.current(values, formats.number(Path(path), values))
    check_keys(StudyConfig, values, path)
    return values


def _check_settings(config: StudyConfig) -> None:
    study = STUDIES[checks.one_of("study", config.study, STUDIES)]
    if config.settings and not hasattr(study, "Settings"):
        raise checks.UsageError(
            f"settings must be empty: the study {config.study} has none of its own. "
            f"Received: settings={checks.shown(config.settings)}. Remove them."
        )


def _default_output(path: str, suffix: str) -> str:
    file = Path(path).resolve()
    plain = file.parent.name in ("configs", "")
    name = file.stem if plain else f"{file.parent.name}-{file.stem}"
    return os.path.join("results", f"{name}{suffix}")
