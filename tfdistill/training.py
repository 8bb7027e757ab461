"""One run of a study: the only place that assembles data, networks, losses and optimiser.

A run killed at any moment goes on at its last finished epoch and ends with the same weights, bit
for bit on a CPU: images follow from (seed, epoch), and after every epoch one file holds all that
the next epoch depends on.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfdistill import checks, data, losses, metrics, models, records, schedules
from tfdistill.config import DistillationConfig, RunConfig, TrainingConfig, to_dict
from tfdistill.data import pipeline
from tfdistill.distiller import Distiller, FeatureLoss
from tfdistill.ensembles import Ensemble, average_logits
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
    """Train one network, or evaluate one ensemble of trained ones, and return its record.

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
    if not _accelerators():
        # The same weights at every repetition; on a CPU it costs nothing, on a GPU speed.
        tf.config.experimental.enable_op_determinism()
    needed = [records.read(records.run_folder(study_folder, name)) for name in config.needs]
    keras.utils.clear_session()
    images = data.load(config.data)
    key = records.run_key(to_dict(config), needed)
    job = _Job(config, images, Path(study_folder), key, tensorboard)
    with _precision(config.training.precision):
        return _train(job, progress or Silent()) if config.trained else _evaluate(job)


def check(config: RunConfig) -> None:
    """Raise what `run` would raise about images and network, without writing anything."""
    images = data.load(config.data)
    checks.enough_examples(len(images.train), config.training.batch_size)
    models.build(config.model, images.input_shape, images.num_classes, images.mean, images.std)


def check_tensorboard() -> None:
    """Raise if TensorBoard logs cannot be written; Keras would notice after the first epoch."""
    if importlib.util.find_spec("tensorboard") is None:
        raise checks.UsageError(
            "TensorBoard logs need the package tensorboard. Received: tensorboard=True and no such "
            "package. Install tfdistill[tensorboard], or set tensorboard: false."
        )


def load_network(study_folder: Path, name: str, part: str | None = None) -> keras.Model:
    """Return the trained network of a finished run.

    Args:
        study_folder: Folder of the study.
        name: Name of the run.
        part: `best` or `last` weights; None means what the run's configuration selects.
    """
    folder = records.run_folder(study_folder, name)
    path = folder / f"{part or records.read(folder).select}.keras"
    return keras.saving.load_model(path, compile=False)


