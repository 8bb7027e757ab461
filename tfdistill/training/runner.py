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

from tfdistill import records
from tfdistill.config import RunConfig, StudyConfig, formats, to_dict
from tfdistill.config.registry import STUDIES
from tfdistill.records import FINISHED, Record, Table
from tfdistill.training import kinds
from tfdistill.utils import checks, storage, tensorflow
from tfdistill.utils.progress import Silent

CONFIG_FILE = "config.yaml"
# Its keys are the user's: those of the default do not belong to it.
_SPACE = "sweep.space"
LOCK = ".lock"
# What a study writes again at its end.
_PAGES = ("report.html", "results.csv", "deployment.json")
# Where the results go and what is logged beside them change no result.
_FREE_KEYS = ("output", "tensorboard", "note", "population", "export")


def plan(config: StudyConfig) -> list[RunConfig]:
    """Return the runs of a study, each after those that it needs."""
    return STUDIES[checks.one_of("study", config.study, STUDIES)].runs(config)


def plan_table(config: StudyConfig, folder: Path) -> Table:
    """Return what a study would do in a folder: its runs, what each needs, what is finished."""
    rows = []
    for run in plan(config):
        work = f"{run.training.epochs} epochs" if run.trained else "evaluation"
        work = f"{run.width} x {work}" if run.width > 1 else work
        state = "finished" if finished(run, folder) else "to do"
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
    if not all(finished(run, folder) for run in runs):
        progress.say("Starting TensorFlow and reading the images")
        tensorflow.start()
        preflight(config, runs)
        from tfdistill.training import continuing

        continuing.check(runs, folder, progress)
        with alone(folder):
            write_config(config, folder)
            do_runs(config, runs, folder, progress)
    else:
        progress.say(f"All {len(runs)} runs were finished before; no image is read again")
        with alone(folder):
            if not (folder / CONFIG_FILE).exists():
                write_config(config, folder)
    return [record for run in runs if (record := record_of(run, folder))]


def build_caches(
    config: StudyConfig, runs: list[RunConfig], folder: Path, progress: Silent
) -> Table:
    """Train the teachers of a study, store their logits and return what is stored.

    Raises:
        UsageError: As `run_study`, or no student of the study can be taught by stored logits.
    """
    tensorflow.start()
    from tfdistill.training import continuing, teacher_logits

    users = teacher_logits.of_study(runs, folder)
    if not users:
        raise checks.UsageError(
            "No student of this study can be taught by stored logits. Received: no teacher, "
            "cache=null, or changed images without data.augment.views."
        )
    wanted = {name for user in users for name in user.teachers}
    teachers = [run for run in runs if run.name in with_needs(runs, wanted)]
    preflight(config, teachers)
    continuing.check(teachers, folder, progress)
    with alone(folder):
        write_config(config, folder)
        if not all(finished(run, folder) for run in teachers):
            do_runs(config, teachers, folder, progress)
        return teacher_logits.table(runs, folder, progress)


def with_needs(runs: list[RunConfig], names: set[str]) -> set[str]:
    """Return names of runs with those of all runs that they need."""
    by_name = {run.name: run for run in runs}
    found: set[str] = set()
    while names - found:
        found |= names
        names = {need for name in found for need in by_name[name].needs}
    return found


