"""Does the runs of a study in its folder: in order, once each, going on where it stopped.

TensorFlow is imported only when there is something to train, so that a plan, a finished study and
an error are answered at once.
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfdistill import records
from tfdistill.config import DataConfig, RunConfig, StudyConfig
from tfdistill.config.registry import RUN_KINDS, STUDIES
from tfdistill.records import FINISHED, Record, Table
from tfdistill.training.study_folder import (
    CONFIG_FILE,
    alone,
    check_folder,
    check_records,
    damage,
    finished,
    record_of,
    write_config,
)
from tfdistill.training.workers import executors, schedule
from tfdistill.utils import checks, tensorflow
from tfdistill.utils.progress import Silent

if TYPE_CHECKING:
    from tfdistill.training.session import Session
    from tfdistill.training.workers.pool import Kind


def plan(config: StudyConfig) -> list[RunConfig]:
    """Return the runs of a study, each after those that it needs, each with its network's size.

    Raises:
        UsageError: Settings that the study cannot use, or teachers that see images at sizes that
            its students cannot be taught from.
    """
    runs = STUDIES[checks.one_of("study", config.study, STUDIES)].runs(config)
    runs = [_as_itself(_at_its_size(run)) for run in runs]
    seen = {run.name: run.data.input_size for run in runs}
    return [_with_size_of_teachers(run, seen) for run in runs]


def _at_its_size(run: RunConfig) -> RunConfig:
    size = run.model.input_size if run.model else None
    if size is None:
        return run
    return dataclasses.replace(run, data=dataclasses.replace(run.data, input_size=size))


def _as_itself(run: RunConfig) -> RunConfig:
    """Return a run without what changes no result: where images are kept, and what renders them."""
    images = dataclasses.replace(run.data, storage=DataConfig.storage, workers=DataConfig.workers)
    return dataclasses.replace(run, data=images)


def _with_size_of_teachers(run: RunConfig, seen: dict[str, int | None]) -> RunConfig:
    for names, what in ((run.teachers, "taught by"), (run.members, "an average of")):
        sizes = {seen[name] for name in names}
        if len(sizes) > 1:
            raise checks.UsageError(
                f"The run {run.name} is {what} networks that see images at one size. Received: "
                f"{', '.join(sorted(map(str, sizes)))}. Give them one model.input_size, or save "
                "them as one network, a tfdistill.Ensemble, which shrinks the images for each."
            )
    return (
        dataclasses.replace(run, teacher_input_size=seen[run.teachers[0]]) if run.teachers else run
    )


def plan_table(config: StudyConfig, folder: Path) -> Table:
    """Return what a study would do in a folder: its runs, what each needs, what is finished."""
    rows: list[tuple[str, ...]] = []
    damaged: list[str] = []
    for run in plan(config):
        training = run.training
        steps = f"{training.steps} steps in " if training.steps else ""
        epochs = f"{training.epochs} epoch{'s' * (training.epochs > 1)}"
        work = f"{steps}{epochs}" if run.trained else "evaluation"
        work = f"{run.width} x {work}" if run.width > 1 else work
        state = "finished" if finished(run, folder) else "to do"
        if problem := damage(run, folder):
            state, damaged = "to do again", [*damaged, f" {problem}."]
        rows.append((run.name, work, _shortened(run.needs), state))
    note = f"Images: {config.data.source}. Results go to {folder}.{''.join(damaged)}"
    return Table(f"{len(rows)} runs", ("run", "work", "needs", "state"), tuple(rows), note)


def run_study(
    config: StudyConfig,
    folder: Path,
    progress: Silent | None = None,
    workers: int = 1,
    executor: str = "processes",
    address: str | None = None,
) -> list[Record]:
    """Do all runs of a study that are not finished and return the records of all.

    With several workers, each is a process that does runs with `config.threads` threads. On CPUs
    their weights are to the bit those of one process with as many threads.

    Args:
        config: The study.
        folder: Where its results are or will be; with workers on other machines on a shared disk.
        progress: Where to show progress; None shows nothing.
        workers: Runs that are done at the same time; 1 does them in this process.
        executor: Where workers are: `processes` of this machine, or `ray`.
        address: Of a Ray cluster; None takes RAY_ADDRESS, else starts Ray on this machine.

    Raises:
        UsageError: A wrong setting, missing data, workers that cannot be had, or a folder that
            holds another configuration's results or is in use by another process; nothing is
            written then.
    """
    progress = progress or Silent()
    runs = plan(config)
    check_folder(config, folder)
    if all(finished(run, folder) for run in runs):
        progress.say(f"All {len(runs)} runs were finished before; no image is read again")
        with alone(folder):
            if not (folder / CONFIG_FILE).exists():
                write_config(config, folder)
    else:
        kind = executors.kind_of(workers, executor, address)
        with contextlib.closing(kind) if kind else contextlib.nullcontext():
            _do_study(config, runs, folder, progress, workers, kind)
    return [record for run in runs if (record := record_of(run, folder))]


def _do_study(
    config: StudyConfig,
    runs: list[RunConfig],
    folder: Path,
    progress: Silent,
    workers: int,
    kind: "Kind | None",
) -> None:
    threads = kind.threads(workers, config.threads) if kind else config.threads or 0
    session = start(progress, config, trains=kind is None)
    from tfdistill.training import preflight

    if kind and (mirrored := [run for run in runs if run.training.strategy != "none"]):
        raise checks.UsageError(
            f"With training.strategy={mirrored[0].training.strategy} each run takes all devices. "
            f"Received: {workers} workers. Leave them out, or set training.strategy: none."
        )
    preflight.check_labels(config, runs, session)
    preflight.check_runs(config, runs, session)
    check_records(runs, folder, session, threads)
    with alone(folder):
        write_config(config, folder)
        if kind:
            plural = "s" if threads > 1 else ""
            progress.say(
                f"{workers} workers of {threads} thread{plural} each: one process gives the same "
                f"bits with --threads {threads}"
            )
        theirs = dataclasses.replace(config, threads=threads or None)
        with executors.opened(kind, workers, theirs, folder, session) as executor:
            do_runs(config, runs, folder, session, executor)


def start(progress: Silent, config: StudyConfig | None = None, trains: bool = True) -> "Session":
    """Start TensorFlow, which takes some seconds, and return a session for a study.

    Args:
        progress: Where to show progress.
        config: The study.
        trains: Whether runs are done in this process, with the study's number of threads.

    Raises:
        UsageError: TensorFlow cannot be started, or has begun to compute with other threads.
    """
    config = config or StudyConfig()
    if "tensorflow" not in sys.modules:
        progress.say("Starting TensorFlow and reading the images")
    if trains and config.threads:
        tensorflow.start(devices=False)
        from tfdistill.utils import machine

        machine.use_threads(config.threads)
        if machine.threads() != config.threads:
            raise checks.UsageError(
                "The number of threads is set before TensorFlow computes. Received: "
                f"threads={config.threads} in a process that computes with {machine.threads()}. Do "
                "this in a new process, or set threads to null."
            )
    tensorflow.start()
    from tfdistill.training.session import Session

    return Session(progress, config.tensorboard, config.data)


def build_caches(
    config: StudyConfig, runs: list[RunConfig], folder: Path, progress: Silent
) -> Table:
    """Train the teachers of a study, store their logits and return what is stored.

    Raises:
        UsageError: As `run_study`, or no student of the study can be taught by stored logits.
    """
    session = start(progress, config)
    from tfdistill.training import preflight, teacher_logits

    users = [run for run in runs if teacher_logits.usable(run)]
    if not users:
        raise checks.UsageError(
            "No student of this study can be taught by stored logits. Received: no teacher, "
            "cache=null, or augmented images without data.augment.views."
        )
    wanted = {name for user in users for name in user.teachers}
    teachers = [run for run in runs if run.name in with_needs(runs, wanted)]
    preflight.check_labels(config, runs, session)
    preflight.check_runs(config, teachers, session)
    check_records(teachers, folder, session)
    # Beside another process that has trained the teachers, this one helps to store their logits.
    if not (folder / CONFIG_FILE).exists() or not all(finished(run, folder) for run in teachers):
        with alone(folder):
            write_config(config, folder)
            do_runs(config, teachers, folder, session)
    return teacher_logits.table(runs, folder, session)


def with_needs(runs: list[RunConfig], names: set[str]) -> set[str]:
    """Return names of runs with those of all runs that they need."""
    by_name = {run.name: run for run in runs}
    found: set[str] = set()
    while names - found:
        found |= names
        names = {need for name in found for need in by_name[name].needs}
    return found


def do_runs(
    config: StudyConfig,
    runs: list[RunConfig],
    folder: Path,
    session: "Session",
    executor: executors.Executor | None = None,
) -> None:
    """Do the runs of a study that are not finished, each after those that it needs.

    Args:
        config: The study.
        runs: Of it, each after those that it needs.
        folder: The study's folder, whose lock is held.
        session: What the runs of this process share.
        executor: Where they are done; None: in this process.
    """
    executor = executor or executors.Here(folder, session)
    undone = [run for run in runs if not finished(run, folder)]
    costs = dict.fromkeys((run.name for run in runs), 0.0)
    costs |= {run.name: cost(run, session) for run in undone}
    caches = _caches(undone, folder, session) if executor.parallel else {}
    plan = schedule.Schedule(schedule.tasks(groups(config, runs, session), caches))
    progress = session.progress
    progress.start(f"{len(runs)} runs in {folder}", costs)
    try:
        while plan.waiting or executor.busy:
            while executor.has_room and (ready := plan.ready()):
                _begin(executor.choose(ready), plan, executor, folder, progress)
            for task, found in executor.ended():
                plan.end(task, _unusable(found))
    finally:
        progress.stop()


def _caches(runs: list[RunConfig], folder: Path, session: "Session") -> dict[str, str]:
    """Return where the logits of runs' teachers are stored, by the runs' names."""
    from tfdistill.training import teacher_logits

    found = {}
    for run in runs:
        if teacher_logits.usable(run):
            images = session.images(run.data)
            found[run.name] = str(teacher_logits.folder_of(run, images, folder))
    return found


def _begin(
    task: schedule.Task,
    plan: schedule.Schedule,
    executor: executors.Executor,
    folder: Path,
    progress: Silent,
) -> None:
    """Have done what of a task is not finished, and needs nothing that failed."""
    plan.begin(task)
    failed = {run.name: need for run in task.runs if (need := plan.failed_need(run))}
    left = tuple(run for run in task.runs if run.name not in failed)
    if not task.stores:
        for name, need in failed.items():
            progress.skip(name, f"left out, because {need} failed")
        # Of a group that was interrupted no run is finished, so that it is taken up as it was.
        found = _finished_before(left, folder, progress)
        plan.fail({*failed, *_unusable(found.values())})
        left = tuple(run for run in left if run.name not in found)
    if left:
        executor.begin(dataclasses.replace(task, runs=left))
    else:
        plan.end(task)


def _unusable(found: Iterable[Record]) -> set[str]:
    return {record.name for record in found if record.status != FINISHED}


def do_group(group: list[RunConfig], folder: Path, session: "Session") -> list[Record]:
    """Train together those runs that are not finished, and return the records of all."""
    progress = session.progress
    found = _finished_before(group, folder, progress)
    left = [run for run in group if run.name not in found]
    if left:
        for run in left:
            if problem := damage(run, folder):
                progress.say(f"{problem}; the run is done again")
        progress.begin([run.name for run in left])
        with checks.readers():
            done = RUN_KINDS[left[0].kind].run_together(left, folder, session)
        for record in done:
            progress.end(record.name, records.outcome(record))
        found |= {record.name: record for record in done}
    return [found[run.name] for run in group]


def _finished_before(
    group: Sequence[RunConfig], folder: Path, progress: Silent
) -> dict[str, Record]:
    """Return the records of those runs that are finished, by name, and say so."""
    found = {run.name: record for run in group if (record := finished(run, folder))}
    for name in found:
        progress.skip(name, "finished before")
    return found


def cost(run: RunConfig, session: "Session") -> float:
    """Return about how many operations a run takes, those of its forward passes."""
    return RUN_KINDS[run.kind].cost(run, session)


def groups(config: StudyConfig, runs: list[RunConfig], session: "Session") -> list[list[RunConfig]]:
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
        size = config.population.size or 1
        if config.population.size is None and len(members) > 1:
            size = train.fitting(members, config.population.memory, session)
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


def _shortened(names: tuple[str, ...]) -> str:
    """Return the names of runs in a few words: all of up to two, else what they begin with."""
    if len(names) <= 2:
        return ", ".join(names) or "–"
    return f"{os.path.commonprefix(names)}*"
