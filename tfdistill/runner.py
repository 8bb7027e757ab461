"""Runs a study in its folder: in order, once each, one process at a time, going on where it
stopped.

TensorFlow is imported only when there is something to train, so that a plan, a finished study and
an error are answered at once.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import filelock
import yaml

from tfdistill import checks, records, startup
from tfdistill.config import RunConfig, StudyConfig, to_dict
from tfdistill.progress import Silent
from tfdistill.records import FINISHED, Record, Table
from tfdistill.studies import STUDIES

CONFIG_FILE = "config.yaml"
# Where the results go and what is logged beside them change no result.
_FREE_KEYS = ("output", "tensorboard", "note")


def plan(config: StudyConfig) -> list[RunConfig]:
    """Return the runs of a study, each after those that it needs."""
    return STUDIES[checks.one_of("study", config.study, STUDIES)].runs(config)


def plan_table(config: StudyConfig, folder: Path) -> Table:
    """Return what a study would do in a folder: its runs, what each needs, what is finished."""
    rows = []
    for run in plan(config):
        work = f"{run.training.epochs} epochs" if run.trained else "evaluation"
        work = f"{run.width} x {work}" if run.width > 1 else work
        state = "finished" if _finished(run, folder) else "to do"
        rows.append((run.name, work, _shortened(run.needs), state))
    note = f"Images: {config.data.source}. Results go to {folder}."
    return Table(f"{len(rows)} runs", ("run", "work", "needs", "state"), tuple(rows), note)


def run_study(config: StudyConfig, folder: Path, progress: Silent | None = None) -> list[Record]:
    """Do all runs of a study that are not finished and return the records of all.

    Args:
        config: The study.
        folder: Where its results are or will be.
        progress: Where to show progress; None shows nothing.

    Raises:
        UsageError: A wrong setting, missing data, or a folder that holds another configuration's
            results or is in use by another process; nothing is written then.
    """
    progress = progress or Silent()
    runs = plan(config)
    check_folder(config, folder)
    if not all(_finished(run, folder) for run in runs):
        progress.say("Starting TensorFlow and reading the images")
        startup.tensorflow()
        _preflight(config, runs)
        with _alone(folder):
            _write_config(config, folder)
            _do(config, runs, folder, progress)
    return [record for run in runs if (record := _record(run, folder))]


def tables(config: StudyConfig, found: list[Record]) -> list[Table]:
    """Return the tables of a study."""
    return STUDIES[config.study].tables(found)


def check_folder(config: StudyConfig, folder: Path) -> None:
    """Raise if a folder holds the results of another configuration."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return
    there, here = _flat(yaml.safe_load(path.read_text())), _flat(_comparable(config))
    different = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    different = [key for key in different if key.split(".")[0] not in _FREE_KEYS]
    if different:
        key = different[0]
        more = f" and {len(different) - 1} more" if len(different) > 1 else ""
        raise checks.UsageError(
            f"{folder} holds the results of another configuration: {key} is {there.get(key)!r} "
            f"there and {here.get(key)!r} here{more}. Choose another --output or remove it."
        )


def _do(config: StudyConfig, runs: list[RunConfig], folder: Path, progress: Silent) -> None:
    from tfdistill import training

    unusable: set[str] = set()
    costs = {run.name: 0.0 if _finished(run, folder) else _cost(run) for run in runs}
    progress.start(f"{len(runs)} runs in {folder}", costs)
    try:
        for run in runs:
            record = _finished(run, folder)
            failed = [name for name in run.needs if name in unusable]
            if failed:
                progress.skip(run.name, f"left out, because {failed[0]} failed")
                unusable.add(run.name)
                continue
            if record:
                progress.skip(run.name, "finished before")
            else:
                progress.begin(run.name)
                record = training.run(run, folder, progress, config.tensorboard)
                progress.end(record)
            if record.status != FINISHED:
                unusable.add(run.name)
    finally:
        progress.stop()


def _preflight(config: StudyConfig, runs: list[RunConfig]) -> None:
    """Raise whatever the runs would raise about their input, before anything is written."""
    from tfdistill import training

    if config.tensorboard:
        training.check_tensorboard()
    seen = []
    for run in runs:
        kind = (run.data, run.model, run.training)
        if run.model and kind not in seen:
            seen.append(kind)
            training.check(run)


def _finished(run: RunConfig, folder: Path) -> Record | None:
    """Return the record of a run that need not be done again."""
    record = _record(run, folder)
    if record is None:
        return None
    needed = [records.read(records.run_folder(folder, name)) for name in run.needs]
    if None in needed or record.key != records.run_key(to_dict(run), needed):
        return None
    return record


def _record(run: RunConfig, folder: Path) -> Record | None:
    return records.read(records.run_folder(folder, run.name))


def _cost(run: RunConfig) -> float:
    """Return the run's cost relative to a one-epoch training of one network."""
    return float(run.training.epochs * run.width) if run.trained else 0.1


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = filelock.FileLock(folder / ".lock").acquire(timeout=0)
    except filelock.Timeout:
        raise checks.UsageError(
            f"Another process is working in {folder}. Wait for it, or choose another --output."
        ) from None
    with held:
        yield


def _write_config(config: StudyConfig, folder: Path) -> None:
    with records.appearing(folder / CONFIG_FILE) as path:
        path.write_text(yaml.safe_dump(_comparable(config), sort_keys=False))


def _comparable(config: StudyConfig) -> dict:
    return to_dict(dataclasses.replace(config, output=None))


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _shortened(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{os.path.commonprefix(names)}*" if names else "–"
