"""The teacher caches of a study: where each lies, what it is made of, how well it agrees."""

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import scipy.special

from tfdistill import data, teacher_cache
from tfdistill.config import AugmentConfig, CacheConfig, DataConfig, RunConfig, formats, to_dict
from tfdistill.data import pipeline
from tfdistill.data.dataset import UNLABELLED
from tfdistill.records import Table
from tfdistill.teacher_cache import logit_reading, shards
from tfdistill.training import evaluation
from tfdistill.training.session import Session
from tfdistill.utils import checks
from tfdistill.utils.progress import Silent
from tfdistill.utils.storage import digest

_T = TypeVar("_T")
# Stored logits may be this far from those that the teachers give again; float16 has 11 bits.
TOLERANCE = {"float32": 1e-3, "float16": 3e-2}
# bfloat16 has 8 bits, and sums them in another order on other processors.
TOLERANCE_OF_BFLOAT16 = 0.3
# Where nothing else is asked, of so many classes only the largest are stored, for students that
# are taught at these temperatures. A search may try any others, and shares the logits of all.
MANY_CLASSES, LARGEST, STORED_DTYPE = 100, 50, "float16"
TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0)


def usable(config: RunConfig) -> bool:
    """Return whether a run's teachers can be asked beforehand."""
    return bool(
        config.teachers
        and config.cache
        and as_teachers_see(config).augment.num_views
        and not config.taught.features
    )


def check(config: RunConfig) -> None:
    """Raise if a run's teachers shall see other views than it, and their logits cannot be stored.

    Raises:
        UsageError: There is no cache, there are too few views, or mixed images, whose other views
            are mixed with other images.
    """
    wanted = config.distillation.teacher_view if config.distillation else "same"
    other_size = bool(config.teachers) and config.teacher_input_size != config.data.input_size
    if other_size and not usable(config):
        raise checks.UsageError(
            "A teacher that sees images at another size than its student teaches by stored logits. "
            f"Received: model.input_size {config.teacher_input_size} and {config.data.input_size}, "
            f"cache={config.cache!r}, views={config.data.augment.num_views!r}. Set cache and "
            "data.augment.views, or one size for both."
        )
    if config.distillation and config.distillation.min_confidence and not usable(config):
        raise checks.UsageError(
            "distillation.min_confidence looks at stored logits. Received: "
            f"{config.distillation.min_confidence}, cache={config.cache!r}, "
            f"views={config.data.augment.num_views!r}. Set cache and data.augment.views, or "
            "min_confidence: 0."
        )
    augment = config.data.augment
    if wanted != "same" and augment.mixes:
        raise checks.UsageError(
            f"distillation.teacher_view={wanted!r} needs images that are not mixed. Received: "
            f"data.augment.mixup={augment.mixup!r}, data.augment.cutmix={augment.cutmix!r}. Set "
            "both to 0, or teacher_view: same."
        )
    views = augment.num_views
    if wanted == "same" or usable(config) and (wanted == "fixed" or views and views > 1):
        return
    needed = "a cache" if wanted == "fixed" else "a cache and data.augment.views of 2 or more"
    raise checks.UsageError(
        f"distillation.teacher_view={wanted!r} needs {needed}. "
        f"Received: cache={config.cache!r}, views={views!r}. Set them, or teacher_view: same."
    )


def stored(config: RunConfig, images: data.Dataset) -> CacheConfig:
    """Return how the logits of a run's teachers are stored, with what `cache.top_k` leaves open.

    Args:
        config: A run with a cache.
        images: Its images. Of 100 classes and more the 50 largest are kept, in float16; all where
            an image has several labels, and where the student learns from standardised logits or
            at a temperature that is none of `TEMPERATURES`.
    """
    cache, taught = config.stored, config.taught
    if cache.top_k is not None:
        return dataclasses.replace(cache, top_k=cache.largest)
    if images.num_classes < MANY_CLASSES or images.multi_label:
        return cache
    if taught.standardize or taught.temperature not in TEMPERATURES:
        return cache
    temperatures = list(TEMPERATURES)
    return dataclasses.replace(cache, dtype=STORED_DTYPE, top_k=LARGEST, temperatures=temperatures)


