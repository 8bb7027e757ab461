"""Decoupled distillation against numbers worked out by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfdistill.losses import Decoupled, decoupled, soft_targets
from tfdistill.utils.checks import UsageError

TEACHER, STUDENT = np.log([[1 / 2, 1 / 3, 1 / 6]]), np.log([[1 / 4, 1 / 4, 1 / 2]])
# Label 0: (1/2, 1/2) against (1/4, 3/4); the others' shares (2/3, 1/3) against (1/3, 2/3).
TCKD = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
NCKD = 2 / 3 * math.log(2) - 1 / 3 * math.log(2)


def one(teacher, student, label, **settings):
    return float(decoupled(teacher, student, [label], **settings)[0])


def test_by_hand():
    value = one(TEACHER, STUDENT, 0, temperature=1.0, alpha=3.0, beta=0.5)
    assert value == pytest.approx(3.0 * TCKD + 0.5 * NCKD)
    assert one(TEACHER, STUDENT, 0, temperature=1.0) == pytest.approx(TCKD + 8.0 * NCKD)


def test_temperature_divides_the_logits_and_t2_scales_the_value():
    value = one(2 * TEACHER, 2 * STUDENT, 0, temperature=2.0)
    assert value == pytest.approx(4.0 * (TCKD + 8.0 * NCKD))


@pytest.mark.parametrize("label", [0, 1, 2])
def test_with_the_others_mass_as_beta_it_is_the_divergence_of_soft_targets(label):
    others = 1.0 - float(np.exp(TEACHER[0, label]))
    value = one(TEACHER, STUDENT, label, temperature=1.0, beta=others)
    expected = float(soft_targets(TEACHER, STUDENT, temperature=1.0)[0])
    assert value == pytest.approx(expected, rel=1e-5)


def test_a_sure_teacher_still_teaches_the_shares_of_the_others():
    # Of a logit of 5000 nothing is left of the others' probabilities in float32.
    shares = np.exp([1.0, 0.0]) / np.exp([1.0, 0.0]).sum()
    nckd = float((shares * np.log(2 * shares)).sum())
    value = one([[5000.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]], 0, temperature=1.0, beta=2.0)
    assert value == pytest.approx(math.log(3.0) + 2.0 * nckd, rel=1e-5)


def test_the_gradient_of_the_target_is_that_of_a_cross_entropy():
    teacher, student = tf.constant([[60.0, 0.0]]), tf.Variable([[0.0, 60.0]])
    with tf.GradientTape() as tape:
        loss = Decoupled(temperature=1.0)((teacher, tf.constant([0])), student)
    np.testing.assert_allclose(tape.gradient(loss, student), [[-1.0, 1.0]], atol=1e-5)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2, 0], "int64"),
        np.array([2.0, 0.0], "float32"),
        np.array([[2], [0]], "uint8"),
        np.array([[0, 0, 1], [1, 0, 0]], "float32"),
        np.array([[0.1, 0.1, 0.8], [0.4, 0.3, 0.3]], "float32"),
    ],
    ids=["whole", "float", "column", "one-hot", "smoothed"],
)
def test_labels_may_be_numbers_or_shares(labels):
    teacher, student = np.random.default_rng(0).normal(size=(2, 2, 3)).astype("float32")
    expected = float(tf.reduce_mean(decoupled(teacher, student, [2, 0])))
    assert float(Decoupled()((teacher, labels), student)) == pytest.approx(expected)


def test_labels_of_another_shape_are_refused():
    with pytest.raises(UsageError, match=r"\[batch, 3\].*Received: labels of shape \(1, 2\)"):
        decoupled(TEACHER, STUDENT, [[1.0, 0.0]])


def test_it_asks_for_the_labels_where_there_are_none():
    assert Decoupled.needs_labels
    with pytest.raises(UsageError, match=r"\(teacher_logits, labels\).*of shape \(1, 3\)"):
        Decoupled()(TEACHER, STUDENT)


@pytest.mark.parametrize("settings", [{"alpha": -1.0}, {"beta": float("nan")}])
def test_weights_must_be_finite_and_not_negative(settings):
    with pytest.raises(UsageError, match="must be a finite number >= 0"):
        Decoupled(**settings)
