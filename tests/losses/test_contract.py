"""What every distillation loss promises, checked for each of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill.config import registry
from tfdistill.config.registry import FEATURE_LOSSES
from tfdistill.losses import ActivationLoss, TemperedLoss
from tfdistill.utils import checks

# Without the control that is zero whatever a student says.
LOGIT_LOSSES = {name: kind for name, kind in registry.LOGIT_LOSSES.items() if name != "kl_of_log"}
LOSSES = {**LOGIT_LOSSES, **FEATURE_LOSSES}
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(2, 4, 5)).astype("float32")  # teacher's and student's
MAPS = RANDOM.normal(size=(2, 4, 2, 2, 5)).astype("float32")
LABELS = np.array([0, 3, 4, 1])


def examples(kind):
    """Return outputs of a teacher and of a student that a loss of this kind compares."""
    return LOGITS if issubclass(kind, TemperedLoss) else MAPS


def y_true(kind, teacher):
    if getattr(kind, "needs_labels", False):
        return teacher, LABELS[: len(teacher)]
    return teacher


def value(loss, teacher, student):
    return float(loss(y_true(type(loss), teacher), student))


def value_and_gradient(loss, teacher, student):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        result = loss(y_true(type(loss), teacher), student)
    return result, tape.gradient(result, student)


@pytest.mark.parametrize("kind", LOSSES.values(), ids=LOSSES)
class TestEveryLoss:
    def test_gives_one_value_per_example(self, kind):
        teacher, student = map(tf.constant, examples(kind))
        per_example = kind().call(y_true(kind, teacher), student)
        assert per_example.shape == (4,)
        assert float(tf.reduce_mean(per_example)) == pytest.approx(value(kind(), teacher, student))

    def test_is_zero_where_both_agree_and_positive_elsewhere(self, kind):
        teacher, student = examples(kind)
        apart = value(kind(), teacher, student)
        assert apart > 1e-4
        # Not exactly: a correlation has a constant in its denominator.
        assert value(kind(), teacher, teacher) == pytest.approx(0.0, abs=1e-4 * apart)

    def test_keeps_its_settings_when_serialised(self, kind):
        config = keras.saving.serialize_keras_object(kind(name="mine"))
        again = keras.saving.deserialize_keras_object(config)
        assert again.get_config() == kind(name="mine").get_config()
        assert value(again, *examples(kind)) == value(kind(), *examples(kind))

    def test_counts_sample_weights(self, kind):
        teacher, student = map(tf.constant, examples(kind))
        per_example = kind().call(y_true(kind, teacher), student).numpy()
        weights = np.array([0.0, 1.0, 2.0, 0.5], "float32")
        expected = (per_example * weights).sum() / 4
        weighted = kind()(y_true(kind, teacher), student, weights)
        assert float(weighted) == pytest.approx(expected, rel=1e-5)

    def test_computes_half_precision_inputs_in_float32(self, kind):
        teacher, student = (tf.cast(outputs, "float16") for outputs in examples(kind))
        per_example = kind().call(y_true(kind, teacher), student)
        assert per_example.dtype == "float32"
        half = kind()(y_true(kind, teacher), student)
        assert half.dtype == "float32"
        assert float(half) == pytest.approx(value(kind(), *examples(kind)), rel=1e-2)

    def test_leads_a_student_that_is_near_the_teacher_to_it(self, kind):
        teacher, student = examples(kind)
        way = 0.2 * (teacher - student)
        _, gradient = value_and_gradient(kind(), teacher, teacher - way)
        assert float(tf.reduce_sum(gradient * way)) < 0

    @pytest.mark.parametrize("batch", [1, 4])
    def test_a_student_that_answers_zeros_has_a_finite_gradient(self, kind, batch):
        teacher = examples(kind)[0][:batch]
        result, gradient = value_and_gradient(kind(), teacher, np.zeros_like(teacher))
        assert np.isfinite(result) and np.isfinite(gradient).all()

    def test_is_the_same_compiled_with_xla_for_any_batch_size(self, kind):
        teacher, student = examples(kind)
        student = student.copy()
        student[0] = 0.0  # as after a ReLU: norms and distances of zero have no slope
        expected = value_and_gradient(kind(), teacher, student)
        shape = tf.TensorSpec((None, *teacher.shape[1:]))
        labels = tf.TensorSpec((None,), "int64")
        loss = kind()

        def step(teacher, student, labels):
            with tf.GradientTape() as tape:
                tape.watch(student)
                needs_labels = getattr(kind, "needs_labels", False)
                result = loss((teacher, labels) if needs_labels else teacher, student)
            return result, tape.gradient(result, student)

        signature = [shape, shape, labels]
        compiled = tf.function(step, input_signature=signature, jit_compile=True)
        for of_xla, eager in zip(compiled(teacher, student, LABELS), expected, strict=True):
            np.testing.assert_allclose(of_xla, eager, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", LOGIT_LOSSES.values(), ids=LOGIT_LOSSES)
class TestEveryLogitLoss:
    def test_ignores_a_constant_added_to_all_logits(self, kind):
        teacher, student = LOGITS
        shifted = value(kind(), teacher + 7.0, student - 3.0)
        assert shifted == pytest.approx(value(kind(), teacher, student), rel=1e-5)

    @pytest.mark.parametrize("gap", [6.0, 60.0, 6000.0])
    def test_corrects_a_confidently_wrong_student(self, kind, gap):
        teacher = np.array([[gap, 0.0, -gap], [0.0, gap, 0.0]], "float32")
        student = np.array([[0.0, gap, 0.5], [gap, 0.0, 0.0]], "float32")
        result, gradient = value_and_gradient(kind(temperature=1.0), teacher, student)
        assert np.isfinite(result) and np.isfinite(gradient).all()
        rise = float(tf.reduce_sum(gradient * (teacher - student)))
        # A correlation of probabilities has no slope where these are 0 and 1 in float32.
        assert rise <= 0 if gap > 6 else rise < 0

    def test_follows_an_assigned_temperature(self, kind):
        loss = kind(temperature=1.0)
        loss.temperature = 8.0
        assert loss.temperature == 8.0
        assert value(loss, *LOGITS) == value(kind(temperature=8.0), *LOGITS)

    @pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-4, 1e4, float("nan"), float("inf")])
    def test_refuses_a_temperature_outside_its_range(self, kind, temperature):
        with pytest.raises(ValueError, match="temperature must be a number from 0.001 to 1000"):
            kind(temperature=temperature)


@pytest.mark.parametrize("kind", FEATURE_LOSSES.values(), ids=FEATURE_LOSSES)
class TestEveryFeatureLoss:
    def test_has_a_weight_and_a_connector(self, kind):
        assert issubclass(kind, ActivationLoss)
        assert kind.default_weight >= 25  # below it a feature loss is nothing beside the labels
        layer = kind().connector((None, 4, 4, 8), (None, 4, 4, 2))
        assert (layer is not None) == (kind is FEATURE_LOSSES["hints"])

    def test_large_half_precision_maps_do_not_overflow(self, kind):
        teacher, student = RANDOM.normal(size=(2, 4, 40, 40, 8), scale=5000.0).astype("float16")
        result, gradient = value_and_gradient(kind(), teacher, tf.cast(student, "float32"))
        assert np.isfinite(result) and np.isfinite(gradient).all()
        assert np.isfinite(kind()(teacher, student))

    def test_compares_no_other_shapes_than_vectors_and_maps(self, kind):
        with pytest.raises(checks.UsageError) as error:
            kind().connector((None, 16, 8), (None, 4, 4, 8))
        assert "(None, 16, 8)" in str(error.value) and "(None, 4, 4, 8)" in str(error.value)
