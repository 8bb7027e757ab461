"""Soft targets: the student imitates the teacher's softened class probabilities.

Hinton, Vinyals & Dean 2015 (arXiv 1503.02531), section 2; logit standardisation after Sun et al.
2024 (arXiv 2403.01427), equation 8.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfdistill.config import DIVERGENCES, DistillationConfig
from tfdistill.losses.logit_loss import TemperedLoss, softened
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor


def soft_targets(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float | Tensor = 4.0,
    divergence: str = "kl",
    scale_by_t2: bool = True,
    standardize: bool = False,
) -> Tensor:
    """Return how far the student's softened probabilities are from the teacher's, per example.

    With p = softmax(z / T): `kl` is T^2 * sum_k p_t[k] (log p_t[k] - log p_s[k]), zero where both
    agree; `cross_entropy` is T^2 * sum_k -p_t[k] log p_s[k], which has the same gradient. The
    factor T^2 keeps the gradient's size as T grows; without it the gradient fades as 1 / T^2.

    Args:
        teacher_logits: `[batch, num_classes]` float, or with more axes in between, as of an image
            with a class at each position; log-probabilities are logits too, minus infinity
            included.
        student_logits: Likewise.
        temperature: T > 0, a number or a scalar tensor.
        divergence: `kl` or `cross_entropy`.
        scale_by_t2: Multiply by T^2.
        standardize: First shift and scale the logits of each example to mean 0, deviation 1.

    Returns:
        `[batch]` float32, or one value at each position.

    Raises:
        UsageError: One class, over which a softmax is constant.

    Example:
        >>> soft_targets([[2.0, 0.0]], [[0.0, 0.0]], temperature=1.0)
        [0.3278...]
    """
    if standardize:
        teacher_logits = standardized(teacher_logits)
        student_logits = standardized(student_logits)
    log_teacher = ops.log_softmax(softened(teacher_logits, temperature), axis=-1)
    log_student = ops.log_softmax(softened(student_logits, temperature), axis=-1)
    value = _FORMULAE[divergence](log_teacher, log_student)  # [batch]
    return value * ops.square(temperature) if scale_by_t2 else value


def standardized(logits: Tensor) -> Tensor:
    """Return `[batch, num_classes]` logits with mean 0 and deviation 1 (n - 1) in each row."""
    logits = ops.convert_to_tensor(logits, "float32")
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    classes = logits.shape[-1]
    variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / max(classes - 1, 1)
    # The constant stands inside the root: the root's slope at zero is infinite.
    return centred / ops.sqrt(variance + 1e-12)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) = sum_k p[k] (log p[k] - log q[k]) along the last axis; 0 log 0 is 0."""
    p = ops.exp(log_p)
    return ops.sum(p * ops.where(p == 0, 0.0, log_p - log_q), axis=-1)


def cross_entropy(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return sum_k -p[k] log q[k] along the last axis; 0 log 0 is 0."""
    p = ops.exp(log_p)
    return -ops.sum(p * ops.where(p == 0, 0.0, log_q), axis=-1)


_FORMULAE = {"kl": kl, "cross_entropy": cross_entropy}


@keras.saving.register_keras_serializable("tfdistill")
class SoftTargets(TemperedLoss):
    """`soft_targets` as a Keras loss: teacher logits are y_true, student logits are y_pred.

    Both are `[batch, num_classes]`.

    Args:
        temperature: T, 0.001 to 1000.
        divergence: `kl` or `cross_entropy`.
        scale_by_t2: Multiply by T^2.
        standardize: Standardise each example's logits first.

    Raises:
        UsageError: A temperature outside 0.001..1000, or an unknown divergence.

    Example:
        >>> SoftTargets(temperature=4.0)(teacher_logits, student_logits)
    """

    def __init__(
        self,
        temperature: float = 4.0,
        divergence: str = "kl",
        scale_by_t2: bool = True,
        standardize: bool = False,
        name: str = "soft_targets",
    ):
        super().__init__(temperature, name)
        self.divergence = checks.one_of("divergence", divergence, DIVERGENCES)
        self.scale_by_t2 = scale_by_t2
        self.standardize = standardize

    @classmethod
    def from_settings(cls, settings: DistillationConfig) -> SoftTargets:
        """Return the loss with all that a configuration says of soft targets."""
        return cls(
            settings.temperature, settings.divergence, settings.scale_by_t2, settings.standardize
        )

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return soft_targets(
            y_true,
            y_pred,
            self.temperature_variable,
            self.divergence,
            self.scale_by_t2,
            self.standardize,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "divergence": self.divergence,
            "scale_by_t2": self.scale_by_t2,
            "standardize": self.standardize,
        }
