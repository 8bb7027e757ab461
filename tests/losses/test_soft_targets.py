"""Soft targets against numbers worked out by hand."""

import math

import numpy as np
import pytest
from keras import ops

from tfdistill.losses import SoftTargets, soft_targets
from tfdistill.losses.soft_targets import standardized


def one(*arguments, **settings):
    return float(soft_targets(*map(ops.array, arguments), **settings)[0])


def test_kl_by_hand():
    # softmax([ln 3, 0]) = [3/4, 1/4] against [1/2, 1/2]
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert one([[math.log(3.0), 0.0]], [[0.0, 0.0]], temperature=1.0) == pytest.approx(expected)


def test_temperature_divides_the_logits_and_t2_scales_the_value():
    # at T = 2 the teacher's 2 ln 3 becomes ln 3
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    logits = [[2 * math.log(3.0), 0.0]], [[0.0, 0.0]]
    assert one(*logits, temperature=2.0) == pytest.approx(4 * kl)
    assert one(*logits, temperature=2.0, scale_by_t2=False) == pytest.approx(kl)


def test_cross_entropy_is_kl_plus_the_entropy_of_the_teacher():
    # -3/4 ln 1/2 - 1/4 ln 1/2 = ln 2
    value = one([[math.log(3.0), 0.0]], [[0.0, 0.0]], temperature=1.0, divergence="cross_entropy")
    assert value == pytest.approx(math.log(2.0))


def test_standardised_logits_have_mean_zero_and_deviation_one():
    # [1, 2, 3] has mean 2 and deviation 1 (n - 1)
    np.testing.assert_allclose(standardized([[1.0, 2.0, 3.0]]), [[-1.0, 0.0, 1.0]], atol=1e-6)


def test_standardising_ignores_the_scale_of_the_logits():
    teacher, student = [[3.0, 1.0, -2.0]], [[0.5, 0.1, 0.9]]
    scaled = [[0.3, 0.1, -0.2]]
    standardise = {"temperature": 2.0, "standardize": True}
    assert one(teacher, student, **standardise) == pytest.approx(
        one(scaled, student, **standardise)
    )
    assert one(teacher, student, temperature=2.0) != pytest.approx(
        one(scaled, student, temperature=2.0)
    )


def test_equal_logits_can_be_standardised_and_learned_from():
    import tensorflow as tf

    student = tf.Variable([[1.0, 1.0, 1.0]])
    with tf.GradientTape() as tape:
        loss = SoftTargets(standardize=True)(tf.constant([[2.0, 0.0, 1.0]]), student)
    assert np.isfinite(tape.gradient(loss, student).numpy()).all()


def test_the_gradient_keeps_its_size_with_t2_and_fades_without():
    import tensorflow as tf

    def size(temperature, scale):
        student = tf.Variable([[0.3, -0.2, 0.1]])
        with tf.GradientTape() as tape:
            loss = SoftTargets(temperature, scale_by_t2=scale)(
                tf.constant([[1.0, 0.0, -1.0]]), student
            )
        return float(tf.norm(tape.gradient(loss, student)))

    assert size(40.0, True) == pytest.approx(size(20.0, True), rel=0.05)
    assert size(40.0, False) == pytest.approx(size(20.0, False) / 4, rel=0.05)


def test_a_confidently_wrong_student_gets_the_difference_of_the_probabilities():
    import tensorflow as tf

    teacher, student = tf.constant([[60.0, 0.0]]), tf.Variable([[0.0, 60.0]])
    with tf.GradientTape() as tape:
        loss = SoftTargets(temperature=1.0)(teacher, student)
    np.testing.assert_allclose(tape.gradient(loss, student), [[-1.0, 1.0]], atol=1e-5)


def test_an_unknown_divergence_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="one of: kl, cross_entropy.*'kll'.*mean 'kl'"):
        SoftTargets(divergence="kll")
