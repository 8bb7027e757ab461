"""Probabilistic knowledge transfer: the same neighbours are probable for teacher and student.

Passalis & Tefas 2018 (arXiv 1803.10837), section 3, with the cosine kernel.
"""

import keras
from keras import ops

from tfdistill.losses.feature_loss import ActivationLoss, pooled, unit
from tfdistill.utils.types import Tensor


def probabilistic(teacher_features: Tensor, student_features: Tensor) -> Tensor:
    """Return the divergence of each example's neighbour probabilities, divided by the batch size.

    With s[i, j] = (1 + cosine of f_i and f_j) / 2 and q[i, j] = s[i, j] / sum_k s[i, k], k = i
    included: (1 / b) * sum_j q_t[i, j] log((q_t[i, j] + e) / (q_s[i, j] + e)), e = 1e-7; the mean
    over the batch is the mean over b^2, as in the authors' code. Hence the large weight.

    Args:
        teacher_features: `[batch, n]` float, or `[batch, height, width, channels]`, which is
            averaged over positions first.
        student_features: Likewise; n may differ.

    Returns:
        `[batch]` float32.

    Example:
        >>> probabilistic([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]])
        [0.028..., 0.028...]
    """
    teacher, student = _neighbours(teacher_features), _neighbours(student_features)
    ratio = (teacher + 1e-7) / (student + 1e-7)
    return ops.mean(teacher * ops.log(ratio), axis=-1)


def _neighbours(features: Tensor) -> Tensor:
    """Return `[batch, batch]` probabilities; each row has the sum 1."""
    directions = unit(pooled(features))
    similarity = (1.0 + ops.matmul(directions, ops.transpose(directions))) / 2.0
    return similarity / ops.sum(similarity, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("tfdistill")
class Probabilistic(ActivationLoss):
    """`probabilistic` as a Keras loss: teacher features are y_true, student's y_pred.

    Example:
        >>> FeatureLoss(Probabilistic(), weight=30000.0)
    """

    default_weight = 30000.0
    formula = staticmethod(probabilistic)
