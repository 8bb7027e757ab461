"""The Distiller: a Keras model whose train step combines labels and a teacher.

loss = hard_weight * hard + soft_weight * soft + sum of weighted feature losses + the student's
regularisation, with hard_weight = 1 - alpha and soft_weight = alpha unless they are given.

Hinton, Vinyals & Dean 2015 (arXiv 1503.02531), section 2. The train step only puts the teacher's
outputs into y; Keras's own step does the gradient, scaling, metrics and distribution.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import keras
import numpy as np
from keras import ops

from tfdistill.distillation import outputs
from tfdistill.distillation.chance_check import ChanceCheck, RightAnswers
from tfdistill.distillation.feature_extractor import tap
from tfdistill.distillation.feature_losses import FeatureLoss, connector, feature_losses
from tfdistill.distillation.outputs import CLASSES, INDEPENDENT, NUMBERS, Family
from tfdistill.distillation.pairs import (
    answer_names_of_keras,
    check_apart,
    check_network,
    check_order,
    check_pair,
)
from tfdistill.distillation.pairs import on_logits as logits_of
from tfdistill.distillation.probability_check import ProbabilityCheck, ProbabilityCounts
from tfdistill.distillation.replicas import (
    OnWorkers,
    divided,
    of_all_replicas,
    per_replica,
    share,
    times,
)
from tfdistill.distillation.targets import (
    LABEL,
    TEACHER_FEATURES,
    TEACHER_LOGITS,
    LabelledOnly,
    check_arrays,
    check_taught,
    class_numbers,
    labelled,
    one_weight,
    spread,
    targets,
    update_labelled,
    with_class_weights,
)
from tfdistill.losses import SoftTargets, TemperedLoss
from tfdistill.models import logits as network_logits
from tfdistill.utils import checks
from tfdistill.utils.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfdistill")
class Distiller(OnWorkers):
    """Trains a student on labels and on a teacher's outputs.

    Targets are labels, or `{"label": labels, "teacher_logits": [batch, num_classes]}` with the
    teacher's logits computed beforehand; then no teacher is needed. A label of -1 means that an
    example has none: it counts in the soft loss alone, and the hard loss is the mean over the
    labelled. With alpha 1 there need be no labels at all: `fit(images)`. The hard loss is the one
    given to `compile`, and there a regulariser of the student counts as usual. `evaluate` and
    `predict` measure the student: they do not run the teacher, and `val_loss` is that of the labels
    wherever the teacher's logits come from.

    The compiled loss says what the outputs are, and so which soft loss fits: `SoftTargets` beside a
    categorical cross-entropy, `BinarySoftTargets` beside a binary one (one output, or several that
    do not exclude each other), the mean squared error beside a loss between numbers. Outputs may be
    `[batch, num_classes]` or have more axes in between, such as a class at each position.

    Networks may end in softmax or sigmoid: both losses then take what stands before it, and
    `predict` and metrics still see the student's own outputs.

    The teacher runs in inference mode outside the gradient tape. It is not part of this model: it
    is neither trained nor saved nor counted, so give it again with `set_teacher` after loading. One
    that knows no more of the labels than chance is warned of after the first epoch.

    Args:
        student: A Keras model with one output.
        teacher: A Keras model (or `Ensemble`) with as many outputs; None where the batches hold its
            logits.
        alpha: Weight of the soft loss in 0..1; 1 - alpha is that of the labels.
        temperature: Of both sides, 0.001 to 1000; default 4.
        soft_loss: A Keras loss between teacher logits (y_true) and student logits (y_pred), or its
            name, such as `decoupled`; one with `needs_labels` gets (teacher logits, labels), where
            the teacher's most probable class stands for a label that is missing. None means the one
            that fits the compiled loss.
        features: `FeatureLoss`es; they need the live teacher. Layers that bring a student's
            activations to the teacher's shape (hints) are trained beside it and stay here.
        hard_weight: Weight of the labels, >= 0; None means 1 - alpha.
        soft_weight: Weight of the soft loss, >= 0; None means alpha.
        warmup_steps: Steps over which the weight of the soft loss grows linearly from 0.

    Raises:
        UsageError: alpha outside 0..1, temperature outside 0.001..1000, both temperature and
            soft_loss given, teacher and student that differ in input or classes, or layers that
            a feature loss cannot compare; in `compile`, a loss that does not fit the outputs; in
            training, a batch without what its losses need, labels that are no classes, teacher
            logits that are NaN or infinite, and probabilities in the place of logits.

    Example:
        >>> distiller = Distiller(student=student, teacher=teacher, alpha=0.9, temperature=4.0)
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
        soft_loss: keras.losses.Loss | str | None = None,
        features: Iterable[FeatureLoss] = (),
        hard_weight: float | None = None,
        soft_weight: float | None = None,
        warmup_steps: int = 0,
        **kwargs: Any,
    ):
        answer_names_of_keras(kwargs)
        check_network("student", student)
        kwargs.setdefault("dtype", _training_policy(student))
        super().__init__(autocast=False, **kwargs)
        if soft_loss is not None and temperature is not None:
            shown = soft_loss if isinstance(soft_loss, str) else getattr(soft_loss, "name", "")
            raise checks.UsageError(
                f"Give temperature or soft_loss, not both. Received: temperature={temperature!r} "
                f"beside soft_loss={shown!r}. Set the temperature in the loss."
            )
        self.student = student
        self._soft_loss_named = soft_loss is not None
        self._temperature_given = temperature is not None
        self.soft_loss = (
            outputs.soft_loss(soft_loss)
            if self._soft_loss_named
            else SoftTargets(4.0 if temperature is None else temperature)
        )
        self.features = feature_losses(features)
        self._alpha = _Dial(checks.fraction("alpha", alpha))
        self.hard_weight = None if hard_weight is None else _weight("hard_weight", hard_weight)
        self.soft_weight = None if soft_weight is None else _weight("soft_weight", soft_weight)
        self.warmup_steps = checks.count("warmup_steps", warmup_steps, minimum=0)
        if self.warmup_steps and keras.backend.backend() == "jax":
            raise checks.UsageError(
                "On JAX a loss does not know the step, so that the soft loss would keep the weight "
                f"of the first. Received: warmup_steps={warmup_steps!r}. Use LossWeightSchedule."
            )
        self.connectors: list[keras.Layer | None] = []
        self._family: Family | None = CLASSES
        self._has_loss = False
        self._takes_numbers = False
        self._without_labels = False
        self._only_labelled = LabelledOnly(name="labelled_only")
        self._activation = network_logits.final_activation(student)
        self._teacher: Callable[..., Any] | None = None
        self._teacher_model: Callable[[], keras.Model | None] = lambda: None
        self._teacher_shapes: list[Shape] | None = None
        self._probability_counts = ProbabilityCounts()
        self._right_answers = RightAnswers()
        self._teacher_told = False  # that its outputs are logits, where no layer says so
        self._trackers = {"hard_loss": keras.metrics.Mean("hard_loss")}
        self._trackers["soft_loss"] = keras.metrics.Mean("soft_loss")
        if self.features:
            self._trackers["feature_loss"] = keras.metrics.Mean("feature_loss")
            layers = [feature.student_layer for feature in self.features]
            tapped = tap(network_logits.logits_network(student), layers)
            self._student_shapes = [tuple(output.shape) for output in tapped.output[1]]
            self._student_taps = _untracked(tapped)
        self.set_teacher(teacher)
        # Keras takes no new layers after it: connectors may have to wait for a later teacher.
        if student.built and not self.features:
            self.build(None)

    def build(self, input_shape: Shape | None) -> None:
        if not self.student.built:
            self.student.build(input_shape)
        # In a closure, because Keras tracks and saves a model that is an attribute.
        self._student_logits = _untracked(network_logits.logits_network(self.student))
        self.built = True

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **settings: Any,
    ) -> None:
        """Set the optimizer, the hard loss and the metrics, as `keras.Model.compile` does.

        A loss that was made for probabilities (`from_logits=False`) is given the student's logits
        and takes them as such.

        Args:
            optimizer: As in Keras.
            loss: The hard loss: a Keras loss, its name, or None where there are no labels.
            loss_weights: None; losses are weighted by alpha, or by `hard_weight` and `soft_weight`.
            metrics: As in Keras; they see the student's own outputs, and count labelled examples
                alone: one of your own needs `sample_weight` in its `update_state` for that.
            weighted_metrics: As in Keras.
            **settings: Others of Keras, such as `jit_compile`.

        Raises:
            UsageError: A loss that does not fit what the student or the teacher gives, or one that
                does not tell which soft loss fits; `loss_weights`.
        """
        answer_names_of_keras(settings)
        if loss_weights is not None:
            raise checks.UsageError(
                "The losses of a Distiller are weighted by its alpha, or hard_weight and "
                f"soft_weight. Received: loss_weights={checks.shown(loss_weights)}. Leave it out; "
                "metrics come after it, so name them: metrics=[...]."
            )
        if keras.tree.is_nested(loss):
            raise checks.UsageError(
                f"Give one loss, between the labels and the student's one output. Received: "
                f"{checks.shown(loss)}."
            )
        loss, took_probabilities = outputs.on_logits(loss)
        if took_probabilities and self._activation == network_logits.LINEAR:
            warnings.warn(
                "The student returns logits, so its loss is taken with from_logits=True.",
                stacklevel=2,
            )
        ends = self._activation in (network_logits.SOFTMAX, network_logits.SIGMOID)
        if ends and getattr(loss, "from_logits", False) and not took_probabilities:
            warnings.warn(
                f"The student ends in {self._activation}; its losses take what stands before it.",
                stacklevel=2,
            )
        self._settle(loss)
        self._has_loss = loss is not None
        self._takes_numbers = loss is None or outputs.takes_numbers(loss)
        if self._family is INDEPENDENT and self._activation == network_logits.LINEAR:
            metrics = outputs.at_logits(metrics)
            weighted_metrics = outputs.at_logits(weighted_metrics)
        super().compile(optimizer, loss, None, metrics, weighted_metrics, **settings)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *args: Any,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        callbacks: Any = None,
        **settings: Any,
    ) -> keras.callbacks.History:
        """Train the student, as `keras.Model.fit` does.

        Args:
            x: Images, or a dataset of (images, targets) or (images, targets, weights).
            y: Labels, or `{"label": ..., "teacher_logits": ...}`; None beside a dataset, or with
                alpha 1.
            *args: As in Keras.
            class_weight: Weights of the examples in both losses by the class of their label.
            sample_weight: `[n]` weights of the examples in both losses.
            callbacks: As in Keras.
            **settings: Others of Keras, such as `epochs`.

        Returns:
            The figures of every epoch.

        Raises:
            UsageError: As in the class.
        """
        y = np.asarray(y) if isinstance(y, list) else y
        self._check_arrays(y)
        validation = settings.get("validation_data")
        self._check_arrays(validation[1] if isinstance(validation, (tuple, list)) else None)
        if class_weight:
            x, sample_weight = with_class_weights(x, y, sample_weight, class_weight)
        callbacks = [ProbabilityCheck(), ChanceCheck(), *keras.tree.flatten(callbacks or [])]
        return super().fit(
            x, y, *args, sample_weight=sample_weight, callbacks=callbacks, **settings
        )

    def set_teacher(self, teacher: keras.Model | None) -> None:
        """Let another teacher teach from now on; None means that the batches bring its logits.

        Args:
            teacher: From the student's images to logits, `[batch, num_classes]`, or to their
                softmax or sigmoid.

        Raises:
            UsageError: It differs from the student in input or classes, or its inner layers do not
                fit the feature losses.
        """
        self._teacher, self._teacher_model = None, lambda: None
        if teacher is not None:
            check_network("teacher", teacher)
            check_pair(teacher, self.student)
            check_apart(teacher, self.student)
            check_order(teacher, self.student)
            if self.compiled:
                outputs.check_activation(teacher, "teacher", self._family)
            self._teacher = self._teaching(teacher)
            self._teacher_model = lambda: teacher
        self.train_function = None  # a compiled train step would go on with the old teacher

    def _teaching(self, teacher: keras.Model) -> Callable[..., Any]:
        """Return what gives a teacher's logits, or (logits, activations of its layers)."""
        layers = [feature.teacher_layer for feature in self.features]
        on_logits, plain = logits_of(teacher, "teacher"), teacher
        if layers:
            on_logits, plain = tap(on_logits, layers), tap(plain, layers)
            self._connect([tuple(output.shape) for output in on_logits.output[1]])
        # In a closure, because Keras tracks and saves a model that is an attribute.
        return lambda x: (plain if self._family is NUMBERS else on_logits)(x, training=False)

    @property
    def teacher(self) -> keras.Model | None:
        """The teacher, or None; assign it with `set_teacher`."""
        return self._teacher_model()

    @property
    def alpha(self) -> float:
        """Weight of the soft loss in 0..1; assigning takes effect in the compiled step."""
        return self._alpha.value

    @alpha.setter
    def alpha(self, value: float) -> None:
        checks.fraction("alpha", value)
        if self._without_labels and self.hard_weight is None and value < 1:
            raise checks.UsageError(
                f"alpha must stay 1 where there are no labels. Received: alpha={value!r}."
            )
        self._alpha.assign(value)
        self._retrace()

    @property
    def temperature(self) -> float:
        """Temperature of the soft loss; assigning takes effect in the compiled step."""
        return self._tempered_loss().temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._tempered_loss().temperature = value
        self._retrace()

    def call(self, x: Tensor, training: bool | None = None) -> Any:
        """Return the student's logits, in training with its inner activations beside them."""
        if training and self.features:
            logits, activations = self._student_taps(x, training=True)
            pairs = zip(self.connectors, activations, strict=True)
            return logits, [layer(a, training=True) if layer else a for layer, a in pairs]
        student = self.student if self._family is NUMBERS else self._student_logits
        return student(x, training=training)

    def train_step(self, *args: Any) -> Any:
        *state, data = args  # with JAX, the state of all variables comes first
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = self._with_teacher(x, targets(y))
        return super().train_step(*state, (x, y, one_weight(sample_weight)))

    def test_step(self, *args: Any) -> Any:
        *state, data = args
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = targets(y)
        if not y:
            raise checks.UsageError(
                "Evaluation needs labels, or teacher_logits. Received: neither."
            )
        if LABEL in y:  # else the loss would depend on where the logits come from
            y.pop(TEACHER_LOGITS, None)
        return super().test_step(*state, (x, y, one_weight(sample_weight)))

    def predict_step(self, *args: Any) -> Any:
        result = super().predict_step(*args)
        if keras.backend.backend() == "jax":
            return self._finished(result[0]), result[1]
        return self._finished(result)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Any = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool | None = True,
    ) -> Tensor:
        y, (logits, activations) = targets(y), _outputs(y_pred)
        sample_weight = spread(one_weight(sample_weight), logits)
        penalty = per_replica(sum((ops.sum(loss) for loss in self.losses), start=0.0))
        labels, known = self._labels(y, logits)
        hard = self._hard_loss(labels, known, logits, sample_weight, training)
        if TEACHER_LOGITS not in y:
            return ops.convert_to_tensor(penalty if hard is None else hard + penalty)
        soft = self._soft_loss(y[TEACHER_LOGITS], labels, known, logits, sample_weight)
        if training:
            self._watch(y[TEACHER_LOGITS], logits, labels, known)
        hard_weight, soft_weight = self._weights()
        loss = soft_weight * soft + penalty
        if hard is not None:
            self._track("hard_loss", hard, logits)
            loss = loss + hard_weight * hard
        elif self._hard_weight_is_set():
            self._refuse_without_labels(labels)
        self._without_labels = hard is None
        if activations:
            loss = loss + self._feature_loss(y[TEACHER_FEATURES], activations, sample_weight)
        return loss

    def _hard_loss(
        self,
        labels: Tensor | None,
        known: Tensor | None,
        logits: Tensor,
        sample_weight: Tensor,
        training: bool | None,
    ) -> Tensor | None:
        if labels is None or not self._has_loss:
            return None
        predicted = logits if self._family in (CLASSES, INDEPENDENT) else self._finished(logits)
        count = ops.shape(logits)[0]
        if known is not None:
            predicted = self._only_labelled((predicted, known))
            count = ops.sum(ops.cast(known, "float32"))
        regularised = super().compute_loss(None, labels, predicted, sample_weight, training)
        penalty = per_replica(sum((ops.sum(loss) for loss in self.losses), start=0.0))
        return times(regularised - penalty, share(count))

    def _soft_loss(
        self,
        taught: Tensor,
        labels: Tensor | None,
        known: Tensor | None,
        logits: Tensor,
        sample_weight: Tensor,
    ) -> Tensor:
        check_taught(taught, logits)
        given: Any = taught
        if getattr(self.soft_loss, "needs_labels", False):
            guessed = ops.argmax(taught, axis=-1)
            if labels is not None and known is not None:
                known = ops.reshape(known, ops.shape(guessed))
                numbers = class_numbers(labels, logits)
                guessed = ops.where(known, numbers, ops.cast(guessed, numbers.dtype))
            given = (taught, guessed if labels is None or known is not None else labels)
        soft = times(self.soft_loss(given, logits, sample_weight), share(ops.shape(logits)[0]))
        self._track("soft_loss", soft, logits)
        return soft

    def compute_metrics(
        self, x: Tensor, y: Any, y_pred: Tensor, sample_weight: Tensor = None
    ) -> dict[str, Any]:
        y, (logits, activations) = targets(y), _outputs(y_pred)
        labels, known = self._labels(y, logits)
        predicted = self._finished(logits)
        measured = {"soft_loss"} if TEACHER_LOGITS in y else set()
        measured |= {"feature_loss"} if activations else set()
        if labels is None:  # what Keras measures needs them
            names = {"loss", *measured} if measured else set()
            return {each.name: each.result() for each in self.metrics if each.name in names}
        if self._has_loss and TEACHER_LOGITS in y:
            measured.add("hard_loss")
        weights = spread(one_weight(sample_weight), logits)
        if known is None or self._compile_metrics is None:
            results = super().compute_metrics(x, labels, predicted, weights)
        else:
            update_labelled(self._compile_metrics, labels, predicted, known, weights)
            results = self.get_metrics_result()
        # A metric that was not updated would be shown as 0.0.
        left_out = set(self._trackers) - measured
        left_out |= set() if self._has_loss or measured else {"loss"}
        return {name: value for name, value in results.items() if name not in left_out}

    def get_metrics_result(self) -> dict[str, Any]:
        try:
            return super().get_metrics_result()
        except ValueError:  # metrics that have seen no labels
            return {}

    def _labels(self, y: dict[str, Any], logits: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return labels, with 0 where there is none, and which there are; None means all."""
        labels = y.get(LABEL)
        if labels is None or self._family not in (CLASSES, INDEPENDENT):
            return labels, None
        labels = ops.convert_to_tensor(labels)
        if keras.backend.standardize_dtype(labels.dtype).startswith(("uint", "bool")):
            return labels, None
        return ops.maximum(labels, ops.cast(0, labels.dtype)), labelled(labels, logits)

    def _with_teacher(self, x: Tensor, y: dict[str, Any]) -> dict[str, Any]:
        if self.features or TEACHER_LOGITS not in y:
            if self._teacher is None:
                raise checks.UsageError(
                    "The Distiller has no teacher and the batch has no teacher_logits. Give a "
                    "teacher (Distiller(student, teacher) or set_teacher), or targets "
                    "{'label': ..., 'teacher_logits': ...}; feature losses always need the teacher."
                )
            found, activations = _outputs(self._teacher(x))
            y.setdefault(TEACHER_LOGITS, ops.stop_gradient(ops.cast(found, "float32")))
            y |= {TEACHER_FEATURES: activations} if self.features else {}
        return y

    def _settle(self, loss: Any) -> None:
        """Decide what the outputs are, and with it the soft loss unless it was named."""
        teacher = self.teacher
        family = outputs.family_of(loss)
        count = _last_size(self.student)
        if loss is None:
            family = outputs.family_of_network(self.student) or outputs.family_of_network(teacher)
            family = family or (None if count == 1 else CLASSES)
        named = self._soft_loss_named or not self._soft_weight_is_set()
        outputs.check_count(family, count, named)
        outputs.check_activation(self.student, "student", family)
        if teacher is not None:
            outputs.check_activation(teacher, "teacher", family)
        if family is NUMBERS and self.features and self._activation != network_logits.LINEAR:
            raise checks.UsageError(
                "Feature losses beside a loss between numbers need a student whose last layer has "
                f"no activation. Received: one that ends in {self._activation}."
            )
        self._family = family
        if self._soft_loss_named or family is None or type(self.soft_loss) is family.soft_loss:
            return
        if not issubclass(family.soft_loss, TemperedLoss):
            if self._temperature_given:
                raise checks.UsageError(
                    "Between numbers the soft loss is their squared difference, which has no "
                    f"temperature. Received: temperature={self.temperature!r}. Leave it out."
                )
            self.soft_loss = family.soft_loss()
        else:
            tempered = isinstance(self.soft_loss, TemperedLoss)
            self.soft_loss = family.soft_loss(self.temperature if tempered else 4.0)

    def _watch(
        self, taught: Tensor, logits: Tensor, labels: Tensor | None, known: Tensor | None
    ) -> None:
        """Note how often the teacher is right, and whether outputs are probabilities, where no
        layer tells that they are logits."""
        if self._family is NUMBERS:
            return
        if self._family is CLASSES and labels is not None:
            self._right_answers.update(taught, labels, known)
        of_layers = network_logits.final_activation(self.teacher) if self.teacher else None
        teacher_told = self._teacher_told or of_layers
        student_told = self._activation
        self._probability_counts.update(
            None if teacher_told else taught, None if student_told else logits, self._family
        )

    def _check_arrays(self, y: Any) -> None:
        check_arrays(y, self._family, _last_size(self.student), self._takes_numbers)

    def _finished(self, logits: Tensor) -> Tensor:
        """Return the student's own outputs of its logits."""
        if self._family is NUMBERS:
            return logits
        return network_logits.ACTIVATIONS[self._activation or network_logits.LINEAR](logits)

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
            connector(feature, of_teacher, of_student)
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
        self._track("feature_loss", total, student_features[0])
        return total

    def _tempered_loss(self) -> TemperedLoss:
        if not isinstance(self.soft_loss, TemperedLoss):
            raise checks.UsageError(
                f"This soft loss has no temperature. Received: {type(self.soft_loss).__name__}."
            )
        return self.soft_loss

    def _soft_weight_is_set(self) -> bool:
        return (self.alpha if self.soft_weight is None else self.soft_weight) > 0

    def _hard_weight_is_set(self) -> bool:
        return (1.0 - self.alpha if self.hard_weight is None else self.hard_weight) > 0

    def _refuse_without_labels(self, labels: Tensor | None) -> NoReturn:
        if labels is None:
            raise checks.UsageError(
                f"Without labels the teacher alone can teach. Received: alpha={self.alpha:g} and "
                "no labels. Set alpha=1.0 (and no hard_weight), or give labels."
            )
        raise checks.UsageError(
            f"The labels need a loss. Received: alpha={self.alpha:g} and none. Give one to "
            "compile, or set alpha=1.0."
        )

    def _track(self, name: str, loss: Tensor, logits: Tensor) -> None:
        # Weighted as Keras weights its own: with a small last batch, too, the figures add up.
        count = ops.cast(ops.shape(logits)[0], "float32")
        self._trackers[name].update_state(of_all_replicas(loss), divided(count, share(count)))

    def _retrace(self) -> None:
        # A function compiled by JAX holds the numbers of its first call.
        if keras.backend.backend() == "jax" and self.train_function is not None:
            self.make_train_function(force=True)

    def get_config(self) -> dict[str, Any]:
        named = keras.saving.serialize_keras_object(self.soft_loss)
        tempered = isinstance(self.soft_loss, TemperedLoss) and not self._soft_loss_named
        known = tempered and (self._temperature_given or self.temperature != 4.0)
        return {
            **super().get_config(),
            "student": keras.saving.serialize_keras_object(self.student),
            "alpha": self.alpha,
            "soft_loss": named if self._soft_loss_named else None,
            "temperature": self.temperature if known else None,
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
        self.value = float(value)
        self.variable = keras.Variable(value, trainable=False, dtype="float32", name="alpha")

    def assign(self, value: float) -> None:
        self.value = float(value)
        self.variable.assign(value)


def _weight(name: str, value: float) -> float:
    return float(checks.non_negative(name, value))


def _untracked(model: keras.Model) -> Callable[..., Any]:
    return lambda x, training: model(x, training=training)


def _outputs(y_pred: Tensor) -> tuple[Any, ...]:
    return tuple(y_pred) if isinstance(y_pred, (tuple, list)) else (y_pred, [])


def _last_size(network: keras.Model) -> int | None:
    shape = getattr(network, "output_shape", None)
    return shape[-1] if isinstance(shape, tuple) and shape else None


def _training_policy(student: keras.Model) -> keras.DTypePolicy:
    # Keras scales the loss only for a model whose own policy is mixed_float16, and a loaded student
    # reports float32 while its layers compute in float16.
    layers = student._flatten_layers(include_self=False, recursive=True)
    half = any(layer.compute_dtype == "float16" for layer in layers)
    return "mixed_float16" if half else student.dtype_policy
