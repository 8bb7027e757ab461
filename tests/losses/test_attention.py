"""Attention transfer against numbers worked out by hand."""

import math

import numpy as np
import pytest

from tfdistill.losses import AttentionTransfer, attention_transfer
from tfdistill.utils.checks import UsageError


def test_by_hand():
    # Two positions: mean squares (1, 2) and (4, 1), scaled to length 1.
    teacher, student = [[[[1.0, -1.0], [0.0, 2.0]]]], [[[[2.0], [-1.0]]]]
    a, b = np.array([1.0, 2.0]) / math.sqrt(5), np.array([4.0, 1.0]) / math.sqrt(17)
    expected = ((a - b) ** 2).sum() / 2
    np.testing.assert_allclose(attention_transfer(teacher, student), [expected], rtol=1e-6)


def test_ignores_the_scale_and_the_sign_of_the_features():
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 5))
    value = attention_transfer(teacher, student)
    np.testing.assert_allclose(attention_transfer(-100 * teacher, student), value, rtol=1e-4)


@pytest.mark.parametrize("larger", ["teacher", "student"])
def test_the_larger_map_is_averaged_down_to_the_smaller(larger):
    small = np.random.default_rng(0).normal(size=(3, 2, 3, 5))
    large = np.random.default_rng(1).normal(size=(3, 4, 9, 7))
    averaged = large.reshape(3, 2, 2, 3, 3, 7).mean((2, 4))
    pairs = [(large, small), (averaged, small)]
    value, expected = (
        attention_transfer(*(pair if larger == "teacher" else pair[::-1])) for pair in pairs
    )
    np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "teacher, student",
    [
        ((None, 8, 8, 4), (None, 6, 6, 4)),
        ((None, 8, 8, 4), (None, 4, 3, 4)),
        ((None, 8, 8, 4), (None, 64)),
        ((None, 64), (None, 64)),
        ((None, None, None, 4), (None, 8, 8, 4)),
    ],
)
def test_other_activations_are_refused_with_both_shapes(teacher, student):
    with pytest.raises(UsageError) as error:
        AttentionTransfer().connector(teacher, student)
    message = str(error.value)
    assert f"teacher {teacher}, student {student}" in message and "whole multiple" in message
