"""Options of the commands: a study's YAML file, and every key of it on the command line."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from tfdistill import checks
from tfdistill.config import StudyConfig, check_keys, read_yaml
from tfdistill.models import origin

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
    parser = study_parser(command)
    if not arguments or arguments[0] in ("-h", "--help"):
        parser.print_help()
        raise SystemExit(0 if arguments else 2)
    path, *rest = arguments
    if path.startswith("-"):
        raise checks.UsageError(
            f"tfdistill {command} needs a configuration file first. Received: {path!r}. "
            f"Example: tfdistill {command} configs/quickstart.yaml {path} ..."
        )
    check_keys(StudyConfig, read_yaml(path), path)
    flags = {"--dry-run", UNSAFE, *(["--rehearse"] if command in REHEARSED else [])} & set(rest)
    if UNSAFE in flags:
        origin.trust()
    rest = [argument for argument in rest if argument not in flags]
    rest += [f"--{key}={value}" for key, value in (fixed or {}).items()]
    config = typed(parser, ["--config", path, *rest])
    if config.output is None:
        file = Path(path).resolve()
        name = (
            file.stem if file.parent.name in ("configs", "") else f"{file.parent.name}-{file.stem}"
        )
        output = os.path.join("results", f"{name}{suffix}")
        config = typed(parser, ["--config", path, *rest, f"--output={output}"])
    return StudyOptions(config, "--dry-run" in flags, "--rehearse" in flags)


def study_parser(command: str) -> ArgumentParser:
    """Return the parser of a command that takes a study."""
    about = HELP.get(command, "")
    rehearse = " [--rehearse]" if command in REHEARSED else ""
    parser = new_parser(f"{command} CONFIG [--dry-run]{rehearse} [--KEY VALUE ...]", about)
    parser.add_argument("--config", action="config", help="the YAML file; given as CONFIG")
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
    return typed(study_parser("report"), ["--config", str(path)])


def typed(parser: ArgumentParser, arguments: list[str]) -> StudyConfig:
    """Return the study that options describe."""
    given = parser.instantiate(parse(parser, arguments, StudyConfig))
    values = {key: given[key] for key in StudyConfig.__dataclass_fields__}
    return StudyConfig(**values)


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