def as_teachers_see(config: RunConfig) -> DataConfig:
    """Return the images that a run's teachers see: at their size, the original ones where fixed."""
    fixed = config.distillation and config.distillation.teacher_view == "fixed"
    augment = AugmentConfig() if fixed else config.data.augment
    return dataclasses.replace(
        config.data,
        augment=augment,
        input_size=config.teacher_input_size,
        labelled_examples=None,  # they see no labels
    )


def of_run(
    config: RunConfig, images: data.Dataset, study_folder: Path, progress: Silent | None = None
) -> teacher_cache.TeacherCache:
    """Return the cache of a run's teachers, built where it is missing.

    Args:
        config: A `usable` run.
        images: Its images.
        study_folder: Folder of the study, where its teachers are finished.
        progress: Where to show progress; None shows nothing.
    """
    return teacher_cache.build(
        folder_of(config, images, study_folder),
        _teachers(config, images, study_folder),
        images,
        of_teachers(config, images),
        stored(config, images),
        config.taught.average,
        progress,
        config.training.jit,
    )


def folder_of(config: RunConfig, images: data.Dataset, study_folder: Path) -> Path:
    """Return where the logits of a run's teachers are stored."""
    names = config.teachers
    label = names[0] if len(names) == 1 else f"{os.path.commonprefix(names)}x{len(names)}"
    if config.stored.folder:
        return Path(config.stored.folder) / label
    kept = dataclasses.replace(stored(config, images), folder=None)
    average = config.taught.average if kept.top_k else None
    seen = formats.hashed(to_dict(as_teachers_see(config)), "data")
    about = digest(seen, formats.hashed(to_dict(kept), "cache"), names, average)
    return Path(study_folder) / "cache" / f"{label}-{about[:8]}"


def batch_settings(config: RunConfig, images: data.Dataset) -> pipeline.BatchSettings:
    """Return how a run's images become batches."""
    share, size = config.training.labelled_share, config.training.batch_size
    return pipeline.BatchSettings(
        batch_size=size,
        seed=config.seed,
        augment=config.data.augment,
        num_classes=images.num_classes,
        input_size=images.input_size,
        one_hot=config.training.label_smoothing > 0,
        labelled=round(share * size) if share is not None and images.unlabelled else None,
    )


def of_teachers(config: RunConfig, images: data.Dataset) -> pipeline.BatchSettings:
    """Return how a run's images become the batches that its teachers see."""
    seen = as_teachers_see(config)
    return dataclasses.replace(
        batch_settings(config, images), augment=seen.augment, input_size=seen.input_size
    )


def of_study(runs: list[RunConfig], study_folder: Path, session: Session) -> list[RunConfig]:
    """Return one run for each cache of a study."""
    kinds = {
        folder_of(run, session.images(run.data), study_folder): run
        for run in reversed(runs)
        if usable(run)
    }
    return list(reversed(kinds.values()))


def confident(
    config: RunConfig, images: data.Dataset, logits: logit_reading.Reader, progress: Silent
) -> data.Dataset:
    """Return a run's images without those that have no label and of which its teachers are unsure.

    Args:
        config: Its `distillation.min_confidence` is the least of a teacher's largest probability.
        images: Its images.
        logits: Its teachers' averaged logits, whose first view counts.
        progress: Is told how many are left out.

    Raises:
        UsageError: None would be left.
    """
    least, train = config.taught.min_confidence, images.train
    found = logits[0, train.ids]
    # Of the largest classes, logarithms of probabilities are stored; the others' are as of the
    # student's temperature.
    largest_alone = stored(config, images).top_k is not None
    probabilities = np.exp(found) if largest_alone else scipy.special.softmax(found, axis=-1)
    kept = (train.labels != UNLABELLED) | (probabilities.max(axis=-1) >= least)
    if not (kept & (train.labels == UNLABELLED)).any():
        raise checks.UsageError(
            f"distillation.min_confidence={least} leaves no image without a label. The teacher's "
            f"largest probability is at most {probabilities.max():.2f}. Lower it."
        )
    progress.say(
        f"{config.name}: left out {np.sum(~kept)} of {images.unlabelled} images without labels, of "
        f"which the teacher is less than {least:.0%} sure"
    )
    return dataclasses.replace(images, train=train.take(np.flatnonzero(kept)))


