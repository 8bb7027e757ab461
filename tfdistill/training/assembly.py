"""Assembles what one run fits: network, loss, optimiser, Distiller; and keeps it for the next run.

Runs that differ in nothing but alpha, temperature and seed share one compiled learner, because
tracing its step takes longer than training a small student on a few thousand images.
"""

import dataclasses
from pathlib import Path

import keras
import tensorflow as tf

from tfdistill import data, losses
from tfdistill.config import DistillationConfig, FeatureConfig, RunConfig, TrainingConfig, to_dict
from tfdistill.config.registry import FEATURE_LOSSES, LOGIT_LOSSES
from tfdistill.data import pipeline
from tfdistill.distillation import schedules
from tfdistill.distillation.distiller import Distiller, FeatureLoss
from tfdistill.distillation.ensembles import Ensemble
from tfdistill.distillation.population import Population
from tfdistill.models.channel_split import split_upper
from tfdistill.training import evaluation
from tfdistill.training.reuse import Reusable
from tfdistill.utils import machine
from tfdistill.utils.storage import digest


@dataclasses.dataclass(frozen=True)
class Assembled:
    """Compiled learners, one for each run, and what `fit` is called on: one of them or all."""

    reusables: list[Reusable]
    fitted: keras.Model

    @property
    def learners(self) -> list[keras.Model]:
        """The compiled models."""
        return [reusable.learner for reusable in self.reusables]

    @property
    def networks(self) -> list[keras.Model]:
        """The networks in them."""
        return [reusable.network for reusable in self.reusables]


class Workbench:
    """Gives runs their compiled learners, and keeps the last ones.

    Example:
        >>> bench = Workbench()
        >>> assembled = bench.assemble([run], images, settings, folder, None, "")
    """

    def __init__(self):
        self._key = ""
        self._kept: Assembled | None = None

    def assemble(
        self,
        configs: list[RunConfig],
        images: data.Dataset,
        settings: pipeline.BatchSettings,
        study_folder: Path,
        teacher,
        teacher_key: str,
    ) -> Assembled:
        """Return learners at the start of their training, newly compiled only where they must be.

        Args:
            configs: The runs, all on the same images with the same settings.
            images: Their images.
            settings: How they become batches.
            study_folder: Folder of the study, where the runs that they need are finished.
            teacher: A function that returns the live teacher; None where its logits are known.
            teacher_key: Changes when the live teacher does.
        """
        key = digest([_shape(config) for config in configs], teacher_key)
        if any(_has_features(config) for config in configs):
            self._key = ""  # connectors start anew only when they are built anew
        fresh = []
        if key != self._key:
            self._kept = None
            machine.clear_session()
        for config in configs:
            keras.utils.set_random_seed(config.seed)
            fresh.append(network(config, images, study_folder))
        if key == self._key:
            for reusable, new in zip(self._kept.reusables, fresh, strict=True):
                reusable.restart(new)
        else:
            live = teacher() if teacher else None
            self._kept = _assembled(configs, fresh, images, settings, live)
            self._key = key
        for config, learner in zip(configs, self._kept.learners, strict=True):
            if config.distillation:
                learner.alpha = config.distillation.alpha
                learner.temperature = config.distillation.temperature
        return self._kept


def network(config: RunConfig, images: data.Dataset, study_folder: Path) -> keras.Model:
    """Return the network of a run at its start: new, from another run's weights or on its channels;
    or the average of several that are trained as one.

    Raises:
        UsageError: The network of `config.start` has other weights, or the layer of `config.split`
            cannot be cut so.
    """
    if config.split:
        base = evaluation.load_network(study_folder, config.split.base, images)
        return split_upper(base, config.split.layer, config.split.parts, config.split.part)
    built = [evaluation.build(config.model, images) for _ in range(config.width)]
    whole = Ensemble(built, config.average) if config.width > 1 else built[0]
    if config.start:
        evaluation.start_from(whole, study_folder, config.start, images)
    return whole


def _shape(config: RunConfig) -> dict:
    """Return all of a run that its compiled step depends on."""
    values = to_dict(config)
    for name in ("name", "row", "seed", "teachers", "cache", "stop_epoch", "start"):
        del values[name]
    if config.distillation:
        del values["distillation"]["alpha"], values["distillation"]["temperature"]
    return values


def _assembled(configs, networks, images, settings, teacher) -> Assembled:
    steps = pipeline.steps_per_epoch(len(images.train), settings.batch_size)
    # Feature losses need the teacher within each Distiller; else one pass of it serves all.
    apart = len(configs) == 1 or any(_has_features(config) for config in configs)
    learners = []
    for config, built in zip(configs, networks, strict=True):
        learner = _learner(config, built, teacher if apart else None, steps)
        learner.compile(
            optimizer=_optimizer(config.training, steps, learner.trainable_variables),
            loss=_hard_loss(config.training, settings),
            metrics=["accuracy"],
            jit_compile=machine.uses_xla(config.training.jit),
            steps_per_execution=config.training.steps_per_execution,
        )
        learners.append(learner)
    pairs = zip(learners, networks, strict=True)
    reusables = [Reusable(learner, built) for learner, built in pairs]
    if len(learners) == 1:
        return Assembled(reusables, learners[0])
    together = Population(learners, None if apart else teacher)
    together.compile(
        jit_compile=machine.uses_xla(configs[0].training.jit),
        steps_per_execution=configs[0].training.steps_per_execution,
    )
    return Assembled(reusables, together)


def _learner(config: RunConfig, built: keras.Model, teacher, steps_per_epoch: int) -> keras.Model:
    if config.distillation is None:
        return built
    warmup = round(config.distillation.warmup_epochs * steps_per_epoch)
    return distiller(config.distillation, built, teacher, warmup)


def distiller(
    settings: DistillationConfig, student: keras.Model, teacher=None, warmup_steps: int = 0
) -> Distiller:
    """Return the Distiller that `settings` describe.

    Raises:
        UsageError: What `Distiller` raises.
    """
    return Distiller(
        student,
        teacher,
        alpha=settings.alpha,
        soft_loss=_soft_loss(settings),
        features=[_feature_loss(feature) for feature in settings.features],
        hard_weight=settings.hard_weight,
        soft_weight=settings.soft_weight,
        warmup_steps=warmup_steps,
    )


def _soft_loss(settings: DistillationConfig) -> losses.TemperedLoss:
    return LOGIT_LOSSES[settings.loss].from_settings(settings)


def _feature_loss(feature: FeatureConfig) -> FeatureLoss:
    loss = FEATURE_LOSSES[feature.loss]()
    weight = loss.default_weight if feature.weight is None else feature.weight
    return FeatureLoss(loss, weight, feature.teacher_layer, feature.student_layer)


def _has_features(config: RunConfig) -> bool:
    return bool(config.distillation and config.distillation.features)


def _hard_loss(training: TrainingConfig, settings: pipeline.BatchSettings):
    if settings.soft_labels:
        return keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=training.label_smoothing
        )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


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
        batches = batches.map(lambda x, y: (x, tf.one_hot(y, settings.num_classes)))
    return batches
