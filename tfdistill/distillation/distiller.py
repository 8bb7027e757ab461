"""The Distiller: a Keras model whose train step combines labels and a teacher.

loss = hard_weight * hard + soft_weight * soft + sum of weighted feature losses + the student's
regularisation, with hard_weight = 1 - alpha and soft_weight = alpha unless they are given.

Hinton, Vinyals & Dean 2015 (arXiv 1503.02531), section 2. The train step only puts the teacher's
outputs into y; Keras's own step does the gradient, scaling, metrics and distribution.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfdistill.distillation.feature_extractor import tap
from tfdistill.losses import ActivationLoss, SoftTargets, TemperedLoss
from tfdistill.utils import checks
from tfdistill.utils.types import Shape, Tensor

LABEL, TEACHER_LOGITS, TEACHER_FEATURES = "label", "teacher_logits", "teacher_features"


@dataclass(frozen=True)
class FeatureLoss:
    """A loss between an inner layer of the teacher and one of the student.

    Args:
        loss: A Keras loss; teacher's activations are y_true, student's are y_pred.
        weight: Its weight beside hard and soft loss, >= 0.
        teacher_layer: Name of the teacher's layer.
        student_layer: Name of the student's layer.
    """

    loss: keras.losses.Loss
    weight: float = 1.0
    teacher_layer: str = "features"
    student_layer: str = "features"

    def __post_init__(self) -> None:
        checks.non_negative("weight", self.weight)

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


@keras.saving.register_keras_serializable("tfdistill")
class Distiller(keras.Model):
    """Trains a student on labels and on a teacher's outputs.

    Targets are labels, or `{"label": labels, "teacher_logits": [batch, num_classes]}` with the
    teacher's logits computed beforehand; then no teacher is needed. The hard loss is the one given
    to `compile`, and there a regulariser of the student counts as usual. `evaluate` and `predict`
    measure the student: they do not run the teacher.

    The teacher runs in inference mode outside the gradient tape. It is not part of this model: it
    is neither trained nor saved nor counted, so give it again with `set_teacher` after loading.

    Args:
        student: A Keras model returning logits.
        teacher: A Keras model (or `Ensemble`) returning logits; None where the batches hold them.
        alpha: Weight of the soft loss in 0..1; 1 - alpha is that of the labels.
        temperature: Of both sides, 0.001 to 1000; short for `soft_loss=SoftTargets(temperature)`.
        soft_loss: A Keras loss between teacher logits (y_true) and student logits (y_pred); one
            with `needs_labels` gets (teacher logits, labels).
        features: `FeatureLoss`es; they need the live teacher. Layers that bring a student's
            activations to the teacher's shape (hints) are trained beside it and stay here.
        hard_weight: Weight of the labels, >= 0; None means 1 - alpha.
        soft_weight: Weight of the soft loss, >= 0; None means alpha.
        warmup_steps: Steps over which the weight of the soft loss grows linearly from 0.

    Raises:
        UsageError: alpha outside 0..1, temperature outside 0.001..1000, both temperature and
            soft_loss given, teacher and student that differ in input or classes, or layers that
            a feature loss cannot compare; in training, if a batch has no teacher logits and there
            is no teacher.

    Example:
        >>> distiller = Distiller(student, teacher, alpha=0.9, temperature=4.0)
        >>> distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> distiller.fit(images, labels); distiller.student.save("student.keras")
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None = None,
        *,
        alpha: float = 0.9,
        temperature: float | None = None,
        soft_loss: keras.losses.Loss | None = None,
        features: Iterable[FeatureLoss] = (),
        hard_weight: float | None = None,
        soft_weight: float | None = None,
        warmup_steps: int = 0,
        **kwargs: Any,
    ):
        kwargs.setdefault("dtype", _training_policy(student))
        super().__init__(autocast=False, **kwargs)
        if soft_loss is not None and temperature is not None:
            raise checks.UsageError(
                f"Give temperature or soft_loss, not both. Received: temperature={temperature!r} "
                f"beside soft_loss={soft_loss.name!r}. Set the temperature in the loss."
            )
        self.student = student
        self.soft_loss = soft_loss or SoftTargets(4.0 if temperature is None else temperature)
        self.features = tuple(features)
        self._alpha = _Dial(checks.fraction("alpha", alpha))
        self.hard_weight = None if hard_weight is None else _weight("hard_weight", hard_weight)
        self.soft_weight = None if soft_weight is None else _weight("soft_weight", soft_weight)
        self.warmup_steps = checks.count("warmup_steps", warmup_steps, minimum=0)
        self.connectors: list[keras.Layer | None] = []
        self._teacher: Callable[..., Any] | None = None
        self._teacher_shapes: list[Shape] | None = None
        self._trackers = {"hard_loss": keras.metrics.Mean("hard_loss")}
        self._trackers["soft_loss"] = keras.metrics.Mean("soft_loss")
        if self.features:
            self._trackers["feature_loss"] = keras.metrics.Mean("feature_loss")
            layers = [feature.student_layer for feature in self.features]
            tapped = tap(student, layers)
            self._student_shapes = [tuple(output.shape) for output in tapped.output[1]]
            self._student_taps = _untracked(tapped)
        self.set_teacher(teacher)
        # Keras takes no new layers after it: connectors may have to wait for a later teacher.
        if student.built and not self.features:
            self.build(None)

    def build(self, input_shape: Shape | None) -> None:
        if not self.student.built:
            self.student.build(input_shape)
        self.built = True

    def set_teacher(self, teacher: keras.Model | None) -> None:
        """Let another teacher teach from now on; None means that the batches bring its logits.

        Args:
            teacher: From the student's images to logits, `[batch, num_classes]`.

        Raises:
            UsageError: It differs from the student in input or classes, or its inner layers do not
                fit the feature losses.
        """
        self._teacher = None
        if teacher is not None:
            check_pair(teacher, self.student)
            layers = [feature.teacher_layer for feature in self.features]
            tapped = tap(teacher, layers) if layers else teacher
            if layers:
                self._connect([tuple(output.shape) for output in tapped.output[1]])
            # In a closure, because Keras tracks and saves a model that is an attribute.
            self._teacher = _untracked(tapped)
        self.train_function = None  # a compiled train step would go on with the old teacher

    @property
    def alpha(self) -> float:
        """Weight of the soft loss in 0..1; assigning takes effect in the compiled step."""
        return float(ops.convert_to_numpy(self._alpha.variable))

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._alpha.variable.assign(checks.fraction("alpha", value))

    @property
    def temperature(self) -> float:
        """Temperature of the soft loss; assigning takes effect in the compiled step."""
        return self._tempered_loss().temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._tempered_loss().temperature = value

    def call(self, x: Tensor, training: bool | None = None) -> Any:
        if training and self.features:
            logits, activations = self._student_taps(x, training=True)
            pairs = zip(self.connectors, activations, strict=True)
            return logits, [layer(a, training=True) if layer else a for layer, a in pairs]
        return self.student(x, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = one_weight(sample_weight)
        return super().train_step((x, self._with_teacher(x, y), weights))

    def compute_loss(
        self,
        x: Tensor = None,
        y: Any = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool | None = True,
    ) -> Tensor:
        y, (logits, activations) = _targets(y), _outputs(y_pred)
        sample_weight = one_weight(sample_weight)
        hard = super().compute_loss(x, y[LABEL], logits, sample_weight, training)
        if TEACHER_LOGITS not in y:
            return hard
        checks.same_classes(y[TEACHER_LOGITS].shape[-1], logits.shape[-1])
        taught = y[TEACHER_LOGITS]
        if getattr(self.soft_loss, "needs_labels", False):
            taught = (taught, y[LABEL])
        soft = self.soft_loss(taught, logits, sample_weight)
        penalty = _per_replica(sum((ops.sum(loss) for loss in self.losses), start=0.0))
        self._trackers["hard_loss"].update_state(_of_all_replicas(hard - penalty))
        self._trackers["soft_loss"].update_state(_of_all_replicas(soft))
        hard_weight, soft_weight = self._weights()
        # `hard` holds the student's regularisation already, whose weight shall be 1.
        loss = hard_weight * hard + soft_weight * soft + (1.0 - hard_weight) * penalty
        if activations:
            loss = loss + self._feature_loss(y[TEACHER_FEATURES], activations, sample_weight)
        return loss

    def compute_metrics(
        self, x: Tensor, y: Any, y_pred: Tensor, sample_weight: Tensor = None
    ) -> dict[str, Any]:
        y, (logits, activations) = _targets(y), _outputs(y_pred)
        results = super().compute_metrics(x, y[LABEL], logits, one_weight(sample_weight))
        measured = {"hard_loss", "soft_loss"} if TEACHER_LOGITS in y else set()
        measured |= {"feature_loss"} if activations else set()
        # A metric that was not updated would be shown as 0.0.
        return {k: v for k, v in results.items() if k not in self._trackers or k in measured}

    def _with_teacher(self, x: Tensor, y: Any) -> dict[str, Any]:
        y = dict(_targets(y))
        if not self.features and TEACHER_LOGITS in y:
            return y
        if self._teacher is None:
            raise checks.UsageError(
                "The Distiller has no teacher and the batch has no teacher_logits. Give a teacher "
                "(Distiller(student, teacher) or set_teacher), or targets "
                "{'label': ..., 'teacher_logits': ...}; feature losses always need the teacher."
            )
        logits, activations = _outputs(self._teacher(x, training=False))
        y.setdefault(TEACHER_LOGITS, ops.cast(logits, "float32"))
        return y | ({TEACHER_FEATURES: activations} if self.features else {})

    def _weights(self) -> tuple[Any, ...]:
        alpha = self._alpha.variable
        hard = 1.0 - alpha if self.hard_weight is None else self.hard_weight
        soft = alpha if self.soft_weight is None else self.soft_weight
        if self.warmup_steps:
            steps = ops.cast(self.optimizer.iterations, "float32")
            soft = soft * ops.minimum(steps / self.warmup_steps, 1.0)
        return hard, soft

    def _connect(self, teacher_shapes: list[Shape]) -> None:
        """Make the layers that bring the student's activations to the teacher's shapes, once."""
        if any(self.connectors) and teacher_shapes != self._teacher_shapes:
            raise checks.UsageError(
                "Another teacher must have inner layers of the same shapes, to which the student's "
                f"are brought by trained layers. Received: {teacher_shapes}, made for "
                f"{self._teacher_shapes}. Make a new Distiller."
            )
        made = [
            _connector(feature, of_teacher, of_student)
            for feature, of_teacher, of_student in zip(
                self.features, teacher_shapes, self._student_shapes, strict=True
            )
        ]
        self._teacher_shapes = teacher_shapes
        if not self.built:
            self.connectors = made
            self.build(None)

    def _feature_loss(
        self,
        teacher_features: Sequence[Tensor],
        student_features: Sequence[Tensor],
        sample_weight: Tensor,
    ) -> Tensor:
        total = sum(
            feature.weight * feature.loss(of_teacher, of_student, sample_weight)
            for feature, of_teacher, of_student in zip(
                self.features, teacher_features, student_features, strict=True
            )
        )
        self._trackers["feature_loss"].update_state(_of_all_replicas(total))
        return total

    def _tempered_loss(self) -> TemperedLoss:
        if not isinstance(self.soft_loss, TemperedLoss):
            raise checks.UsageError(
                f"This soft loss has no temperature. Received: {type(self.soft_loss).__name__}."
            )
        return self.soft_loss

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "student": keras.saving.serialize_keras_object(self.student),
            "alpha": self.alpha,
            "soft_loss": keras.saving.serialize_keras_object(self.soft_loss),
            "features": [feature.get_config() for feature in self.features],
            "hard_weight": self.hard_weight,
            "soft_weight": self.soft_weight,
            "warmup_steps": self.warmup_steps,
            "teacher_shapes": self._teacher_shapes,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Distiller":
        objects = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects)
            for key in ("student", "soft_loss")
        }
        features = [FeatureLoss.from_config(feature) for feature in config["features"]]
        teacher_shapes = config.pop("teacher_shapes", None)
        distiller = cls(**{**config, **objects, "features": features})
        if teacher_shapes:
            distiller._connect([tuple(shape) for shape in teacher_shapes])
        return distiller


