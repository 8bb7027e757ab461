"""A run of the multi-view theory: a group of networks on the same examples, or their ensemble.

Allen-Zhu & Li (arXiv 2012.09816). Networks of a group differ in their initial weights and are
trained side by side. Network i of a run starts from the same weights as network i of every other
run of the same seed, width and activation, so a student and the network that learned from the
labels alone are a pair.
"""

import dataclasses
import hashlib
import time
from pathlib import Path

import keras
import numpy as np

from tfdistill import records
from tfdistill.config import RunConfig, settings_of, to_dict
from tfdistill.distillation.ensembles import average_logits
from tfdistill.records import Record
from tfdistill.studies.multi_view.data import Task, task
from tfdistill.studies.multi_view.network import Networks, Soft, train
from tfdistill.studies.multi_view.settings import GroupSettings, MultiViewData
from tfdistill.training.session import Session
from tfdistill.utils import checks, machine, storage
from tfdistill.utils.progress import Silent

WEIGHTS_FILE = "weights.npz"
# A view is learned if its class answers to it alone with this share of what it takes.
LEARNED = 0.25


def run(config: RunConfig, study_folder: Path, session: Session) -> Record:
    """Train a group of networks, or evaluate an ensemble of finished ones, and return the record.

    Leaves `record.json` and, of trained networks, `weights.npz` in the run's folder. An interrupted
    run is restarted.

    Args:
        config: Its `settings` are those of `GroupSettings`. Its networks start from those of the
            run `start`, with their velocity, or from new weights; they learn from the networks of
            the runs `teachers` as `distillation` says; or it is the ensemble of the networks of the
            runs `members`.
        study_folder: Folder of the study, where the runs that it needs are finished.
        session: Where to show progress; an epoch is a step of gradient descent.

    Returns:
        A record whose accuracies are means over the group. Its `extra` has `networks`, a list with
        an entry for each network, or one for the ensemble:

            training_error, test_error: in 0..1; of multi-view data, test_error is
                (1 - mu) * multi_view_error + mu * single_view_error
            multi_view_error, single_view_error: on test examples with both views, with one
            responses: F_i for one patch that is a view of class i and nothing else, [classes][2]
            learned: whether the network has learned the view, as `learned` says, [classes][2]

    Raises:
        UsageError: As `check`.
    """
    began = time.monotonic()
    check(config, session)
    settings = settings_of(GroupSettings, config)
    needed = records.read_runs(study_folder, config.needs)
    examples = task(settings.examples, config.seed)
    folder = records.run_folder(study_folder, config.name)
    if config.members:
        networks = _loaded(study_folder, config.members, settings)
        measured = _measured(_Ensemble(networks, config.average), examples, settings)
    else:
        networks = _trained(config, settings, examples, study_folder, session.progress)
        measured = _measured(networks, examples, settings)
        with storage.appearing(folder / WEIGHTS_FILE) as path:
            np.savez(path, weights=networks.weights, velocity=networks.velocity)
    files = {} if config.members else {WEIGHTS_FILE: storage.sha256(folder / WEIGHTS_FILE)}
    accuracy = 1 - float(np.mean([found["test_error"] for found in measured]))
    figures = {"epoch": settings.steps, "test_accuracy": accuracy}
    weights = hashlib.sha256(networks.weights.tobytes()).hexdigest()
    finite = bool(np.isfinite(networks.weights).all())
    record = Record(
        name=config.name,
        row=config.row,
        seed=config.seed,
        key=records.run_key(to_dict(config), needed),
        config=to_dict(config),
        status=records.FINISHED if finite else records.DIVERGED,
        message="" if finite else "the weights are no numbers; lower settings.descent.rate",
        best=figures,
        last=figures,
        parameters=networks.weights[:, :, 0].size,
        flops=_operations(settings),
        seconds=time.monotonic() - began,
        weights={"best": weights, "last": weights},
        versions=machine.versions(),
        device=machine.device(),
        environment=machine.environment(),
        needed=records.to_repeat(needed),
        files=files,
        extra={"networks": measured},
    )
    records.write(folder, record)
    return record


def run_together(configs: list[RunConfig], study_folder: Path, session: Session) -> list[Record]:
    """Do several runs, one after the other."""
    return [run(config, study_folder, session) for config in configs]


def cost(config: RunConfig, session: Session) -> float:
    """Return about how many operations a run takes, those of its forward passes."""
    settings = settings_of(GroupSettings, config)
    data = settings.examples
    steps = 0 if config.members else settings.steps
    passes = steps * data.train_examples + data.test_examples
    return float(passes * settings.networks * _operations(settings))


def check(config: RunConfig, session: Session) -> None:
    """Raise if the settings do not fit together, without writing anything."""
    settings = settings_of(GroupSettings, config)
    taught = config.distillation
    if taught and (taught.loss != "soft_targets" or taught.features or taught.warmup_epochs):
        raise checks.UsageError(
            "Students of the multi-view theory learn soft targets and nothing else. Received: "
            f"distillation.loss={taught.loss!r}, {len(taught.features)} features, "
            f"warmup_epochs={taught.warmup_epochs:g}. Remove what is not soft targets."
        )
    if config.teachers and settings.taught_by == "next" and settings.networks < 2:
        raise checks.UsageError(
            "A network that learns from the next one needs a group of at least 2. Received: "
            f"settings.networks={settings.networks}."
        )


