"""Similarity-preserving loss against a number worked out by hand."""

import math

import numpy as np
from keras import ops

from tfdistill.losses import similarity_preserving


def test_by_hand():
    # Teacher rows (1, 0) and (0, 1): similarities are the identity. Student rows 2 and 3: Q Q^T =
    # [[4, 6], [6, 9]], its rows scaled to length 1 are both (2, 3) / sqrt(13).
    a, b = 2 / math.sqrt(13), 3 / math.sqrt(13)
    expected = [((1 - a) ** 2 + b**2) / 2, (a**2 + (1 - b) ** 2) / 2]
    value = similarity_preserving(ops.eye(2), ops.array([[2.0], [3.0]]))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_teacher_and_student_may_have_maps_of_other_sizes():
    random = np.random.default_rng(0)
    value = similarity_preserving(
        random.normal(size=(3, 4, 4, 8)), random.normal(size=(3, 2, 2, 5))
    )
    assert value.shape == (3,)


def test_ignores_the_scale_of_the_features():
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 6))
    scaled = similarity_preserving(1000 * teacher, student)
    np.testing.assert_allclose(scaled, similarity_preserving(teacher, student), rtol=1e-4)
