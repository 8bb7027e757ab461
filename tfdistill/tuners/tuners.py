"""Tuners: Keras Tuner for distillation, with several seeds, exact resume and one compiled step."""

from collections.abc import Callable
from typing import Any

import keras_tuner as kt

from tfdistill.tuners import oracles
from tfdistill.tuners.base_tuner import DistillationTuner


class GridSearch(DistillationTuner):
    """Tries every point of the grid once.

    Arguments are those of Keras Tuner's `GridSearch` and of `DistillationTuner`.

    Example:
        >>> tuner = GridSearch(hypermodel, "val_accuracy", seeds=[0, 1, 2], directory="results")
        >>> tuner.search(images, labels, epochs=10, validation_data=validation)
        >>> tuner.results()
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: str | kt.Objective | list[str | kt.Objective] | None = None,
        max_trials: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        settings = {"objective": objective, "max_trials": max_trials, "seed": seed}
        super().__init__(_oracle(oracles.GridOracle, settings, kwargs), hypermodel, **kwargs)


class RandomSearch(DistillationTuner):
    """Tries random points.

    Arguments are those of Keras Tuner's `RandomSearch` and of `DistillationTuner`.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: str | kt.Objective | list[str | kt.Objective] | None = None,
        max_trials: int | None = 10,
        seed: int | None = None,
        **kwargs: Any,
    ):
        settings = {"objective": objective, "max_trials": max_trials, "seed": seed}
        super().__init__(_oracle(oracles.RandomOracle, settings, kwargs), hypermodel, **kwargs)


class BayesianOptimization(DistillationTuner):
    """Tries points that a Gaussian process expects to be good.

    Arguments are those of Keras Tuner's `BayesianOptimization` and of `DistillationTuner`.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: str | kt.Objective | list[str | kt.Objective] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        alpha: float = 1e-4,
        beta: float = 2.6,
        seed: int | None = None,
        **kwargs: Any,
    ):
        settings = {"objective": objective, "max_trials": max_trials, "seed": seed}
        settings |= {"num_initial_points": num_initial_points, "alpha": alpha, "beta": beta}
        super().__init__(_oracle(oracles.BayesianOracle, settings, kwargs), hypermodel, **kwargs)


class Hyperband(DistillationTuner):
    """Tries many points for few epochs and goes on with the best of them.

    Arguments are those of Keras Tuner's `Hyperband` and of `DistillationTuner`. A point that goes
    on continues the training of the trial that it comes from, with optimizer and history, and its
    score is that of its best epoch so far. The epochs given to `search` do not count.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: str | kt.Objective | list[str | kt.Objective] | None = None,
        max_epochs: int = 100,
        factor: int = 3,
        hyperband_iterations: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        settings = {"objective": objective, "max_epochs": max_epochs, "seed": seed}
        settings |= {"factor": factor, "hyperband_iterations": hyperband_iterations}
        super().__init__(_oracle(oracles.HyperbandOracle, settings, kwargs), hypermodel, **kwargs)


def _oracle(kind: Callable[..., kt.Oracle], settings: dict, kwargs: dict) -> kt.Oracle:
    """Return an oracle, taking its part out of a tuner's arguments."""
    names: tuple[str, ...] = ("hyperparameters", "tune_new_entries", "allow_new_entries")
    names += ("max_retries_per_trial", "max_consecutive_failed_trials")
    return kind(**settings, **{name: kwargs.pop(name) for name in names if name in kwargs})
