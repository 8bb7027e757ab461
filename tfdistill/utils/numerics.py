"""Numerically safe arithmetic on NumPy arrays."""

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log softmax(z) over the last axis, in the precision of the logits.

    Args:
        logits: `[..., classes]` float.

    Returns:
        z - max(z) - log sum exp(z - max(z)), `[..., classes]`; -inf where a logit is -inf, all NaN
        where one is NaN or +inf.

    Example:
        >>> np.exp(log_softmax(np.array([1000.0, 1000.0])))
        array([0.5, 0.5])
    """
    with np.errstate(invalid="ignore"):  # infinite logits give NaN, which is what is reported
        shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
