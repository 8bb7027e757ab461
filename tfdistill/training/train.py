"""Runs of a study: trained alone, or several together in one step, and recorded.

A run killed at any moment resumes at its last finished epoch and ends with the same weights, bit
for bit on a CPU: images follow from (seed, epoch), and `resume` keeps all that an epoch depends on.
"""

import dataclasses
import functools
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfdistill import data, records
from tfdistill.config import NETWORK, RunConfig, to_dict
from tfdistill.data import pipeline, views
from tfdistill.distillation import population
from tfdistill.distillation.ensembles import Ensemble, average_logits
from tfdistill.models.fingerprint import architecture_hash, weights_hash
from tfdistill.models.flops import flops
from tfdistill.models.weights.notes import write_notes
from tfdistill.quantization.aware import CollapsedError
from tfdistill.quantization.layers import count_params
from tfdistill.records import Record
from tfdistill.teacher_cache.logit_reading import Reader
from tfdistill.training import evaluation, learners, tasks, teacher_logits
from tfdistill.training.learners import Learners
from tfdistill.training.preflight import check as check
from tfdistill.training.resume import EpochEnd, TrainingState, unfinished
from tfdistill.training.session import Session
from tfdistill.training.tensorboard_logs import TensorBoardLogs
from tfdistill.utils import foreign, machine, storage
from tfdistill.utils.storage import digest


def run(config: RunConfig, study_folder: Path, session: Session | None = None) -> Record:
    """Train one network, or evaluate what needs no training, and return its record.

    Leaves `record.json`, `best.keras` and `last.keras` in the run's folder; resumes at the last
    finished epoch if an earlier call was interrupted.

    Args:
        config: What to run.
        study_folder: Folder of the study, where the runs that it needs are finished.
        session: What it shares with other runs; None: nothing, and shows no progress.

    Raises:
        UsageError: Data, network or settings that do not fit together, before anything is written.
    """
    return run_together([config], study_folder, session)[0]


def run_together(
    configs: Sequence[RunConfig], study_folder: Path, session: Session | None = None
) -> list[Record]:
    """Train several networks in one step over the same batches, and return their records.

    Args:
        configs: Runs whose `together_key` is the same.
        study_folder: As for `run`.
        session: As for `run`.
    """
    session = session or Session()
    machine.make_repeatable(configs[0].training.jit)
    session.bench.collect_garbage()
    for config in configs:
        teacher_logits.check(config)
    images = session.images(configs[0].data)
    jobs = [_Job(config, images, Path(study_folder)) for config in configs]
    with machine.precision(configs[0].training.precision):
        if not configs[0].trained:
            return [_evaluate(job) for job in jobs]
        found: dict[str, Record] = {}
        for group in _taught_alike(jobs):
            train_group = functools.partial(_train, group, session)
            records_found = teacher_logits.mended(train_group, session.progress)
            found |= {record.name: record for record in records_found}
    return [found[config.name] for config in configs]


def _taught_alike(jobs: list["_Job"]) -> list[list["_Job"]]:
    """Return jobs in groups that read the same stored logits.

    Of the largest classes alone those of each temperature are others; whether only they are stored
    may follow from the images, which `together_key` does not know.
    """
    groups: dict[float | None, list[_Job]] = {}
    for job in jobs:
        config = job.config
        largest = teacher_logits.usable(config) and teacher_logits.stored(config, job.images).top_k
        groups.setdefault(config.taught.temperature if largest else None, []).append(job)
    return list(groups.values())


def together_key(config: RunConfig) -> str:
    """Return what runs must have in common to be trained in one step; empty: it must be alone."""
    if not config.trained or config.width > 1 or config.stop_epoch or config.kind != NETWORK:
        return ""
    settings = config.distillation
    if settings and settings.features:
        return ""
    values = to_dict(config)
    shared = [values[name] for name in ("seed", "data", "training", "teachers", "cache")]
    if settings:
        shared += [settings.average, settings.teacher_view, settings.min_confidence]
    if settings and config.cache and config.cache.largest:
        shared.append(settings.temperature)  # the classes left out depend on it
    return digest(shared)