def check_folder(config: StudyConfig, folder: Path) -> None:
    """Raise if a folder holds the results of another configuration."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return _check_free(folder)
    # A key that an older version did not write had its default.
    there = _flat(_comparable(StudyConfig())) | _flat(_written_config(path))
    here = _flat(_comparable(config))
    different = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    different = [key for key in different if key.split(".")[0] not in _FREE_KEYS]
    if different:
        key = different[0]
        more = f" and {len(different) - 1} more" if len(different) > 1 else ""
        raise checks.UsageError(
            f"{folder} holds the results of another configuration: {key} is {there.get(key)!r} "
            f"there and {here.get(key)!r} here{more}. Choose another --output or remove it."
        )


def _check_free(folder: Path) -> None:
    """Raise if files of a study's names lie where no study was: they are somebody's."""
    there = [name for name in _PAGES if (folder / name).exists()]
    if there and not (folder / "runs").is_dir():
        raise checks.UsageError(
            f"{folder} holds no study, but would lose its {' and '.join(there)}. Move what is "
            "there, or choose another --output."
        )


def do_runs(config: StudyConfig, runs: list[RunConfig], folder: Path, progress: Silent) -> None:
    """Do the runs of a study that are not finished, each after those that it needs."""
    from tfdistill.training import train

    unusable: set[str] = set()
    costs = {run.name: 0.0 if finished(run, folder) else train.cost(run) for run in runs}
    progress.start(f"{len(runs)} runs in {folder}", costs)
    try:
        for group in groups(config, runs):
            ready = []
            for run in group:
                failed = [name for name in run.needs if name in unusable]
                if failed:
                    progress.skip(run.name, f"left out, because {failed[0]} failed")
                    unusable.add(run.name)
                else:
                    ready.append(run)
            found = do_group(ready, folder, progress, config.tensorboard)
            unusable |= {record.name for record in found if record.status != FINISHED}
    finally:
        progress.stop()


def do_group(
    group: list[RunConfig], folder: Path, progress: Silent, tensorboard: bool
) -> list[Record]:
    """Train runs together, unless all of them are finished, and return their records."""
    from tfdistill.training import train

    found = [finished(run, folder) for run in group]
    if all(found):
        for record in found:
            progress.skip(record.name, "finished before")
        return found
    for run in group:
        if problem := damage(run, folder):
            progress.say(f"{problem}; the run is done again")
    progress.begin([run.name for run in group])
    found = train.run_together(group, folder, progress, tensorboard)
    for record in found:
        progress.end(record.name, records.outcome(record))
    return found


def groups(config: StudyConfig, runs: list[RunConfig]) -> list[list[RunConfig]]:
    """Return the runs in groups that are trained together; the same whatever is finished already.

    A group follows from the configuration alone, so an interrupted one is taken up as it was.
    """
    if config.population.size == 1:
        return [[run] for run in runs]
    from tfdistill.training import train

    kinds: dict[str, list[RunConfig]] = {}
    for run in runs:
        kinds.setdefault(train.together_key(run) or run.name, []).append(run)
    groups = []
    for members in kinds.values():
        size = config.population.size or train.fitting(members, config.population.memory)
        groups += [members[at : at + size] for at in range(0, len(members), size)]
    place = {run.name: number for number, run in enumerate(runs)}
    return _after_their_needs(sorted(groups, key=lambda group: place[group[0].name]))


def _after_their_needs(groups: list[list[RunConfig]]) -> list[list[RunConfig]]:
    """Return the groups in an order in which each finds the runs that it needs finished."""
    ordered, waiting = [], {run.name for group in groups for run in group}
    while groups:
        group = next(
            group for group in groups if not waiting & {name for run in group for name in run.needs}
        )
        groups.remove(group)
        ordered.append(group)
        waiting -= {run.name for run in group}
    return ordered


def preflight(config: StudyConfig, runs: list[RunConfig]) -> None:
    """Raise whatever the runs would raise about their input, before anything is written."""
    from tfdistill.training import train

    if config.tensorboard:
        train.check_tensorboard()
    by_name = {run.name: run for run in runs}
    seen = []
    for run in runs:
        features = run.distillation.features if run.distillation else []
        split = run.split and (run.split.layer, run.split.parts)
        view = run.distillation and run.distillation.teacher_view
        kind = (run.kind, run.settings, run.data, run.model, run.training, split, view, features)
        if (run.model or run.kind != kinds.NETWORK) and kind not in seen:
            seen.append(kind)
            train.check(run)
            if features:
                train.check_features(run, by_name[run.teachers[0]])


def finished(run: RunConfig, folder: Path) -> Record | None:
    """Return the record of a run that need not be done again."""
    try:
        record = record_of(run, folder)
        needed = [records.read(records.run_folder(folder, name)) for name in run.needs]
        if None in (record, *needed) or not records.is_of(record, to_dict(run), needed):
            return None
        records.check_files(records.run_folder(folder, run.name), record)
    except storage.DamagedError:
        return None
    return record


def damage(run: RunConfig, folder: Path) -> str:
    """Return what is damaged of a run that was finished; empty, if nothing is."""
    place = records.run_folder(folder, run.name)
    try:
        record = records.read(place)
        if record:
            records.check_files(place, record)
    except storage.DamagedError as error:
        return error.problem
    return ""


def recorded(run: RunConfig, folder: Path) -> bool:
    """Return whether a run has a record, of whatever state."""
    return (records.run_folder(folder, run.name) / records.RECORD_FILE).exists()


def record_of(run: RunConfig, folder: Path) -> Record | None:
    return records.read(records.run_folder(folder, run.name))


@contextlib.contextmanager
def alone(folder: Path, name: str = LOCK, wait: bool = False) -> Iterator[None]:
    """Hold a lock of a study's folder; where another process has it, raise, or wait for it."""
    try:
        with storage.explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held = filelock.FileLock(folder / name).acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        raise checks.UsageError(
            f"Another process is working in {folder}. Wait for it, or choose another --output."
        ) from None
    with held:
        yield


def write_config(config: StudyConfig, folder: Path) -> None:
    """Write the configuration into the study's folder."""
    with storage.appearing(folder / CONFIG_FILE) as path:
        values = {formats.KEY: formats.FORMAT, **_comparable(config)}
        text = yaml.safe_dump(values, sort_keys=False)
        path.write_text(storage.marked(text), encoding="utf-8")


def _written_config(path: Path) -> dict:
    try:
        values = yaml.safe_load(storage.unmarked(path))
    except (yaml.YAMLError, ValueError) as error:
        raise storage.DamagedError(path, f"is damaged ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise storage.DamagedError(path, "is damaged (it holds no keys and values)")
    return formats.current(values, formats.number(path, values))


def _comparable(config: StudyConfig) -> dict:
    return to_dict(dataclasses.replace(config, output=None))


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        inner = isinstance(value, dict) and prefix + key != _SPACE
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


def _shortened(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{os.path.commonprefix(names)}*" if names else "–"
