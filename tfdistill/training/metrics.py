"""Metrics on collected predictions: how right, how well calibrated, how close to the teacher.

All functions take logits and labels of a whole split and compute in float64 from log-softmax.
Calibration error: Naeini et al. (AAAI 2015) and Guo et al. (arXiv 1706.04599, eq. 3). Agreement and
divergence: Stanton et al. (arXiv 2106.05945, section 3).
"""

import numpy as np

from tfdistill.utils import checks
from tfdistill.utils.numerics import log_softmax


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of examples whose largest logit is at the label.

    Args:
        logits: `[n, classes]` float.
        labels: `[n]` int in 0..classes-1.

    Returns:
        mean_i [argmax_k z_ik = y_i], in 0..1; of equal logits the first counts.

    Example:
        >>> accuracy([[2.0, 1.0], [2.0, 1.0]], [0, 1])
        0.5
    """
    logits, labels = _checked(logits, labels)
    return float(np.mean(logits.argmax(-1) == labels))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log-probability of the label, in nats.

    Args:
        logits: `[n, classes]` float.
        labels: `[n]` int in 0..classes-1.

    Returns:
        mean_i -log p_i(y_i) with p = softmax(z), >= 0.

    Example:
        >>> round(negative_log_likelihood([[0.0, 0.0]], [1]), 4)  # ln 2
        0.6931
    """
    logits, labels = _checked(logits, labels)
    return float(-np.mean(log_softmax(logits)[np.arange(len(labels)), labels]))


