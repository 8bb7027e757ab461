"""Every metric against a number worked by hand, and the invariances that all of them share."""

import math

import numpy as np
import pytest

from tfdistill.training import metrics

# Logits whose softmax is exactly these probabilities.
P = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.35, 0.45], [0.3, 0.25, 0.45]])
LOGITS, LABELS = np.log(P), np.array([0, 1, 0, 2])


def random_split(n=200, classes=5, seed=0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, classes)) * 3
    return logits, generator.integers(0, classes, n), logits + generator.normal(size=(n, classes))


def test_accuracy_counts_the_right_classes():
    assert metrics.accuracy(LOGITS, LABELS) == 3 / 4  # the third example is taken for class 2


def test_negative_log_likelihood_reads_each_examples_own_label():
    # -(ln 0.7 + ln 0.6 + ln 0.2 + ln 0.45) / 4 = 3.275 / 4
    expected = -math.log(0.7 * 0.6 * 0.2 * 0.45) / 4
    assert metrics.negative_log_likelihood(LOGITS, LABELS) == pytest.approx(expected)


def test_brier_sums_over_the_classes():
    # (0.3^2 + 0.2^2 + 0.1^2) + (0.1^2 + 0.4^2 + 0.3^2) + (0.8^2 + 0.35^2 + 0.45^2)
    # + (0.3^2 + 0.25^2 + 0.55^2) = 0.14 + 0.26 + 0.965 + 0.455 = 1.82
    assert metrics.brier(LOGITS, LABELS) == pytest.approx(1.82 / 4)


def test_calibration_error_by_equal_width():
    # Two bins, (0, 0.5] and (0.5, 1]. First: confidences 0.45, one of two right: 0.05.
    # Second: confidences 0.7, 0.6, both right: |1 - 0.65| = 0.35. ECE = 2/4 * 0.05 + 2/4 * 0.35.
    assert metrics.calibration_error(LOGITS, LABELS, bins=2) == pytest.approx(0.2)


def test_calibration_error_by_equal_mass():
    # Sorted confidences 0.45 (wrong), 0.45 | 0.6 | 0.7 (all right) in 2 + 1 + 1 examples:
    # |1/2 - 0.45| * 2/4 + |1 - 0.6| * 1/4 + |1 - 0.7| * 1/4 = 0.2
    assert metrics.calibration_error(LOGITS, LABELS, 3, equal_mass=True) == pytest.approx(0.2)


def test_equal_mass_differs_from_equal_width_where_confidences_crowd():
    # Confidences 0.91 (wrong) and 0.99 (right) share a bin of width 1/2: |0.5 - 0.95| = 0.45.
    # A bin each: (0.91 + 0.01) / 2 = 0.46.
    logits, labels = np.log([[0.91, 0.09], [0.99, 0.01]]), np.array([1, 0])
    assert metrics.calibration_error(logits, labels, bins=2) == pytest.approx(0.45)
    assert metrics.calibration_error(logits, labels, 2, equal_mass=True) == pytest.approx(0.46)


# Confidences 0.5 (right), 0.5, 0.5 (wrong), 0.9 (right): of the three equal ones a third is right.
TIED = np.log([[0.5, 0.3, 0.2]] * 3 + [[0.9, 0.05, 0.05]]), np.array([0, 1, 1, 0])


def test_equal_confidences_count_with_their_mean_accuracy_in_every_bin():
    # Two bins of two: |2/3 - 1| = 1/3 and |(1/3 + 1) - (0.5 + 0.9)| = 1/15; (1/3 + 1/15) / 4 = 0.1.
    # Taken as they come, the right one first or last: (0 + 0.4) / 4 or (1 + 0.6) / 4.
    assert metrics.calibration_error(*TIED, 2, equal_mass=True) == pytest.approx(0.1)


def test_a_constant_confidence_has_the_gap_of_its_accuracy():
    logits, labels = np.log([[0.6, 0.4]] * 7), np.array([0, 0, 1, 0, 1, 1, 1])
    for bins in (1, 2, 3, 15):
        error = metrics.calibration_error(logits, labels, bins, equal_mass=True)
        assert error == pytest.approx(0.6 - 3 / 7)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_calibration_error_is_the_same_to_the_bit_in_any_order(equal_mass):
    generator = np.random.default_rng(0)
    # Four kinds of logits, one of them certain: its probability is 1 exactly.
    kinds = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 90]])
    crowded = kinds[generator.integers(0, 4, 300)], generator.integers(0, 3, 300)
    for logits, labels in (crowded, random_split(300, 3)[:2], TIED):
        orders = [generator.permutation(len(labels)) for _ in range(20)]
        found = {
            metrics.calibration_error(logits[order], labels[order], 7, equal_mass)
            for order in orders
        }
        assert len(found) == 1


