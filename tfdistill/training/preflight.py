"""What runs would raise about their input, raised before a study writes anything."""

import importlib.util
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tfdistill import data
from tfdistill.config import NETWORK, RunConfig, StudyConfig, TrainingConfig
from tfdistill.config.registry import RUN_KINDS, STUDIES
from tfdistill.data import pipeline
from tfdistill.models.channel_split import split_upper
from tfdistill.models.pruning import prune
from tfdistill.quantization import quantize_aware
from tfdistill.training import (
    evaluation,
    heads,
    learners,
    range_check,
    tasks,
    teacher_check,
    teacher_logits,
)
from tfdistill.training.session import Session
from tfdistill.utils import checks, machine


def check_labels(config: StudyConfig, runs: list[RunConfig], session: Session) -> None:
    """Raise if a study is of one class an image, and its images have several labels."""
    for run in runs:
        if run.kind != NETWORK or not session.images(run.data).multi_label:
            continue
        if not getattr(STUDIES[config.study], "SEVERAL_LABELS", False):
            known = [
                name for name, study in STUDIES.items() if getattr(study, "SEVERAL_LABELS", False)
            ]
            raise checks.UsageError(
                f"The study {config.study} needs images of one class each. Received: "
                f"{run.data.source}, whose images have several labels. Take one of the studies "
                f"{', '.join(known)}, or other images."
            )


def check_runs(config: StudyConfig, runs: list[RunConfig], session: Session) -> None:
    """Raise whatever the runs would raise about their input, before anything is written."""
    if config.tensorboard:
        _check_tensorboard()
    _check_tasks(runs, session)
    by_name = {run.name: run for run in runs}
    seen = []
    for run in runs:
        features = run.distillation.features if run.distillation else []
        split = run.split and (run.split.layer, run.split.parts)
        view = run.distillation and run.distillation.teacher_view
        pruned = run.prune and (run.prune.keep, run.prune.multiple)
        network = (run.model, split, pruned, run.quantize, run.start is None)
        same = (run.kind, run.settings, run.data, network, run.training, view, features)
        if same not in seen:
            seen.append(same)
            _kind(run).check(run, session)
            if run.prune:
                check_pruned(run, by_name, session)
            if features:
                _check_features(run, by_name[run.teachers[0]], session)


def _kind(run: RunConfig):
    return RUN_KINDS[checks.one_of("kind", run.kind, RUN_KINDS)]


def check(config: RunConfig, session: Session) -> None:
    """Raise what `run` would raise about images and network, without writing anything."""
    if config.model is None:
        return
    images = session.images(config.data)
    if config.trained:
        learners.epoch_steps(config.training, len(images.train))
    settings = teacher_logits.batch_settings(config, images)
    if config.trained:
        _check_replicas(config.training, images)
    if images.unlabelled:
        _check_unlabelled(config, settings, images)
    pipeline.check_pixel_units(settings, images.train.images.shape[1:3])
    built = evaluation.build(config.model, images)
    if config.quantize:
        quantize_aware(built, ranges=config.quantize.ranges)
    if (config.model.is_finished or not config.trained) and not config.start and not config.prune:
        _check_given(config, built, images, session)
    if config.model.fine_tune and not config.start:
        features = keras.Model(built.inputs[0], built.layers[-1].input)
        heads.check_pixels(str(config.model.path), features, images, config.model.pixel_range)
    if config.split:
        split_upper(built, config.split.layer, config.split.parts, config.split.part)
    teacher_logits.check(config)


def check_pruned(config: RunConfig, by_name: Mapping[str, RunConfig], session: Session) -> None:
    """Raise what the pruning of a run's network, and of those that it came from, would raise.

    Which channels go depends on weights, how many does not.
    """

    def pruned(run: RunConfig) -> keras.Model:
        if run.prune is None:
            return evaluation.build(run.network, session.images(run.data))
        base = pruned(by_name[run.prune.base])
        return prune(base, run.prune.keep, multiple=run.prune.multiple)

    pruned(config)


