"""How a search trains one seed of a trial, or of several trials together."""

import logging
import shutil
from pathlib import Path

import keras
import keras_tuner as kt
from keras_tuner.engine.trial import Trial
from keras_tuner.src.engine import tuner_utils

from tfdistill.training.learners import Workbench, network_of
from tfdistill.training.resume import STATE, EpochEnd, unfinished
from tfdistill.tuners import trial_callbacks
from tfdistill.tuners.hypermodels import ObjectiveState, learners_for
from tfdistill.tuners.trial_callbacks import TrialCallbacks
from tfdistill.utils import storage
from tfdistill.utils.progress import Silent
from tfdistill.utils.storage import digest


class _Logged(Silent):
    """Shows nothing; what is to be told is logged as a warning."""

    def say(self, text):
        logging.getLogger(__name__).warning(text)


class SeedTraining:
    """Trains seeds for a tuner, each exactly resumed, and keeps the last compiled models.

    Args:
        tuner: The `DistillationTuner`.
        results: Its `SeedResults`.
        progress: Where to show progress; None logs what is to be told.
    """

    def __init__(self, tuner, results, progress: Silent | None = None):
        self._tuner = tuner
        self._results = results
        self._bench = Workbench()
        self.progress = progress or _Logged()

    @property
    def _own_fit(self) -> bool:
        return type(self._tuner.hypermodel).fit is not kt.HyperModel.fit

    def groups(self, trials) -> list[list[Trial]]:
        """Return the trials in groups that can be trained in one step."""
        hyperband = any("tuner/epochs" in trial.hyperparameters.values for trial in trials)
        alone = self._own_fit or hyperband
        return [[trial] for trial in trials] if alone else [list(trials)]

    def check(self, callbacks) -> None:
        """Raise at callbacks of `search` that cannot do what they do in `fit`."""
        if self._tuner.hypermodel is not None and not self._own_fit:
            trial_callbacks.check(keras.tree.flatten(callbacks or []), self._tuner.population)

    def train(self, group, seed, x=None, *fit_args, **fit_kwargs) -> None:
        """Train trials of one group with one seed, and write what they brought."""
        failed = [t for t in group if any(r["failure"] for r in self._results.done(t).values())]
        group = [t for t in group if t not in failed and not self._results.file(t, seed).exists()]
        if not group:
            return
        self.progress.begin([_title(trial, seed) for trial in group])
        values = group[0].hyperparameters.values
        if "tuner/epochs" in values:
            fit_kwargs["epochs"] = values["tuner/epochs"]
        hps = [trial.hyperparameters for trial in group]
        sample = None if self._own_fit else _sample(x)
        learners = learners_for(
            self._bench, self._tuner.hypermodel, self._tuner._try_build, hps, seed, sample
        )
        state = self._state(group, seed, learners)

        results = None
        if self._own_fit or unfinished(state, fit_kwargs.get("epochs", 1), self.progress):
            keras.utils.set_random_seed(seed)
            data = x(state.epochs_done) if callable(x) else x
            fit_args = fit_args if data is None else (data, *fit_args)
            results = self._fit(learners, group, state, *fit_args, **fit_kwargs)
        for place, trial in enumerate(group):
            self._keep(trial, seed, state, place, results)
        if "tuner/epochs" not in values:  # Hyperband may go on from here
            state.clear()

    def _state(self, group, seed, learners) -> ObjectiveState:
        folder = self._results.file(group[0], seed).with_suffix("")
        searched = [
            {n: v for n, v in trial.hyperparameters.values.items() if not n.startswith("tuner/")}
            for trial in group
        ]
        past = group[0].hyperparameters.values.get("tuner/trial_id")
        if past and not (folder / STATE).exists():
            _copy(Path(self._tuner.get_trial_dir(past)) / folder.name, folder)
        objective = self._tuner.oracle.objective
        return ObjectiveState(folder, digest(searched, seed), learners, objective)

    def _fit(self, learners, group, state, *fit_args, callbacks=None, **fit_kwargs):
        each = [self._copied(callbacks, trial, state.folder.name) for trial in group]
        epochs, trial = fit_kwargs.get("epochs", 1), group[0]
        callbacks = each[0]
        if callbacks and not self._own_fit:
            callbacks = [TrialCallbacks(state, each, learners.split, self.progress.say)]
        callbacks.append(tuner_utils.TunerCallback(self._tuner, trial))
        callbacks.append(EpochEnd(state, self.progress, epochs, split=learners.split))
        fit_kwargs["callbacks"] = callbacks
        if not self._own_fit:
            fit_kwargs["initial_epoch"] = state.epochs_done
        if learners.split:
            return learners.fitted.fit(*fit_args, **fit_kwargs)
        return self._tuner.hypermodel.fit(
            trial.hyperparameters, learners.fitted, *fit_args, **fit_kwargs
        )

    def _copied(self, callbacks, trial, logs: str) -> list[keras.callbacks.Callback]:
        """Return a trial's own copies of what `search` was given."""
        copies = self._tuner._deepcopy_callbacks(keras.tree.flatten(callbacks or []))
        if any(isinstance(callback, keras.callbacks.TensorBoard) for callback in copies):
            self._tuner._configure_tensorboard_dir(copies, trial, logs)
        return copies

    def _keep(self, trial, seed, state, place, results) -> None:
        """Write a seed's figures and, if they are the trial's best so far, its weights."""
        objective, figures, epoch = self._tuner.oracle.objective, {}, None
        if not state.failures[place]:
            if state.epochs_done:
                epoch = state.best_epoch(place)
                state.load_best(place)
                figures = {name: values[epoch] for name, values in state.histories[place].items()}
            if self._own_fit:
                tuner_utils.validate_trial_results(results, objective, "HyperModel.fit()")
                figures = tuner_utils.convert_to_metrics_dict(results, objective)
            figures = {name: float(value) for name, value in figures.items()}
            figures.setdefault(objective.name, float(objective.get_value(figures)))
            self._keep_weights(trial, figures[objective.name], state.learners[place])
        failure = state.failures[place]
        self._results.write(trial, seed, epoch, figures, state.histories[place], failure)
        score = f"{objective.name} {figures[objective.name]:.4g}" if figures else failure
        self.progress.end(_title(trial, seed), score)

    def _keep_weights(self, trial, score: float, learner) -> None:
        objective = self._tuner.oracle.objective
        if any(not objective.better_than(score, other) for other in self._results.scores(trial)):
            return
        target = Path(self._tuner._get_checkpoint_fname(trial.trial_id))
        with storage.appearing(target) as temporary:
            network_of(learner).save_weights(temporary)
        kept = {"build_config": learner.get_build_config(), "sha256": storage.sha256(target)}
        storage.write_checked(Path(self._tuner._get_build_config_fname(trial.trial_id)), kept)

    def outcome(self, trial):
        """Return a trial's figures, one dict for each seed, or why there are none."""
        done = self._results.done(trial).values()
        failures = [result["failure"] for result in done if result["failure"]]
        if failures:
            return kt.errors.FailedTrialError(failures[0])
        return [result["figures"] for result in done]


def _title(trial: Trial, seed: int) -> str:
    return f"trial {trial.trial_id}, seed {seed}"


def _sample(x):
    """Return one example of the training data, `[1, ...]`."""
    data = x(0) if callable(x) else x
    batch = data if hasattr(data, "shape") else next(iter(data))
    return (batch[0] if isinstance(batch, (tuple, list)) else batch)[:1]


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a training's state, the state itself last: without it there is none."""
    files = sorted(source.glob("*.npz"), key=lambda file: file.name == STATE)
    for file in files:
        with storage.appearing(target / file.name) as temporary:
            shutil.copyfile(file, temporary)
