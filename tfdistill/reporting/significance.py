"""Rows against a baseline of the same seeds: which differences are more than the luck of the seeds?

Dunnett's test, two-sided, with seeds as blocks: C. W. Dunnett, "A multiple comparison procedure for
comparing several treatments with a control", JASA 50 (1955) 1096-1121. Runs of one seed share
initial weights and order of images, so what a seed does to all rows is fitted and taken out.
Intervals are simultaneous: in 95 % of the studies all of them hold the true differences, however
many rows there are, so the row that looks best needs no further correction. The test assumes
normal values with the same variance in every row; what it does where that is not so is measured by
`benchmarks/tests_of_tables.py`. `scipy.stats.dunnett` knows no blocks.
"""

import dataclasses
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfdistill.records import Predictions, Record, accuracy_by_seed
from tfdistill.reporting.largest_t import LEVEL, LargestT, detectable

# With fewer seeds an interval is shown, and nothing is claimed.
CLAIM_SEEDS = 5
# A smaller standard deviation is round-off: values are shares of at most millions of images.
_ROUND_OFF = 1e-12


@dataclass(frozen=True)
class Comparison:
    """One row against its baseline.

    Args:
        difference: Mean difference of the common seeds.
        low: Lower end of the 95 % interval, simultaneous with those of the other rows.
        high: Its upper end.
        p: Two-sided p value, of the same family of rows; below 0.05 where the interval excludes 0.
        seeds: Number of common seeds; 1 where two networks are compared image by image.
    """

    difference: float
    low: float
    high: float
    p: float
    seeds: int

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0: the difference is more than luck."""
        return self.p < LEVEL


@dataclass(frozen=True)
class Family:
    """All rows that were compared with one baseline.

    Args:
        rows: The comparison of every row with at least two seeds of the baseline.
        std: Standard deviation of one value beside its row's and its seed's effect.
        degrees: Its degrees of freedom.
        visible: The smallest difference whose interval excludes 0, in the row with the fewest
            common seeds.
        baseline: What the rows were compared with, in words.
        title: What tells the family from the study's others, in words.
        best: The row with the highest mean validation accuracy; None where that is not known.
        together: Of a family of one row, for how many comparisons at once its interval holds.
    """

    rows: dict[Any, Comparison]
    std: float
    degrees: int
    visible: float
    baseline: str = ""
    title: str = ""
    best: Any = None
    together: int = 1

    @property
    def seeds(self) -> int:
        """The number of common seeds of the row that has the fewest."""
        return min(row.seeds for row in self.rows.values())

    @property
    def detectable(self) -> float:
        """The true difference that such a study shows with a probability of 80 %."""
        return detectable(self.std, self.seeds, len(self.rows), self.degrees, self.together)

    @property
    def alone(self) -> Comparison:
        """Of a family of one row, the comparison whose interval and p value are for itself."""
        (found,) = self.rows.values()
        scale = self.std * math.sqrt(2 / found.seeds)
        null = LargestT(1, 0.5, self.degrees)
        half = null.critical() * scale
        ends = (found.difference - half, found.difference + half)
        p = null.p(_ratio(abs(found.difference), scale))
        return Comparison(found.difference, *ends, p, found.seeds)


def dunnett(
    baseline: Mapping[Any, float], rows: Mapping[Any, Mapping[Any, float]]
) -> Family | None:
    """Compare the mean of every row with that of the baseline on the seeds that both have.

    y_rs = row_r + seed_s + e is fitted by least squares to the baseline and the rows, s^2 is the
    residual mean square: of g groups of n seeds it has (g - 1)(n - 1) degrees of freedom. With
    d_r the mean difference over the n_r common seeds, t_r = d_r / (s sqrt(2 / n_r)),
    p_r = P(max_j |t_j| >= |t_r|) where no row differs, and the interval is
    d_r +- c s sqrt(2 / n_r) with P(max_j |t_j| >= c) = 5 %. Where rows lack seeds, the rows are
    taken as correlated as the least correlated two of them, which makes intervals a little wider.

    Args:
        baseline: Value of the baseline by seed; only seeds that a tested row has count.
        rows: Values of each row by seed; a row with fewer than two seeds of the baseline is not
            tested, and its other seeds are left out.

    Returns:
        The comparisons, or None where there is nothing to test.

    Example:
        >>> family = dunnett({0: 61.2, 1: 61.5, 2: 61.0}, {"alpha 0.5": {0: 62.4, 1: 62.2, 2: 62}})
        >>> family.rows["alpha 0.5"].difference
        0.96...
    """
    common = {
        row: {seed: value for seed, value in values.items() if seed in baseline}
        for row, values in rows.items()
    }
    tested = {row: values for row, values in common.items() if len(values) > 1}
    if not tested:
        return None
    std, degrees = _residual(baseline, list(tested.values()))
    null = LargestT(len(tested), _least_correlation(list(tested.values())), degrees)
    critical = null.critical()

    def compared(values: Mapping[Any, float]) -> Comparison:
        difference = statistics.fmean(value - baseline[seed] for seed, value in values.items())
        scale = std * math.sqrt(2 / len(values))
        p = null.p(_ratio(abs(difference), scale))
        ends = (difference - critical * scale, difference + critical * scale)
        return Comparison(difference, *ends, p, len(values))

    fewest = min(map(len, tested.values()))
    results = {row: compared(values) for row, values in tested.items()}
    return Family(results, std, degrees, critical * std * math.sqrt(2 / fewest))


def paired(
    baseline: Sequence[float], values: Sequence[float], together: int = 1
) -> Comparison | None:
    """Compare values with a baseline's of the same seeds, by a two-sided paired t-test.

    Args:
        baseline: One value for each seed.
        values: The values of the same seeds in the same order.
        together: Number k of comparisons whose intervals shall hold at once: each is that of
            1 - 0.05 / k, and the p value is multiplied by k (Bonferroni).

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
        p = 0.0 if abs(mean) > _ROUND_OFF else 1.0
        return Comparison(mean, mean, mean, p, len(differences))
    from scipy.stats import ttest_rel

    found = ttest_rel(values, baseline)
    low, high = map(float, found.confidence_interval(1 - LEVEL / together))
    return Comparison(mean, low, high, min(1.0, together * float(found.pvalue)), len(differences))