def one_batch(config: RunConfig) -> RunConfig:
    """Return the run with one step, which takes all training examples, and few test examples."""
    settings = settings_of(GroupSettings, config)
    changes = {"steps": 1}
    if settings.data:
        few = {"test_multi_view": 10, "test_single_view": 10}
        changes["data"] = dataclasses.replace(settings.data, **few)
    return dataclasses.replace(config, settings=to_dict(dataclasses.replace(settings, **changes)))


def learned(responses: np.ndarray) -> np.ndarray:
    """Return which views networks have learned.

    A view is learned if its class answers to it alone with at least a quarter of what the network's
    classes answer to their stronger view in the mean.

    Args:
        responses: `[networks, classes, 2]` float, as `Networks.responses` returns them.

    Returns:
        `[networks, classes, 2]` bool.

    Example:
        >>> learned(np.array([[[8.0, 0.5], [6.0, 5.0]]]))
        [[[True, False], [True, True]]]
    """
    usual = responses.max(axis=2).mean(axis=1)  # [networks]
    return responses >= LEARNED * usual[:, None, None]


@dataclasses.dataclass(frozen=True, eq=False)
class _Ensemble:
    """Several networks as one, the mean of their `logits` or `probabilities`."""

    members: Networks
    average: str

    def outputs(self, patches: np.ndarray) -> np.ndarray:
        return _averaged(self.members.outputs(patches), self.average)

    def responses(self, views: np.ndarray) -> np.ndarray:
        return self.members.responses(views).mean(axis=0, keepdims=True)


def _averaged(logits: np.ndarray, average: str) -> np.ndarray:
    """Return `[n, 1, classes]`, the average of `[n, networks, classes]` logits."""
    mean = average_logits(np.moveaxis(logits, 1, 0), average)
    return keras.ops.convert_to_numpy(mean)[:, None]


def _trained(
    config: RunConfig,
    settings: GroupSettings,
    examples: Task,
    study_folder: Path,
    progress: Silent,
) -> Networks:
    soft = None
    if config.teachers:
        teachers = _loaded(study_folder, config.teachers, settings)
        logits = teachers.outputs(examples.train.patches)
        taught = _taught(logits, examples.train.labels, settings, config.taught.average)
        soft = Soft(taught, config.taught, settings.soft_loss)
    return train(
        _at_start(config, settings, study_folder),
        examples.train,
        settings.descent,
        settings.steps,
        soft,
        lambda done, accuracy: progress.epoch(done - 1, settings.steps, {"accuracy": accuracy}),
    )


def _at_start(config: RunConfig, settings: GroupSettings, study_folder: Path) -> Networks:
    if config.start:
        return _loaded(study_folder, (config.start,), settings)
    data = settings.examples
    seeds = [(config.seed, number) for number in range(settings.networks)]
    return Networks.new(settings.network, data.dimension, data.classes, seeds)


def _loaded(study_folder: Path, names: tuple[str, ...], settings: GroupSettings) -> Networks:
    """Return the networks of finished runs, all in one."""
    parts = []
    for record in records.read_runs(study_folder, names):
        place = records.run_folder(study_folder, record.name)
        records.check_files(place, record)
        with np.load(place / WEIGHTS_FILE) as saved:
            parts.append((saved["weights"], saved["velocity"]))
    weights, velocity = (np.concatenate(part, axis=2) for part in zip(*parts, strict=True))
    return Networks(settings.network, weights, velocity)


def _taught(
    logits: np.ndarray, labels: np.ndarray, settings: GroupSettings, average: str
) -> np.ndarray:
    """Return what each student is taught, `[n, students, classes]`, from all teachers' logits."""
    if settings.taught_by == "next":
        return np.roll(logits, -1, axis=1)
    taught = _averaged(logits, average)
    if settings.taught_by == "labels":
        right = np.eye(logits.shape[-1], dtype=np.float32)[labels][:, None]  # [n, 1, classes]
        taught = right * (right * taught).sum(axis=-1).mean()
    return np.repeat(taught, settings.networks, axis=1)


def _measured(networks: Networks | _Ensemble, examples: Task, settings: GroupSettings) -> list:
    """Return the figures of every network, as `run` says."""
    training = _errors(networks, examples.train)  # [n, networks]
    test = _errors(networks, examples.test)
    found = {"training_error": training.mean(axis=0)}
    if isinstance(settings.examples, MultiViewData) and examples.views is not None:
        single, mu = examples.test.shown >= 0, settings.examples.mu
        found |= {
            "multi_view_error": test[~single].mean(axis=0),
            "single_view_error": test[single].mean(axis=0),
        }
        both = (1 - mu) * found["multi_view_error"] + mu * found["single_view_error"]
        responses = networks.responses(examples.views)
        found |= {
            "test_error": both,
            "responses": responses.round(4),
            "learned": learned(responses),
        }
    else:
        found["test_error"] = test.mean(axis=0)
    values = zip(*(each.tolist() for each in found.values()), strict=True)
    return [dict(zip(found, one, strict=True)) for one in values]


def _errors(networks: Networks | _Ensemble, examples) -> np.ndarray:
    """Return which examples each network has wrong, `[n, networks]` bool."""
    return networks.outputs(examples.patches).argmax(axis=-1) != examples.labels[:, None]


def _operations(settings: GroupSettings) -> int:
    """Return the operations of one network's forward pass of one example."""
    data = settings.examples
    patches = getattr(data, "patches", 1)
    return 2 * patches * data.dimension * settings.network.neurons * data.classes