class _Dial:
    """A number read by the compiled step; deliberately no weight, so it is in no checkpoint."""

    def __init__(self, value: float):
        self.variable = keras.Variable(value, trainable=False, dtype="float32", name="alpha")


def _connector(
    feature: FeatureLoss, teacher_shape: Shape, student_shape: Shape
) -> keras.Layer | None:
    """Return the layer that a feature loss needs between student and teacher, built, or None."""
    if not isinstance(feature.loss, ActivationLoss):
        return None
    try:
        return feature.loss.connector(teacher_shape, student_shape)
    except checks.UsageError as error:
        raise checks.UsageError(
            f"The layers {feature.teacher_layer!r} of the teacher and {feature.student_layer!r} of "
            f"the student do not fit: {error}"
        ) from None


# Keras divides losses by the number of replicas, whose gradients are added; its metrics undo it.


def _per_replica(loss: Tensor) -> Tensor:
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss / replicas


def _of_all_replicas(loss: Tensor) -> Tensor:
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss * replicas


def _weight(name: str, value: float) -> float:
    return float(checks.non_negative(name, value))


def one_weight(sample_weight: Any) -> Tensor:
    """Return the `[batch]` weights of examples: Keras gives arrays one for each key of y."""
    return sample_weight[LABEL] if isinstance(sample_weight, dict) else sample_weight