def welch(
    baseline: Sequence[float],
    row: Any,
    values: Sequence[float],
    words: str = "the baseline",
    title: str = "",
    together: int = 1,
) -> Family | None:
    """Compare networks with others that share no seed with them, by Welch's two-sided t-test.

    With m the means, v the variances and n the numbers, the interval is

        m_1 - m_0 +- t(1 - 0.05 / (2 k), degrees) sqrt(v_1 / n_1 + v_0 / n_0)

    where k is `together`: by Bonferroni's inequality the intervals of k comparisons all hold the
    true differences in 95 % of the studies. The p value is multiplied by k.

    Args:
        baseline: One value for each network of the baseline.
        row: The name of what is compared with it.
        values: One value for each of its networks.
        words: The baseline in words.
        title: What tells the family from the study's others.
        together: Number of comparisons that the study makes so.

    Returns:
        The comparison as a family of one row, whose `seeds` are the networks of the smaller side;
        None where a side has fewer than two networks, or no two networks differ.

    Example:
        >>> welch([61.2, 61.5, 61.0], "taught", [62.4, 62.2, 62.0, 62.6]).rows["taught"].difference
        1.06...
    """
    if min(len(baseline), len(values)) < 2:
        return None
    if max(statistics.stdev(baseline), statistics.stdev(values)) <= _ROUND_OFF:
        return None
    from scipy.stats import ttest_ind

    found = ttest_ind(values, baseline, equal_var=False)
    low, high = map(float, found.confidence_interval(1 - LEVEL / together))
    seeds = min(len(baseline), len(values))
    error = math.sqrt(
        statistics.variance(values) / len(values) + statistics.variance(baseline) / len(baseline)
    )
    difference = statistics.fmean(values) - statistics.fmean(baseline)
    p = min(1.0, together * float(found.pvalue))
    return Family(
        {row: Comparison(difference, low, high, p, seeds)},
        error * math.sqrt(seeds / 2),
        max(1, int(found.df)),
        (high - low) / 2,
        words,
        title,
        row,
        together,
    )


def mcnemar(baseline: Predictions, other: Predictions) -> Comparison:
    """Compare two networks on the same test images: McNemar's test, exact.

    Only the m images that just one of them has right tell them apart. Were the networks equally
    good, each of these would be either's with probability 1/2; the interval is that of Clopper and
    Pearson for the other's share q of them, as the difference (2 q - 1) m / n of the accuracies. It
    is about these two networks, not about how they were trained.

    Raises:
        ValueError: The images or their labels are not the same.
    """
    from scipy.stats import binomtest

    if baseline.labels.tolist() != other.labels.tolist():
        raise ValueError("Two networks can only be compared on the same test images.")
    images = len(other.labels)
    gained = int((other.right & ~baseline.right).sum())
    apart = gained + int((baseline.right & ~other.right).sum())
    if not apart:
        return Comparison(0.0, 0.0, 0.0, 1.0, 1)
    found = binomtest(gained, apart)
    share = found.proportion_ci(1 - LEVEL, method="exact")
    difference, low, high = (
        (2 * q - 1) * apart / images for q in (gained / apart, share.low, share.high)
    )
    return Comparison(difference, low, high, float(found.pvalue), 1)


