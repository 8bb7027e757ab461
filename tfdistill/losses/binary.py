"""Soft targets for independent outputs, each with a sigmoid: one (binary) or several (multi-label).

Hinton, Vinyals & Dean 2015 (arXiv 1503.02531), section 2, with Bernoulli distributions in the place
of a softmax, which is constantly 1 over one output.
"""

from typing import Any

import keras
from keras import ops

from tfdistill.losses.logit_loss import TemperedLoss
from tfdistill.losses.soft_targets import kl
from tfdistill.utils.types import Tensor


def binary_soft_targets(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float | Tensor = 4.0,
    scale_by_t2: bool = True,
) -> Tensor:
    """Return how far the student's softened yes-or-no probabilities are from the teacher's.

    With p = sigmoid(z / T): T^2 / K * sum_k (p_t[k] log(p_t[k] / p_s[k]) + (1 - p_t[k]) log((1 -
    p_t[k]) / (1 - p_s[k]))), the mean over the outputs, as in Keras's binary cross-entropy.

    Args:
        teacher_logits: `[batch, outputs]` float.
        student_logits: `[batch, outputs]` float.
        temperature: T > 0, a number or a scalar tensor.
        scale_by_t2: Multiply by T^2.

    Returns:
        `[batch]` float32.

    Example:
        >>> binary_soft_targets([[2.0]], [[0.0]], temperature=1.0)
        [0.3278...]
    """
    log_teacher = _log_bernoulli(teacher_logits, temperature)
    log_student = _log_bernoulli(student_logits, temperature)
    value = ops.mean(kl(log_teacher, log_student), axis=-1)  # [batch]
    return value * ops.square(temperature) if scale_by_t2 else value


def _log_bernoulli(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Return log (p, 1 - p) of p = sigmoid(z / T), `[batch, outputs, 2]`."""
    z = ops.divide(ops.convert_to_tensor(logits, "float32"), temperature)
    return ops.stack([ops.log_sigmoid(z), ops.log_sigmoid(-z)], axis=-1)


@keras.saving.register_keras_serializable("tfdistill")
class BinarySoftTargets(TemperedLoss):
    """`binary_soft_targets` as a Keras loss: teacher logits are y_true, student logits are y_pred.

    Both are `[batch, outputs]`, the logits of one sigmoid each.

    Args:
        temperature: T, 0.001 to 1000.
        scale_by_t2: Multiply by T^2.

    Raises:
        UsageError: A temperature outside 0.001..1000.

    Example:
        >>> BinarySoftTargets(temperature=2.0)(teacher_logits, student_logits)
    """

    def __init__(
        self,
        temperature: float = 4.0,
        scale_by_t2: bool = True,
        name: str = "binary_soft_targets",
    ):
        super().__init__(temperature, name)
        self.scale_by_t2 = scale_by_t2

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return binary_soft_targets(y_true, y_pred, self.temperature_variable, self.scale_by_t2)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale_by_t2": self.scale_by_t2}
