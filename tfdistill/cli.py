"""The command `tfdistill`: parses, makes one call, prints.

Only what a command needs is imported: help and errors do not wait for TensorFlow.
"""

import sys
from pathlib import Path

from jsonargparse import ArgumentError

from tfdistill import __version__, checks, startup, stopping, storage
from tfdistill.config import DataConfig, StudyConfig, build, check_keys, read_yaml
from tfdistill.models import origin
from tfdistill.options import (
    HELP,
    UNSAFE,
    UNSAFE_HELP,
    StudyOptions,
    flat_items,
    new_parser,
    parse,
    study_file,
    study_of,
    study_options,
)

DESCRIPTION = (
    "Knowledge distillation for image classification: train teachers, distil students, compare."
)
EPILOG = """\
commands:
  run CONFIG        do a study: train, distil, evaluate, report; again to go on
  train CONFIG      one student for each seed, alone and taught by `teacher`
  studies [NAME]    list the studies: question, source, commands and their cost;
                    with NAME also the study's own settings
  sweep CONFIG      search alpha, temperature or any other key with Keras Tuner
  cache build CONFIG | verify FOLDER
                    store teachers' logits for students; compare them again
  evaluate MODEL    measure a saved network on the test images
  export FOLDER     write networks for TensorFlow Serving, LiteRT, ONNX, each checked
  predict MODEL IMAGES...
                    classify image files with an exported network
  demo MODEL        try an exported network in the browser, beside its teacher
  report FOLDER     write the report of a study anew, also of an unfinished one
  doctor            show what this machine offers
  reproduce RECORD  do a finished run again and compare every bit

`tfdistill COMMAND --help` explains a command and lists its options.
A first study, four minutes on two cores:  tfdistill run configs/quickstart.yaml"""

