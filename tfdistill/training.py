"""One run of a study: the only place that assembles data, networks, losses and optimiser.

A run killed at any moment goes on at its last finished epoch and ends with the same weights, bit
for bit on a CPU: images follow from (seed, epoch), and `resume` keeps all that an epoch depends on.
"""

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from tfdistill import checks, data, losses, machine, measuring, records, schedules
from tfdistill.config import DistillationConfig, RunConfig, TrainingConfig, to_dict
from tfdistill.data import pipeline
from tfdistill.distiller import Distiller, FeatureLoss
from tfdistill.ensembles import Ensemble
from tfdistill.models.size import flops
from tfdistill.progress import Silent
from tfdistill.records import Record
from tfdistill.resume import EpochEnd, TrainingState


def run(
    config: RunConfig,
    study_folder: Path,
    progress: Silent | None = None,
    tensorboard: bool = False,
) -> Record:
    """Train one network, or evaluate what needs no training, and return its record.

    Leaves `record.json`, `best.keras` and `last.keras` in the run's folder; goes on from the last
    finished epoch if an earlier call was interrupted.

    Args:
        config: What to run.
        study_folder: Folder of the study, where the runs that it needs are finished.
        progress: Where to show progress; None shows nothing.
        tensorboard: Also write TensorBoard logs into the run's folder.

    Raises:
        UsageError: Data, network or settings that do not fit together, before anything is written.
    """
    machine.make_repeatable()
    keras.utils.clear_session()
    needed = [records.read(records.run_folder(study_folder, name)) for name in config.needs]
    key = records.run_key(to_dict(config), needed)
    job = _Job(config, data.load(config.data), Path(study_folder), key, tensorboard)
    with machine.precision(config.training.precision):
        return _train(job, progress or Silent()) if config.trained else _evaluate(job)


def check(config: RunConfig) -> None:
    """Raise what `run` would raise about images and network, without writing anything."""
    images = data.load(config.data)
    checks.enough_examples(len(images.train), config.training.batch_size)
    measuring.build(config.model, images)


def check_tensorboard() -> None:
    """Raise if TensorBoard logs cannot be written; Keras would notice after the first epoch."""
    if importlib.util.find_spec("tensorboard") is None:
        raise checks.UsageError(
            "TensorBoard logs need the package tensorboard. Received: tensorboard=True and no such "
            "package. Install tfdistill[tensorboard], or set tensorboard: false."
        )


@dataclass(frozen=True)
class _Job:
    """A run with all that its configuration refers to."""

    config: RunConfig
    images: data.Dataset
    study_folder: Path
    key: str
    tensorboard: bool

    @property
    def folder(self) -> Path:
        return records.run_folder(self.study_folder, self.config.name)

    @property
    def steps_per_epoch(self) -> int:
        return pipeline.steps_per_epoch(len(self.images.train), self.config.training.batch_size)

    @property
    def settings(self) -> pipeline.BatchSettings:
        return pipeline.BatchSettings(
            batch_size=self.config.training.batch_size,
            seed=self.config.seed,
            augment=self.config.data.augment,
            num_classes=self.images.num_classes,
            input_size=self.images.input_size,
            one_hot=self.config.training.label_smoothing > 0,
        )

    @property
    def teacher_logits(self) -> measuring.TeacherLogits:
        jit = self.config.training.jit
        return measuring.TeacherLogits(self.study_folder, self.images, self.settings, jit)

    def load(self, name: str, part: str | None = None) -> keras.Model:
        return measuring.load_network(self.study_folder, name, self.images, part)

    def finish(self, **values) -> Record:
        """Write and return the run's record, the last file of a run."""
        config = self.config
        record = Record(
            name=config.name,
            row=config.row,
            seed=config.seed,
            key=self.key,
            config=to_dict(config),
            versions=machine.versions(),
            device=machine.device(),
            **values,
        )
        records.write(self.folder, record)
        return record


def _train(job: _Job, progress: Silent) -> Record:
    config, training, steps = job.config, job.config.training, job.steps_per_epoch
    keras.utils.set_random_seed(config.seed)
    network = _network(job)
    learner, teacher_logits = _learner(job, network)
    learner.compile(
        optimizer=_optimizer(training, steps, learner.trainable_variables),
        loss=_hard_loss(job),
        metrics=["accuracy"],
        jit_compile=machine.uses_xla(training.jit),
        steps_per_execution=training.steps_per_execution,
    )
    learner.optimizer.build(learner.trainable_variables)
    state = TrainingState(job.folder, job.key, learner, network)
    if state.restore():
        progress.resume(state.epochs_done, training.epochs)
    if state.epochs_done < training.epochs and not state.failure:
        _fit(job, state, teacher_logits, EpochEnd(state, progress, training.epochs, steps))
    record = _diverged(job, state) if state.failure else _measured(job, state)
    state.clear()
    return record


