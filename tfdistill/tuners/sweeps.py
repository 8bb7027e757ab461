"""Searches: Keras Tuner proposes, `training` trains, one record for every trial and seed.

Trials are compared by their validation accuracy, averaged over seeds; the best one, and the student
alone, are then trained again with fresh seeds before any test accuracy is reported.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfdistill import records
from tfdistill.config import RunConfig, StudyConfig
from tfdistill.records import Record, Table, spread
from tfdistill.reporting import significance
from tfdistill.training import runner, study_folder
from tfdistill.tuners import trials
from tfdistill.utils.progress import Silent
from tfdistill.utils.text import interval, mean_std

if TYPE_CHECKING:
    from tfdistill.training.session import Session

BEST, ALONE = "best trial, fresh seeds", "student alone, fresh seeds"
NAMES = {BEST: "the best trial, with fresh seeds,"}
TITLE = "Search"
QUESTION = "Which settings make the best student on the validation images?"
PROJECT = "tuner"


def is_worker() -> bool:
    """Return whether this process is a worker of Keras Tuner's distributed mode."""
    name = os.environ.get("KERASTUNER_TUNER_ID", "")
    return bool(name) and "chief" not in name


def is_search(folder: Path) -> bool:
    """Return whether a folder holds the results of a search."""
    return (folder / PROJECT).is_dir()


def plan_table(config: StudyConfig, folder: Path) -> Table:
    """Return what a search would do: its teachers, its space, its size."""
    trials.check(config)
    sweep = config.sweep
    rows = [(run.name, "teacher", _state(run, folder)) for run in trials.teachers(config)]
    rows += [(key, "searched", str(values)) for key, values in sweep.space.items()]
    count = trials.count(config)
    known = f"{count} trials, " if count else ""
    note = (
        f"Tuner: {sweep.tuner}, {known}{len(config.seeds)} seeds each. Images: "
        f"{config.data.source}. Results go to {folder}."
    )
    return Table("Search", ("", "", ""), tuple(rows), note)


def search(config: StudyConfig, folder: Path, progress: Silent | None = None) -> list[Record]:
    """Search, confirm the best trial with fresh seeds, and return all records.

    The same call resumes after an interruption: finished trials are kept, a half-finished one is
    resumed at its last epoch. In Keras Tuner's distributed mode (`KERASTUNER_TUNER_ID`,
    `KERASTUNER_ORACLE_IP`, `KERASTUNER_ORACLE_PORT`) every process makes this call in the same
    folder: workers return when the search is over, the chief confirms the best trial.

    Args:
        config: The study, with `sweep`.
        folder: Where its results are or will be.
        progress: Where to show progress; None shows nothing.

    Raises:
        UsageError: A wrong search space or setting, a folder that holds another configuration's
            results or is in use, or an oracle that cannot be reached.
    """
    progress = progress or Silent()
    trials.check(config)
    study_folder.check_folder(config, folder, grows=False)
    session = runner.start(progress, config)
    from tfdistill.training import preflight

    seen = [*trials.teachers(config), trials.first(config)]
    preflight.check_runs(config, seen, session)
    study_folder.check_records(seen, folder, session)
    worker = os.environ.get("KERASTUNER_TUNER_ID", "")
    with study_folder.alone(folder, f".lock-{worker}" if worker else ".lock"):
        if is_worker() or not worker:
            _prepare(config, folder, session, wait=is_worker())
        from tfdistill.tuners import study_tuner

        tuner = study_tuner.StudyTuner(config, folder, session, PROJECT)
        costs = dict.fromkeys(trials.names(config), runner.cost(trials.first(config), session))
        progress.start(f"{len(costs)} runs in {folder}", costs)
        try:
            if not worker:
                tuner.mend()
            tuner.search(verbose=0)
        finally:
            progress.stop()
        if not is_worker():
            _confirm(config, folder, tuner, session)
    return [*finished_teachers(config, folder), *trial_records(folder)]


def finished_teachers(config: StudyConfig, folder: Path) -> list[Record]:
    """Return the records of the teachers that are finished."""
    found = (records.read(records.run_folder(folder, run.name)) for run in trials.teachers(config))
    return [record for record in found if record]


