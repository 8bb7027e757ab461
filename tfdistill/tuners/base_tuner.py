"""What all tuners share: several seeds, exact resume and one compiled step.

Keras Tuner keeps only the mean over executions, swallows errors, compiles a model for every trial
(most of a short trial's time) and restarts an interrupted trial; these tuners do not.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner as kt
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src.distribute import utils as roles
from keras_tuner.src.engine import tuner_utils

from tfdistill.training.learners import network_of
from tfdistill.tuners import oracles, search_settings, seed_results
from tfdistill.tuners.seed_training import SeedTraining
from tfdistill.utils import checks, machine, storage, tensorflow
from tfdistill.utils.progress import Silent

if TYPE_CHECKING:
    import pandas as pd

IDLE_SECONDS = 0.2


class DistillationTuner(kt.Tuner):
    """Base of the tuners: runs every trial with every seed and survives any interruption.

    The same call after a kill resumes where the search stood: with the epoch, if it was training.
    A search that was begun with something else (space, objective, seeds, networks, teacher, data or
    what `fit` is given) is refused. Arrays are compared by their content; of a `tf.data.Dataset`
    and its like only what can be seen, `element_spec` and cardinality; of a function that builds
    networks, what it builds at the first values.

    A trial's figures are those of the best epoch by the objective; its score is their mean over the
    seeds, and `results` and `seed_results` show all of them. The weights of the best seed are kept
    for `get_best_models`. In a trial's folder `seed-<seed>.json` holds one seed's figures.

    Any other Keras Tuner hypermodel works too, recompiled for each training; if it has a `fit`
    of its own, an interrupted seed is restarted. An error ends the search as it is; only a loss
    that is no number, or a `FailedTrialError`, marks the trial as failed and the search goes on.

    In a distributed search (see Keras Tuner's guide) give all processes the same directory. A
    worker that was killed takes up its trial when it is started again under its name; until then
    the chief waits.

    Args:
        oracle: One of `tfdistill.tuners.oracles`.
        hypermodel: A `DistillationHyperModel`, or any hypermodel or function from `hp` to a
            compiled model.
        seeds: Of the trainings of each trial.
        population: Number of trials that are trained together in one step, over the same batches.
            Each has callbacks of its own, which see its model and figures as if it were trained
            alone. Trials of Hyperband are trained alone.
        progress: Where to show progress; None shows nothing.
        directory: Where the project's folder is.
        project_name: Its name.
        overwrite: Start over, without what is in the folder.
        **kwargs: Further arguments of `keras_tuner.Tuner`.

    Raises:
        UsageError: Seeds or a population that cannot be; a folder that holds a search begun with
            something else; in `search`, that too, or no chief that answers.
    """

    def __init__(
        self,
        oracle: Any,
        hypermodel: Any,
        seeds: Sequence[int] = (0,),
        population: int = 1,
        progress: Silent | None = None,
        directory: str | Path | None = None,
        project_name: str | None = None,
        overwrite: bool = False,
        **kwargs: Any,
    ):
        tensorflow.needed("A tuner")
        self.seeds = [checks.count("seeds", seed, minimum=0) for seed in seeds]
        checks.different("seeds", self.seeds)
        self.population = checks.count("population", population)
        if kwargs.pop("executions_per_trial", 1) != 1:
            raise checks.UsageError("Give seeds=[0, 1, ...] instead of executions_per_trial.")
        self._ready = False
        self._batch: list[str] = []
        worker = roles.has_chief_oracle() and not roles.is_chief_oracle()
        super().__init__(
            oracle,
            hypermodel,
            directory=directory,
            project_name=project_name,
            overwrite=overwrite and not worker,  # the folder is the chief's
            **kwargs,
        )
        self._ready = True
        self._results = seed_results.SeedResults(self)
        self._training = SeedTraining(self, self._results, progress)
        self._client = self.oracle if worker else None
        self.oracle: Any = oracle  # outside of `search` a worker reads what the chief has written
        self._settings = search_settings.of_search(self)  # a reload brings the space that is there
        begun, noted = oracle.begun, Path(self.project_dir) / search_settings.SETTINGS
        if begun and not noted.exists():
            self._training.progress.say(
                f"{self.project_dir} was written by an earlier version, which did not note with "
                "what the search was begun: it goes on with what is given now"
            )
        if not begun and not worker:
            noted.unlink(missing_ok=True)
        self._agree()
        if begun:
            self.reload()
        self.save()  # so that a kill in the first trial leaves something to go on from

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Run the search to its end.

        Args:
            *fit_args: As of `fit`. `x` may also be a function from the first epoch's number to a
                dataset; then training resumes exactly where it was interrupted. Other data starts
                over each time.
            **fit_kwargs: As of `fit`, such as `epochs`, `validation_data`, `callbacks`; with
                `verbose=0` nothing is printed. After a kill callbacks go on where they stood: what
                they noted as numbers, text, arrays and collections of them is kept.
        """
        machine.make_repeatable()  # so that an interrupted search ends as an uninterrupted one
        if roles.is_chief_oracle() or not roles.has_chief_oracle():
            self.oracle.verbose = fit_kwargs.get("verbose", "auto")
        self._training.check(fit_kwargs.get("callbacks"))
        fit = search_settings.of_fit(self, fit_args, fit_kwargs)
        if roles.is_chief_oracle():
            self._agree(fit)
            self.save()
            oracles.serve(self.oracle)
            return
        with self._chief():
            self._agree(fit)
            self.on_search_begin()
            self._training.progress.start(f"Search in {self.project_dir}", {})
            try:
                while trials := self._draw():
                    self._do(trials, *fit_args, **fit_kwargs)
            finally:
                self._training.progress.stop()
            self.on_search_end()

    def train(self, trials: list[Trial], *fit_args: Any, **fit_kwargs: Any) -> list:
        """Train trials with every seed; to be overridden to train in another way.

        Args:
            trials: The trials, at most `population` of them.
            *fit_args: What `search` was given.
            **fit_kwargs: What `search` was given.

        Returns:
            For each trial a list with one dict of figures for each seed, or the `FailedTrialError`
            that tells why there are none.
        """
        for group in self._training.groups(trials):
            for seed in self.seeds:
                self._training.train(group, seed, *fit_args, **fit_kwargs)
        return [self._training.outcome(trial) for trial in trials]

    def run_trial(self, trial: Trial, *fit_args: Any, **fit_kwargs: Any) -> list[dict[str, float]]:
        """Return a trial's figures, one dict for each seed."""
        (results,) = self.train([trial], *fit_args, **fit_kwargs)
        if isinstance(results, Exception):
            raise results
        return results

    def results(self) -> "pd.DataFrame":
        """Return a pandas DataFrame, one row for each trial.

        Columns: trial, the hyperparameters, mean and std (n - 1) of the objective, n, status.
        """
        return seed_results.by_trial(self._results, self.oracle.trials)

    def seed_results(self) -> "pd.DataFrame":
        """Return a pandas DataFrame, one row for each trial and seed.

        Columns: trial, the hyperparameters, seed, epoch (0, 1, ... the best by the objective), the
        figures of that epoch, and failure.
        """
        return seed_results.by_seed(self._results, self.oracle.trials)

    def load_model(self, trial: Trial) -> keras.Model:
        """Return the model of a trial with the weights of its best seed, at their best epoch.

        Raises:
            UsageError: The file of the weights, or the one beside it, is not as it was written.
        """
        model = self._try_build(trial.hyperparameters)
        weights = Path(self._get_checkpoint_fname(trial.trial_id))
        kept = oracles.read(Path(self._get_build_config_fname(trial.trial_id)))
        if "sha256" in kept:  # not of an earlier version, where all is the build config
            oracles.check_file(weights, kept["sha256"])
        if not model.built:
            model.build_from_config(kept.get("build_config", kept))
        network_of(model).load_weights(weights)
        return model

    def on_search_end(self) -> None:
        """Remove the states of trainings that are finished."""
        for file in Path(self.project_dir).glob("trial_*/seed-*.json"):
            shutil.rmtree(file.with_suffix(""), ignore_errors=True)

    def get_state(self) -> dict:
        """Return what is kept beside the oracle: the seeds, and the trials drawn together."""
        return {"seeds": self.seeds, "batch": self._batch}

    def set_state(self, state: dict) -> None:
        """Take it up.

        Raises:
            UsageError: The search was begun with other seeds.
        """
        begun = state.get("seeds", self.seeds)
        if begun != self.seeds:
            raise checks.UsageError(
                f"The search in {self.project_dir} was begun with seeds={begun}. Received: "
                f"seeds={self.seeds}. Give the same, or another project_name."
            )
        self._batch = state.get("batch", [])

    def save(self) -> None:
        """Write the oracle's state, unless it is the chief's, and the tuner's."""
        if not self._is_worker():
            self.oracle.save()
        storage.write_checked(Path(self._get_tuner_fname()), self.get_state())

    def reload(self) -> None:
        """Take up the search in the project's folder."""
        self.oracle.reload()
        file = Path(self._get_tuner_fname())
        self.set_state(oracles.read(file) if file.exists() else {})

    # Drawing and reporting trials.

    def _draw(self) -> list[Trial]:
        """Return up to `population` trials, none at the search's end; wait while there is none."""
        self.pre_create_trial()
        trials: list[Trial] = []
        for slot in range(self._wanted()):
            name = self.tuner_id if self.population == 1 else f"{self.tuner_id}-{slot}"
            trial = self.oracle.create_trial(name)
            while trial.status == TrialStatus.IDLE and not trials:
                time.sleep(IDLE_SECONDS)
                trial = self.oracle.create_trial(name)
            if trial.status == TrialStatus.RUNNING:
                trials.append(trial)
            elif trials:
                break
        self._batch = [trial.trial_id for trial in trials]
        self.save()
        return trials

    def _agree(self, fit: dict[str, str] | None = None) -> None:
        here = {"search": self._settings} | ({} if fit is None else {"fit": fit})
        worker = roles.has_chief_oracle() and not roles.is_chief_oracle()
        search_settings.agree(Path(self.project_dir), here, note=not worker)

    def _wanted(self) -> int:
        # After a kill between two reports of trials drawn together, the others come first: what is
        # proposed next may depend on them.
        if self._is_worker():
            return self.population
        ongoing = [self.oracle.get_trial(n).status not in oracles.ENDED for n in self._batch]
        return min(sum(ongoing) or self.population, self.population)

    def _do(self, trials: list[Trial], *fit_args: Any, **fit_kwargs: Any) -> None:
        for trial in trials:
            self.on_trial_begin(trial)
        results = self._trained(trials, *fit_args, **fit_kwargs)
        for trial, result in zip(trials, results, strict=True):
            self._report(trial, result)
            self.on_trial_end(trial)

    def _trained(self, trials: list[Trial], *fit_args: Any, **fit_kwargs: Any) -> list:
        try:
            return self.train(trials, *fit_args, **fit_kwargs)
        except kt.errors.FailedTrialError as error:
            return [error] * len(trials)

    def _report(self, trial: Trial, result: Any) -> None:
        """Tell the oracle what a trial brought, just before it is told that the trial has ended."""
        if isinstance(result, kt.errors.FailedTrialError):
            trial.status, trial.message = TrialStatus.FAILED, str(result)
            return
        for seed, figures in zip(self.seeds, result, strict=True):
            if not self._results.file(trial, seed).exists():  # trained in another way
                self._results.write(trial, seed, None, figures)
        means = tuner_utils.average_metrics_dicts(result)
        epochs = [done["epoch"] or 0 for done in self._results.done(trial).values()]
        step = round(sum(epochs) / len(epochs))
        means = {name: float(value) for name, value in means.items()}
        self.oracle.update_trial(trial.trial_id, means, step=step)
        trial.status = TrialStatus.COMPLETED

    @contextlib.contextmanager
    def _chief(self) -> Iterator[None]:
        """Ask the chief for trials, if there is one."""
        if self._client is None:
            yield
            return
        import grpc

        oracles.wait_for_oracle()
        local, self.oracle = self.oracle, self._client
        try:
            yield
        except grpc.RpcError as error:
            raise checks.UsageError(
                f"Lost the oracle during the search ({error.code().name}). Start the chief and "
                "this worker again: the search resumes where it stood."
            ) from None
        finally:
            self.oracle = local
        self.reload()

    def _try_build(self, hp: kt.HyperParameters) -> keras.Model:
        # Keras Tuner's clears the session, also under models that are in use.
        model = self._build_hypermodel(hp)
        if not isinstance(model, keras.Model):
            raise checks.UsageError(
                f"A hypermodel must build a compiled Keras model. Received: {type(model).__name__}."
            )
        if self.max_model_size and model.built and model.count_params() > self.max_model_size:
            raise kt.errors.FailedTrialError(f"Oversized model: {model.count_params()} parameters.")
        return model

    def _get_tuner_fname(self) -> str:
        # Where this file exists, Keras Tuner's constructor reloads, with a print; ours does it.
        file = Path(super()._get_tuner_fname())
        return str(file if self._ready else file.with_suffix(".none"))
