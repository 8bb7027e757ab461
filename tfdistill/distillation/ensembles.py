"""Ensembles: the mean of several networks' outputs, as one Keras model."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfdistill.config import AVERAGES
from tfdistill.utils import checks
from tfdistill.utils.types import Shape, Tensor


def average_logits(member_logits: Tensor, average: str = "probabilities") -> Tensor:
    """Return the logits of an ensemble.

    `probabilities` is log((1 / M) sum_m softmax(z_m)), whose softmax is the members' mean
    probability; `logits` is (1 / M) sum_m z_m.

    Args:
        member_logits: `[members, batch, num_classes]` float.
        average: `probabilities` or `logits`.

    Returns:
        `[batch, num_classes]` float.

    Example:
        >>> average_logits([[[0.0, 0.0]], [[2.0, 0.0]]])
    """
    member_logits = ops.convert_to_tensor(member_logits)
    if average == "logits":
        return ops.mean(member_logits, axis=0)
    log_probabilities = ops.log_softmax(member_logits, axis=-1)
    return ops.logsumexp(log_probabilities, axis=0) - math.log(log_probabilities.shape[0])


@keras.saving.register_keras_serializable("tfdistill")
class Ensemble(keras.Model):
    """Several networks over the same images, averaged into one set of logits.

    An ensemble of trained networks teaches or predicts; an untrained one, compiled and fitted,
    trains all members jointly through their average.

    Args:
        members: Keras models of the same input and classes, each returning logits.
        average: `probabilities` (the mean of the members' softmax) or `logits`.

    Raises:
        UsageError: No members, or members that differ in input or classes.

    Example:
        >>> teacher = Ensemble([first, second, third])
        >>> Distiller(student, teacher, alpha=1.0, temperature=1.0)
    """

    def __init__(
        self, members: Sequence[keras.Model], average: str = "probabilities", **kwargs: Any
    ):
        super().__init__(autocast=False, **kwargs)
        if not members:
            raise checks.UsageError("An Ensemble needs at least one member. Received: none.")
        self.average = checks.one_of("average", average, AVERAGES)
        self.members = list(members)
        for member in self.members[1:]:
            checks.same_input(self.members[0].input_shape, member.input_shape)
            checks.same_classes(self.members[0].output_shape[-1], member.output_shape[-1])
        self.build(self.input_shape)

    @property
    def input_shape(self) -> Shape:
        """`(None, height, width, channels)`, as of the members."""
        return self.members[0].input_shape

    @property
    def output_shape(self) -> Shape:
        """`(None, num_classes)`, as of the members."""
        return self.members[0].output_shape

    def build(self, input_shape: Shape | None) -> None:
        self.built = True

    def member_logits(self, images: Tensor, training: bool | None = False) -> Tensor:
        """Return the members' logits apart: `[members, batch, num_classes]` float32."""
        outputs = [member(images, training=training) for member in self.members]
        return ops.stack([ops.cast(logits, "float32") for logits in outputs])

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        return average_logits(self.member_logits(images, training), self.average)

    def get_config(self) -> dict[str, Any]:
        members = [keras.saving.serialize_keras_object(member) for member in self.members]
        return {**super().get_config(), "members": members, "average": self.average}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Ensemble":
        members = [
            keras.saving.deserialize_keras_object(member, custom_objects)
            for member in config["members"]
        ]
        return cls(**{**config, "members": members})
