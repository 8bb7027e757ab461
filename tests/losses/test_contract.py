"""What every distillation loss promises, checked for each of them."""

import keras
import numpy as np
import pytest
from keras import ops

from tfdistill.losses import FEATURE_LOSSES, LOGIT_LOSSES

LOSSES = {**LOGIT_LOSSES, **FEATURE_LOSSES}
RANDOM = np.random.default_rng(0)
TEACHER, STUDENT = RANDOM.normal(size=(2, 4, 5)).astype("float32")


def value(loss, teacher, student):
    return float(loss(teacher, student))


@pytest.mark.parametrize("kind", LOSSES.values(), ids=LOSSES)
class TestEveryLoss:
    def test_gives_one_value_per_example(self, kind):
        assert kind().call(ops.array(TEACHER), ops.array(STUDENT)).shape == (4,)

    def test_is_zero_where_both_agree_and_positive_elsewhere(self, kind):
        assert value(kind(), TEACHER, TEACHER) == pytest.approx(0.0, abs=1e-6)
        assert value(kind(), TEACHER, STUDENT) > 1e-3

    def test_keeps_its_settings_when_serialised(self, kind):
        config = keras.saving.serialize_keras_object(kind(name="mine"))
        again = keras.saving.deserialize_keras_object(config)
        assert again.get_config() == kind(name="mine").get_config()
        assert value(again, TEACHER, STUDENT) == value(kind(), TEACHER, STUDENT)

    def test_counts_sample_weights(self, kind):
        per_example = ops.convert_to_numpy(kind().call(ops.array(TEACHER), ops.array(STUDENT)))
        weights = np.array([0.0, 1.0, 2.0, 0.5], "float32")
        expected = (per_example * weights).sum() / 4
        assert float(kind()(TEACHER, STUDENT, weights)) == pytest.approx(expected, rel=1e-5)

    def test_computes_half_precision_inputs_in_float32(self, kind):
        half = kind()(TEACHER.astype("float16"), STUDENT.astype("float16"))
        assert half.dtype == "float32"
        assert float(half) == pytest.approx(value(kind(), TEACHER, STUDENT), rel=1e-2)


@pytest.mark.parametrize("kind", LOGIT_LOSSES.values(), ids=LOGIT_LOSSES)
class TestEveryLogitLoss:
    def test_ignores_a_constant_added_to_all_logits(self, kind):
        shifted = value(kind(), TEACHER + 7.0, STUDENT - 3.0)
        assert shifted == pytest.approx(value(kind(), TEACHER, STUDENT), rel=1e-5)

    def test_corrects_a_confidently_wrong_student(self, kind):
        import tensorflow as tf

        teacher, student = tf.constant([[60.0, 0.0]]), tf.Variable([[0.0, 60.0]])
        with tf.GradientTape() as tape:
            loss = kind(temperature=1.0)(teacher, student)
        gradient = tape.gradient(loss, student).numpy()
        assert np.isfinite(float(loss))
        np.testing.assert_allclose(gradient, [[-1.0, 1.0]], atol=1e-5)

    def test_follows_an_assigned_temperature(self, kind):
        loss = kind(temperature=1.0)
        loss.temperature = 8.0
        assert loss.temperature == 8.0
        assert value(loss, TEACHER, STUDENT) == value(kind(temperature=8.0), TEACHER, STUDENT)

    @pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
    def test_refuses_a_temperature_that_is_not_finite_and_positive(self, kind, temperature):
        with pytest.raises(ValueError, match="temperature must be a finite number > 0"):
            kind(temperature=temperature)
