"""A saved teacher is measured before any student is taught by it."""

import numpy as np
import pytest

from tfdistill import UsageError
from tfdistill.training.teacher_check import best_order, check_teacher

LABELS = np.random.default_rng(0).integers(0, 5, 200)
RIGHT = np.eye(5)[LABELS] + np.random.default_rng(1).normal(scale=0.3, size=(200, 5))


def test_the_order_in_which_its_classes_stand_is_found_and_said():
    order = np.array([3, 0, 4, 1, 2])  # class k is output order[k]
    moved = np.empty_like(RIGHT)
    moved[:, order] = RIGHT
    np.testing.assert_array_equal(best_order(moved, LABELS), order)
    with pytest.raises(UsageError, match=r"another order.*Set classes: \[3, 0, 4, 1, 2\]"):
        check_teacher("teacher", moved, LABELS)
    with pytest.raises(UsageError, match=r"Set classes: \[9, 'ox', 11, 7, 8\]"):  # of those picked
        check_teacher("teacher", moved, LABELS, ["ox", 7, 8, 9, 11])


def test_two_classes_exchanged_among_many_are_noticed():
    moved = RIGHT[:, [1, 0, 2, 3, 4]]
    with pytest.raises(UsageError, match=r"classes: \[1, 0, 2, 3, 4\]"):
        check_teacher("teacher", moved, LABELS)


def test_a_teacher_in_the_same_order_is_taken_without_a_word():
    assert check_teacher("teacher", RIGHT, LABELS) == ""
    weak = np.eye(5)[LABELS] + np.random.default_rng(1).normal(scale=2.0, size=(200, 5))
    assert 0.25 < np.mean(weak.argmax(-1) == LABELS) < 0.5
    assert check_teacher("teacher", weak, LABELS) == ""


def test_one_that_knows_nothing_is_remarked_on():
    """Its best order is chosen on other images, so that chance is not taken for an order."""
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=(200, 5))
        if np.mean(noise.argmax(-1) == LABELS) < 0.25:
            assert "no more of the classes than chance" in check_teacher("t", noise, LABELS)


def test_too_few_images_tell_nothing():
    assert check_teacher("teacher", RIGHT[:10, ::-1], LABELS[:10]) == ""
