"""The command `tfdistill`: parses, makes one call, prints.

Only what a command needs is imported: help and errors do not wait for TensorFlow.
"""

import os
import sys
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from tfdistill import __version__, checks, startup
from tfdistill.config import DataConfig, StudyConfig, check_keys, read_yaml

DESCRIPTION = (
    "Knowledge distillation for image classification: train teachers, distil students, compare."
)
EPILOG = """\
commands:
  run CONFIG        do a study: train, distil, evaluate, report; again to go on
  train CONFIG      one student for each seed, alone and taught by `teacher`
  evaluate MODEL    measure a saved network on the test images
  report FOLDER     write the report of a study anew, also of an unfinished one
  doctor            show what this machine offers

`tfdistill COMMAND --help` explains a command and lists its options.
A first study, four minutes on two cores:  tfdistill run configs/quickstart.yaml"""

RUN_HELP = """\
Do the study that a YAML file describes. Every value can be changed on the
command line, for example --seeds [0,1,2] --training.epochs 20. Results go to
--output, by default results/ and the file's name. The same command goes on
after an interruption, and prints the tables when all is done.

studies:
  mysteries   N networks, their ensemble, students of it, self-distilled networks
  single      one student for each seed, alone and taught by `teacher`"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 1 a run failed, 2 wrong input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = {
        "run": _run,
        "train": _train,
        "evaluate": _evaluate,
        "report": _report,
        "doctor": _doctor,
    }
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(f"usage: tfdistill COMMAND ...\n\n{DESCRIPTION}\n\n{EPILOG}")
            return 0
        if arguments[0] == "--version":
            print(f"tfdistill {__version__}")
            return 0
        checks.one_of("command", arguments[0], commands)
        return commands[arguments[0]](arguments[1:])
    except (checks.UsageError, ArgumentError) as error:
        print(f"tfdistill: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on where this one stopped.", file=sys.stderr)
        return 130


def _run(arguments: list[str]) -> int:
    return _study("run", arguments)


def _train(arguments: list[str]) -> int:
    return _study("train", arguments, study="single")


def _study(command: str, arguments: list[str], **fixed: str) -> int:
    options = _study_options(command, arguments, fixed)
    config = options.config
    from tfdistill import runner

    folder = Path(config.output)
    runs = runner.plan(config)
    _check_names(runs)
    runner.check_folder(config, folder)
    if options.dry_run:
        _print_tables([runner.plan_table(config, folder)])
        return 0
    from tfdistill.progress import display

    found = runner.run_study(config, folder, display())
    return _finish(config, folder, found)


def _finish(config: StudyConfig, folder: Path, found: list) -> int:
    from tfdistill import reports, runner
    from tfdistill.records import FINISHED
    from tfdistill.studies import STUDIES

    study, tables = STUDIES[config.study], runner.tables(config, found)
    notes = [config.note] if config.note else []
    report = reports.write_report(folder, study.TITLE, study.QUESTION, tables, found, notes)
    _print_tables(tables)
    print(f"Report: {report}")
    failed = [record for record in found if record.status != FINISHED]
    for record in failed:
        print(f"{record.name} failed: {record.message}", file=sys.stderr)
    return 1 if failed else 0


def _evaluate(arguments: list[str]) -> int:
    parser = _parser(
        "evaluate MODEL [--teacher PATH] [--data.KEY VALUE ...]",
        "Measure a saved network (.keras file or SavedModel) on the test images: those of\n"
        "the study whose folder it lies in, unless --config names a study's YAML file.",
    )
    parser.add_argument("model", type=str, help="a .keras file or the folder of a SavedModel")
    parser.add_argument("--teacher", type=str | None, help="also compare with this saved network")
    parser.add_argument("--batch_size", type=int, default=128, help="images at once")
    parser.add_argument("--data", type=DataConfig, help="the images")
    parser.add_argument("--config", type=str | None, help="a study's YAML file, for its images")
    given = _parse(parser, arguments, DataConfig, "data.")
    if not Path(given.model).exists():
        raise checks.UsageError(
            f"There is no model at {given.model}. Give a .keras file or a SavedModel."
        )
    path = given.config or _study_file(Path(given.model))
    if path:
        values = read_yaml(path).get("data", {})
        check_keys(DataConfig, values, str(path))
        parser.set_defaults({f"data.{key}": value for key, value in _flat_items(values)})
        given = _parse(parser, arguments, DataConfig, "data.")
    startup.tensorflow()
    from tfdistill import evaluation

    given = parser.instantiate(given)
    _print_tables([evaluation.table(given.model, given.data, given.teacher, given.batch_size)])
    return 0


def _report(arguments: list[str]) -> int:
    parser = _parser("report FOLDER", "Write the report of a study's folder anew.")
    parser.add_argument("folder", type=str, help="the folder that a study wrote its results to")
    folder = Path(parser.parse_args(arguments).folder)
    path = folder / "config.yaml"
    if not path.exists():
        raise checks.UsageError(
            f"{folder} holds no study: there is no {path}. Give the folder of one."
        )
    from tfdistill import records

    config = _typed(_study_parser("report"), ["--config", str(path)])
    order = {name: i for i, name in enumerate(_names_in_order(config))}
    found = sorted(records.read_all(folder), key=lambda record: order.get(record.name, len(order)))
    if not found:
        raise checks.UsageError(
            f"{folder} holds no finished run yet. Let tfdistill run finish one."
        )
    return _finish(config, folder, found)


def _names_in_order(config: StudyConfig) -> list[str]:
    from tfdistill import runner

    return [run.name for run in runner.plan(config)]


def _doctor(arguments: list[str]) -> int:
    parser = _parser("doctor [--data_dir PATH]", "Show what this machine offers to tfdistill.")
    parser.add_argument("--data_dir", type=str | None, help="where prepared data sets lie")
    given = parser.parse_args(arguments)
    startup.tensorflow()
    from tfdistill import doctor

    _print_tables(doctor.tables(given.data_dir))
    return 0


# --- options ----------------------------------------------------------------------------------


class _Options:
    def __init__(self, config: StudyConfig, dry_run: bool):
        self.config = config
        self.dry_run = dry_run


def _study_options(command: str, arguments: list[str], fixed: dict[str, str]) -> _Options:
    parser = _study_parser(command)
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
    dry_run = "--dry-run" in rest
    rest = [argument for argument in rest if argument != "--dry-run"]
    rest += [f"--{key}={value}" for key, value in fixed.items()]
    config = _typed(parser, ["--config", path, *rest])
    if config.output is None:
        file = Path(path).resolve()
        name = (
            file.stem if file.parent.name in ("configs", "") else f"{file.parent.name}-{file.stem}"
        )
        output = os.path.join("results", name if not fixed else f"{name}-{command}")
        config = _typed(parser, ["--config", path, *rest, f"--output={output}"])
    return _Options(config, dry_run)


def _study_parser(command: str) -> ArgumentParser:
    parser = _parser(f"{command} CONFIG [--dry-run] [--KEY VALUE ...]", RUN_HELP)
    parser.add_argument("--config", action="config", help="the YAML file; given as CONFIG")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the runs and what each needs; do nothing"
    )
    parser.add_class_arguments(StudyConfig, None)
    return parser


def _typed(parser: ArgumentParser, arguments: list[str]) -> StudyConfig:
    given = parser.instantiate(_parse(parser, arguments, StudyConfig))
    values = {key: given[key] for key in StudyConfig.__dataclass_fields__}
    return StudyConfig(**values)


def _parse(parser: ArgumentParser, arguments: list[str], cls, prefix: str = ""):
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


def _parser(usage: str, description: str) -> ArgumentParser:
    import argparse

    return ArgumentParser(
        prog="tfdistill",
        usage=f"tfdistill {usage}",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _study_file(model: Path) -> Path | None:
    candidates = [folder / "config.yaml" for folder in model.resolve().parents[:3]]
    return next((path for path in candidates if path.exists()), None)


def _flat_items(values: dict, prefix: str = "") -> list[tuple[str, object]]:
    items: list[tuple[str, object]] = []
    for key, value in values.items():
        nested = isinstance(value, dict)
        items += _flat_items(value, f"{prefix}{key}.") if nested else [(prefix + key, value)]
    return items


def _check_names(runs: list) -> None:
    from tfdistill import models

    for run in runs:
        if run.model and run.model.name != "saved":
            models.check_name(run.model.name)


def _print_tables(tables: list) -> None:
    from rich.console import Console

    from tfdistill import reports

    reports.print_tables(tables, Console(highlight=False))
