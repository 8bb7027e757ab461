"""Similarity-preserving distillation: images alike for the teacher shall be alike for the student.

Tung & Mori 2019 (arXiv 1907.09682), equations 1 to 4.
"""

import keras
from keras import ops

from tfdistill.losses.feature_loss import ActivationLoss, as_float32, unit
from tfdistill.utils.types import Tensor


def similarity_preserving(teacher_features: Tensor, student_features: Tensor) -> Tensor:
    """Return the mean squared difference of the rows of two similarity matrices, per example.

    With Q the features of the batch, one flattened row per example, G = Q Q^T with each row scaled
    to length 1, and b the batch size, example i has (1 / b) * sum_j (G_t[i, j] - G_s[i, j])^2; the
    mean over the batch is the paper's (1 / b^2) ||G_t - G_s||_F^2. Channels and sizes of the two
    may differ.

    Args:
        teacher_features: `[batch, ...]` float, usually the last feature maps.
        student_features: `[batch, ...]` float.

    Returns:
        `[batch]` float32.

    Example:
        >>> similarity_preserving([[1.0, 0.0], [0.0, 1.0]], [[2.0], [3.0]])
        [0.44..., 0.16...]
    """
    difference = _similarities(teacher_features) - _similarities(student_features)
    return ops.mean(ops.square(difference), axis=-1)


def _similarities(features: Tensor) -> Tensor:
    features = as_float32(features)
    flat = ops.reshape(features, (ops.shape(features)[0], -1))  # [batch, values]
    return unit(ops.matmul(flat, ops.transpose(flat)))  # [batch, batch]


@keras.saving.register_keras_serializable("tfdistill")
class SimilarityPreserving(ActivationLoss):
    """`similarity_preserving` as a Keras loss: teacher features are y_true, student's y_pred.

    The paper's weight beside the cross-entropy is 3000 for its CIFAR-10 networks.

    Example:
        >>> FeatureLoss(SimilarityPreserving(), weight=3000.0)
    """

    default_weight = 3000.0
    formula = staticmethod(similarity_preserving)
