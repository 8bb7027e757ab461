"""A rehearsal: one batch of every kind of run of a study, to see beforehand that a long one works.

Runs that differ only in seed, alpha, temperature or part are one kind. Networks, losses and image
sizes are the real ones, so memory is too; only images and epochs are few. Nothing is kept.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tfdistill.config import DataConfig, RunConfig, StudyConfig, TrainingConfig, to_dict
from tfdistill.config.registry import RUN_KINDS
from tfdistill.records import FINISHED, Record, Table
from tfdistill.training import runner, study_folder
from tfdistill.utils.progress import Silent
from tfdistill.utils.storage import digest

if TYPE_CHECKING:
    from tfdistill.training.session import Session

MOST_VIEWS = 2


def rehearse(config: StudyConfig, progress: Silent | None = None) -> tuple[Table, bool]:
    """Do one run of every kind on one batch, in a temporary folder.

    Args:
        config: The study.
        progress: Where to show progress; None shows nothing.

    Returns:
        A table of what was done, and whether every kind of run finished.

    Raises:
        UsageError: What `run_study` would raise.
    """
    session = runner.start(progress or Silent(), config)
    from tfdistill.training import preflight

    planned = runner.plan(config)
    runs = [one_batch(run, session) for run in kinds_of(planned)]
    preflight.check_labels(config, planned, session)
    preflight.check_runs(config, runs, session)
    with tempfile.TemporaryDirectory() as folder:
        runner.do_runs(config, runs, Path(folder), session)
        found = [study_folder.record_of(run, Path(folder)) for run in runs]
    done = [record for record in found if record and record.status == FINISHED]
    return _table(found, len(planned)), len(done) == len(runs)


def kinds_of(runs: list[RunConfig]) -> list[RunConfig]:
    """Return the first run of each kind, needing the first runs of the kinds that it needed."""
    first: dict[str, RunConfig] = {}
    stands_for: dict[str, str] = {}
    for run in runs:
        run = _renamed(run, stands_for)
        kept = first.setdefault(_kind(run), run)
        stands_for[run.name] = kept.name
    return list(first.values())


def one_batch(run: RunConfig, session: "Session") -> RunConfig:
    """Return a run of one epoch on about as many images as a batch has."""
    run = RUN_KINDS[run.kind].one_batch(run)
    if not run.trained and run.model is None and not run.members:
        return run
    cache = run.cache and dataclasses.replace(run.cache, folder=None)
    size = run.training.batch_size
    return dataclasses.replace(
        run, data=_few(run.data, size, session), training=_short(run.training), cache=cache
    )


def _renamed(run: RunConfig, names: dict[str, str]) -> RunConfig:
    def each(several: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(names[name] for name in several))

    return dataclasses.replace(
        run,
        teachers=each(run.teachers),
        members=each(run.members),
        start=run.start and names[run.start],
        split=run.split and dataclasses.replace(run.split, base=names[run.split.base]),
        prune=run.prune and dataclasses.replace(run.prune, base=names[run.prune.base]),
    )


def _kind(run: RunConfig) -> str:
    """Return what is the same for all runs of a kind."""
    values = to_dict(run)
    for name in ("name", "row", "seed"):
        del values[name]
    if run.distillation:
        neutral = dataclasses.replace(run.distillation, alpha=0.5, temperature=1.0)
        values["distillation"] = to_dict(neutral)
    if run.split:
        values["split"] |= {"part": 0}
    values["training"] = to_dict(_short(run.training))
    return digest(values)


def _few(images: DataConfig, batch_size: int, session: "Session") -> DataConfig:
    whole = session.images(images)
    # At least one image of every class.
    count = min(max(batch_size, 2 * whole.num_classes), len(whole.train))
    augment = images.augment
    if augment.views:
        augment = dataclasses.replace(augment, views=min(augment.views, MOST_VIEWS))
    held = images.validation if whole.own_validation else min(count, len(whole.validation))
    return dataclasses.replace(
        images,
        train_examples=count,
        labelled_examples=None,
        validation=held,
        test_examples=min(count, len(whole.test)),
        augment=augment,
    )


def _short(training: TrainingConfig) -> TrainingConfig:
    training = dataclasses.replace(training, epochs=1, steps=None, steps_per_execution=1)
    return dataclasses.replace(training, milestones=[], warmup_epochs=0.0)


def _table(found: list[Record | None], planned: int) -> Table:
    rows = [
        (
            record.name,
            record.row,
            f"{record.parameters / 1e6:.2f}",
            f"{record.seconds:.1f}" if record.status == FINISHED else record.status,
        )
        for record in found
        if record
    ]
    note = (
        f"One batch of each of the {len(rows)} kinds among the study's {planned} runs, with the "
        "real networks and image sizes. M: millions of weights; s: seconds, compiling included. "
        "Nothing was kept."
    )
    columns = ("run", "row", "M", "s")
    return Table("Rehearsal", columns, tuple(rows), note)
