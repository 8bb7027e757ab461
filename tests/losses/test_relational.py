"""Relational distillation against numbers worked out by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfdistill.losses import RelationalAngle, RelationalDistance
from tfdistill.losses import relational_angle as angle
from tfdistill.losses import relational_distance as distance

BOTH = pytest.mark.parametrize("kind", [RelationalDistance, RelationalAngle])


def test_distance_by_hand():
    # Teacher 1, 3, 2 with mean 2: 0.5, 1.5, 1. Student 2, 5, 3 with mean 10/3: 0.6, 1.5, 0.9.
    value = distance([[0.0], [1.0], [3.0]], [[0.0], [2.0], [5.0]])
    half_square = 0.5 * 0.1**2
    expected = np.array([half_square, 2 * half_square, half_square]) / 3
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_distance_is_linear_in_large_differences():
    # Another example is apart from the three alike ones: 2 against 0, twice in each row of four.
    teacher, student = [[0.0], [0.0], [0.0], [1.0]], [[1.0], [0.0], [0.0], [0.0]]
    np.testing.assert_allclose(distance(teacher, student), [2 * (2 - 0.5) / 4] * 4, rtol=1e-6)


def test_angle_by_hand():
    # A right isosceles triangle against three points on a line, the second in the middle.
    teacher, student = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[0.0], [1.0], [2.0]]
    cosine = 1 / math.sqrt(2)
    errors = [0.5 * 1.0**2, (cosine + 1.0) - 0.5, 0.5 * (1.0 - cosine) ** 2]
    # Two of the nine cosines at each example are of two different others.
    np.testing.assert_allclose(
        angle(teacher, student), np.array(errors) * 2 / 9, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("relation", [distance, angle])
def test_turned_moved_and_scaled_features_have_the_same_relations(relation):
    features = np.random.default_rng(0).normal(size=(5, 3))
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    np.testing.assert_allclose(relation(features, 7.0 * features @ turn + 2.0), 0.0, atol=1e-6)


@BOTH
def test_examples_that_coincide_for_the_student_alone_have_a_bounded_gradient(kind):
    teacher = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    student = tf.constant(
        np.random.default_rng(1).normal(size=(4, 3)).astype("float32")[[0, 0, 1, 2]]
    )
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = kind()(teacher, student)
    assert np.abs(tape.gradient(loss, student)).max() < 10.0


@BOTH
def test_a_single_example_has_no_relation(kind):
    assert float(kind()([[1.0, 2.0]], [[3.0, 0.0]])) == 0.0
