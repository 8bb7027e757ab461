"""What losses between inner activations share: a weight, a connector, pooled and unit vectors."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from tfdistill.utils import checks
from tfdistill.utils.types import Shape, Tensor


class ActivationLoss(keras.losses.Loss):
    """A loss between activations of the teacher (y_true) and of the student (y_pred).

    `formula` of both gives one value per example; `default_weight` is its weight in the paper,
    beside a cross-entropy of weight 1. Activations are `[batch, n]` or `[batch, h, w, channels]`.

    Args:
        name: Default is the formula's.
    """

    default_weight = 1.0
    formula: Callable[..., Any]

    def __init__(self, name: str | None = None):
        super().__init__(name=name or self.formula.__name__, dtype="float32")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.formula(y_true, y_pred)

    def connector(self, teacher_shape: Shape, student_shape: Shape) -> keras.Layer | None:
        """Return the layer that brings the student's activations to the teacher's shape.

        Args:
            teacher_shape: `(None, height, width, channels)` or `(None, n)`.
            student_shape: Likewise; the two may differ as far as the loss allows.

        Returns:
            A new layer, to be trained beside the student; None where the loss needs none.

        Raises:
            UsageError: Activations that this loss cannot compare.
        """
        if not {len(teacher_shape), len(student_shape)} <= {2, 4}:
            raise misfit(
                "This loss compares vectors (batch, n) and maps (batch, height, width, channels).",
                teacher_shape,
                student_shape,
            )
        return None

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


def misfit(possible: str, teacher_shape: Shape, student_shape: Shape) -> checks.UsageError:
    """Return the error for activations that cannot be compared; `possible` says which can."""
    return checks.UsageError(
        f"{possible} Received: teacher {tuple(teacher_shape)}, student {tuple(student_shape)}. "
        "Choose other layers or another loss."
    )


def as_float32(features: Tensor) -> Tensor:
    """Return activations `[batch, ...]` in float32: sums over whole maps overflow in float16."""
    return ops.convert_to_tensor(features, "float32")


def pooled(features: Tensor) -> Tensor:
    """Return `[batch, channels]` float32: maps averaged over their positions."""
    features = as_float32(features)
    return ops.mean(features, axis=(1, 2)) if len(features.shape) == 4 else features


def unit(vectors: Tensor) -> Tensor:
    """Return vectors `[..., n]` of length 1 along the last axis; shorter ones than 1e-12 are zero.

    At zero the gradient is zero too, where that of a plain quotient is infinite.
    """
    squared = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    positive = squared > 1e-24
    inverse = ops.rsqrt(ops.where(positive, squared, 1.0))
    return vectors * ops.where(positive, inverse, 0.0)