def brier(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the Brier score over all classes (Brier 1950).

    Args:
        logits: `[n, classes]` float.
        labels: `[n]` int in 0..classes-1.

    Returns:
        mean_i sum_k (p_ik - [k = y_i])^2, in 0..2.

    Example:
        >>> brier([[0.0, 0.0]], [1])
        0.5
    """
    logits, labels = _checked(logits, labels)
    error = np.exp(log_softmax(logits))
    error[np.arange(len(labels)), labels] -= 1.0
    return float(np.mean(np.sum(error**2, axis=-1)))


def calibration_error(
    logits: np.ndarray, labels: np.ndarray, bins: int = 15, equal_mass: bool = False
) -> float:
    """Return the expected calibration error (ECE) of the largest probability.

    Args:
        logits: `[n, classes]` float.
        labels: `[n]` int in 0..classes-1.
        bins: Number of bins, >= 1.
        equal_mass: Bins of equal numbers of examples, sorted by confidence (Nguyen & O'Connor,
            EMNLP 2015), instead of bins (l, u] of equal width. Examples of equal confidence
            count with their mean accuracy, in whichever bins they fall.

    Returns:
        sum_b n_b / n |accuracy_b - confidence_b|, in 0..1 (arXiv 1706.04599, eq. 3); the same to
        the bit in any order of the examples.

    Example:
        >>> calibration_error([[0.0, 0.0], [0.0, 0.0]], [0, 1])  # right half the time at 0.5
        0.0
    """
    confidence, correct = _confidence(logits, labels)
    checks.count("bins", bins)
    order = np.lexsort((correct, confidence))
    confidence, correct = confidence[order], correct[order]
    if equal_mass:
        bin_of = np.arange(len(confidence)) * bins // len(confidence)
        _, tie, size = np.unique(confidence, return_inverse=True, return_counts=True)
        correct = (np.bincount(tie, weights=correct) / size)[tie]
    else:
        bin_of = _bins(confidence, bins)
    # n_b |accuracy_b - confidence_b| is the absolute sum of the gaps in a bin.
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, list[float]]:
    """Return the reliability diagram: count, mean confidence and accuracy of every bin.

    Args:
        logits: `[n, classes]` float.
        labels: `[n]` int in 0..classes-1.
        bins: Number of bins (l, u] of equal width over 0..1, >= 1.

    Returns:
        Lists `count`, `confidence` and `accuracy` of length `bins`; an empty bin holds zeros.
        Source: Guo et al., arXiv 1706.04599, section 2.

    Example:
        >>> reliability([[0.0, 0.0], [9.0, 0.0]], [0, 0], bins=2)["count"]
        [1.0, 1.0]
    """
    confidence, correct = _confidence(logits, labels)
    checks.count("bins", bins)
    bin_of = _bins(confidence, bins)
    count = np.bincount(bin_of, minlength=bins).astype(float)
    sums = {
        "confidence": np.bincount(bin_of, weights=confidence, minlength=bins),
        "accuracy": np.bincount(bin_of, weights=correct, minlength=bins),
    }
    means = {name: (value / np.maximum(count, 1.0)).tolist() for name, value in sums.items()}
    return {"count": count.tolist()} | means


def agreement(teacher_logits: np.ndarray, student_logits: np.ndarray) -> float:
    """Return the share of examples on which teacher and student choose the same class.

    Args:
        teacher_logits: `[n, classes]` float; of an ensemble, the log of its mean probabilities.
        student_logits: `[n, classes]` float.

    Returns:
        mean_i [argmax_k t_ik = argmax_k s_ik], in 0..1 (arXiv 2106.05945, eq. 2).

    Example:
        >>> agreement([[3.0, 1.0], [0.0, 1.0]], [[2.0, 0.0], [1.0, 0.0]])
        0.5
    """
    teacher, student = _pair(teacher_logits, student_logits)
    return float(np.mean(teacher.argmax(-1) == student.argmax(-1)))


def teacher_divergence(teacher_logits: np.ndarray, student_logits: np.ndarray) -> float:
    """Return the mean divergence of the student's probabilities from the teacher's, in nats.

    Args:
        teacher_logits: `[n, classes]` float; of an ensemble, the log of its mean probabilities
            (a probability of zero, so a logit of -inf, is allowed).
        student_logits: `[n, classes]` float.

    Returns:
        mean_i KL(p_teacher || p_student) at temperature 1, >= 0 (arXiv 2106.05945, eq. 3).

    Example:
        >>> teacher_divergence([[1.0, 2.0]], [[3.0, 4.0]])  # a constant shift changes nothing
        0.0
    """
    teacher, student = map(log_softmax, _pair(teacher_logits, student_logits))
    weight = np.exp(teacher)
    gap = np.zeros_like(teacher)
    # p log p is 0 at p = 0, where the difference of the logarithms may be undefined.
    np.subtract(teacher, student, out=gap, where=weight > 0)
    return float(np.mean(np.sum(weight * gap, axis=-1)))


def summary(
    logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None = None
) -> dict[str, float]:
    """Return all metrics of one split by name.

    Args:
        logits: `[n, classes]` float.
        labels: `[n]` int in 0..classes-1.
        teacher_logits: `[n, classes]` float, or None for a network without a teacher.

    Returns:
        accuracy, nll, brier, ece and ece_equal_mass (15 bins); with a teacher also agreement and
        teacher_kl.

    Example:
        >>> sorted(summary([[2.0, 1.0]], [0]))
        ['accuracy', 'brier', 'ece', 'ece_equal_mass', 'nll']
    """
    values = {
        "accuracy": accuracy(logits, labels),
        "nll": negative_log_likelihood(logits, labels),
        "brier": brier(logits, labels),
        "ece": calibration_error(logits, labels),
        "ece_equal_mass": calibration_error(logits, labels, equal_mass=True),
    }
    if teacher_logits is not None:
        values["agreement"] = agreement(teacher_logits, logits)
        values["teacher_kl"] = teacher_divergence(teacher_logits, logits)
    return values


def _checked(logits, labels) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    # An index of -1 would silently mean the last class.
    checks.label_range(int(labels.min()), int(labels.max()), logits.shape[-1])
    return logits, labels


def _pair(teacher_logits, student_logits) -> tuple[np.ndarray, np.ndarray]:
    teacher, student = (np.asarray(z, np.float64) for z in (teacher_logits, student_logits))
    checks.same_classes(teacher.shape[-1], student.shape[-1])
    return teacher, student


def _confidence(logits, labels) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest probability and whether its class is right, both `[n]` float."""
    logits, labels = _checked(logits, labels)
    confidence = np.exp(log_softmax(logits).max(axis=-1))
    return confidence, (logits.argmax(-1) == labels).astype(np.float64)


def _bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    inner_edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.searchsorted(inner_edges, confidence, side="left")
