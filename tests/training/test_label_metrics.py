"""Figures of several labels against numbers worked out by hand, and what they do at the edges."""

import math

import numpy as np
import pytest

from tfdistill.training.tasks import label_metrics as metrics
from tfdistill.utils.checks import UsageError

# Three images, two labels; probabilities 0.9 0.2 / 0.6 0.4 / 0.3 0.8.
P = np.array([[0.9, 0.2], [0.6, 0.4], [0.3, 0.8]])
LOGITS = np.log(P / (1 - P))
LABELS = np.array([[1, 0], [0, 1], [1, 1]], np.uint8)


def test_figures_are_those_worked_out_by_hand():
    found = metrics.summary(LOGITS, LABELS)
    # Said: yes no / yes no / no yes. Right: both, none, the second.
    assert found["accuracy"] == pytest.approx(3 / 6)
    assert found["exact_match"] == pytest.approx(1 / 3)
    right = [0.9, 0.8, 0.4, 0.4, 0.3, 0.8]
    assert found["nll"] == pytest.approx(-sum(map(math.log, right)) / 6)
    assert found["brier"] == pytest.approx(sum((1 - p) ** 2 for p in right) / 6)
    # First label: ranks 0.9 (1), 0.6 (0), 0.3 (1): (1 + 2/3) / 2. Second: 0.8, 0.4 are there: 1.
    assert found["mean_average_precision"] == pytest.approx((5 / 6 + 1) / 2)
    assert set(found) == {"accuracy", "exact_match", "nll", "brier", "mean_average_precision"}


def test_a_student_is_compared_with_its_teacher_label_by_label():
    teacher = np.array([[0.0, -1.0], [2.0, 1.0]])
    student = np.array([[1.0, -2.0], [0.5, -0.5]])
    found = metrics.summary(student, np.array([[1, 0], [1, 0]]), teacher)
    assert found["agreement"] == 0.5  # a logit of 0 says no
    p, q = 1 / (1 + np.exp(-teacher)), 1 / (1 + np.exp(-student))
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert found["teacher_kl"] == pytest.approx(divergence.mean())
    assert metrics.teacher_divergence(teacher, teacher) == 0.0
    assert metrics.teacher_divergence([[-np.inf]], [[0.0]]) == pytest.approx(math.log(2))


def test_a_label_that_no_image_has_is_left_out_of_the_mean_precision():
    labels = np.array([[1, 0], [0, 0], [1, 0]])
    assert metrics.mean_average_precision(LOGITS, labels) == pytest.approx(5 / 6)
    assert "mean_average_precision" not in metrics.summary(LOGITS, 0 * labels)


def test_logits_that_are_no_numbers_are_seen_in_the_likelihood():
    broken = LOGITS.copy()
    broken[0, 0] = np.nan
    assert math.isnan(metrics.summary(broken, LABELS)["nll"])
    assert metrics.summary(1000 * LOGITS, LABELS)["nll"] == pytest.approx(
        1000 * (LOGITS[1, 0] - LOGITS[1, 1] - LOGITS[2, 0]) / 6
    )


def test_other_shapes_are_refused():
    with pytest.raises(UsageError, match=r"\[3, 2\] logits, \[3, 1\] labels"):
        metrics.accuracy(LOGITS, LABELS[:, :1])