def _untracked(model: keras.Model) -> Callable[..., Any]:
    return lambda x, training: model(x, training=training)


def _targets(y: Any) -> dict[str, Any]:
    return y if isinstance(y, dict) else {LABEL: y}


def _outputs(y_pred: Tensor) -> tuple[Any, ...]:
    return tuple(y_pred) if isinstance(y_pred, (tuple, list)) else (y_pred, [])


def check_pair(teacher: keras.Model, student: keras.Model) -> None:
    # A subclassed model has no shapes before its first batch; the train step checks it then.
    shapes = [
        getattr(m, name, None)
        for name in ("input_shape", "output_shape")
        for m in (teacher, student)
    ]
    teacher_in, student_in, teacher_out, student_out = shapes
    if teacher_in and student_in:
        checks.same_input(teacher_in, student_in)
    if teacher_out and student_out:
        checks.same_classes(teacher_out[-1], student_out[-1])


def _training_policy(student: keras.Model) -> keras.DTypePolicy:
    # Keras scales the loss only for a model whose own policy is mixed_float16, and a loaded student
    # reports float32 while its layers compute in float16.
    layers = student._flatten_layers(include_self=False, recursive=True)
    half = any(layer.compute_dtype == "float16" for layer in layers)
    return "mixed_float16" if half else student.dtype_policy
