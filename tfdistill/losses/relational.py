"""Relational distillation: distances and angles between examples, not the examples' features.

Park, Kim, Lu & Cho 2019 (arXiv 1904.05068), section 3.2.
"""

import keras
from keras import ops

from tfdistill.losses.feature_loss import ActivationLoss, pooled, unit
from tfdistill.utils.types import Tensor


def relational_distance(teacher_features: Tensor, student_features: Tensor) -> Tensor:
    """Return how the distances from each example to the others differ, per example.

    With d[i, j] = ||f_i - f_j||, divided by its mean over all pairs of two examples, and l the
    Huber loss with delta 1: example i has the mean over j of l(d_t[i, j], d_s[i, j]); the mean over
    the batch is that over all b^2 pairs, i = j included.

    Args:
        teacher_features: `[batch, n]` float, or `[batch, height, width, channels]`, which is
            averaged over positions first.
        student_features: Likewise; n may differ.

    Returns:
        `[batch]` float32; zero for a batch of one example.

    Example:
        >>> relational_distance([[0.0], [1.0], [3.0]], [[0.0], [2.0], [6.0]])
        [0.0, 0.0, 0.0]
    """
    return keras.losses.huber(_distances(teacher_features), _distances(student_features))


def relational_angle(teacher_features: Tensor, student_features: Tensor) -> Tensor:
    """Return how the angles seen from each example differ, per example.

    With e_ij = (f_j - f_i) / ||f_j - f_i||, zero where the two coincide, and l the Huber loss with
    delta 1: example i has the mean over all j and k of l(e_ij . e_ik of the teacher, e_ij . e_ik of
    the student); the mean over the batch is that over all b^3 triples.

    Args:
        teacher_features: `[batch, n]` float, or `[batch, height, width, channels]`, which is
            averaged over positions first.
        student_features: Likewise; n may differ.

    Returns:
        `[batch]` float32; zero for a batch of one or two examples.

    Example:
        >>> relational_angle([[0.0], [1.0], [3.0]], [[0.0], [2.0], [5.0]])
        [0.0, 0.0, 0.0]
    """
    per_pair = keras.losses.huber(_cosines(teacher_features), _cosines(student_features))
    return ops.mean(per_pair, axis=-1)


def _differences(features: Tensor) -> Tensor:
    vectors = pooled(features)
    return ops.expand_dims(vectors, 0) - ops.expand_dims(vectors, 1)  # [i, j, n]: f_j - f_i


def _distances(features: Tensor) -> Tensor:
    squared = ops.sum(ops.square(_differences(features)), axis=-1)  # [batch, batch]
    # The root's slope at zero is infinite.
    distances = ops.where(squared > 0, ops.sqrt(ops.maximum(squared, 1e-24)), 0.0)
    batch = ops.cast(ops.shape(squared)[0], "float32")
    pairs = batch * (batch - 1.0)
    mean = ops.sum(distances) / ops.maximum(pairs, 1.0)
    return distances / ops.maximum(mean, 1e-12)


def _cosines(features: Tensor) -> Tensor:
    directions = unit(_differences(features))
    return ops.einsum("ijn,ikn->ijk", directions, directions)


@keras.saving.register_keras_serializable("tfdistill")
class RelationalDistance(ActivationLoss):
    """`relational_distance` as a Keras loss: teacher features are y_true, student's y_pred.

    Example:
        >>> FeatureLoss(RelationalDistance(), weight=25.0)
    """

    default_weight = 25.0
    formula = staticmethod(relational_distance)


@keras.saving.register_keras_serializable("tfdistill")
class RelationalAngle(ActivationLoss):
    """`relational_angle` as a Keras loss: teacher features are y_true, student's y_pred.

    It keeps batch^3 numbers: 8 MB for a batch of 128.

    Example:
        >>> FeatureLoss(RelationalAngle(), weight=50.0)
    """

    default_weight = 50.0
    formula = staticmethod(relational_angle)
