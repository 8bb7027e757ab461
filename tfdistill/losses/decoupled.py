"""Decoupled distillation: the target's probability and the shares of the others, weighted apart.

Zhao, Cui, Song, Qiu & Liang 2022 (arXiv 2203.08679), section 3.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfdistill.config import DistillationConfig
from tfdistill.losses.logit_loss import TemperedLoss, softened
from tfdistill.losses.soft_targets import kl
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor


def decoupled(
    teacher_logits: Tensor,
    student_logits: Tensor,
    labels: Tensor,
    temperature: float | Tensor = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """Return T^2 * (alpha * TCKD + beta * NCKD), per example.

    With p = softmax(z / T) and y the label: TCKD = KL(b_t || b_s) of b = (p[y], 1 - p[y]), and
    NCKD = KL(q_t || q_s) of the other classes' shares q[k] = p[k] / (1 - p[y]), k != y. With
    alpha = 1 and beta = 1 - p_t[y] it would be `soft_targets`: there the others count little where
    the teacher is sure.

    Args:
        teacher_logits: `[batch, num_classes]` float.
        student_logits: `[batch, num_classes]` float.
        labels: `[batch]` or `[batch, 1]` whole numbers, int or float; or `[batch, num_classes]`,
            one-hot or soft, whose largest entry is the target.
        temperature: T > 0, a number or a scalar tensor.
        alpha: Weight of the target's part, >= 0.
        beta: Weight of the others' part, >= 0.

    Returns:
        `[batch]` float32.

    Raises:
        UsageError: Labels of another shape.

    Example:
        >>> decoupled([[2.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]], [0], temperature=1.0)
        [0.43...]
    """
    teacher, student = softened(teacher_logits, temperature), softened(student_logits, temperature)
    is_target = _is_target(ops.convert_to_tensor(labels), student.shape[-1])
    target_teacher, others_teacher = _log_parts(teacher, is_target)
    target_student, others_student = _log_parts(student, is_target)
    tckd = kl(target_teacher, target_student)
    nckd = kl(others_teacher, others_student)
    return (alpha * tckd + beta * nckd) * ops.square(temperature)


def _log_parts(logits: Tensor, is_target: Tensor) -> tuple[Tensor, Tensor]:
    """Return log (p[y], 1 - p[y]), `[batch, 2]`, and log q, `[batch, classes]`, with q[y] = 0."""
    log_p = ops.log_softmax(logits, axis=-1)
    # Not -inf, whose difference is not a number.
    log_others = ops.where(is_target, -1e30, log_p)
    log_target = ops.sum(ops.where(is_target, log_p, 0.0), axis=-1)
    binary = ops.stack([log_target, ops.logsumexp(log_others, axis=-1)], axis=-1)
    return binary, ops.log_softmax(log_others, axis=-1)


def _is_target(labels: Tensor, classes: int) -> Tensor:
    """Return `[batch, classes]` bool, true at each example's target."""
    per_example = tuple(labels.shape)[1:]
    if per_example not in ((), (1,), (classes,)):
        raise checks.UsageError(
            f"Labels must be [batch] numbers of classes, or [batch, {classes}] with one value for "
            f"each class. Received: labels of shape {tuple(labels.shape)}."
        )
    if per_example == (classes,):
        labels = ops.argmax(labels, axis=-1)
    numbers = ops.cast(ops.reshape(labels, (-1,)), "int32")
    return ops.one_hot(numbers, classes, dtype="bool")


@keras.saving.register_keras_serializable("tfdistill")
class Decoupled(TemperedLoss):
    """`decoupled` as a Keras loss: y_true is the pair (teacher logits, labels).

    Logits are `[batch, num_classes]`, labels `[batch]`.

    The paper's beta is 8 for its CIFAR-100 networks, except WRN and VGG (6), ResNet-56 to 20 and
    110 to 32 (2), beside a cross-entropy of weight 1; on ImageNet it is 0.5 at T = 1.

    Args:
        temperature: T, 0.001 to 1000.
        alpha: Weight of the target's part, >= 0.
        beta: Weight of the others' part, >= 0.

    Raises:
        UsageError: A temperature outside 0.001..1000, a weight that is not finite and >= 0;
            when called, a y_true that is not a pair, or labels of another shape.

    Example:
        >>> Decoupled(temperature=4.0)((teacher_logits, labels), student_logits)
    """

    needs_labels = True

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        name: str = "decoupled",
    ):
        super().__init__(temperature, name)
        self.alpha = checks.non_negative("alpha", alpha)
        self.beta = checks.non_negative("beta", beta)

    @classmethod
    def from_settings(cls, settings: DistillationConfig) -> Decoupled:
        """Return the loss with the temperature and beta of a configuration, and alpha 1."""
        return cls(settings.temperature, beta=settings.beta)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if not isinstance(y_true, (tuple, list)):
            raise checks.UsageError(
                "The decoupled loss needs the labels: give y_true as (teacher_logits, labels). "
                f"Received: one array of shape {tuple(y_true.shape)}."
            )
        teacher_logits, labels = y_true
        return decoupled(
            teacher_logits, y_pred, labels, self.temperature_variable, self.alpha, self.beta
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}