def trial_records(folder: Path) -> list[Record]:
    """Return the records of trials, in their order, and of what confirms the best one."""
    found = records.read_all(folder)  # in the order of their names
    return [
        record
        for kind in ("trial-", "best-", "alone-")
        for record in found
        if record.name.startswith(kind)
    ]


def comparisons(found: Sequence[Record]) -> list[significance.Family]:
    """Return the best trial, confirmed with fresh seeds, against the same student alone."""
    rows = records.by_row(record for record in found if record.row in (BEST, ALONE))
    words = "the same student alone"
    family = significance.paired_runs(rows.get(ALONE, []), BEST, rows.get(BEST, []), words)
    return [family] if family else []


def tables(found: Sequence[Record]) -> list[Table]:
    """Return the tables of a search: confirmation with fresh seeds, and all trials."""
    return [_confirmation_table(found), _trials_table(found)]


def _prepare(config: StudyConfig, folder: Path, session: "Session", wait: bool) -> None:
    """Train the teachers, once, whichever process comes first."""
    with study_folder.alone(folder, ".lock-teachers", wait=wait):
        study_folder.write_config(config, folder)
        teachers = trials.teachers(config)
        if not all(study_folder.finished(run, folder) for run in teachers):
            runner.do_runs(config, teachers, folder, session)


def _confirm(config: StudyConfig, folder: Path, tuner, session: "Session") -> None:
    from tfdistill.tuners.study_tuner import searched

    values = searched(tuner.oracle.get_best_trials(1)[0].hyperparameters.values)
    chosen = [
        dataclasses.replace(trials.trial_run(config, values, "best", seed), row=BEST)
        for seed in config.sweep.confirm_seeds
    ]
    alone = [
        dataclasses.replace(
            run, name=f"alone-s{run.seed}", row=ALONE, teachers=(), distillation=None, cache=None
        )
        for run in chosen
    ]
    runner.do_runs(config, [*alone, *chosen], folder, session)


def _state(run: RunConfig, folder: Path) -> str:
    return "finished" if study_folder.finished(run, folder) else "to do"


# --- the tables -------------------------------------------------------------------------------


def _confirmation_table(found: Sequence[Record]) -> Table:
    rows = records.by_row(record for record in found if record.row in (BEST, ALONE))
    family = next(iter(comparisons(found)), None)
    lines = []
    for row in (row for row in (ALONE, BEST) if row in rows):
        runs = rows[row]
        gain = interval(family.rows.get(row) if family else None)
        accuracy, agreement = (spread(runs, f"test_{name}") for name in ("accuracy", "agreement"))
        lines.append((row, str(len(runs)), mean_std(accuracy), gain, mean_std(agreement)))
    best = rows.get(BEST)
    chosen = f" The best trial: {_settings_of(best[0], found)}." if best else ""
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds that no trial had; "
        "interval of the paired t-test: both rows begin with the same weights for each seed."
        f"{chosen}"
    )
    columns = ("", "runs", "test accuracy", "gain, 95 % interval", "agreement %")
    return Table("The best trial, confirmed", columns, tuple(lines), note)


def _trials_table(found: Sequence[Record]) -> Table:
    by_row = records.by_row(record for record in found if record.name.startswith("trial-"))
    spreads = {row: spread(runs, "validation_accuracy") for row, runs in by_row.items()}
    order = sorted(by_row, key=lambda row: -spreads[row].mean)
    rows = tuple(
        (str(place), row, str(len(by_row[row])), spreads[row].text())
        for place, row in enumerate(order, start=1)
    )
    note = (
        "Mean ± standard deviation over seeds, in percent. Trials are compared on validation "
        "images alone, and the best of many is better by luck too: see the table above."
    )
    return Table("Trials", ("", "trial", "seeds", "validation accuracy"), rows, note)


def _settings_of(best: Record, found: Sequence[Record]) -> str:
    same = ("model", "training", "distillation")
    for record in found:
        if record.name.startswith("trial-") and all(
            record.config[part] == best.config[part] for part in same
        ):
            return record.row
    return "unknown"
