"""What losses on softened logits share: a temperature that a compiled step reads at run time."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfdistill.config import DistillationConfig
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor


class TemperedLoss(keras.losses.Loss):
    """A loss between teacher logits (y_true) and student logits (y_pred) at a temperature.

    The temperature is a variable, so assigning `loss.temperature` takes effect in an already
    compiled train step. It belongs to the loss, not to a model: it is in no checkpoint. It may be
    from 0.001 to 1000: beyond, T^2 enlarges what float32 rounds off until the value means nothing.

    Both are `[batch, num_classes]`; where `needs_labels` is true, y_true is the pair (teacher
    logits, labels), with labels `[batch]`.
    """

    needs_labels = False

    def __init__(self, temperature: float, name: str | None = None):
        super().__init__(name=name, dtype="float32")
        checks.temperature("temperature", temperature)
        self.temperature_variable = keras.Variable(
            temperature, trainable=False, dtype="float32", name="temperature"
        )

    @classmethod
    def from_settings(cls, settings: DistillationConfig) -> TemperedLoss:
        """Return the loss that a configuration describes; one that has more settings takes them."""
        return cls(temperature=settings.temperature)

    @property
    def temperature(self) -> float:
        """The present temperature, 0.001 to 1000."""
        return float(ops.convert_to_numpy(self.temperature_variable))

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.temperature_variable.assign(checks.temperature("temperature", value))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "temperature": self.temperature}


def softened(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Return logits `[batch, num_classes]` / T in float32, to be put through a softmax.

    Half precision is too coarse for differences of logarithms.

    Raises:
        UsageError: One class, over which a softmax is constant.
    """
    logits = ops.convert_to_tensor(logits)
    if logits.shape[-1] == 1:
        raise checks.UsageError(
            "A softmax over one output is constantly 1. Received: logits of shape "
            f"{tuple(logits.shape)}. Use BinarySoftTargets for one sigmoid."
        )
    return ops.divide(ops.cast(logits, "float32"), temperature)