# Commands that leave what they have done, and go on from there.
LONG = ("run", "train", "sweep", "cache", "export")
GOES_ON = "The same command goes on where this one stopped."


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 1 a run failed, 2 wrong input.

    Without arguments it takes those of this process, and SIGTERM and Ctrl-C, too.
    """
    if arguments is not None:
        return _answer(arguments)
    given = sys.argv[1:]
    return stopping.run(lambda: _answer(given), GOES_ON if given and given[0] in LONG else "")


def _answer(arguments: list[str]) -> int:
    commands = {
        "run": _run,
        "train": _train,
        "studies": _studies,
        "sweep": _sweep,
        "cache": _cache,
        "evaluate": _evaluate,
        "export": _export,
        "predict": _predict,
        "demo": _demo,
        "report": _report,
        "doctor": _doctor,
        "reproduce": _reproduce,
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
    except checks.Refused as error:
        print(f"tfdistill: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        line = storage.problem(error)
        if line is None:
            raise
        print(f"tfdistill: error: {' '.join(line.split())}", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    return _study(study_options("run", arguments))


def _train(arguments: list[str]) -> int:
    return _study(study_options("train", arguments, {"study": "single"}, "-train"))


def _study(options: StudyOptions) -> int:
    from tfdistill import runner

    config, folder = options.config, options.folder
    runs = runner.plan(config)
    _check_names(runs)
    runner.check_folder(config, folder)
    if options.dry_run:
        _print_tables([runner.plan_table(config, folder)])
        return 0
    from tfdistill.progress import display

    if options.rehearse:
        from tfdistill import rehearsal

        table, good = rehearsal.rehearse(config, display())
        _print_tables([table])
        return 0 if good else 1
    if config.export:
        config.export.check_packages()
    found = runner.run_study(config, folder, display())
    good = True
    if config.export:
        from tfdistill import export_commands

        good = export_commands.export_study(folder, config.export)
    return max(_finish(config, folder, found), 0 if good else 1)


def _studies(arguments: list[str]) -> int:
    parser = new_parser("studies [NAME]", "List the studies, or show one with its settings.")
    parser.add_argument("name", type=str | None, nargs="?", help="a study")
    name = parser.parse_args(arguments).name
    from tfdistill import catalogue

    print(catalogue.page(name) if name else catalogue.pages())
    return 0


def _sweep(arguments: list[str]) -> int:
    options = study_options("sweep", arguments, suffix="-sweep")
    from tfdistill import runner, sweeps

    config, folder = options.config, options.folder
    _check_names(runner.plan(config))
    plan = sweeps.plan_table(config, folder)
    runner.check_folder(config, folder)
    if options.dry_run:
        _print_tables([plan])
        return 0
    from tfdistill.progress import display

    found = sweeps.search(config, folder, display())
    if sweeps.is_worker():
        print("The search is over; the chief confirms the best trial and writes the report.")
        return 0
    return _finish(config, folder, found, sweeps)


def _cache(arguments: list[str]) -> int:
    usage = "cache build CONFIG [--KEY VALUE ...] | verify FOLDER [--rows N]"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: tfdistill {usage}\n\n{HELP['cache build']}\n")
        print("verify FOLDER runs the teachers again on some rows of a study's caches.")
        return 0 if arguments else 2
    action = checks.one_of("cache", arguments[0], ("build", "verify"))
    return (_cache_build if action == "build" else _cache_verify)(arguments[1:])


def _cache_build(arguments: list[str]) -> int:
    options = study_options("cache build", arguments)
    from tfdistill import runner
    from tfdistill.progress import display

    config, folder = options.config, options.folder
    runs = runner.plan(config)
    _check_names(runs)
    runner.check_folder(config, folder)
    _print_tables([runner.build_caches(config, runs, folder, display())])
    return 0


def _cache_verify(arguments: list[str]) -> int:
    parser = new_parser("cache verify FOLDER [--rows N]", "Run a study's teachers again.")
    parser.add_argument("folder", type=str, help="the folder that a study wrote its results to")
    parser.add_argument("--rows", type=int, default=256, help="random images of each cache")
    given = parser.parse_args(arguments)
    checks.count("rows", given.rows)
    folder = Path(given.folder)
    config = study_of(folder)
    startup.tensorflow()
    from tfdistill import caches, runner

    table, good = caches.verification(runner.plan(config), folder, given.rows)
    _print_tables([table])
    return 0 if good else 1


def _finish(config: StudyConfig, folder: Path, found: list, study=None) -> int:
    from tfdistill import reports, runner, study_exports
    from tfdistill.records import FINISHED
    from tfdistill.studies import STUDIES

    notes = [config.note] if config.note else []
    published, drawn = None, []
    if study is None:
        study = STUDIES[config.study]
        published = study.PUBLISHED
        drawn = study.figures(found) if hasattr(study, "figures") else []
        planned = len(runner.plan(config))
        if len(found) < planned:
            notes.append(f"Unfinished: {len(found)} of {planned} runs are done.")
    tables = [*study.tables(found), *study_exports.tables(folder)]
    report = reports.write_report(
        folder,
        study.TITLE,
        study.QUESTION,
        tables,
        found,
        notes,
        published=published,
        figures=drawn,
    )
    _print_tables(tables)
    print(f"Report: {report}")
    failed = [record for record in found if record.status != FINISHED]
    for record in failed:
        print(f"{record.name} failed: {record.message}", file=sys.stderr)
    return 1 if failed else 0


def _evaluate(arguments: list[str]) -> int:
    parser = new_parser(
        "evaluate MODEL [--teacher PATH] [--data.KEY VALUE ...]",
        "Measure a saved network (.keras file or SavedModel) on the test images: those of\n"
        "the study whose folder it lies in, unless --config names a study's YAML file.",
    )
    parser.add_argument("model", type=str, help="a .keras file or the folder of a SavedModel")
    parser.add_argument("--teacher", type=str | None, help="also compare with this saved network")
    parser.add_argument("--batch_size", type=int, default=128, help="images at once")
    parser.add_argument("--data", type=DataConfig, help="the images")
    parser.add_argument("--config", type=str | None, help="a study's YAML file, for its images")
    parser.add_argument(UNSAFE, action="store_true", help=UNSAFE_HELP)
    given = parse(parser, arguments, DataConfig, "data.")
    if given.allow_unsafe:
        origin.trust()
    if not Path(given.model).exists():
        raise checks.UsageError(
            f"There is no model at {given.model}. Give a .keras file or a SavedModel."
        )
    path = given.config or study_file(Path(given.model))
    if path:
        values = read_yaml(path).get("data", {})
        check_keys(DataConfig, values, str(path))
        build(DataConfig, values, "data")
        parser.set_defaults({f"data.{key}": value for key, value in flat_items(values)})
        given = parse(parser, arguments, DataConfig, "data.")
    startup.tensorflow()
    from tfdistill import evaluation

    given = parser.instantiate(given)
    _print_tables([evaluation.table(given.model, given.data, given.teacher, given.batch_size)])
    return 0


def _export(arguments: list[str]) -> int:
    from tfdistill import export_commands

    path, config = export_commands.options(arguments)
    if not (path / "config.yaml").exists():
        return export_commands.export_one(path, config, arguments)
    study_of(path)  # its report is written afterwards; one that cannot be is known now
    good = export_commands.export_study(path, config)
    return max(_report([str(path)]), 0 if good else 1)


def _predict(arguments: list[str]) -> int:
    from tfdistill import export_commands

    return export_commands.predict(arguments)


def _demo(arguments: list[str]) -> int:
    from tfdistill import export_commands

    return export_commands.demo(arguments)


def _report(arguments: list[str]) -> int:
    parser = new_parser("report FOLDER", "Write the report of a study's folder anew.")
    parser.add_argument("folder", type=str, help="the folder that a study wrote its results to")
    folder = Path(parser.parse_args(arguments).folder)
    config = study_of(folder)
    from tfdistill import records, runner, sweeps

    if sweeps.is_search(folder):
        found = [*sweeps.finished_teachers(config, folder), *sweeps.trial_records(folder)]
    else:
        order = {run.name: place for place, run in enumerate(runner.plan(config))}
        found = sorted(records.read_all(folder), key=lambda run: order.get(run.name, len(order)))
    if not found:
        raise checks.UsageError(
            f"{folder} holds no finished run yet. Let tfdistill run finish one."
        )
    return _finish(config, folder, found, sweeps if sweeps.is_search(folder) else None)


def _doctor(arguments: list[str]) -> int:
    parser = new_parser("doctor [--data_dir PATH]", "Show what this machine offers to tfdistill.")
    parser.add_argument("--data_dir", type=str | None, help="where prepared data sets lie")
    given = parser.parse_args(arguments)
    startup.tensorflow()
    from tfdistill import doctor

    _print_tables(doctor.tables(given.data_dir))
    return 0


def _reproduce(arguments: list[str]) -> int:
    parser = new_parser(
        "reproduce RECORD [--output FOLDER]",
        "Do a finished run again, first the runs that it needs, from its record alone, and\n"
        "compare weights, figures and history. Exit status 0 if all are equal to the bit.",
    )
    parser.add_argument("record", type=str, help="STUDY/runs/NAME or its record.json")
    parser.add_argument(
        "--output", type=str | None, help="a new folder; default results/NAME-reproduced"
    )
    parser.add_argument(UNSAFE, action="store_true", help=UNSAFE_HELP)
    given = parser.parse_args(arguments)
    if given.allow_unsafe:
        origin.trust()
    from tfdistill import reproduction
    from tfdistill.progress import display

    folder = Path(given.output) if given.output else None
    found = reproduction.reproduce(Path(given.record), folder, display())
    _print_tables(found.tables)
    return 0 if found.equal else 1


def _check_names(runs: list) -> None:
    from tfdistill import models

    for run in runs:
        if run.model and run.model.name != "saved":
            models.check_name(run.model.name)


def _print_tables(tables: list) -> None:
    from rich.console import Console

    from tfdistill import reports

    reports.print_tables(tables, Console(highlight=False))