def mended(work: Callable[[], _T], progress: Silent) -> _T:
    """Return what `work` gives; where it meets a damaged shard of stored logits, do it again.

    The shard is removed when it is found, and computed again by the next `of_run`.

    Raises:
        ShardError: The same one was damaged twice, or cannot be removed.
    """
    seen: set[str] = set()
    while True:
        try:
            return work()
        except shards.ShardError as error:
            if error.path.exists() or error.path.name in seen:
                raise
            seen.add(error.path.name)
            progress.warn(f"{error.problem}; it is computed again")


def _checked_cache(
    config: RunConfig, images: data.Dataset, study_folder: Path, progress: Silent
) -> teacher_cache.TeacherCache:
    cache = of_run(config, images, study_folder, progress)
    cache.check()
    return cache


def table(runs: list[RunConfig], study_folder: Path, session: Session) -> Table:
    """Build the caches of a study, read and check all of them, and return what they hold."""
    rows = []
    for run in of_study(runs, study_folder, session):
        images, progress = session.images(run.data), session.progress
        build = functools.partial(_checked_cache, run, images, study_folder, progress)
        cache = mended(build, progress)
        views, members, examples, classes = cache.shape
        speed = f"{cache.images_per_second:,.0f}" if cache.images_per_second else "built before"
        shape = f"{views} x {members} x {examples} x {classes}"
        rows.append((cache.folder.name, shape, f"{cache.size / 1e6:.1f}", speed))
    columns = ("cache", "views x members x images x classes", "MB", "images/s")
    return Table("Teacher logits", columns, tuple(rows), f"In {Path(study_folder) / 'cache'}.")


def verification(
    runs: list[RunConfig], study_folder: Path, rows: int, session: Session
) -> tuple[Table, bool]:
    """Run the teachers again on some rows of every cache.

    Args:
        runs: The study's runs.
        study_folder: Its folder.
        rows: Number of random (view, image) pairs of each cache.
        session: Has the images.

    Returns:
        A table of differences and agreement, and whether all are within their tolerances.

    Raises:
        UsageError: A cache that is unfinished or damaged.
    """
    lines, good = [], True
    for run in of_study(runs, study_folder, session):
        images = session.images(run.data)
        cache = teacher_cache.open_cache(folder_of(run, images, study_folder))
        cache.check()
        teachers = _teachers(run, images, study_folder)
        settings = of_teachers(run, images)
        found = cache.verify(teachers, images, settings, rows)
        rounded = run.stored.precision == "bfloat16"
        dtype = stored(run, images).dtype
        tolerance = TOLERANCE_OF_BFLOAT16 if rounded else TOLERANCE[dtype]
        well = found.largest_difference <= tolerance
        good = good and well
        cells = (f"{found.largest_difference:.2g}", f"{100 * found.agreement:.2f}")
        lines.append((cache.folder.name, str(found.rows), *cells, "good" if well else "WRONG"))
    columns = ("cache", "rows", "largest difference", "agreement %", "")
    note = (
        "Stored logits against those of the teachers run again. Agreement: share of rows with the "
        "same largest class; of several labels, of labels with the same answer."
    )
    return Table("Teacher logits, verified", columns, tuple(lines), note), good


def _teachers(config: RunConfig, images: data.Dataset, study_folder: Path) -> list:
    return [_teacher(study_folder, name, images) for name in config.teachers]


def _teacher(study_folder: Path, name: str, images: data.Dataset) -> teacher_cache.Teacher:
    """Return a finished run as a teacher whose network is only loaded where it must be run."""
    record = evaluation.known_record(study_folder, name)
    model = record.config["model"] or record.config["members"]
    if record.config["model"]:
        model = {**model, "dropout_in_evaluation": False}  # a key of format 1, in stored hashes
    return teacher_cache.Teacher(
        name,
        record.weights[record.select],
        digest(model, record.config["width"], record.config["average"]),
        lambda: evaluation.load_network(study_folder, name, images),
    )