def _fit(job: _Job, state: TrainingState, teacher_logits, epoch_end: EpochEnd) -> None:
    training, images, settings = job.config.training, job.images, job.settings
    batches = pipeline.training_batches(
        images.train,
        settings,
        epochs=training.epochs,
        first_epoch=state.epochs_done,
        teacher_logits=teacher_logits,
    )
    validation = pipeline.evaluation_batches(
        images.validation, settings.batch_size, settings.input_size
    )
    if settings.soft_labels:
        validation = validation.map(lambda x, y: (x, tf.one_hot(y, settings.num_classes)))
    callbacks = [epoch_end]
    if job.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(job.folder / "tensorboard"))
    state.learner.fit(
        batches,
        epochs=training.epochs,
        initial_epoch=state.epochs_done,
        steps_per_epoch=job.steps_per_epoch,
        validation_data=validation,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )


def _network(job: _Job):
    config = job.config
    built = [measuring.build(config.model, job.images) for _ in range(config.width)]
    return Ensemble(built, config.average) if config.width > 1 else built[0]


def _learner(job: _Job, network):
    """Return what is fitted, and the teachers' logits where they are known beforehand."""
    names, settings = job.config.teachers, job.config.distillation
    if not names:
        return network, None
    # Without augmentation an image is the same in every epoch, and so is what teachers say of it.
    known = not job.config.data.augment.active and not settings.similarity
    logits = job.teacher_logits.by_id(names, settings.average) if known else None
    soft_loss = losses.SoftTargets(
        settings.temperature, settings.divergence, settings.scale_by_t2, settings.standardize
    )
    distiller = Distiller(
        network,
        None if known else _teacher(job),
        alpha=settings.alpha,
        soft_loss=soft_loss,
        features=_feature_losses(settings),
    )
    return distiller, logits


def _teacher(job: _Job):
    networks = [job.load(name) for name in job.config.teachers]
    one = len(networks) == 1
    return networks[0] if one else Ensemble(networks, job.config.distillation.average)


def _feature_losses(settings: DistillationConfig) -> list[FeatureLoss]:
    if not settings.similarity:
        return []
    return [FeatureLoss(losses.SimilarityPreserving(), settings.similarity)]


def _hard_loss(job: _Job):
    if job.settings.soft_labels:
        smoothing = job.config.training.label_smoothing
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
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
    return optimizer


def _evaluate(job: _Job) -> Record:
    """Measure what needs no training: an ensemble of finished runs, or a saved network."""
    began = time.monotonic()
    found, calibration, weights = {}, {}, {}
    for part in ("best", "last"):
        network = _untrained(job, part)
        network.compile(jit_compile=machine.uses_xla(job.config.training.jit))
        found[part], calibration[part] = measuring.figures(network, job.images, job.settings, None)
        weights[part] = measuring.weights_hash(network)
    return job.finish(
        **found,
        calibration=calibration[job.config.training.select],
        parameters=network.count_params(),
        flops=flops(network, job.images.input_shape),
        seconds=time.monotonic() - began,
        weights=weights,
    )


def _untrained(job: _Job, part: str):
    if job.config.model:
        return _network(job)
    return Ensemble([job.load(name, part) for name in job.config.members], job.config.average)


def _measured(job: _Job, state: TrainingState) -> Record:
    """Measure and save the last and the best weights of a finished training."""
    config, found, calibration, weights = job.config, {}, {}, {}
    epochs = {"last": state.epochs_done, "best": state.best_epoch + 1}
    taught = None
    if config.teachers:
        taught = job.teacher_logits.on_test(config.teachers, config.distillation.average)
    for part in ("last", "best"):  # the last epoch's weights are those in memory
        if part == "best":
            state.load_best()
        figures, calibration[part] = measuring.figures(
            state.learner, job.images, job.settings, taught
        )
        found[part] = {"epoch": epochs[part], **figures}
        weights[part] = measuring.weights_hash(state.network)
        with records.appearing(job.folder / f"{part}.keras") as path:
            state.network.save(path)
    return job.finish(
        **found,
        history=state.history,
        calibration=calibration[config.training.select],
        parameters=state.network.count_params(),
        flops=flops(state.network, job.images.input_shape),
        seconds=state.seconds,
        weights=weights,
    )


def _diverged(job: _Job, state: TrainingState) -> Record:
    return job.finish(
        status=records.DIVERGED,
        message=state.failure,
        history=state.history,
        seconds=state.seconds,
    )
