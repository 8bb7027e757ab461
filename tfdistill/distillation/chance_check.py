"""A teacher that knows no more of the labels than chance: said after the first epoch.

It may be given other pixels than it was trained on, or number the classes otherwise: neither raises
an error, and the student learns nonsense.
"""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from tfdistill.distillation.probability_check import Watching
from tfdistill.distillation.targets import class_numbers
from tfdistill.utils.types import Tensor

# Of fewer images chance may be anything.
ENOUGH = 100
# Standard errors by which a teacher must be above chance.
SURE = 3.0


class RightAnswers:
    """How often a teacher's most probable class is the label; no weights, as alpha."""

    def __init__(self) -> None:
        self.mean = keras.metrics.Mean("teacher_right")
        self.classes = 0

    def update(self, taught: Tensor, labels: Tensor, known: Tensor | None) -> None:
        """Count a batch.

        Args:
            taught: The teacher's logits, `[batch, num_classes]`.
            labels: `[batch]` numbers of classes, or `[batch, num_classes]`.
            known: Which examples have a label, `[batch]` bool; None means all.
        """
        if keras.backend.backend() == "jax":  # where such a variable would be a constant
            return
        self.classes = taught.shape[-1]
        numbers = class_numbers(labels, taught)
        right = ops.cast(ops.argmax(taught, axis=-1), numbers.dtype) == numbers
        weights = None if known is None else ops.reshape(known, ops.shape(right))
        self.mean.update_state(
            ops.cast(right, "float32"), None if weights is None else ops.cast(weights, "float32")
        )

    def remark(self) -> str:
        """Return what is to be said of the teacher; empty where it knows more than chance."""
        count, total = (
            float(ops.convert_to_numpy(ops.convert_to_tensor(value)))
            for value in (self.mean.count, self.mean.total)
        )
        if count < ENOUGH or self.classes < 2:
            return ""
        chance, found = 1 / self.classes, total / count
        if found > chance + SURE * np.sqrt(chance * (1 - chance) / count):
            return ""
        return (
            f"The teacher is right on {found:.1%} of {count:,.0f} labelled examples, chance is "
            f"{chance:.1%}: its student learns nothing from it. Does it take pixels in the range "
            "that the student takes, and number the classes alike?"
        )


class ChanceCheck(Watching):
    """Warns after the first epoch of a teacher that knows no more than chance."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        for distiller in self._watched():
            distiller._right_answers.mean.reset_state()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._seen:
            return
        self._seen = True
        taught = [each for each in self._watched() if each._soft_weight_is_set()]
        for remark in dict.fromkeys(each._right_answers.remark() for each in taught):
            if remark:
                warnings.warn(remark, stacklevel=2)
