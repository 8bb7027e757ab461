"""Attention transfer: the student shall be active at the places where the teacher is.

Zagoruyko & Komodakis 2017 (arXiv 1612.03928), section 3.1, activation-based with p = 2.
"""

import keras
from keras import ops

from tfdistill.losses.feature_loss import ActivationLoss, as_float32, misfit, unit
from tfdistill.utils.types import Shape, Tensor


def attention_transfer(teacher_features: Tensor, student_features: Tensor) -> Tensor:
    """Return the mean squared difference of two attention maps, per example.

    With A = vec(mean over channels of F^2), scaled to length 1: mean over positions of
    (A_t - A_s)^2, as the authors' code has it; the paper writes the length of the difference. The
    larger map is averaged down to the size of the smaller first; channels may differ.

    Args:
        teacher_features: `[batch, height, width, channels]` float.
        student_features: Likewise; heights and widths may be whole multiples of each other.

    Returns:
        `[batch]` float32.

    Raises:
        UsageError: Activations that are no maps, or of sizes of another ratio.

    Example:
        >>> attention_transfer([[[[1.0], [0.0]]]], [[[[0.0], [2.0]]]])
        [1.0]
    """
    teacher, student = as_float32(teacher_features), as_float32(student_features)
    size = _common_size(teacher.shape, student.shape)
    difference = _attention(teacher, size) - _attention(student, size)
    return ops.mean(ops.square(difference), axis=-1)


def _attention(features: Tensor, size: tuple[int, int]) -> Tensor:
    shrink = (features.shape[1] // size[0], features.shape[2] // size[1])
    features = ops.average_pool(features, shrink, shrink)
    attention = ops.mean(ops.square(features), axis=-1)  # [batch, height, width]
    return unit(ops.reshape(attention, (-1, size[0] * size[1])))


def _common_size(teacher_shape: Shape, student_shape: Shape) -> tuple[int, int]:
    """Return the smaller height and width, of which both maps' must be whole multiples."""
    sizes = [tuple(shape[1:-1]) for shape in (teacher_shape, student_shape)]
    if all(len(size) == 2 and None not in size for size in sizes):
        smaller = tuple(map(min, *sizes))
        if all(many % few == 0 for size in sizes for many, few in zip(size, smaller, strict=True)):
            return smaller
    raise misfit(
        "Attention transfer compares maps (batch, height, width, channels) of known size, the "
        "larger a whole multiple of the smaller.",
        teacher_shape,
        student_shape,
    )


@keras.saving.register_keras_serializable("tfdistill")
class AttentionTransfer(ActivationLoss):
    """`attention_transfer` as a Keras loss: teacher maps are y_true, student maps are y_pred.

    One loss is for one pair of layers; the usual choice is the end of each residual stage, and the
    weight counts for each.

    Example:
        >>> FeatureLoss(AttentionTransfer(), 1000.0, teacher_layer="stage1", student_layer="stage1")
    """

    default_weight = 1000.0
    formula = staticmethod(attention_transfer)

    def connector(self, teacher_shape: Shape, student_shape: Shape) -> None:
        """Return None; raise a UsageError for activations that cannot be compared."""
        _common_size(teacher_shape, student_shape)
