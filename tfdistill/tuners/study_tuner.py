"""The tuner behind `tfdistill sweep`: its trials are runs of a study, one record for each seed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras_tuner

from tfdistill import records
from tfdistill.config import RunConfig, StudyConfig
from tfdistill.records import FINISHED
from tfdistill.training import runner, study_folder, train
from tfdistill.training.session import Session
from tfdistill.tuners import DistillationTuner, oracles, search_spaces, trials

ORACLES = {
    "grid": oracles.GridOracle,
    "random": oracles.RandomOracle,
    "bayesian": oracles.BayesianOracle,
    "hyperband": oracles.HyperbandOracle,
}


class StudyTuner(DistillationTuner):
    """Trains trials as runs of a study.

    Args:
        config: The study, with `sweep`.
        folder: Its folder, where its teachers are finished.
        session: What the trials share.
        project_name: Name of the folder in it for what Keras Tuner keeps.
    """

    def __init__(self, config: StudyConfig, folder: Path, session: Session, project_name: str):
        self.config, self.study_folder, self.session = config, folder, session
        size, memory = config.population.size, config.population.memory
        super().__init__(
            _oracle(config),
            hypermodel=None,
            seeds=config.seeds,
            population=size or train.fitting([trials.first(config)], memory, session),
            directory=str(folder),
            project_name=project_name,
        )

    def train(self, drawn, *fit_args, **fit_kwargs):
        runs = [[self._run(trial, seed) for seed in self.seeds] for trial in drawn]
        for each_seed in zip(*runs, strict=True):
            for group in _together(each_seed):
                runner.do_group(group, self.study_folder, self.session)
        return [self._found(of_trial) for of_trial in runs]

    def mend(self) -> None:
        """Do those runs of ended trials again whose records or weights have been lost since."""
        newest: dict[str, RunConfig | None] = {}
        for trial in self.oracle.trials.values():  # one that Hyperband promoted comes later
            for seed in self.seeds:
                run = self._run(trial, seed)
                newest[run.name] = run if trial.status in oracles.ENDED else None
        for run in filter(None, newest.values()):
            if study_folder.damage(run, self.study_folder) or not study_folder.recorded(
                run, self.study_folder
            ):
                runner.do_group([run], self.study_folder, self.session)

    def _run(self, trial, seed: int) -> RunConfig:
        values = trial.hyperparameters.values
        # A trial that Hyperband promotes goes on with the runs of the one that it was.
        root, earlier = trial.trial_id, values.get("tuner/trial_id")
        while earlier:
            root = earlier
            earlier = self.oracle.get_trial(root).hyperparameters.values.get("tuner/trial_id")
        run = trials.trial_run(self.config, searched(values), f"trial-{root}", seed)
        stop = values.get("tuner/epochs", run.training.epochs)
        return dataclasses.replace(run, stop_epoch=stop if stop < run.training.epochs else None)

    def _found(self, runs: Sequence[RunConfig]):
        found = records.read_runs(self.study_folder, [run.name for run in runs])
        failed = [record for record in found if record.status != FINISHED]
        if failed:
            return keras_tuner.errors.FailedTrialError(f"{failed[0].name}: {failed[0].message}")
        return [{"val_accuracy": record.figures["validation_accuracy"]} for record in found]


def searched(values: dict) -> dict:
    """Return a trial's values without those that Hyperband adds."""
    return {key: value for key, value in values.items() if not key.startswith("tuner/")}


def _oracle(config: StudyConfig) -> keras_tuner.Oracle:
    sweep = config.sweep
    extent = {
        "grid": {},
        "hyperband": {
            "max_epochs": trials.first(config).training.epochs,
            "factor": sweep.factor,
        },
    }.get(sweep.tuner, {"max_trials": sweep.trials})
    return ORACLES[sweep.tuner](
        objective=keras_tuner.Objective("val_accuracy", "max"),
        hyperparameters=search_spaces.hyperparameters(sweep.space),
        seed=sweep.seed,
        tune_new_entries=False,
        allow_new_entries=False,
        **extent,
    )


def _together(runs: Sequence[RunConfig]) -> list[list[RunConfig]]:
    kinds: dict[str, list[RunConfig]] = {}
    for run in runs:
        kinds.setdefault(train.together_key(run) or run.name, []).append(run)
    return list(kinds.values())