def test_calibration_error_is_zero_where_confidence_is_accuracy():
    logits, labels = np.log([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1])
    assert metrics.calibration_error(logits, labels) == pytest.approx(0.0, abs=1e-12)
    assert metrics.calibration_error(logits, labels, 1, equal_mass=True) == pytest.approx(0.0)


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin():
    edge = metrics.reliability([[0.0, 0.0]], [0], bins=2)
    assert edge["count"] == [1.0, 0.0]
    assert metrics.reliability([[1000.0, 0.0]], [0], bins=2)["count"] == [0.0, 1.0]


def test_reliability_holds_mean_confidence_and_accuracy_of_every_bin():
    bins = metrics.reliability(LOGITS, LABELS, bins=4)
    assert bins["count"] == [0.0, 2.0, 2.0, 0.0]
    assert bins["confidence"] == pytest.approx([0.0, 0.45, 0.65, 0.0])  # (0.7 + 0.6) / 2
    assert bins["accuracy"] == pytest.approx([0.0, 0.5, 1.0, 0.0])


def test_reliability_and_calibration_error_tell_the_same():
    logits, labels, _ = random_split()
    bins = {name: np.array(values) for name, values in metrics.reliability(logits, labels).items()}
    error = np.sum(bins["count"] * np.abs(bins["accuracy"] - bins["confidence"])) / len(labels)
    assert metrics.calibration_error(logits, labels) == pytest.approx(error)


def test_agreement_compares_the_chosen_classes():
    student = np.log(P[[0, 1, 1, 2]])  # classes 0 1 1 2 against 0 1 2 2
    assert metrics.agreement(LOGITS, student) == 3 / 4


def test_teacher_divergence_runs_from_teacher_to_student():
    teacher, student = np.log([[0.5, 0.5]]), np.log([[0.75, 0.25]])
    # 0.5 ln(0.5 / 0.75) + 0.5 ln(0.5 / 0.25) = 0.5 ln(4 / 3)
    assert metrics.teacher_divergence(teacher, student) == pytest.approx(0.5 * math.log(4 / 3))
    # 0.75 ln(0.75 / 0.5) + 0.25 ln(0.25 / 0.5) = 0.1308
    assert metrics.teacher_divergence(student, teacher) == pytest.approx(0.1308, abs=1e-4)


def test_a_teacher_without_doubt_diverges_by_the_students_log_probability():
    with np.errstate(divide="ignore"):
        teacher = np.log([[1.0, 0.0]])  # logits 0 and -inf
    divergence = metrics.teacher_divergence(teacher, np.log([[0.25, 0.75]]))
    assert divergence == pytest.approx(math.log(4))


def test_a_constant_shift_of_the_logits_changes_nothing():
    logits, labels, teacher = random_split()
    shift = np.random.default_rng(1).normal(size=(len(labels), 1)) * 50
    plain = metrics.summary(logits, labels, teacher)
    assert metrics.summary(logits + shift, labels, teacher - shift) == pytest.approx(plain)


def test_extreme_logits_stay_finite():
    huge = float(np.finfo(np.float32).max)
    logits = np.array([[huge, -huge, 0.0], [-huge, -huge, huge]], np.float32)
    values = metrics.summary(logits, np.array([1, 2]), -logits)
    assert all(map(math.isfinite, values.values()))
    assert values["accuracy"] == 0.5


def test_summary_names_teacher_figures_only_with_a_teacher():
    logits, labels, teacher = random_split()
    alone, taught = metrics.summary(logits, labels), metrics.summary(logits, labels, teacher)
    assert set(alone) == {"accuracy", "nll", "brier", "ece", "ece_equal_mass"}
    assert set(taught) - set(alone) == {"agreement", "teacher_kl"}
    assert metrics.summary(logits, labels, logits)["teacher_kl"] == 0.0
    assert all(type(value) is float for value in taught.values())


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_without_a_logit_is_refused(label):
    with pytest.raises(ValueError, match=f"Labels must lie in 0..2.*{label}"):
        metrics.accuracy(LOGITS, np.array([0, 1, 0, label]))


def test_networks_with_different_classes_are_refused():
    with pytest.raises(ValueError, match="same classes"):
        metrics.agreement(LOGITS, LOGITS[:, :2])
