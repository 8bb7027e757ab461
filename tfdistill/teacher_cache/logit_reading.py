"""From stored rows to averaged logits, and the numpy that packs and unpacks them.

With `top_k` the averaged teacher is stored: its k largest log-probabilities log p_c, their classes
and, for each temperature T, the rest r_T = log sum_{left out} p_c^(1/T). A reader gives every
left-out class the logit T (r_T - log(C - k)). Then sum_c exp(z_c / T) is what it is over all
classes, so softmax(z / T) has the exact probability of every kept class and of the others
together; only their shares are even.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfdistill.config import CacheConfig
from tfdistill.utils import checks
from tfdistill.utils.numerics import log_softmax

NARROW = 60.0  # logits this far apart have exponentials that float32 holds in full precision


class Reader:
    """Averaged teacher logits by view and example id; safe to share between threads.

    `shape` is `(views, largest id + 1, classes)`, and `reader[view, ids]` gives `[b, classes]`
    float32, as `training_batches` asks of `teacher_logits`. An id without a row raises KeyError.

    Args:
        lookup: From a view and rows `[b]` to their logits, which `MemberRows` or `TopRows` gives.
        ids: `[rows]` example ids, in the order of the rows.
        views: Number of stored views.
        classes: Number of classes.
    """

    def __init__(self, lookup: Callable[..., Any], ids: np.ndarray, views: int, classes: int):
        self._lookup = lookup
        self._row_of = np.full(ids.max() + 1, -1)
        self._row_of[ids] = np.arange(len(ids))
        self.shape = (views, len(self._row_of), classes)
        self.failure: checks.UsageError | None = None
        """What was raised last: of an error in a pipeline, TensorFlow tells only the text."""

    def __getitem__(self, key: tuple[int, np.ndarray]) -> np.ndarray:
        view, ids = int(key[0]), np.asarray(key[1])
        if not 0 <= view < self.shape[0]:
            raise IndexError(f"There are {self.shape[0]} stored views. Received: view {view}.")
        known = (ids >= 0) & (ids < len(self._row_of))
        rows = self._row_of[np.where(known, ids, 0)]
        if not known.all() or rows.min(initial=0) < 0:
            strange = ids[~known | (rows < 0)]
            raise KeyError(f"No teacher logits of the example with id {strange[0]} are stored.")
        try:
            return self._lookup(view, rows)
        except checks.UsageError as error:
            self.failure = error
            raise


@dataclass(frozen=True)
class MemberRows:
    """Looks up the average of some members.

    Args:
        stored: Gives the records `[b]` of a view, a member and rows `[b]`.
        members: Places of the members to average.
        average: `probabilities`, `sigmoid` or `logits`.
    """

    stored: Callable[..., np.ndarray]
    members: list[int]
    average: str

    def __call__(self, view: int, rows: np.ndarray) -> np.ndarray:
        found = np.stack([self.stored(view, member, rows)["logits"] for member in self.members])
        return averaged(found.astype("float32", copy=False), self.average)


@dataclass(frozen=True)
class TopRows:
    """Looks up the largest classes, and gives the others even shares.

    Args:
        stored: Gives the records `[b]` of a view, a member and rows `[b]`: log-probabilities
            `logits` and their `classes`, `[b, k]`, and `rest`, `[b, temperatures]`.
        place: Which of the temperatures it is.
        temperature: T.
        classes: C, the number of classes.
    """

    stored: Callable[..., np.ndarray]
    place: int
    temperature: float
    classes: int

    def __call__(self, view: int, rows: np.ndarray) -> np.ndarray:
        found = self.stored(view, 0, rows)
        kept = found["logits"].astype("float32")
        left_out = self.classes - kept.shape[-1]
        share = self.temperature * (found["rest"][:, self.place] - math.log(left_out))
        dense = np.repeat(share[:, None].astype("float32"), self.classes, axis=1)
        np.put_along_axis(dense, found["classes"].astype(np.int64), kept, -1)
        return dense


@dataclass(frozen=True)
class Verification:
    """How far stored logits are from those that the teachers give again.

    Args:
        rows: Number of compared (view, example) pairs.
        largest_difference: Largest absolute difference of a member's logits; with `top_k` of a
            kept log-probability.
        agreement: Share of the pairs, in 0..1, whose largest averaged logit has the same class; of
            several labels, share of the answers at 0.5 that are the same.
    """

    rows: int
    largest_difference: float
    agreement: float


def averaged(member_logits: np.ndarray, average: str) -> np.ndarray:
    """Return `ensembles.average_logits` of an array, without TensorFlow in the reading threads.

    Args:
        member_logits: `[members, batch, classes]` float.
        average: `probabilities`, `sigmoid` or `logits`.

    Returns:
        `[batch, classes]` of the same dtype.
    """
    if len(member_logits) == 1:
        return member_logits[0]
    if average == "logits":
        return member_logits.mean(axis=0)
    if average == "sigmoid":
        # log sum_m p_m - log sum_m (1 - p_m), with log p = -log(1 + exp(-z))
        yes, no = (_logsumexp(-np.logaddexp(0, z), axis=0) for z in (-member_logits, member_logits))
        return yes - no
    members, largest = len(member_logits), member_logits.max()
    if largest - member_logits.min() > NARROW:
        # Another order of these subtractions would change the last bit of stored studies.
        log_shares = member_logits - _logsumexp(member_logits)[..., None]
        sums = _logsumexp(log_shares, axis=0)
        return sums - sums.dtype.type(math.log(members))
    # Without the logarithms of each member: less than half the time.
    likelihood = np.exp(member_logits - largest)
    weight = 1 / (members * np.einsum("mbc->mb", likelihood))
    return np.log(np.einsum("mbc,mb->bc", likelihood, weight))


def check(logits: np.ndarray, names: list[str], classes: int, view: int) -> None:
    """Raise if teachers gave other than finite `[members, rows, classes]`."""
    if logits.shape[2:] != (classes,):
        raise checks.UsageError(
            f"Teacher {', '.join(names)} must give {classes} logits for each image. Received: "
            f"outputs of shape {list(logits.shape[1:])}. Give a teacher of these classes."
        )
    for name, of_teacher in zip(names, logits, strict=True):
        wrong = int((~np.isfinite(of_teacher)).any(-1).sum())
        if wrong:
            raise checks.UsageError(
                f"Teacher {name} gives NaN or infinite logits for {wrong} of {len(of_teacher)} "
                f"images of view {view}. Train it again, or leave it out."
            )


def packed(logits: np.ndarray, cache: CacheConfig, average: str) -> list[np.ndarray]:
    """Return what is stored of `[members, rows, classes]` logits, `[rows, n]` for each field.

    Raises:
        UsageError: A logit is too large for `cache.dtype`.
    """
    if cache.largest is None:
        return [_fitting(logits[0], cache.dtype)]
    values = log_softmax(averaged(logits.astype("float64"), average))
    numbers = np.argsort(-values, axis=-1, kind="stable")[:, : cache.largest]
    kept = np.take_along_axis(values, numbers, -1)
    np.put_along_axis(values, numbers, -np.inf, -1)
    rest = [_logsumexp(values / temperature) for temperature in cache.temperatures]
    return [_fitting(kept, cache.dtype), numbers, np.stack(rest, -1)]


def lost(logits: np.ndarray, cache: CacheConfig, average: str) -> list[tuple[float, float]]:
    """Return for each of `cache.temperatures` what keeping the `top_k` largest classes costs.

    Args:
        logits: `[members, rows, classes]`.
        cache: Its `top_k` and temperatures.
        average: How the members are averaged.

    Returns:
        Means over the rows: the probability of the kept classes, in 0..1, and the KL divergence of
        what a student is taught from the averaged teachers, in nats.
    """
    values = np.sort(averaged(logits.astype("float64"), average), axis=-1)
    left_out = values.shape[-1] - (cache.largest or 0)
    found = []
    for temperature in cache.temperatures:
        log_p = log_softmax(values / temperature)[..., :left_out]
        share = _logsumexp(log_p) - math.log(left_out)
        p = np.exp(log_p)
        divergence = (p * (log_p - share[..., None])).sum(axis=-1)
        found.append((float(1 - p.sum(axis=-1).mean()), float(divergence.mean())))
    return found


def compared(
    stored: Sequence[np.ndarray], live: Sequence[np.ndarray], average: str
) -> Verification:
    """Return how far stored rows are from live ones.

    Args:
        stored: For each view the records, `[members, rows]`.
        live: For each view `[members, rows, classes]`, what the teachers give now.
        average: How the members are averaged; `sigmoid` of several labels.
    """
    largest, agreeing = 0.0, 0.0
    for records, now in zip(stored, live, strict=True):
        again, before = averaged(now, average), records["logits"].astype("float32")
        if "classes" in (records.dtype.names or ()):
            numbers = records["classes"].astype(np.int64)
            now = np.take_along_axis(log_softmax(again)[None], numbers, -1)
            top = numbers[0, :, 0]
        else:
            top = answers(averaged(before, average), average)
        largest = max(largest, float(np.abs(now - before).max()))
        same = answers(again, average) == top  # [rows], or [rows, labels]
        agreeing += float(same.reshape(len(same), -1).mean(axis=-1).sum())
    rows = sum(each.shape[1] for each in live)
    return Verification(rows, largest, agreeing / rows)


def answers(logits: np.ndarray, average: str) -> np.ndarray:
    """Return the class of each row `[rows]`, or of several labels which are there."""
    return logits > 0 if average == "sigmoid" else logits.argmax(-1)


def _logsumexp(values: np.ndarray, axis: int = -1) -> np.ndarray:
    largest = values.max(axis=axis, keepdims=True)
    return np.log(np.exp(values - largest).sum(axis=axis)) + largest.squeeze(axis)


def _fitting(values: np.ndarray, dtype: str) -> np.ndarray:
    largest, limit = float(np.abs(values).max()), float(np.finfo(dtype).max)
    if largest > limit:
        raise checks.UsageError(
            f"cache.dtype={dtype} holds numbers up to {limit:.0f}. Received: a logit "
            f"of size {largest:.6g}. Set cache.dtype to float32."
        )
    return values
