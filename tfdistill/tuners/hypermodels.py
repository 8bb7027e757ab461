"""What a search trains: a Distiller as a hypermodel, and compiled models that serve many trials."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt
from keras_tuner.src.engine.objective import DefaultObjective

from tfdistill.distillation.distiller import Distiller
from tfdistill.distillation.population import Population
from tfdistill.losses import SoftTargets, TemperedLoss
from tfdistill.training.learners import Learners, Workbench
from tfdistill.training.resume import TrainingState
from tfdistill.utils import checks
from tfdistill.utils.storage import digest

_DIALS = ("alpha", "temperature")  # what can be assigned in a compiled Distiller


class DistillationHyperModel(kt.HyperModel):
    """What is searched: students that learn from a teacher at some alpha and temperature.

    The tuners of this module compile one Distiller for all trials that differ only in alpha,
    temperature and seed.

    Args:
        student: A function from `hp` to a Keras model returning logits; it may use `hp`.
        teacher: A Keras model (or `Ensemble`) returning logits; None where the batches hold them.
        alpha: Weight of the soft loss in 0..1: a number, a list of choices, or a range
            {"min", "max"} with, where wanted, "step" and "sampling" (`linear` or `log`).
        temperature: The same, 0.001 to 1000; None means 4, or the temperature of `soft_loss`.
        soft_loss: A Keras loss between teacher logits and student logits; None is `SoftTargets`.
        optimizer: Name of an optimizer, or a function from `hp` to an optimizer.
        loss: Loss on the labels; None is sparse cross-entropy from logits.
        metrics: Names of metrics.

    Raises:
        UsageError: An alpha or temperature that cannot be, or an optimizer that is shared.

    Example:
        >>> hypermodel = DistillationHyperModel(
        ...     lambda hp: build(width=hp.Choice("width", [8, 16])), teacher,
        ...     alpha=[0.1, 0.5, 0.9], temperature={"min": 1.0, "max": 40.0, "sampling": "log"})
    """

    def __init__(
        self,
        student: Callable[[kt.HyperParameters], keras.Model],
        teacher: keras.Model | None = None,
        *,
        alpha: float | Sequence[float] | dict[str, Any] = 0.9,
        temperature: float | Sequence[float] | dict[str, Any] | None = None,
        soft_loss: keras.losses.Loss | None = None,
        optimizer: str | Callable[[kt.HyperParameters], keras.optimizers.Optimizer] = "adam",
        loss: keras.losses.Loss | None = None,
        metrics: Sequence[Any] = ("accuracy",),
    ):
        super().__init__()
        _check_spec("alpha", alpha, checks.fraction)
        if temperature is not None:
            _check_spec("temperature", temperature, checks.temperature)
        if isinstance(optimizer, keras.optimizers.Optimizer):
            raise checks.UsageError(
                "optimizer must be a name or a function from hp to an optimizer, as every student "
                f"needs its own. Received: optimizer={optimizer.name!r}, an instance."
            )
        if temperature is not None and not isinstance(soft_loss, TemperedLoss | None):
            raise checks.UsageError(
                f"This soft loss has no temperature. Received: {type(soft_loss).__name__} beside "
                f"temperature={temperature!r}. Leave out the temperature."
            )
        self.student, self.teacher = student, teacher
        self.alpha, self.temperature = alpha, temperature
        self.soft_loss = soft_loss or SoftTargets()
        self.optimizer = optimizer
        self.loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.metrics = tuple(metrics)

    def build(self, hp: kt.HyperParameters) -> Distiller:
        """Return a new compiled Distiller."""
        student = self.student(hp)
        optimizer = self.optimizer(hp) if callable(self.optimizer) else self.optimizer
        soft_loss = type(self.soft_loss).from_config(self.soft_loss.get_config())
        distiller = Distiller(student, self.teacher, soft_loss=soft_loss)
        distiller.compile(optimizer, self.loss, metrics=list(self.metrics))
        self.adjust(distiller, hp)
        return distiller

    def adjust(self, distiller: Distiller, hp: kt.HyperParameters) -> None:
        """Give a compiled Distiller the alpha and temperature of a trial."""
        distiller.alpha = _value(hp, "alpha", self.alpha)
        if self.temperature is not None:
            distiller.temperature = _value(hp, "temperature", self.temperature)


def learners_for(
    bench: Workbench, hypermodel: Any, build: Callable, hps: Sequence, seed: int, sample: Any = None
) -> Learners:
    """Return the compiled models of trials that are trained together, at their start.

    Those of a `DistillationHyperModel` are compiled once for all trials that differ only in alpha,
    temperature and seed.

    Args:
        bench: Keeps them.
        hypermodel: What is searched.
        build: Returns a new compiled model for some `HyperParameters`.
        hps: The trials' `HyperParameters`; several are trained as one `Population`.
        seed: Seed of their initial weights.
        sample: One example `[1, ...]`, to build models that do not know their input's shape; None
            if the hypermodel does so in its own `fit`.
    """
    reusable = isinstance(hypermodel, DistillationHyperModel)

    def new() -> Learners:
        each = [_seeded(build, hp, seed, sample) for hp in hps]

        def together() -> Population:
            teacher = hypermodel.teacher if reusable else None
            if reusable:
                for learner in each:
                    learner.set_teacher(None)  # it runs once for all
            population = Population(each, teacher)
            population.compile()
            return population

        return Learners(each, together if len(each) > 1 else None, reusable)

    def fresh() -> list[keras.Model]:
        return [_seeded(hypermodel.student, hp, seed, sample) for hp in hps]

    key = digest([_kind(hp) for hp in hps]) if reusable else ""
    learners = bench.learners(key, new, fresh)
    if reusable:
        for learner, hp in zip(learners.each, hps, strict=True):
            hypermodel.adjust(learner, hp)
    return learners


class ObjectiveState(TrainingState):
    """A `TrainingState` whose best epoch is that of a search's objective.

    Raises:
        UsageError: In `best_epoch`, an objective that is not among the figures of training.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        learners: Learners,
        objective: kt.Objective,
    ):
        super().__init__(folder, key, learners.each, learners.networks)
        self.objective = objective

    def best_epoch(self, place: int) -> int:
        """Epoch (0, 1, ...) with the best value of the objective, the first of equals."""
        history = self.histories[place]
        columns = zip(*history.values(), strict=True)
        epochs = [dict(zip(history, values, strict=True)) for values in columns]
        if isinstance(self.objective, DefaultObjective):
            return len(epochs) - 1  # the score is what the hypermodel's `fit` returns
        if not self.objective.has_value(epochs[0]):
            raise checks.UsageError(
                f"The objective {self.objective.name!r} is not among the figures of training: "
                f"{', '.join(history)}. Give validation_data, or another objective."
            )
        values = [self.objective.get_value(figures) for figures in epochs]
        best = max if self.objective.direction == "max" else min
        return values.index(best(values))


