"""DIST: teacher and student shall correlate, within each example and within each class.

Huang, You, Wang, Qian & Xu 2022, "Knowledge distillation from a stronger teacher" (arXiv
2205.10536), sums and constants as in the authors' code.
"""

from typing import Any

import keras
from keras import ops

from tfdistill.losses.logit_loss import TemperedLoss, softened
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor


def dist(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float | Tensor = 4.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """Return T^2 * (beta * inter + gamma * intra), per example.

    With p = softmax(z / T), `[batch, num_classes]`, and r Pearson's correlation: an example's inter
    is 1 - r(row of p_t, row of p_s); intra is 1 - r(column of p_t, column of p_s), averaged over
    the classes: one number of the batch, given to every example. A correlation does not ask the
    student for the teacher's probabilities, only for their relations.

    Args:
        teacher_logits: `[batch, num_classes]` float.
        student_logits: `[batch, num_classes]` float.
        temperature: T > 0, a number or a scalar tensor.
        beta: Weight of inter, >= 0.
        gamma: Weight of intra, >= 0.

    Returns:
        `[batch]` float32, from 0 to 2 T^2 (beta + gamma).

    Example:
        >>> dist([[2.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [1.0, 0.0]], temperature=1.0)
        [0.0, 2.0]
    """
    teacher = ops.softmax(softened(teacher_logits, temperature), axis=-1)
    student = ops.softmax(softened(student_logits, temperature), axis=-1)
    inter = 1.0 - _pearson(teacher, student, axis=1)  # [batch]
    intra = ops.mean(1.0 - _pearson(teacher, student, axis=0))
    return (beta * inter + gamma * intra) * ops.square(temperature)


def _pearson(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """Return Pearson's correlation along an axis; 0 where one side is constant."""
    a = a - ops.mean(a, axis=axis, keepdims=True)
    b = b - ops.mean(b, axis=axis, keepdims=True)
    lengths = _length(a, axis) * _length(b, axis)
    return ops.sum(a * b, axis=axis) / (lengths + 1e-8)


def _length(vectors: Tensor, axis: int) -> Tensor:
    squared = ops.sum(ops.square(vectors), axis=axis)
    return ops.sqrt(ops.maximum(squared, 1e-24))  # the root's slope at zero is infinite


@keras.saving.register_keras_serializable("tfdistill")
class Dist(TemperedLoss):
    """`dist` as a Keras loss: teacher logits are y_true, student logits are y_pred.

    Both are `[batch, num_classes]`.

    The authors' code gives it the weight 2 beside a cross-entropy of weight 1, with T = 4 on
    CIFAR-100 and T = 1 on ImageNet.

    Args:
        temperature: T, 0.001 to 1000.
        beta: Weight of the correlation within each example, >= 0.
        gamma: Weight of the correlation within each class, >= 0.

    Raises:
        UsageError: A temperature outside 0.001..1000, or a weight not finite and >= 0.

    Example:
        >>> Dist(temperature=4.0)(teacher_logits, student_logits)
    """

    def __init__(
        self,
        temperature: float = 4.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        name: str = "dist",
    ):
        super().__init__(temperature, name)
        self.beta = checks.non_negative("beta", beta)
        self.gamma = checks.non_negative("gamma", gamma)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return dist(y_true, y_pred, self.temperature_variable, self.beta, self.gamma)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta, "gamma": self.gamma}