def versions() -> dict[str, str]:
    """Return the versions of this package and of what its figures depend on."""
    names = ("tfdistill", "tensorflow", "keras", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def device() -> str:
    """Return what networks are trained on, e.g. `CPU, 2 cores`."""
    accelerators = _accelerators()
    if not accelerators:
        return f"CPU, {len(os.sched_getaffinity(0))} cores"
    details = tf.config.experimental.get_device_details(accelerators[0])
    return f"{len(accelerators)} x {details.get('device_name', accelerators[0].device_type)}"


def uses_xla(jit: str) -> bool:
    """Return whether `auto`, `on` or `off` compiles with XLA here: `auto` does on a GPU or TPU.

    Keras would decide the same, but a saved model carries its decision to the next machine.
    """
    return jit == "on" or (jit == "auto" and bool(_accelerators()))


@dataclass(frozen=True)
class _Job:
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
    def batch_settings(self) -> pipeline.BatchSettings:
        return pipeline.BatchSettings(
            batch_size=self.config.training.batch_size,
            seed=self.config.seed,
            augment=self.config.data.augment,
            num_classes=self.images.num_classes,
            input_size=self.images.input_size,
            one_hot=self.config.training.label_smoothing > 0,
        )

    def record(self, **values) -> Record:
        config = self.config
        return Record(
            name=config.name,
            row=config.row,
            seed=config.seed,
            key=self.key,
            config=to_dict(config),
            versions=versions(),
            device=device(),
            **values,
        )


# --- training ---------------------------------------------------------------------------------


def _train(job: _Job, progress: Silent) -> Record:
    config, training, steps = job.config, job.config.training, job.steps_per_epoch
    keras.utils.set_random_seed(config.seed)
    network = _network(job)
    learner, teacher_logits = _learner(job, network)
    learner.compile(
        optimizer=_optimizer(training, steps, learner.trainable_variables),
        loss=_hard_loss(job),
        metrics=["accuracy"],
        jit_compile=uses_xla(training.jit),
        steps_per_execution=training.steps_per_execution,
    )
    learner.optimizer.build(learner.trainable_variables)
    state = TrainingState(job.folder, job.key, learner, network)
    if state.restore():
        progress.resume(state.epochs_done, training.epochs)
    if state.epochs_done < training.epochs and not state.failure:
        _fit(job, state, teacher_logits, EpochEnd(state, progress, training.epochs, steps))
    record = _diverged(job, state) if state.failure else _measured(job, state)
    records.write(job.folder, record)
    state.clear()
    return record


def _fit(job: _Job, state: TrainingState, teacher_logits, epoch_end: EpochEnd) -> None:
    training, images = job.config.training, job.images
    batches = pipeline.training_batches(
        images.train,
        job.batch_settings,
        epochs=training.epochs,
        first_epoch=state.epochs_done,
        teacher_logits=teacher_logits,
    )
    validation = pipeline.evaluation_batches(
        images.validation, training.batch_size, images.input_size
    )
    if job.batch_settings.soft_labels:
        classes = images.num_classes
        validation = validation.map(lambda x, y: (x, tf.one_hot(y, classes)))
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
    config, images = job.config, job.images
    built = [
        models.build(config.model, images.input_shape, images.num_classes, images.mean, images.std)
        for _ in range(config.width)
    ]
    return Ensemble(built, config.average) if config.width > 1 else built[0]


def _learner(job: _Job, network):
    """Return what is fitted, and the teachers' logits where they are known beforehand."""
    config = job.config
    if not config.teachers:
        return network, None
    settings = config.distillation
    known = not config.data.augment.active and not settings.similarity
    teacher = None if known else _teacher(job.study_folder, config.teachers, settings.average)
    logits = _teacher_logits(job, "train")[None] if known else None  # [views, ids, classes]
    return Distiller(
        network,
        teacher,
        alpha=settings.alpha,
        soft_loss=losses.SoftTargets(
            settings.temperature, settings.divergence, settings.scale_by_t2, settings.standardize
        ),
        features=_feature_losses(settings),
    ), logits


def _feature_losses(settings: DistillationConfig) -> list[FeatureLoss]:
    if not settings.similarity:
        return []
    return [FeatureLoss(losses.SimilarityPreserving(), settings.similarity)]


def _teacher(study_folder: Path, names: tuple[str, ...], average: str):
    networks = [load_network(study_folder, name) for name in names]
    return Ensemble(networks, average) if len(networks) > 1 else networks[0]


def _hard_loss(job: _Job):
    if job.batch_settings.soft_labels:
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


# --- measuring --------------------------------------------------------------------------------


def _evaluate(job: _Job) -> Record:
    """Measure what needs no training: an ensemble of finished runs, or a saved network."""
    began = time.monotonic()
    figures, calibration, weights = {}, {}, {}
    for part in ("best", "last"):
        network = _untrained(job, part)
        network.compile(jit_compile=uses_xla(job.config.training.jit))
        figures[part], calibration[part] = _figures(job, network)
        weights[part] = _weights_hash(network)
        if job.config.model:
            _save(job, network, part)
    record = job.record(
        **figures,
        calibration=calibration[job.config.training.select],
        parameters=network.count_params(),
        flops=flops(network, job.images.input_shape),
        seconds=time.monotonic() - began,
        weights=weights,
    )
    records.write(job.folder, record)
    return record


def _untrained(job: _Job, part: str):
    config = job.config
    if config.model:
        return _network(job)
    members = [load_network(job.study_folder, name, part) for name in config.members]
    return Ensemble(members, config.average)


def _save(job: _Job, network, part: str) -> None:
    with records.appearing(job.folder / f"{part}.keras") as path:
        network.save(path)


def _measured(job: _Job, state: TrainingState) -> Record:
    """Measure and save the last and the best weights of a finished training."""
    figures, calibration, weights = {}, {}, {}
    epochs = {"last": state.epochs_done, "best": state.best_epoch + 1}
    for part in ("last", "best"):  # the last epoch's weights are those in memory
        if part == "best":
            state.load_best()
        measured, calibration[part] = _figures(job, state.learner)
        figures[part] = {"epoch": epochs[part], **measured}
        weights[part] = _weights_hash(state.network)
        _save(job, state.network, part)
    return job.record(
        **figures,
        history=state.history,
        calibration=calibration[job.config.training.select],
        parameters=state.network.count_params(),
        flops=flops(state.network, job.images.input_shape),
        seconds=state.seconds,
        weights=weights,
    )


def _diverged(job: _Job, state: TrainingState) -> Record:
    return job.record(
        status=records.DIVERGED,
        message=state.failure,
        history=state.history,
        seconds=state.seconds,
    )


def _figures(job: _Job, network) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return a network's figures on validation and test images, and its reliability diagram."""
    images = job.images
    on_validation = _predict(network, images.validation, job)
    on_test = _predict(network, images.test, job)
    taught = _teacher_logits(job, "test") if job.config.teachers else None
    labels = images.test.labels
    summary = metrics.summary(on_test, labels, taught)
    figures = {"validation_accuracy": metrics.accuracy(on_validation, images.validation.labels)}
    figures |= {f"test_{name}": value for name, value in summary.items()}
    return figures, metrics.reliability(on_test, labels)


def _predict(network, examples: data.Examples, job: _Job) -> np.ndarray:
    settings = job.batch_settings
    batches = pipeline.evaluation_batches(examples, settings.batch_size, settings.input_size)
    return network.predict(batches.map(lambda x, y: x), verbose=0)


_known_logits: dict[str, np.ndarray] = {}


def _teacher_logits(job: _Job, split: str) -> np.ndarray:
    """Return the teachers' averaged logits, of `train` by example id, of other splits in order."""
    members = [_member_logits(job, name, split) for name in job.config.teachers]
    averaged = average_logits(np.stack(members), job.config.distillation.average)
    return keras.ops.convert_to_numpy(averaged)


def _member_logits(job: _Job, name: str, split: str) -> np.ndarray:
    """Return one teacher's logits on unaugmented images; remembered, because many students ask."""
    teacher = records.read(records.run_folder(job.study_folder, name))
    key = f"{teacher.key} {teacher.weights} {split}"
    if key not in _known_logits:
        network = load_network(job.study_folder, name)
        network.compile(jit_compile=uses_xla(job.config.training.jit))
        examples = getattr(job.images, split)
        logits = _predict(network, examples, job)
        if split == "train":
            ids = examples.ids
            by_id = np.zeros((ids.max() + 1, logits.shape[-1]), np.float32)
            by_id[ids] = logits
            logits = by_id
        _known_logits[key] = logits
    return _known_logits[key]


def _weights_hash(network) -> str:
    digested = hashlib.sha256()
    for variable in network.weights:
        digested.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digested.hexdigest()


@contextlib.contextmanager
def _precision(name: str):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _accelerators() -> list:
    return tf.config.list_physical_devices("GPU") + tf.config.list_physical_devices("TPU")
