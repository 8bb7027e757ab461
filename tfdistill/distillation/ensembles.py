"""Ensembles: the mean of several networks' outputs, as one Keras model."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from tfdistill.config import AVERAGES
from tfdistill.distillation.pairs import check_network, on_logits
from tfdistill.models.logits import SIGMOID, SOFTMAX, final_activation
from tfdistill.utils import checks
from tfdistill.utils.types import Shape, Tensor


def average_logits(
    member_logits: Tensor, average: str = "probabilities", weights: Sequence[float] | None = None
) -> Tensor:
    """Return the logits of an ensemble.

    With weights w of the sum 1, all equal by default: `probabilities` is log(sum_m w_m
    softmax(z_m)), whose softmax is the members' mean probability; `sigmoid` is log(p / (1 - p)) of
    p = sum_m w_m sigmoid(z_m) at each output; `logits` is sum_m w_m z_m.

    Args:
        member_logits: `[members, batch, num_classes]` float.
        average: `probabilities`, `sigmoid` or `logits`.
        weights: `[members]`, >= 0; they are divided by their sum. None weighs all alike.

    Returns:
        `[batch, num_classes]` float.

    Raises:
        UsageError: Weights of another number, or that are not finite and >= 0 with a sum above 0.

    Example:
        >>> average_logits([[[0.0, 0.0]], [[2.0, 0.0]]])
    """
    member_logits = ops.convert_to_tensor(member_logits)
    shares = member_shares(weights, member_logits.shape[0])
    if average == "logits":
        if weights is None:
            return ops.mean(member_logits, axis=0)
        return ops.tensordot(ops.cast(shares, member_logits.dtype), member_logits, axes=1)
    if average == "sigmoid":
        yes, no = (_log_mean(ops.log_sigmoid(z), shares) for z in (member_logits, -member_logits))
        return yes - no
    return _log_mean(ops.log_softmax(member_logits, axis=-1), shares)


def _log_mean(log_values: Tensor, shares: list[float]) -> Tensor:
    """Return log(sum_m w_m exp(x_m)) over the first axis."""
    if len(set(shares)) == 1:
        return ops.logsumexp(log_values, axis=0) - math.log(len(shares))
    # A share of 0 is left out: its logarithm is no number to compute with.
    kept = [place for place, share in enumerate(shares) if share > 0]
    weighted = [log_values[place] + math.log(shares[place]) for place in kept]
    return ops.logsumexp(ops.stack(weighted), axis=0)


def member_shares(weights: Sequence[float] | None, members: int) -> list[float]:
    """Return weights divided by their sum, one for each member.

    Raises:
        UsageError: Weights of another number, or that are not finite and >= 0 with a sum above 0.
    """
    if weights is None:
        return [1.0 / members] * members
    values = [float(checks.non_negative("weights", weight)) for weight in weights]
    if len(values) != members or not sum(values) > 0:
        raise checks.UsageError(
            f"weights must be one number >= 0 for each of {members} members, not all 0. "
            f"Received: weights={checks.shown(list(weights))}."
        )
    return [value / sum(values) for value in values]


@keras.saving.register_keras_serializable("tfdistill")
class Ensemble(keras.Model):
    """Several networks over the same images, averaged into one set of logits.

    An ensemble of trained networks teaches or predicts; an untrained one, compiled and fitted,
    trains all members jointly through their average. Of members that end in softmax or sigmoid,
    what stands before it is taken. Members may see images at sizes of their own: the ensemble takes
    those of the largest, and shows smaller ones the same image, shrunk (bilinear, antialiased).

    Args:
        members: Keras models of the same classes, channels and range of pixels.
        average: `probabilities` (the mean of the members' softmax), `sigmoid` (the mean of their
            sigmoids, for one output or several that do not exclude each other) or `logits`. None
            means `sigmoid` where the members end in one, else `probabilities`.
        weights: One for each member, >= 0; they are divided by their sum. None weighs all alike.

    Raises:
        UsageError: No members, members that differ in channels, proportions of the images, classes
            or last activation, weights that do not fit, or one output of which it is not said what
            it is.

    Example:
        >>> teacher = Ensemble([first, second, third], weights=[0.5, 0.3, 0.2])
        >>> Distiller(student=student, teacher=teacher, alpha=1.0, temperature=1.0)
    """

    def __init__(
        self,
        members: Sequence[keras.Model],
        average: str | None = None,
        weights: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        members = list(members)
        if not members:
            raise checks.UsageError("An Ensemble needs at least one member. Received: none.")
        for member in members:
            check_network("member", member)
            if not member.built or not isinstance(member, keras.Model):
                raise checks.UsageError(
                    f"Members must be Keras models with weights. Received: {member.name} without. "
                    "Begin it with a keras.Input."
                )
        self.members = members
        for member in self.members[1:]:
            checks.same_classes(self.members[0].output_shape[-1], member.output_shape[-1])
        self._input_shape = _largest([member.input_shape for member in self.members])
        self.average = _average(members, average)
        self.weights_of_members = None if weights is None else member_shares(weights, len(members))
        logits = [on_logits(member, "member") for member in members]
        shown = [_shrinking(self._input_shape, member.input_shape) for member in members]
        # In a closure: Keras would save a second model over the same weights.
        self._logits: Callable[..., Any] = lambda images, training: [
            one(shrink(images), training=training)
            for one, shrink in zip(logits, shown, strict=True)
        ]
        self.build(self.input_shape)

    @property
    def input_shape(self) -> Shape:
        """`(None, height, width, channels)`, as of the member that sees the largest images."""
        return self._input_shape

    @property
    def output_shape(self) -> Shape:
        """`(None, num_classes)`, as of the members."""
        return self.members[0].output_shape

    def build(self, input_shape: Shape | None) -> None:
        self.built = True

    def member_logits(self, images: Tensor, training: bool | None = False) -> Tensor:
        """Return the members' logits apart: `[members, batch, num_classes]` float32."""
        return ops.stack([ops.cast(z, "float32") for z in self._logits(images, training)])

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        logits = self.member_logits(images, training)
        return average_logits(logits, self.average, self.weights_of_members)

    def get_config(self) -> dict[str, Any]:
        members = [keras.saving.serialize_keras_object(member) for member in self.members]
        return {
            **super().get_config(),
            "members": members,
            "average": self.average,
            "weights": self.weights_of_members,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Ensemble":
        members = [
            keras.saving.deserialize_keras_object(member, custom_objects)
            for member in config["members"]
        ]
        return cls(**{**config, "members": members})


def _largest(shapes: Sequence[Shape]) -> Shape:
    """Return the input shape of the members that see the largest images; None is any size."""
    first, *others = shapes
    if any(len(shape) != 4 for shape in shapes):
        for shape in others:
            checks.same_input(first, shape)
        return first
    height, width = (max(shape[axis] or 0 for shape in shapes) or None for axis in (1, 2))
    for _, rows, columns, channels in shapes:
        apart = channels != first[3]
        if (
            rows and columns and height and width
        ):  # of other proportions it would see them distorted
            apart = apart or rows * width != columns * height
        if apart:
            raise checks.UsageError(
                "Members must take images of the same proportions and channels. Received: inputs "
                f"{', '.join(str(tuple(each[1:])) for each in shapes)}."
            )
    return (None, height, width, first[3])


def _shrinking(shape: Shape, own: Shape) -> Callable[[Tensor], Tensor]:
    """Return what brings images `[batch, height, width, channels]` to a member's own size.

    Bilinear with antialiasing is linear in the pixels of each axis, so it is two products with
    matrices, which every backend and XLA have.
    """
    if len(own) != 4 or own[1:3] == shape[1:3] or None in own[1:3]:
        return lambda images: images
    rows, columns = (_shrinking_matrix(shape[axis], own[axis]) for axis in (1, 2))
    return lambda images: ops.einsum("hi,bijc,wj->bhwc", rows, ops.cast(images, "float32"), columns)


def _shrinking_matrix(size: int | None, smaller: int | None) -> Any:
    """Return `[smaller, size]` float32, whose rows weigh the pixels of a line of `size`."""
    each = ops.eye(size)[None, :, :, None]
    shrunk = ops.image.resize(each, (smaller, size), "bilinear", antialias=True)
    return ops.convert_to_numpy(shrunk)[0, :, :, 0]


def _average(members: Sequence[keras.Model], average: str | None) -> str:
    """Return what is averaged, which the members' last activations must not contradict."""
    found = sorted({final_activation(member) or "" for member in members} - {""})
    if len(found) > 1:
        shown = " and some in ".join(found)
        raise checks.UsageError(f"Members must end alike. Received: some that end in {shown}.")
    ends = found[0] if found else None
    if average is None:
        average = "sigmoid" if ends == SIGMOID else "probabilities"
        if average == "probabilities" and members[0].output_shape[-1] == 1:
            raise checks.UsageError(
                "Of members with one output, say what it is: average='sigmoid' for yes or no, "
                "'logits' for a number. Received: average=None."
            )
    checks.one_of("average", average, (*AVERAGES, "sigmoid"))
    wrong = {("probabilities", SIGMOID), ("sigmoid", SOFTMAX)}
    if (average, ends) in wrong or average == "probabilities" and members[0].output_shape[-1] == 1:
        raise checks.UsageError(
            f"average={average!r} does not fit the members, which end in {ends} over "
            f"{members[0].output_shape[-1]} outputs. Leave it out."
        )
    return average
