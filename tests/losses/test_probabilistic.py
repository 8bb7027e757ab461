"""Probabilistic knowledge transfer against numbers worked out by hand."""

import math

import numpy as np

from tfdistill.losses import probabilistic


def test_by_hand():
    # Orthogonal: similarities 1 and 1/2, probabilities 2/3 and 1/3. Parallel: 1/2 and 1/2.
    divergence = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    value = probabilistic([[1.0, 0.0], [0.0, 5.0]], [[1.0, 0.0], [3.0, 0.0]])
    np.testing.assert_allclose(value, [divergence / 2] * 2, rtol=1e-5)


def test_opposite_examples_have_no_probability_but_a_finite_divergence():
    value = probabilistic([[1.0], [1.0]], [[1.0], [-1.0]])
    # Probabilities 1/2, 1/2 against 1, 0: the constant 1e-7 stands for the zero.
    expected = (0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-7)) / 2
    np.testing.assert_allclose(value, [expected] * 2, rtol=1e-4)


def test_ignores_the_length_of_each_feature_vector():
    teacher, student = np.random.default_rng(0).normal(size=(2, 4, 6))
    lengths = np.array([[1.0], [10.0], [100.0], [1000.0]])
    np.testing.assert_allclose(
        probabilistic(teacher, lengths * student), probabilistic(teacher, student), rtol=1e-3
    )