def compare_runs(
    baseline: Iterable[Record],
    rows: Mapping[Any, Sequence[Record]],
    words: str = "the baseline",
    title: str = "",
    values: Callable[[Iterable[Record]], Mapping[Any, float]] = accuracy_by_seed,
) -> Family | None:
    """Compare the test accuracy of every row's runs with that of a baseline's, as `dunnett`.

    Args:
        baseline: Records of the baseline.
        rows: Records of each row.
        words: The baseline in words.
        title: What tells the family from the study's others.
        values: What is compared of a row's records: a value for each block, by default for each
            seed.
    """
    family = dunnett(values(baseline), {row: values(runs) for row, runs in rows.items()})
    if family is None:
        return None
    best = best_row({row: rows[row] for row in family.rows})
    return dataclasses.replace(family, baseline=words, title=title, best=best)


def paired_runs(
    baseline: Iterable[Record],
    row: Any,
    runs: Iterable[Record],
    words: str = "the baseline",
    title: str = "",
    together: int = 1,
) -> Family | None:
    """Compare the test accuracy of one row's runs with that of a baseline's of the same seeds, as
    `paired`."""
    first, second = accuracy_by_seed(baseline), accuracy_by_seed(runs)
    seeds = sorted(first.keys() & second.keys())
    found = paired([first[seed] for seed in seeds], [second[seed] for seed in seeds], together)
    if found is None:
        return None
    half = (found.high - found.low) / 2
    std = statistics.stdev(second[seed] - first[seed] for seed in seeds) / math.sqrt(2)
    return Family({row: found}, std, len(seeds) - 1, half, words, title, row, together)


def compare_networks(
    baseline: Record, rows: Mapping[Any, Record], words: str, title: str = ""
) -> Family | None:
    """Compare single networks with another on the same test images, each as `mcnemar`.

    Returns:
        The comparisons, each for itself; None where no predictions were kept.
    """
    if (first := baseline.predictions) is None:
        return None
    known = {row: run.predictions for row, run in rows.items() if run.predictions is not None}
    found = {row: mcnemar(first, predictions) for row, predictions in known.items()}
    return Family(found, math.nan, 0, math.nan, words, title) if found else None


def best_row(rows: Mapping[Any, Iterable[Record]]) -> Any:
    """Return the row with the highest mean validation accuracy, None where none has one.

    A row is never chosen by what is tested: the best of many is better by luck, too.
    """
    means = {}
    for row, runs in rows.items():
        known = [record.figures.get("validation_accuracy") for record in runs]
        if found := [value for value in known if value is not None]:
            means[row] = statistics.fmean(found)
    return max(means, key=means.__getitem__) if means else None


def _residual(
    baseline: Mapping[Any, float], rows: Sequence[Mapping[Any, float]]
) -> tuple[float, int]:
    """Return the standard deviation beside row and seed, and its degrees of freedom."""
    import numpy as np

    seeds = {seed: i for i, seed in enumerate(dict.fromkeys(s for row in rows for s in row))}
    groups = [{seed: baseline[seed] for seed in seeds}, *rows]
    cells = [(i, seeds[seed]) for i, group in enumerate(groups) for seed in group]
    values = np.array([value for group in groups for value in group.values()])
    design = np.zeros((len(cells), len(groups) + len(seeds)))
    for line, (group, seed) in enumerate(cells):
        design[line, group] = design[line, len(groups) + seed] = 1.0
    # A row's effects and a seed's are told apart up to one constant.
    degrees = len(cells) - (len(groups) + len(seeds) - 1)
    centred = values - values.mean()
    fitted = design @ np.linalg.lstsq(design, centred, rcond=None)[0]
    return math.sqrt(float(np.sum((centred - fitted) ** 2)) / degrees), degrees


def _least_correlation(rows: Sequence[Mapping[Any, float]]) -> float:
    """Return the smallest correlation of two differences: 1/2 where all rows have all seeds."""
    sets = Counter(frozenset(row) for row in rows)
    same = [0.5] if max(sets.values()) > 1 or len(rows) == 1 else []
    pairs = itertools.combinations(sets, 2)
    others = [len(a & b) / (2 * math.sqrt(len(a) * len(b))) for a, b in pairs]
    return min(same + others)


def _ratio(difference: float, scale: float) -> float:
    if scale > _ROUND_OFF:
        return difference / scale
    return math.inf if difference > _ROUND_OFF else 0.0
