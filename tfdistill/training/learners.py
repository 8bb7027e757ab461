"""Compiled learners: what a run fits, alone or with others, and used again by the next run.

Runs that differ in nothing but alpha, temperature and seed share their learners, because tracing a
step takes longer than training a small student on a few thousand images.
"""

import gc
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfdistill import data
from tfdistill.config import (
    DistillationConfig,
    FeatureConfig,
    PruneConfig,
    RunConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.config.registry import FEATURE_LOSSES
from tfdistill.data import pipeline
from tfdistill.distillation import schedules
from tfdistill.distillation.distiller import Distiller
from tfdistill.distillation.ensembles import Ensemble
from tfdistill.distillation.feature_losses import FeatureLoss
from tfdistill.distillation.moving_average import MovingAverage
from tfdistill.distillation.population import Population
from tfdistill.models.channel_split import split_upper
from tfdistill.models.pruning import prune
from tfdistill.training import evaluation, heads, tasks
from tfdistill.utils import checks, machine
from tfdistill.utils.storage import digest

COLLECT_EVERY = 10.0  # seconds; looking through all objects takes about 0.25


class Learners:
    """Compiled models that are fitted in one step, which can be set back to a fresh start.

    Trained again they give the weights that newly compiled ones would get, to the bit.

    Args:
        each: The models: networks, or Distillers around them.
        together: Makes one compiled model of several, after their optimizers are built; None where
            there is only one.
        reusable: Whether `restart` will be called, for which all must be built.
        averages: The average of each one's weights; empty where there is none.

    Example:
        >>> learners = Learners([distiller])
        >>> learners.fitted.fit(batches)
        >>> keras.utils.set_random_seed(1)
        >>> learners.restart([build_student()])
        >>> learners.fitted.fit(batches)  # without tracing
    """

    def __init__(
        self,
        each: Sequence[keras.Model],
        together: Callable[[], Population] | None = None,
        reusable: bool = True,
        averages: Sequence[MovingAverage] = (),
    ):
        self.each = list(each)
        self.averages = list(averages)
        self.networks = [network_of(learner) for learner in self.each]
        self._starts = [_optimizer_state(learner) for learner in self.each] if reusable else []
        population = together() if together else None
        self.fitted = population or self.each[0]
        self.split = population.member_logs if population else None

    def restart(self, fresh: Sequence[keras.Model]) -> None:
        """Begin with the weights of new networks of the same architectures."""
        parts = zip(self.each, self.networks, fresh, self._starts, strict=True)
        for learner, network, new, start in parts:
            _assign(network.variables, new.variables)  # with states of random-number generators
            _assign(learner.optimizer.variables, start)
            learner.reset_metrics()
            learner.stop_training = False
        for average in self.averages:
            average.restart()


class Workbench:
    """Keeps the last learners for the next runs, and frees what earlier ones left.

    Example:
        >>> bench = Workbench()
        >>> learners = bench.learners("key", lambda: Learners([distiller]), lambda: [student()])
    """

    def __init__(self):
        self._key = ""
        self._kept: Learners | None = None
        self._collected = 0.0

    def learners(
        self, key: str, new: Callable[[], Learners], fresh: Callable[[], Sequence[keras.Model]]
    ) -> Learners:
        """Return learners at the start of their training, newly compiled only where they must be.

        Args:
            key: The same for learners whose compiled step is the same; empty: they are new.
            new: Returns new learners.
            fresh: Returns new networks for the learners that are kept.
        """
        self.collect_garbage()
        if key and key == self._key and self._kept:
            self._kept.restart(fresh())
            return self._kept
        self._key, self._kept = "", None
        machine.clear_session()
        self._kept = new()
        self._key = key
        return self._kept

    def collect_garbage(self) -> None:
        """Free the networks and graphs that earlier runs left, unless that was done lately.

        They hold references to themselves, so reference counts do not free them, nor their weights.
        Python's own collection of everything comes by the number of objects, whatever their size.
        """
        if time.monotonic() - self._collected >= COLLECT_EVERY:
            gc.collect()
            self._collected = time.monotonic()


def network_of(learner: keras.Model) -> keras.Model:
    """Return the network whose weights count: a Distiller's student, or the model itself."""
    return learner.student if isinstance(learner, Distiller) else learner


def _optimizer_state(learner: keras.Model) -> list:
    if not learner.optimizer.built:
        learner.optimizer.build(learner.trainable_variables)
    return [variable.numpy() for variable in learner.optimizer.variables]


def _assign(variables, values) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def compiled_for(
    bench: Workbench,
    configs: list[RunConfig],
    images: data.Dataset,
    settings: pipeline.BatchSettings,
    study_folder: Path,
    teacher: tuple[Callable[[], keras.Model], str] | None,
) -> Learners:
    """Return learners at the start of the training of runs.

    Args:
        bench: Keeps them.
        configs: The runs, all on the same images with the same settings.
        images: Their images.
        settings: How they become batches.
        study_folder: Folder of the study, where the runs that they need are finished.
        teacher: A function that returns the live teacher, and what changes when the teacher does;
            None where its logits are known.
    """

    strategy = configs[0].training.strategy

    def fresh() -> list[keras.Model]:
        networks = []
        for config in configs:
            keras.utils.set_random_seed(config.seed)
            with machine.strategy(strategy).scope():
                networks.append(network(config, images, study_folder))
        return networks

    def new() -> Learners:
        networks = fresh()
        with machine.strategy(strategy).scope():
            return _compiled(configs, networks, images, settings, teacher[0]() if teacher else None)

    key = digest([_shape(config) for config in configs], teacher[1] if teacher else "")
    if any(_has_features(config) for config in configs):
        key = ""  # connectors get new weights only when they are rebuilt
    learners = bench.learners(key, new, fresh)
    for config, learner in zip(configs, learners.each, strict=True):
        if config.distillation:
            learner.alpha = config.distillation.alpha
            learner.temperature = config.distillation.temperature
    return learners


def network(config: RunConfig, images: data.Dataset, study_folder: Path) -> keras.Model:
    """Return the network of a run at its start: new, from another run's weights, on its channels or
    a part of them; or the average of several that are trained as one. It rounds where
    `config.quantize` says so.

    Raises:
        UsageError: The network of `config.start` has other weights, the layer of `config.split`
            cannot be cut so, or a layer cannot be pruned or quantised.
    """
    whole = _in_float(config, images, study_folder)
    return evaluation.quantized(whole, config.quantize, images) if config.quantize else whole


def _in_float(config: RunConfig, images: data.Dataset, study_folder: Path) -> keras.Model:
    if config.split:
        base = evaluation.load_network(study_folder, config.split.base, images)
        return split_upper(base, config.split.layer, config.split.parts, config.split.part)
    whole = _pruned(config.prune, images, study_folder) if config.prune else _new(config, images)
    if config.start:
        evaluation.start_from(whole, study_folder, config.start, images)
    return whole


def _new(config: RunConfig, images: data.Dataset) -> keras.Model:
    built = [evaluation.build(config.network, images) for _ in range(config.width)]
    if config.network.fine_tune and not config.start:
        for each in built:
            heads.fit_head(each, images)
    average = tasks.of(images).average(config.average)
    return Ensemble(built, average) if config.width > 1 else built[0]


def _pruned(settings: PruneConfig, images: data.Dataset, study_folder: Path) -> keras.Model:
    whole = evaluation.load_network(study_folder, settings.base, images)
    return prune(whole, settings.keep, multiple=settings.multiple)


def epoch_steps(training: TrainingConfig, examples_count: int) -> int:
    """Return the optimiser steps of an epoch.

    Raises:
        UsageError: There are fewer examples than one batch holds, or epochs would end within a call
            of the compiled function.
    """
    passes = pipeline.steps_per_epoch(examples_count, training.batch_size)
    steps = training.steps // training.epochs if training.steps else passes
    together = training.steps_per_execution
    if steps % together:
        fitting = [each for each in range(1, min(together, steps) + 1) if steps % each == 0]
        raise checks.UsageError(
            f"training.steps_per_execution must divide the {steps} steps of an epoch. Received: "
            f"{together}. Set it to {fitting[-1]}."
        )
    return steps


def _shape(config: RunConfig) -> dict:
    """Return all of a run that its compiled step depends on."""
    values = to_dict(config)
    for name in ("name", "row", "seed", "teachers", "cache", "stop_epoch", "start"):
        del values[name]
    if config.distillation:
        del values["distillation"]["alpha"], values["distillation"]["temperature"]
    if config.prune:
        del values["prune"]["base"]
    return values


def _compiled(configs, networks, images, settings, teacher) -> Learners:
    training = configs[0].training
    steps = epoch_steps(training, len(images.train))
    task = tasks.of(images)
    # Feature losses need the teacher within each Distiller; else one pass of it serves all.
    apart = len(configs) == 1 or any(_has_features(config) for config in configs)
    learners = []
    for config, built in zip(configs, networks, strict=True):
        learner = _learner(config, built, teacher if apart else None, steps, task)
        learner.compile(
            optimizer=_optimizer(config.training, steps, learner.trainable_variables),
            loss=task.hard_loss(settings.soft_labels, config.training.label_smoothing),
            metrics=[task.accuracy_metric(settings.soft_labels)],
            jit_compile=_uses_xla(config.training),
            steps_per_execution=config.training.steps_per_execution,
        )
        _make_metrics(learner, images, settings.soft_labels)
        learners.append(learner)

    def together() -> Population:
        population = Population(learners, None if apart else teacher)
        population.compile(
            jit_compile=_uses_xla(training),
            steps_per_execution=training.steps_per_execution,
        )
        return population

    averages = [MovingAverage(learner, training.ema) for learner in learners if training.ema]
    return Learners(learners, together if len(learners) > 1 else None, averages=averages)


def _uses_xla(training: TrainingConfig) -> bool:
    return training.strategy == "none" and machine.uses_xla(training.jit)


def _make_metrics(learner: keras.Model, images: data.Dataset, soft_labels: bool) -> None:
    """Make the variables of the metrics: TensorFlow traces a step twice that makes them itself."""
    logits = np.zeros((1, images.num_classes), "float32")
    labels = np.zeros_like(images.train.labels[:1])
    learner.compute_metrics(None, logits if soft_labels else labels, logits)
    learner.reset_metrics()


def _learner(
    config: RunConfig, built: keras.Model, teacher, steps_per_epoch: int, task: tasks.Task
) -> keras.Model:
    if config.distillation is None:
        return built
    warmup = round(config.distillation.warmup_epochs * steps_per_epoch)
    return distiller(config.distillation, task, built, teacher, warmup)


def distiller(
    settings: DistillationConfig,
    task: tasks.Task,
    student: keras.Model,
    teacher=None,
    warmup_steps: int = 0,
) -> Distiller:
    """Return the Distiller that `settings` describe.

    Raises:
        UsageError: What `Distiller` raises.
    """
    with warnings.catch_warnings():
        # A configuration names teacher and student, so that a larger student is meant.
        warnings.simplefilter("ignore", UserWarning)
        made = Distiller(
            student,
            teacher,
            alpha=settings.alpha,
            soft_loss=task.soft_loss(settings),
            features=[_feature_loss(feature) for feature in settings.features],
            hard_weight=settings.hard_weight,
            soft_weight=settings.soft_weight,
            warmup_steps=warmup_steps,
        )
    made._teacher_told = task.like_probabilities
    return made


def _feature_loss(feature: FeatureConfig) -> FeatureLoss:
    loss = FEATURE_LOSSES[feature.loss]()
    weight = loss.default_weight if feature.weight is None else feature.weight
    return FeatureLoss(loss, weight, feature.teacher_layer, feature.student_layer)


def _has_features(config: RunConfig) -> bool:
    return bool(config.distillation and config.distillation.features)


def _optimizer(training: TrainingConfig, steps_per_epoch: int, variables):
    rate = schedules.learning_rate(training, steps_per_epoch)
    decay = training.weight_decay or None
    if training.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            rate, training.momentum, training.nesterov, weight_decay=decay
        )
    else:
        kind = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[training.optimizer]
        optimizer = kind(rate, weight_decay=decay)
    if decay:
        small = [variable for variable in variables if len(variable.shape) < 2]
        optimizer.exclude_from_weight_decay(small)  # biases and normalisation scales
    if not tf.distribute.has_strategy():
        # The sum over one device changes nothing, but with it TensorFlow would keep the graph of
        # every compiled step as long as the process lives.
        optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: (
            gradients_and_variables
        )
    return optimizer


def validation_batches(images: data.Dataset, settings: pipeline.BatchSettings) -> tf.data.Dataset:
    """Return the validation images with labels of the form that the training's have."""
    batches = pipeline.evaluation_batches(
        images.validation, settings.batch_size, settings.input_size
    )
    if settings.soft_labels:
        batches = batches.map(
            pipeline.as_written(lambda x, y: (x, pipeline.distributions(y, settings.num_classes)))
        )
    return batches
