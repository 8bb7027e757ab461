"""Learning-rate schedules made from a `TrainingConfig`, and loss weights that follow the epochs."""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
from keras import ops

from tfdistill.config import TrainingConfig
from tfdistill.utils.types import Tensor

Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


def learning_rate(config: TrainingConfig, steps_per_epoch: int) -> Rate:
    """Return the learning rate as a number or a Keras schedule over steps.

    `cosine` falls from `learning_rate` to zero at the last step, after the warm-up: 0.5 * (1 +
    cos(pi * t)), t in 0..1 (Loshchilov & Hutter 2017, equation 5, one period). `steps` multiplies
    by `decay` at each milestone.

    Args:
        config: The training configuration.
        steps_per_epoch: Optimiser steps in one epoch.

    Example:
        >>> keras.optimizers.SGD(learning_rate(TrainingConfig(schedule="cosine"), 391))
    """
    steps = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    after = _after_warmup(config, steps, steps_per_epoch, warmup)
    return WarmUp(after, warmup, config.learning_rate) if warmup else after


def _after_warmup(config: TrainingConfig, steps: int, steps_per_epoch: int, warmup: int) -> Rate:
    if config.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(config.learning_rate, max(steps - warmup, 1))
    if config.schedule == "steps" and config.milestones:
        # The step counter of the schedule behind a warm-up starts when the warm-up ends.
        boundaries = [epoch * steps_per_epoch - warmup for epoch in config.milestones]
        rates = [config.learning_rate * config.decay**i for i in range(len(boundaries) + 1)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            [boundary - 1 for boundary in boundaries], rates
        )
    return config.learning_rate


@keras.saving.register_keras_serializable("tfdistill")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Linear rise from zero to `peak` over `steps`, then another schedule or a constant.

    Args:
        after: A Keras schedule, which then counts from zero, or a number.
        steps: Steps of the rise, > 0.
        peak: Learning rate at its end.

    It is called with a step, a scalar `[]`, and returns the rate there, a scalar `[]` float32.
    """

    def __init__(self, after: Any, steps: int, peak: float):
        self.after = after
        self.steps = steps
        self.peak = peak

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, "float32")
        rising = self.peak * step / self.steps
        following = self.after
        if isinstance(following, keras.optimizers.schedules.LearningRateSchedule):
            following = following(ops.maximum(step - self.steps, 0.0))
        return ops.where(step < self.steps, rising, following)

    def get_config(self) -> dict[str, Any]:
        after = keras.saving.serialize_keras_object(self.after)
        return {"after": after, "steps": self.steps, "peak": self.peak}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        after = keras.saving.deserialize_keras_object(config["after"])
        return cls(**{**config, "after": after})


class LossWeightSchedule(keras.callbacks.Callback):
    """Sets a Distiller's alpha and temperature at the start of every epoch, without retracing.

    Both are functions of the epoch number alone, so a resumed training follows the same course.

    Args:
        alpha: Epoch (0, 1, ...) to alpha in 0..1; None leaves it.
        temperature: Epoch to temperature; None leaves it.

    Example:
        >>> fading = LossWeightSchedule(alpha=lambda epoch: max(0.1, 0.9 - epoch / 50))
        >>> distiller.fit(data, epochs=50, callbacks=[fading])
    """

    def __init__(
        self,
        alpha: Callable[[int], float] | None = None,
        temperature: Callable[[int], float] | None = None,
    ):
        super().__init__()
        self.alpha = alpha
        self.temperature = temperature

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.alpha is not None:
            self.model.alpha = self.alpha(epoch)
        if self.temperature is not None:
            self.model.temperature = self.temperature(epoch)