def fitting(configs: Sequence[RunConfig], memory: float, session: Session) -> int:
    """Return how many of the runs fit into `memory` GB when they are trained in one step."""
    images = session.images(configs[0].data)
    models = {digest(to_dict(config.network)): config.network for config in configs}
    networks = [evaluation.build(model, images) for model in models.values()]
    training = configs[0].training
    slots = 2 if training.ema is None else 3  # Adam's, and the average
    room = training.batch_size, int(memory * 1e9), slots
    return min(population.fitting(network, *room) for network in networks)


def cost(config: RunConfig, session: Session) -> float:
    """Return about how long a run takes, in some unit: operations of all its forward passes."""
    if not config.trained:
        return 1.0
    images = session.images(config.data)
    operations = evaluation.flops_of(config.network, images.input_shape, images.num_classes)
    training = config.training
    passes = training.epochs * len(images.train)
    seen = training.steps * training.batch_size if training.steps else passes
    return float(seen * config.width * max(operations, 1))


def one_batch(config: RunConfig) -> RunConfig:
    """Return the run as it is: a rehearsal makes every run's images and epochs few."""
    return config


@dataclasses.dataclass(frozen=True)
class _Job:
    """A run with all that its configuration refers to."""

    config: RunConfig
    images: data.Dataset
    study_folder: Path

    @property
    def task(self) -> tasks.Task:
        return tasks.of(self.images)

    @property
    def average(self) -> str:
        """How the logits of several teachers are averaged."""
        return self.task.average(self.config.taught.average)

    @property
    def folder(self) -> Path:
        return records.run_folder(self.study_folder, self.config.name)

    @functools.cached_property
    def needed(self) -> list[Record]:
        """Records of the runs that this one needs, which are finished."""
        return records.read_runs(self.study_folder, self.config.needs)

    @property
    def key(self) -> str:
        return records.run_key(to_dict(self.config), self.needed)

    @property
    def training_key(self) -> str:
        """The key without where the training stops for now."""
        whole = dataclasses.replace(self.config, stop_epoch=None)
        return records.run_key(to_dict(whole), self.needed)

    @property
    def settings(self) -> pipeline.BatchSettings:
        return teacher_logits.batch_settings(self.config, self.images)

    @property
    def replicas(self) -> dict[str, int]:
        """The number of devices, where there are several: batch norms depend on it."""
        found = machine.strategy(self.config.training.strategy).num_replicas_in_sync
        return {"replicas": found} if found > 1 and self.config.trained else {}

    def load(self, name: str, part: str | None = None) -> keras.Model:
        return evaluation.load_network(self.study_folder, name, self.images, part)

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
            images=self.images.hashes,
            environment=machine.environment() | self.replicas,
            needed=records.to_repeat(self.needed),
            **values,
        )
        records.write(self.folder, record)
        return record


def _train(jobs: list[_Job], session: Session) -> list[Record]:
    job, config = jobs[0], jobs[0].config
    logits = _known_logits(job, session)
    teacher = None
    if config.teachers and logits is None:
        teacher = (lambda: _teacher(job)), digest([record.weights for record in job.needed])
    images = job.images
    if logits is not None and config.taught.min_confidence and images.unlabelled:
        images = teacher_logits.confident(config, images, logits, session.progress)
    configs = [job.config for job in jobs]
    try:
        found = learners.compiled_for(
            session.bench, configs, images, job.settings, job.study_folder, teacher
        )
    except CollapsedError as error:
        if len(jobs) == 1:
            return [_not_rounded(job, error)]
        return [record for one in jobs for record in _train([one], session)]
    shown = views.version(jobs[0].config.data.augment)
    networks = [architecture_hash(network) for network in found.networks]
    replicas = machine.strategy(config.training.strategy).num_replicas_in_sync
    about = [networks, replicas] if replicas > 1 else [networks]
    key = digest([[job.training_key, job.images.hashes, shown] for job in jobs], *about)
    state = TrainingState(_state_folder(jobs), key, found.each, found.networks, found.averages)
    until = config.stop_epoch or config.training.epochs
    if unfinished(state, until, session.progress):
        _fit(jobs, images, found, state, logits, session)
    trained = state.seconds / len(jobs)
    records_found = [
        _diverged(job, state, place, trained)
        if state.failures[place]
        else _measured(job, state, place, trained, session)
        for place, job in enumerate(jobs)
    ]
    if until == config.training.epochs:
        state.clear()
    return records_found


