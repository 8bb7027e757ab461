"""Many rows against one baseline: which differences are more than the luck of the seeds?

Dunnett's test, two-sided: C. W. Dunnett, "A multiple comparison procedure for comparing several
treatments with a control", JASA 50 (1955) 1096-1121. Where no row differs, the test calls any of
them different in only 5 % of the studies (familywise error), however many rows there are. It
assumes independent, normal values with the same variance in every row. Its distribution is
integrated here: `scipy.stats.dunnett` samples it, which for 45 rows takes seconds and answers a
little differently each time.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfdistill.records import Record, accuracies, accuracy_by_seed

LEVEL = 0.05
# A smaller standard deviation is round-off: values are shares of at most millions of images.
_ROUND_OFF = 1e-12


@dataclass(frozen=True)
class Comparison:
    """One row against the baseline: difference of the means, and its familywise p value."""

    difference: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether the row differs from the baseline at a familywise error of 5 %."""
        return self.p < LEVEL


@dataclass(frozen=True)
class Family:
    """All rows that were compared with one baseline.

    Args:
        rows: The comparison of every row with at least two values.
        std: Standard deviation of one value, pooled over the tested rows and the baseline.
        degrees: Its degrees of freedom.
        visible: The smallest difference at which the tested row with the fewest values is
            significant.
    """

    rows: dict[Any, Comparison]
    std: float
    degrees: int
    visible: float


def dunnett(baseline: Sequence[float], rows: Mapping[Any, Sequence[float]]) -> Family | None:
    """Compare the mean of every row with that of the baseline.

    t_i = (mean_i - mean_0) / (s sqrt(1 / n_i + 1 / n_0)), s^2 the variance pooled over all rows and
    the baseline; p_i = P(max_j |t_j| >= |t_i|) where no row differs.

    Args:
        baseline: Values of the baseline, at least two.
        rows: Values of each row; a row with a single value is not tested.

    Returns:
        The comparisons, or None where there is nothing to test: a baseline with fewer than two
        values, or no row with two.

    Example:
        >>> family = dunnett([61.2, 61.5, 61.0], {"alpha 0.5": [62.4, 62.2], "alpha 0.9": [61.4]})
        >>> family.rows["alpha 0.5"].difference
        1.06...
    """
    tested = {row: values for row, values in rows.items() if len(values) > 1}
    if len(baseline) < 2 or not tested:
        return None
    groups = [baseline, *tested.values()]
    degrees = sum(map(len, groups)) - len(groups)
    std = math.sqrt(sum(statistics.pvariance(values) * len(values) for values in groups) / degrees)
    counts = Counter(len(values) for values in tested.values())
    null = _Null(counts, len(baseline), degrees)

    def compared(values: Sequence[float]) -> Comparison:
        difference = statistics.fmean(values) - statistics.fmean(baseline)
        scale = std * math.sqrt(1 / len(values) + 1 / len(baseline))
        return Comparison(difference, null.p(_ratio(abs(difference), scale)))

    unit = std * math.sqrt(1 / min(counts) + 1 / len(baseline))
    results = {row: compared(values) for row, values in tested.items()}
    return Family(results, std, degrees, unit * null.critical())


def _ratio(difference: float, scale: float) -> float:
    if scale > _ROUND_OFF:
        return difference / scale
    return math.inf if difference > _ROUND_OFF else 0.0


def paired(baseline: Sequence[float], values: Sequence[float]) -> Comparison | None:
    """Compare values with a baseline's of the same seeds, by a two-sided paired t-test.

    Args:
        baseline: One value for each seed.
        values: The values of the same seeds in the same order.

    Returns:
        The comparison, or None with fewer than two seeds.

    Example:
        >>> paired([61.2, 61.5, 61.0], [62.4, 62.2, 62.0]).difference
        0.96...
    """
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    if len(differences) < 2:
        return None
    mean = statistics.fmean(differences)
    if statistics.stdev(differences) <= _ROUND_OFF:  # of which SciPy warns, and may return NaN
        return Comparison(mean, 0.0 if abs(mean) > _ROUND_OFF else 1.0)
    from scipy.stats import ttest_rel

    return Comparison(mean, float(ttest_rel(values, baseline).pvalue))


def compare_runs(baseline: Iterable[Record], rows: Mapping[Any, Iterable[Record]]) -> Family | None:
    """Compare the test accuracy of every row's runs with that of a baseline's, as `dunnett`."""
    values = {row: accuracies(runs) for row, runs in rows.items()}
    return dunnett(accuracies(baseline), values)


def paired_runs(baseline: Iterable[Record], runs: Iterable[Record]) -> Comparison | None:
    """Compare the test accuracy of runs with that of a baseline's of the same seeds."""
    first, second = accuracy_by_seed(baseline), accuracy_by_seed(runs)
    seeds = sorted(first.keys() & second.keys())
    return paired([first[seed] for seed in seeds], [second[seed] for seed in seeds])


class _Null:
    """Distribution of max |t_i| where no row differs: Dunnett 1955, integrated on a grid.

    Given the baseline's mean, a standard normal z, and s, the estimated over the true deviation,
    the rows are independent. With l_i^2 = n_i / (n_i + n_0), the share of the baseline in the
    variance of difference i,

        P(max |t_i| < t) = E_s E_z prod_i [Phi(u_i + v_i) - Phi(u_i - v_i)],
        u_i = l_i z / sqrt(1 - l_i^2), v_i = t s / sqrt(1 - l_i^2).
    """

    def __init__(self, counts: Counter, baseline: int, degrees: int):
        import numpy as np

        self.counts, self.baseline = counts, baseline
        self.z = np.linspace(-8.5, 8.5, 171)[:, None]  # [z, 1]
        self.weights_z = _shares(-(self.z[:, 0] ** 2) / 2)
        log_s = np.linspace(*_log_ends(degrees), 201)
        self.s = np.exp(log_s)[None, :]  # [1, s]
        # degrees * s^2 is chi-squared; this is the logarithm of the density of log s.
        self.weights_s = _shares(degrees * (log_s - np.exp(2 * log_s) / 2))

    def p(self, t: float) -> float:
        """Return P(max |t_i| >= t)."""
        from scipy.special import ndtr

        inside = 1.0
        for count, rows in self.counts.items():
            share = count / (count + self.baseline)
            u = self.z * math.sqrt(share / (1 - share))
            v = self.s * t / math.sqrt(1 - share)
            inside = inside * (ndtr(u + v) - ndtr(u - v)) ** rows  # [z, s]
        return min(max(1 - float(self.weights_z @ inside @ self.weights_s), 0.0), 1.0)

    def critical(self) -> float:
        """Return the t that is reached with a probability of 5 %."""
        from scipy.optimize import brentq

        return brentq(lambda t: self.p(t) - LEVEL, 0.0, 1e4)


def _log_ends(degrees: int) -> tuple[float, float]:
    """Return where log s, the estimated over the true deviation, practically begins and ends."""
    from scipy.special import gammainccinv, gammaincinv

    low, high = gammaincinv(degrees / 2, 1e-12), gammainccinv(degrees / 2, 1e-12)
    return math.log(2 * low / degrees) / 2, math.log(2 * high / degrees) / 2


def _shares(log_density):
    """Return the weights of equidistant points; the density vanishes at both ends."""
    import numpy as np

    density = np.exp(log_density - log_density.max())
    return density / density.sum()
