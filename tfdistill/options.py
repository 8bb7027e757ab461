"""Options of the commands: a study's YAML file, and every key of it on the command line."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from tfdistill import checks, storage
from tfdistill.config import StudyConfig, build, check_keys, read_yaml, with_option
from tfdistill.models import origin
from tfdistill.studies import STUDIES

GO_ON = """\
Every value can be changed on the command line, for example --seeds [0,1,2]
--training.epochs 20. Results go to --output, by default results/ and the file's
name. The same command goes on after an interruption."""

STUDY_HELP = f"""\
Do the study that a YAML file describes, and print its tables when all is done.
{GO_ON}

`tfdistill studies` lists the studies."""

SWEEP_HELP = f"""\
Search the space `sweep.space` of a study's YAML file with Keras Tuner: grid,
random, bayesian or hyperband. Trials are compared on validation images; the
best one is trained again with fresh seeds before it is tested.
{GO_ON}

Several processes search together where KERASTUNER_TUNER_ID (chief, tuner0,
tuner1, ...), KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT are set."""

CACHE_HELP = f"""\
Train the teachers of a study and store their logits for its students. `tfdistill
run` and `sweep` do so themselves; this does it beforehand.
{GO_ON}"""

UNSAFE = "--allow-unsafe"
UNSAFE_HELP = "also load model files that could run code of their own"
REHEARSED = ("run", "train")
HELP = {"run": STUDY_HELP, "train": STUDY_HELP, "sweep": SWEEP_HELP, "cache build": CACHE_HELP}


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
    if not arguments or arguments[0] in ("-h", "--help"):
        study_parser(command).print_help()
        raise SystemExit(0 if arguments else 2)
    path, *rest = arguments
    if path.startswith("-"):
        raise checks.UsageError(
            f"tfdistill {command} needs a configuration file first. Received: {path!r}. "
            f"Example: tfdistill {command} configs/quickstart.yaml {path} ..."
        )
    asked = [part for part in rest if part in ("-h", "--help") or part.endswith(".help")]
    if asked:
        study_parser(command).parse_args(asked[:1])  # prints and exits
    flags = {"--dry-run", UNSAFE, *(["--rehearse"] if command in REHEARSED else [])} & set(rest)
    if UNSAFE in flags:
        origin.trust()
    rest = [argument for argument in rest if argument not in flags]
    rest += [f"--{key}={value}" for key, value in (fixed or {}).items()]
    values = _with_options(path, rest)
    if values.get("output") is None:
        values["output"] = _default_output(path, suffix)
    config = build(StudyConfig, values)
    if not fixed:
        _check_settings(config)
    return StudyOptions(config, "--dry-run" in flags, "--rehearse" in flags)


def study_parser(command: str) -> ArgumentParser:
    """Return the parser of a command that takes a study."""
    about = HELP.get(command, "")
    rehearse = " [--rehearse]" if command in REHEARSED else ""
    parser = new_parser(f"{command} CONFIG [--dry-run]{rehearse} [--KEY VALUE ...]", about)
    parser.add_argument(
        "--dry-run", action="store_true", help="list the runs and what each needs; do nothing"
    )
    if command in REHEARSED:
        parser.add_argument(
            "--rehearse", action="store_true", help="one batch of every kind of run; keep nothing"
        )
    parser.add_argument(UNSAFE, action="store_true", help=UNSAFE_HELP)
    parser.add_class_arguments(StudyConfig, None)
    return parser


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


def _checked(path: str) -> dict:
    values = read_yaml(path)
    check_keys(StudyConfig, values, path)
    return values


def _with_options(path: str, arguments: list[str]) -> dict:
    values, waiting = _checked(path), list(arguments)
    while waiting:
        name, equals, value = waiting.pop(0).partition("=")
        key = name.removeprefix("--")
        if not equals and (not waiting or waiting[0].startswith("--")):
            with_option(StudyConfig, values, key, "")  # an unknown key says more
            raise checks.UsageError(f"{name} needs a value. Received: none. Write {name} VALUE.")
        values = with_option(StudyConfig, values, key, value if equals else waiting.pop(0))
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


def parse(parser: ArgumentParser, arguments: list[str], cls, prefix: str = ""):
    """Return the parsed options; an unknown key is answered with the known ones of `cls`."""
    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        text = str(error)
        if "nrecognized arguments" in text:
            unknown = text.split("arguments:")[1].split()[0].lstrip("-").partition("=")[0]
            nested: object = None
            for key in reversed(unknown.removeprefix(prefix).split(".")):
                nested = {key: nested}
            check_keys(cls, nested, "command line")
        raise


def new_parser(usage: str, description: str) -> ArgumentParser:
    """Return a parser that raises where others would exit."""
    return ArgumentParser(
        prog="tfdistill",
        usage=f"tfdistill {usage}",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def study_file(model: Path) -> Path | None:
    """Return the configuration file of the study in whose folder a model lies."""
    candidates = [folder / "config.yaml" for folder in model.resolve().parents[:3]]
    return next((path for path in candidates if path.exists()), None)


def flat_items(values: dict, prefix: str = "") -> list[tuple[str, object]]:
    """Return the values of nested dictionaries under dotted keys."""
    items: list[tuple[str, object]] = []
    for key, value in values.items():
        nested = isinstance(value, dict)
        items += flat_items(value, f"{prefix}{key}.") if nested else [(prefix + key, value)]
    return items
