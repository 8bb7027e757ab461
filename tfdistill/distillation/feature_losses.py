"""A loss between an inner layer of the teacher and one of the student, and what it needs."""

from dataclasses import dataclass
from typing import Any

import keras

from tfdistill.config.registry import FEATURE_LOSSES
from tfdistill.losses import ActivationLoss
from tfdistill.utils import checks
from tfdistill.utils.types import Shape


class _NamesOfKeras(type):
    """Answers the argument names of `keras.distillation.FeatureDistillation` with ours."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        for name in ("teacher_layer_name", "student_layer_name"):
            if name in kwargs:
                raise checks.UsageError(
                    f"Unknown argument: {name}={kwargs[name]!r}. Give "
                    f"{name.removesuffix('_name')}={kwargs[name]!r}."
                )
        return super().__call__(*args, **kwargs)


@dataclass(frozen=True)
class FeatureLoss(metaclass=_NamesOfKeras):
    """A loss between an inner layer of the teacher and one of the student.

    Args:
        loss: A Keras loss, or the name of one: of `tfdistill.losses`, such as `hints`, or of Keras,
            such as `mse`; teacher's activations are y_true, student's are y_pred.
        weight: Its weight beside hard and soft loss, >= 0.
        teacher_layer: Name of the teacher's layer.
        student_layer: Name of the student's layer.

    Raises:
        UsageError: A loss that is none, or a weight that is not finite and >= 0.
    """

    loss: keras.losses.Loss
    weight: float = 1.0
    teacher_layer: str = "features"
    student_layer: str = "features"

    def __post_init__(self) -> None:
        checks.non_negative("weight", self.weight)
        object.__setattr__(self, "loss", as_loss("loss", self.loss, FEATURE_LOSSES))

    def get_config(self) -> dict[str, Any]:
        """Return the serialised form."""
        loss = keras.saving.serialize_keras_object(self.loss)
        layers = {"teacher_layer": self.teacher_layer, "student_layer": self.student_layer}
        return {"loss": loss, "weight": self.weight, **layers}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FeatureLoss":
        """Return the feature loss of a serialised form."""
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})


def as_loss(name: str, loss: Any, known: Any) -> keras.losses.Loss:
    """Return a loss that was given as an object or by its name.

    Args:
        name: Of the argument, for messages.
        loss: A Keras loss, or a name of one of `known` or of Keras's own.
        known: Losses of this package by name.

    Raises:
        UsageError: An unknown name, or an object that is no Keras loss.
    """
    loss = of_keras(loss)
    if isinstance(loss, keras.losses.Loss):
        return loss
    if isinstance(loss, str):
        if loss in known:
            return known[loss]()
        try:
            return of_keras(keras.losses.get(loss))
        except ValueError:
            checks.one_of(name, loss, [*known, "mean_squared_error"])
    raise checks.UsageError(
        f"{name} must be a keras.losses.Loss or the name of one. Received: "
        f"{type(loss).__name__}{_ours(loss)}"
    )


def of_keras(loss: Any) -> Any:
    """Return the class's object of one of Keras's loss functions; any other loss unchanged."""
    name = getattr(loss, "__name__", "")
    if not name or getattr(keras.losses, name, None) is not loss:
        return loss
    words = "".join(word.capitalize() for word in name.split("_"))
    special = {"KlDivergence": "KLDivergence", "Logcosh": "LogCosh", "Ctc": "CTC"}
    return getattr(keras.losses, special.get(words, words))()


def _ours(loss: Any) -> str:
    """Return what to give instead of a loss of `keras.distillation`."""
    ours = {
        "LogitsDistillation": "Give soft_loss=SoftTargets(temperature), or temperature=... alone.",
        "FeatureDistillation": "Give features=[FeatureLoss(loss, weight, teacher_layer, "
        "student_layer)].",
    }
    return f". {ours[type(loss).__name__]}" if type(loss).__name__ in ours else "."


def connector(
    feature: FeatureLoss, teacher_shape: Shape, student_shape: Shape
) -> keras.Layer | None:
    """Return the layer that a feature loss needs between student and teacher, built, or None.

    Args:
        feature: The loss and its layers.
        teacher_shape: Of the teacher's activations, such as `(None, height, width, channels)`.
        student_shape: Of the student's.

    Raises:
        UsageError: Layers that the loss cannot compare.
    """
    if not isinstance(feature.loss, ActivationLoss):
        return None
    try:
        return feature.loss.connector(teacher_shape, student_shape)
    except checks.UsageError as error:
        raise checks.UsageError(
            f"The layers {feature.teacher_layer!r} of the teacher and {feature.student_layer!r} of "
            f"the student do not fit: {error}"
        ) from None


def feature_losses(features: Any) -> tuple[FeatureLoss, ...]:
    """Return one loss or several, as they were given to a `Distiller`, as a tuple."""
    features = (features,) if isinstance(features, FeatureLoss) else tuple(features)
    for feature in features:
        if not isinstance(feature, FeatureLoss):
            raise checks.UsageError(
                "features must be a list of FeatureLoss(loss, weight, teacher_layer, "
                f"student_layer). Received: {type(feature).__name__}."
            )
    return features
