"""DIST against numbers worked out by hand."""

import numpy as np
import pytest

from tfdistill.losses import Dist, dist
from tfdistill.utils.checks import UsageError

# Centred, the first rows are (5, -1, -4) / 30 and (-4, -1, 5) / 30: r = -39 / 42. Of the columns
# two run against each other, r = -1, and one is constant, which counts as r = 0.
TEACHER = np.log([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
STUDENT = TEACHER[::-1]
INTER, INTRA = 1 + 39 / 42, (2 + 1 + 2) / 3


def test_by_hand():
    value = dist(TEACHER, STUDENT, temperature=1.0, beta=3.0, gamma=0.5)
    np.testing.assert_allclose(value, [3.0 * INTER + 0.5 * INTRA] * 2, rtol=1e-5)


def test_temperature_divides_the_logits_and_t2_scales_the_value():
    value = dist(2 * TEACHER, 2 * STUDENT, temperature=2.0)
    np.testing.assert_allclose(value, [4.0 * (INTER + INTRA)] * 2, rtol=1e-5)


def test_probabilities_that_are_a_linear_function_of_the_teachers_are_good_enough():
    teacher = np.array([[0.6, 0.3, 0.1], [0.1, 0.7, 0.2]])
    student = 0.5 * teacher + 0.5 / 3
    np.testing.assert_allclose(
        dist(np.log(teacher), np.log(student), temperature=1.0), 0.0, atol=1e-5
    )


def test_a_single_example_has_no_relation_within_classes():
    # 1 - r with r = 0, whatever the student says.
    value = dist(TEACHER[:1], TEACHER[:1], temperature=1.0, gamma=2.0)
    assert float(value[0]) == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("settings", [{"beta": -1.0}, {"gamma": float("inf")}])
def test_weights_must_be_finite_and_not_negative(settings):
    with pytest.raises(UsageError, match="must be a finite number >= 0"):
        Dist(**settings)
