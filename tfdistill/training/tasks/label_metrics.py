"""Metrics of labels that do not exclude each other, on collected predictions.

All functions take logits of a whole split and labels of 0 and 1, both `[n, labels]`, and compute in
float64 from log-sigmoid. A label is said to be there where its probability is above 0.5, which is a
logit above 0. A pair is one label of one image.
"""

import numpy as np

from tfdistill.utils import checks


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of pairs that are right, in 0..1.

    Example:
        >>> accuracy([[2.0, -1.0], [2.0, 1.0]], [[1, 0], [1, 0]])
        0.75
    """
    logits, labels = _checked(logits, labels)
    return float(np.mean((logits > 0) == labels))


def exact_match(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images of which all labels are right, in 0..1.

    Example:
        >>> exact_match([[2.0, -1.0], [2.0, 1.0]], [[1, 0], [1, 0]])
        0.5
    """
    logits, labels = _checked(logits, labels)
    return float(np.mean(((logits > 0) == labels).all(axis=-1)))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log-probability of what is right, over all pairs, in nats.

    Example:
        >>> round(negative_log_likelihood([[0.0, 0.0]], [[1, 0]]), 4)  # ln 2
        0.6931
    """
    logits, labels = _checked(logits, labels)
    return float(-np.mean(_log_sigmoid(np.where(labels, logits, -logits))))


def brier(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of (p - y)^2 over all pairs, in 0..1 (Brier 1950, of one yes or no).

    Example:
        >>> brier([[0.0]], [[1]])
        0.25
    """
    logits, labels = _checked(logits, labels)
    return float(np.mean((np.exp(_log_sigmoid(logits)) - labels) ** 2))


def mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the mean over labels of scikit-learn's `average_precision_score`, in 0..1.

    Labels that no image has are left out, as their precision is not defined.

    Returns:
        None where no label is left, or a logit is no number.

    Example:
        >>> mean_average_precision([[3.0], [2.0], [1.0]], [[1], [0], [1]])  # (1 + 2 / 3) / 2
        0.8333...
    """
    from sklearn.metrics import average_precision_score

    logits, labels = _checked(logits, labels)
    there = np.flatnonzero(labels.any(axis=0))
    if not len(there) or not np.isfinite(logits).all():
        return None
    return float(np.mean([average_precision_score(labels[:, k], logits[:, k]) for k in there]))


def agreement(teacher_logits: np.ndarray, student_logits: np.ndarray) -> float:
    """Return the share of pairs on which teacher and student say the same, in 0..1."""
    teacher, student = _pair(teacher_logits, student_logits)
    return float(np.mean((teacher > 0) == (student > 0)))


def teacher_divergence(teacher_logits: np.ndarray, student_logits: np.ndarray) -> float:
    """Return the mean of KL(p_teacher || p_student) over all pairs, in nats, >= 0.

    p is the Bernoulli distribution of one label, at temperature 1.

    Example:
        >>> round(teacher_divergence([[2.0]], [[0.0]]), 4)
        0.3278
    """
    teacher, student = _pair(teacher_logits, student_logits)
    total = np.zeros_like(teacher)
    for t, s in ((teacher, student), (-teacher, -student)):  # yes, and no
        log_p, gap = _log_sigmoid(t), np.zeros_like(t)
        # p log p is 0 at p = 0, where the difference of the logarithms may be undefined.
        np.subtract(log_p, _log_sigmoid(s), out=gap, where=np.exp(log_p) > 0)
        total += np.exp(log_p) * gap
    return float(np.mean(total))


def summary(
    logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None = None
) -> dict[str, float]:
    """Return all metrics of one split by name.

    Returns:
        accuracy, mean_average_precision (where it is defined), exact_match, nll and brier; with a
        teacher also agreement and teacher_kl.

    Example:
        >>> sorted(summary([[2.0, 1.0]], [[0, 1]]))
        ['accuracy', 'brier', 'exact_match', 'mean_average_precision', 'nll']
    """
    values = {"accuracy": accuracy(logits, labels)}
    precision = mean_average_precision(logits, labels)
    if precision is not None:
        values["mean_average_precision"] = precision
    values |= {
        "exact_match": exact_match(logits, labels),
        "nll": negative_log_likelihood(logits, labels),
        "brier": brier(logits, labels),
    }
    if teacher_logits is not None:
        values["agreement"] = agreement(teacher_logits, logits)
        values["teacher_kl"] = teacher_divergence(teacher_logits, logits)
    return values


def _log_sigmoid(logits: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # of NaN, which the caller sees in the result
        return -np.logaddexp(0.0, -logits)


def _checked(logits, labels) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if logits.shape != labels.shape:
        raise checks.UsageError(
            f"There must be one logit for each label of each image. Received: {list(logits.shape)} "
            f"logits, {list(labels.shape)} labels. Give a network with one output for each label."
        )
    return logits, labels.astype(bool)


def _pair(teacher_logits, student_logits) -> tuple[np.ndarray, np.ndarray]:
    teacher, student = (np.asarray(z, np.float64) for z in (teacher_logits, student_logits))
    checks.same_classes(teacher.shape[-1], student.shape[-1])
    return teacher, student
