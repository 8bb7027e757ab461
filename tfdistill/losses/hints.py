"""Hints: an inner layer of the student, after a regressor, predicts one of the teacher.

Romero et al. 2015, FitNets (arXiv 1412.6550), equation 3. The paper trains the lower half of the
student on hints first; here, as in later comparisons (Tian et al. 2020, arXiv 1910.10699), hints
are one term of the loss throughout, without the factor 1/2.
"""

from typing import Any

import keras
from keras import layers, ops

from tfdistill.losses.feature_loss import ActivationLoss, as_float32, misfit
from tfdistill.utils.types import Shape, Tensor


def hints(teacher_features: Tensor, student_features: Tensor) -> Tensor:
    """Return the mean squared difference of two activations of one shape, per example.

    mean over all elements of (F_t - r(F_s))^2, with r the regressor, applied before.

    Args:
        teacher_features: `[batch, ...]` float.
        student_features: Float of the same shape.

    Returns:
        `[batch]` float32.

    Raises:
        UsageError: Two shapes that differ.

    Example:
        >>> hints([[1.0, 2.0]], [[0.0, 4.0]])
        [2.5]
    """
    teacher, student = as_float32(teacher_features), as_float32(student_features)
    if teacher.shape[1:] != student.shape[1:]:
        raise misfit(
            "Hints compare activations of one shape; Hints.connector gives the layer that brings "
            "a student's to the teacher's.",
            teacher.shape,
            student.shape,
        )
    return ops.mean(ops.square(teacher - student), axis=tuple(range(1, len(teacher.shape))))


@keras.saving.register_keras_serializable("tfdistill")
class Hints(ActivationLoss):
    """`hints` as a Keras loss: teacher features are y_true, the student's after `connector` y_pred.

    Example:
        >>> regressor = Hints().connector((None, 8, 8, 64), (None, 8, 8, 16))
        >>> Hints()(teacher_features, regressor(student_features, training=True))
    """

    default_weight = 100.0
    formula = staticmethod(hints)

    def connector(self, teacher_shape: Shape, student_shape: Shape) -> keras.Layer:
        """Return the regressor from the student's shape to the teacher's, built.

        For maps a convolution, batch norm and ReLU: the convolution is 1x1 where the sizes agree,
        3x3 with stride 2 where the student's map is twice as large, 4x4 transposed with stride 2
        where it is half as large. For vectors a dense layer. Layers have the dtype policy in force.

        Raises:
            UsageError: Sizes of another ratio or unknown, or a vector beside a map.
        """
        if None in (*teacher_shape[1:], *student_shape[1:]):
            raise misfit("Hints need activations of known size.", teacher_shape, student_shape)
        if len(teacher_shape) == len(student_shape) == 2:
            regressor = [layers.Dense(teacher_shape[-1])]
        else:
            norm = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
            regressor = [_convolution(teacher_shape, student_shape), norm, layers.ReLU()]
        return keras.Sequential([keras.Input(student_shape[1:]), *regressor])


def _convolution(teacher_shape: Shape, student_shape: Shape) -> keras.Layer:
    channels, of_teacher, of_student = teacher_shape[-1], teacher_shape[1:-1], student_shape[1:-1]
    if len(of_teacher) == len(of_student) == 2:
        if of_student == of_teacher:
            return layers.Conv2D(channels, 1)
        if of_student == _doubled(of_teacher):
            return layers.Conv2D(channels, 3, 2, padding="same")
        if _doubled(of_student) == of_teacher:
            return layers.Conv2DTranspose(channels, 4, 2, padding="same")
    raise misfit(
        "Hints compare two vectors, or two maps of which one is as large as the other, twice or "
        "half as large.",
        teacher_shape,
        student_shape,
    )


def _doubled(sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(2 * size for size in sizes)