def _check_replicas(training: TrainingConfig, images: data.Dataset) -> None:
    """Raise unless every batch can be divided equally among the devices of a strategy.

    Keras takes the mean of the devices' means, each counting the same.
    """
    replicas = machine.strategy(training.strategy).num_replicas_in_sync
    size = training.batch_size
    counts = {"training": len(images.train), "validation": len(images.validation)}
    left = {f"{name} images, {count}": count % size for name, count in counts.items()}
    for what, rest in {"batch_size": size, **left}.items():
        if rest % replicas:
            have = "" if what == "batch_size" else f", whose last batch of {size} has {rest}"
            raise checks.UsageError(
                f"training.strategy={training.strategy} gives {replicas} devices equal parts of "
                f"every batch. Received: {what}{have or f'={size}'}. Set training.batch_size, "
                f"data.train_examples or data.validation so that {replicas} divides each batch."
            )


def _check_unlabelled(
    config: RunConfig, settings: pipeline.BatchSettings, images: data.Dataset
) -> None:
    if config.distillation is None:
        raise checks.UsageError(
            f"Images without labels need a teacher. Received: {images.unlabelled} of them for the "
            f"run {config.name}, which learns from labels alone. Set data.unlabelled and "
            "data.labelled_examples to null."
        )
    if settings.soft_labels:
        raise checks.UsageError(
            "Mixup, CutMix and label smoothing need a label for each image. Received: one of them "
            f"beside {images.unlabelled} images without labels. Set them to 0."
        )


def _check_given(
    config: RunConfig, network: keras.Model, images: data.Dataset, session: Session
) -> None:
    """Raise if a network in a file sees other pixels, or a teacher other classes, than it knows."""
    settings = teacher_logits.batch_settings(config, images)
    task = tasks.of(images)

    def answers(network: keras.Model, count: int) -> tuple[np.ndarray, np.ndarray]:
        parts = [images.validation.evenly(count)]
        if (missing := count - len(parts[0])) > 0:  # a few would tell nothing
            parts.append(images.train.take(images.train.labelled).evenly(missing))
        logits = [evaluation.predict(network, part, settings) for part in parts]
        return np.concatenate(logits), np.concatenate([part.labels for part in parts])

    def right(network: keras.Model) -> np.ndarray:
        return task.right(*answers(network, range_check.ENOUGH))

    name = f"{config.name} ({config.model.path})" if config.model else config.name
    outputs = (config.model.classes if config.model else None) or ()
    if config.model and config.model.is_finished:
        range_check.check_range(name, network, right, config.model.pixel_range)
    if config.trained:
        return
    logits, labels = answers(network, teacher_check.MOST)
    if remark := task.check_teacher(name, logits, labels, outputs):
        session.progress.say(remark)


def _check_tasks(runs: Sequence[RunConfig], session: Session) -> None:
    """Raise if runs have settings that their labels give no meaning, or labels of two kinds.

    Raises:
        UsageError: Such as a soft loss between classes, and images with several labels.
    """
    kinds: dict[type[tasks.Task], str] = {}
    for run in runs:
        if run.kind == NETWORK:
            task = tasks.of(session.images(run.data))
            kinds.setdefault(type(task), run.data.source)
            task.check(run)
    if len(kinds) > 1:
        raise checks.UsageError(
            "Teachers and students must learn the same: one class of several, or several labels. "
            f"Received: {' and '.join(kinds.values())}, one of each kind. Take images of one kind."
        )


def _check_features(config: RunConfig, teacher: RunConfig, session: Session) -> None:
    """Raise if a run and its teacher have not the inner layers that its losses compare.

    Raises:
        UsageError: A layer that there is not, or shapes that a loss cannot compare.
    """
    images = session.images(config.data)
    if teacher.model:
        networks = [evaluation.build(run.network, images) for run in (config, teacher)]
        learners.distiller(config.taught, tasks.of(images), *networks)


def _check_tensorboard() -> None:
    """Raise if TensorBoard logs cannot be written; Keras would notice after the first epoch."""
    if importlib.util.find_spec("tensorboard") is None:
        raise checks.UsageError(
            "TensorBoard logs need the package tensorboard. Received: tensorboard=True and no such "
            "package. Install tfdistill[tensorboard], or set tensorboard: false."
        )