def _seeded(
    build: Callable[..., Any], hp: kt.HyperParameters, seed: int | None, sample: Any
) -> Any:
    keras.utils.set_random_seed(seed)
    model = build(hp)
    if sample is not None and not model.built:
        model(sample)
    return model


def _kind(hp: kt.HyperParameters) -> dict:
    names = [name for name in hp.values if name not in _DIALS and not name.startswith("tuner/")]
    return {name: hp.values[name] for name in names}


def _check_spec(name: str, spec: Any, check: Callable[[str, float], float]) -> None:
    if isinstance(spec, dict):
        checks.known_keys(name, spec, ("min", "max", "step", "sampling"))
        if not {"min", "max"} <= set(spec) or not spec["min"] < spec["max"]:
            raise checks.UsageError(f"{name} needs min < max. Received: {name}={spec!r}.")
        for bound in ("min", "max"):
            check(name, spec[bound])
        checks.one_of(f"{name}.sampling", spec.get("sampling", "linear"), ("linear", "log"))
        if spec.get("step") is not None:
            checks.positive(f"{name}.step", spec["step"])
        if spec.get("sampling") == "log":
            checks.positive(f"{name}.min", spec["min"])
    elif isinstance(spec, (list, tuple)):
        for value in checks.different(name, list(spec)):
            check(name, value)
    else:
        check(name, spec)


def _value(hp: kt.HyperParameters, name: str, spec: Any) -> float:
    if isinstance(spec, dict):
        limits = {"min_value": float(spec["min"]), "max_value": float(spec["max"])}
        sampling = spec.get("sampling", "linear")
        return hp.Float(name, **limits, step=spec.get("step"), sampling=sampling)
    if isinstance(spec, (list, tuple)):
        return hp.Choice(name, [float(value) for value in spec])
    return hp.Fixed(name, float(spec))