def _fit(
    jobs: list[_Job],
    images: data.Dataset,
    found: Learners,
    state: TrainingState,
    logits: Reader | None,
    session: Session,
) -> None:
    job = jobs[0]
    training, settings = job.config.training, job.settings
    until = job.config.stop_epoch or training.epochs
    steps = learners.epoch_steps(training, len(images.train))
    batches = pipeline.training_batches(
        images.train,
        settings,
        epochs=until,
        first_epoch=state.epochs_done,
        steps=steps,
        teacher_logits=logits,
        teacher_view=job.config.taught.teacher_view if logits is not None else "same",
    )
    callbacks: list[keras.callbacks.Callback] = [*found.averages]
    callbacks.append(EpochEnd(state, session.progress, training.epochs, steps, found.split))
    if session.tensorboard:
        folders, configs = [job.folder for job in jobs], [job.config for job in jobs]
        callbacks.append(TensorBoardLogs(folders, configs, found.split))
    try:
        found.fitted.fit(
            batches,
            epochs=until,
            initial_epoch=state.epochs_done,
            steps_per_epoch=steps,
            validation_data=learners.validation_batches(images, settings),
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
    except tf.errors.OpError:
        if logits is not None and logits.failure:
            raise logits.failure from None
        raise


def _state_folder(jobs: list[_Job]) -> Path:
    if len(jobs) == 1:
        return jobs[0].folder
    return jobs[0].study_folder / "together" / digest([job.config.name for job in jobs])


def _known_logits(job: _Job, session: Session):
    """Return the stored logits of a run's teachers; None where the teachers must be run."""
    config = job.config
    if not teacher_logits.usable(config):
        return None
    cache = teacher_logits.of_run(config, job.images, job.study_folder, session.progress)
    largest = teacher_logits.stored(config, job.images).top_k
    return cache.logits(job.average, temperature=config.taught.temperature if largest else None)


def _teacher(job: _Job):
    networks = [job.load(name) for name in job.config.teachers]
    one = len(networks) == 1
    return networks[0] if one else Ensemble(networks, job.average)


def _evaluate(job: _Job) -> Record:
    """Measure what needs no training: an ensemble of finished runs, a saved network, a run's
    network that is rounded."""
    began = time.monotonic()
    machine.clear_session()
    found, calibration, answers, weights = {}, {}, {}, {}
    files: dict[str, str] = {}
    for part in ("best", "last"):
        try:
            network = _untrained(job, part)
        except CollapsedError as error:
            return _not_rounded(job, error)
        network.compile(jit_compile=machine.uses_xla(job.config.training.jit))
        measured = evaluation.figures(network, job.images, job.settings, None)
        found[part], calibration[part], answers[part] = measured
        weights[part] = weights_hash(network)
        if job.config.is_derived:  # its weights are nowhere else
            files |= _saved(job, network, part)
    if not math.isfinite(found["best"]["test_nll"] + found["last"]["test_nll"]):
        return job.finish(
            status=records.DIVERGED,
            message=f"{_named(job.config)} gives NaN or infinite logits; give another network",
            seconds=time.monotonic() - began,
            weights=weights,
        )
    return job.finish(
        **found,
        calibration=calibration[job.config.training.select],
        parameters=count_params(network),
        flops=flops(network, job.images.input_shape),
        seconds=time.monotonic() - began,
        weights=weights,
        files=files | _stored(job, answers),
    )


def _saved(job: _Job, network: keras.Model, part: str) -> dict[str, str]:
    """Save a network's weights of one epoch; return the file and its SHA-256."""
    name = f"{part}.keras"
    with storage.appearing(job.folder / name) as path:
        network.save(path)
        write_notes(path, job.images.multi_label, job.images.class_names)
        found = storage.sha256(path)
    foreign.know(found)
    return {name: found}


def _copied(job: _Job, files: dict[str, str], part: str) -> dict[str, str]:
    """Save the last weights as those of another epoch; return the file and its SHA-256."""
    name = f"{part}.keras"
    with storage.appearing(job.folder / name) as path:
        shutil.copyfile(job.folder / "last.keras", path)
    return {name: files["last.keras"]}


def _stored(job: _Job, answers: dict[str, records.Predictions | None]) -> dict[str, str]:
    """Store the selected weights' answers to the test images; return the file and its SHA-256."""
    name = records.PREDICTIONS_FILE
    selected = answers[job.config.training.select]
    if selected is None:
        return {}
    return {name: records.write_predictions(job.folder / name, selected)}


def _named(config: RunConfig) -> str:
    return str(config.model.path) if config.model else f"the ensemble of {len(config.members)}"


def _untrained(job: _Job, part: str):
    if job.config.model:
        return learners.network(job.config, job.images, job.study_folder)
    members = [job.load(name, part) for name in job.config.members]
    return Ensemble(members, job.task.average(job.config.average))


def _measured(
    job: _Job, state: TrainingState, place: int, trained: float, session: Session
) -> Record:
    """Measure and save the last and the best weights of a training that took `trained` seconds."""
    began = time.monotonic()
    config, network, learner = job.config, state.networks[place], state.learners[place]
    found, calibration, answers, weights = {}, {}, {}, {}
    files: dict[str, str] = {}
    epochs = {"last": state.epochs_done, "best": state.best_epoch(place) + 1}
    taught = None
    if config.teachers:
        members = np.stack([_on_test(job, name, session) for name in config.teachers])
        taught = keras.ops.convert_to_numpy(average_logits(members, job.average))
    state.load_last(place)
    for part in ("last", "best"):
        same = part == "best" and epochs["best"] == epochs["last"]
        if not same:
            if part == "best":
                state.load_best(place)
            measured = evaluation.figures(learner, job.images, job.settings, taught)
        figures, calibration[part], answers[part] = measured
        if not math.isfinite(figures["test_nll"]):
            # The loss is of the weights before a step, so it does not tell of the last step's.
            state.fail(place, "the logits became NaN or infinite; lower the learning rate")
            return _diverged(job, state, place, trained)
        found[part] = {"epoch": epochs[part], **figures}
        weights[part] = weights_hash(network)
        files |= _copied(job, files, part) if same else _saved(job, network, part)
    return job.finish(
        **found,
        history=state.histories[place],
        calibration=calibration[config.training.select],
        parameters=count_params(network),
        flops=flops(network, job.images.input_shape),
        seconds=trained + time.monotonic() - began,
        weights=weights,
        files=files | _stored(job, answers),
    )


def _on_test(job: _Job, name: str, session: Session) -> np.ndarray:
    """Return the logits of a finished run on the test images, `[n, classes]`."""
    record = next(record for record in job.needed if record.name == name)

    def compute() -> np.ndarray:
        network = job.load(name)
        network.compile(jit_compile=machine.uses_xla(job.config.training.jit))
        size = job.config.teacher_input_size
        settings = dataclasses.replace(job.settings, input_size=size)
        return evaluation.predict(network, job.images.test, settings)

    return session.logits(f"{record.key} {record.weights[record.select]}", compute)


def _not_rounded(job: _Job, error: CollapsedError) -> Record:
    """Record a run whose network, as another run left it, cannot be rounded: the study goes on."""
    return job.finish(status=records.DIVERGED, message=str(error))


def _diverged(job: _Job, state: TrainingState, place: int, trained: float) -> Record:
    return job.finish(
        status=records.DIVERGED,
        message=state.failures[place],
        history=state.histories[place],
        seconds=trained,
    )
