"""What each command does: it reads its words, makes one call, prints; and returns an exit status.

Only what a command needs is imported: help and errors do not wait for TensorFlow.
"""

import sys
from pathlib import Path

from tfdistill.cli.options import StudyOptions, read, study_file, study_of, study_options
from tfdistill.config import DataConfig, StudyConfig
from tfdistill.models import saved_model_safety
from tfdistill.utils import checks, tensorflow


def run(arguments: list[str]) -> int:
    return _study(study_options("run", arguments))


def train(arguments: list[str]) -> int:
    return _study(study_options("train", arguments, {"study": "single"}, "-train"))


def _study(options: StudyOptions) -> int:
    from tfdistill.training import runner, study_folder

    config, folder = options.config, options.folder
    study_folder.check_folder(config, folder)
    if options.dry_run:
        _print_tables([runner.plan_table(config, folder)])
        return 0
    from tfdistill.utils.progress import display

    if options.rehearse:
        from tfdistill.training import rehearsal

        table, good = rehearsal.rehearse(config, display())
        _print_tables([table])
        return 0 if good else 1
    if config.export:
        config.export.check_packages()
    found = runner.run_study(config, folder, display())
    good = True
    if config.export:
        from tfdistill.cli import export as export_commands

        good = export_commands.export_study(folder, config.export)
    return max(_finish(config, folder, found), 0 if good else 1)


def studies(arguments: list[str]) -> int:
    name = read("studies", arguments).places["name"]
    from tfdistill.cli import list_studies

    print(list_studies.page(name) if name else list_studies.pages())
    return 0


def sweep(arguments: list[str]) -> int:
    options = study_options("sweep", arguments, suffix="-sweep")
    from tfdistill.training import study_folder
    from tfdistill.tuners import sweeps

    config, folder = options.config, options.folder
    plan = sweeps.plan_table(config, folder)
    study_folder.check_folder(config, folder)
    if options.dry_run:
        _print_tables([plan])
        return 0
    from tfdistill.utils.progress import display

    found = sweeps.search(config, folder, display())
    if sweeps.is_worker():
        print("The search is over; the chief confirms the best trial and writes the report.")
        return 0
    return _finish(config, folder, found, sweeps)


def cache_build(arguments: list[str]) -> int:
    options = study_options("cache build", arguments)
    from tfdistill.training import runner, study_folder
    from tfdistill.utils.progress import display

    config, folder = options.config, options.folder
    runs = runner.plan(config)
    study_folder.check_folder(config, folder)
    _print_tables([runner.build_caches(config, runs, folder, display())])
    return 0


def cache_verify(arguments: list[str]) -> int:
    given = read("cache verify", arguments)
    rows = given.options.rows
    folder = Path(given.places["folder"])
    config = study_of(folder)
    tensorflow.start()
    from tfdistill.training import runner, teacher_logits
    from tfdistill.training.session import Session

    table, good = teacher_logits.verification(runner.plan(config), folder, rows, Session())
    _print_tables([table])
    return 0 if good else 1


def _finish(config: StudyConfig, folder: Path, found: list, study=None) -> int:
    from tfdistill.config.registry import STUDIES
    from tfdistill.export import study_exports
    from tfdistill.records import FINISHED
    from tfdistill.reporting import reports
    from tfdistill.training import runner

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


def evaluate(arguments: list[str]) -> int:
    given = read("evaluate", arguments)
    options, model = given.options, Path(given.places["model"])
    if given.unsafe:
        saved_model_safety.trust()
    if not model.exists():
        raise checks.UsageError(
            f"There is no model at {model}. Give a .keras file or a SavedModel."
        )
    images = given.images(options.config or study_file(model)) or DataConfig()
    tensorflow.start()
    from tfdistill.cli.evaluate import table

    _print_tables([table(str(model), images, options.teacher, options.batch_size)])
    return 0


def export(arguments: list[str]) -> int:
    from tfdistill.cli import export as export_commands

    given = read("export", arguments)
    path, config = Path(given.places["path"]), export_commands.config_of(given.options)
    if not (path / "config.yaml").exists():
        return export_commands.export_one(path, config, given)
    export_commands.check_own_images(path, given)
    study_of(path)  # its report is written afterwards; one that cannot be is known now
    good = export_commands.export_study(path, config)
    return max(report([str(path)]), 0 if good else 1)


def predict(arguments: list[str]) -> int:
    from tfdistill.cli import export as export_commands

    return export_commands.predict(arguments)


def demo(arguments: list[str]) -> int:
    from tfdistill.cli import export as export_commands

    return export_commands.demo(arguments)


def report(arguments: list[str]) -> int:
    folder = Path(read("report", arguments).places["folder"])
    config = study_of(folder)
    from tfdistill import records
    from tfdistill.training import runner
    from tfdistill.tuners import sweeps

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


def doctor(arguments: list[str]) -> int:
    options = read("doctor", arguments).options
    tensorflow.start()
    from tfdistill.cli.doctor import tables

    _print_tables(tables(options.data_dir))
    return 0


def reproduce(arguments: list[str]) -> int:
    given = read("reproduce", arguments)
    output = given.options.output
    if given.unsafe:
        saved_model_safety.trust()
    from tfdistill.training import reproduction
    from tfdistill.utils.progress import display

    folder = Path(output) if output else None
    found = reproduction.reproduce(Path(given.places["record"]), folder, display())
    _print_tables(found.tables)
    return 0 if found.equal else 1


def _print_tables(tables: list) -> None:
    from rich.console import Console

    from tfdistill.reporting import reports

    reports.print_tables(tables, Console(highlight=False))
