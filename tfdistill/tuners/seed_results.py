"""What a search measured: one file for each trial and seed, and tables made of them."""

from collections.abc import Mapping
from pathlib import Path

from keras_tuner.engine.trial import TrialStatus

from tfdistill import records
from tfdistill.tuners import oracles
from tfdistill.utils import checks, storage


class SeedResults:
    """The files `seed-<seed>.json` of a search's trials.

    Args:
        tuner: The `DistillationTuner` whose they are.
    """

    def __init__(self, tuner):
        self._tuner = tuner

    def file(self, trial, seed: int) -> Path:
        """Return the path of one seed's file."""
        return Path(self._tuner.get_trial_dir(trial.trial_id)) / f"seed-{seed}.json"

    def done(self, trial) -> dict[int, dict]:
        """Return the results of a trial's finished seeds.

        Raises:
            UsageError: A file cannot be read, or a completed trial has lost one.
        """
        files = {seed: self.file(trial, seed) for seed in self._tuner.seeds}
        lost = [file for file in files.values() if not file.exists()]
        if lost and trial.status == TrialStatus.COMPLETED:
            raise checks.UsageError(f"The search has lost {lost[0]}. {oracles.REMEDY}")
        return {seed: oracles.read(file) for seed, file in files.items() if file.exists()}

    def scores(self, trial) -> list[float]:
        """Return the objective of a trial's finished seeds."""
        name = self._tuner.oracle.objective.name
        done = self.done(trial).values()
        return [result["figures"][name] for result in done if not result["failure"]]

    def write(self, trial, seed: int, epoch, figures: dict, history=None, failure: str = ""):
        """Write one seed's result."""
        result = {"seed": seed, "epoch": epoch, "figures": figures, "failure": failure}
        storage.write_checked(self.file(trial, seed), {**result, "history": history or {}})


def by_trial(results: SeedResults, trials: Mapping):
    """Return a pandas DataFrame with one row for each trial."""
    import pandas as pd

    rows = []
    for name, trial in sorted(trials.items()):
        spread = records.Spread.of(results.scores(trial))
        figures = {"mean": spread.mean, "std": spread.std, "n": spread.count}
        values = trial.hyperparameters.values
        rows.append({"trial": name, **values, **figures, "status": trial.status})
    return pd.DataFrame(rows)


def by_seed(results: SeedResults, trials: Mapping):
    """Return a pandas DataFrame with one row for each trial and seed."""
    import pandas as pd

    rows = []
    for name, trial in sorted(trials.items()):
        for seed, result in results.done(trial).items():
            row = {"trial": name, **trial.hyperparameters.values, "seed": seed}
            row |= {"epoch": result["epoch"], **result["figures"]}
            rows.append({**row, "failure": result["failure"]})
    return pd.DataFrame(rows)
