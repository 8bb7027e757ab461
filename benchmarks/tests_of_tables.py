"""Measure the errors of the tests in reports: false alarms, power, and deviations that differ.

Draws tables of which the truth is known: rows of normal values, the baseline first, seeds that move
all rows alike, half of the rows truly away from the baseline. A false alarm is any other row called
different in a table; power is the share of the rows that are away and found. Beside the test of
`reporting.significance` stand those that it was chosen from. Prints a table and, with
`--output FILE`, writes JSON.

    python benchmarks/tests_of_tables.py --tables 4000 --output tests_of_tables.json
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import scipy.stats

from tfdistill.records import Predictions
from tfdistill.reporting.largest_t import LEVEL, critical_value
from tfdistill.reporting.significance import dunnett, mcnemar

# Rows, seeds, correlation of the rows of a seed, and the spread (log-normal) of their deviations.
SCENARIOS = (
    (1, 5, 0.3, 0.0),
    (6, 5, 0.3, 0.6),
    (14, 3, 0.0, 0.0),
    (14, 3, 0.3, 0.0),
    (14, 5, 0.3, 0.0),
    (14, 5, 0.3, 0.6),
    (45, 3, 0.0, 0.0),
    (45, 3, 0.3, 0.0),
    (45, 3, 0.3, 0.6),
    (45, 5, 0.3, 0.6),
)
AWAY = 2.5  # in deviations of one run


def drawn(generator, tables: int, scenario) -> tuple[np.ndarray, np.ndarray]:
    """Return tables `[tables, 1 + rows, seeds]`, the baseline first, and which rows are away."""
    rows, seeds, correlation, spread = scenario
    values = math.sqrt(1 - correlation) * generator.normal(size=(tables, 1 + rows, seeds))
    values += math.sqrt(correlation) * generator.normal(size=(tables, 1, seeds))
    # Their squares have a mean of 1, so that a run has the same deviation in the mean of rows.
    values *= np.exp(spread * generator.normal(size=(tables, 1 + rows, 1)) - spread**2)
    away = np.arange(rows) >= rows - max(rows // 2, 1)
    values[:, 1:] += AWAY * away[:, None]
    return values, away


def with_blocks(values: np.ndarray) -> np.ndarray:
    """Return which rows our test calls different, `[tables, rows]`."""
    _, groups, seeds = values.shape
    rest = values - values.mean(2, keepdims=True) - values.mean(1, keepdims=True)
    rest += values.mean((1, 2), keepdims=True)
    degrees = (groups - 1) * (seeds - 1)
    std = np.sqrt((rest**2).sum((1, 2)) / degrees)
    return _beyond(values, std, critical_value(groups - 1, degrees))


def pooled(values: np.ndarray) -> np.ndarray:
    """Return what Dunnett's test says that knows nothing of seeds."""
    _, groups, seeds = values.shape
    degrees = groups * (seeds - 1)
    std = np.sqrt(values.var(2, ddof=1).mean(1))
    return _beyond(values, std, critical_value(groups - 1, degrees))


def _beyond(values: np.ndarray, std: np.ndarray, critical: float) -> np.ndarray:
    means = values.mean(2)
    t = (means[:, 1:] - means[:, :1]) / (std[:, None] * math.sqrt(2 / values.shape[2]))
    return np.abs(t) > critical


def paired_bonferroni(values: np.ndarray) -> np.ndarray:
    """Return what paired t-tests say whose intervals hold at once, as those of pairs in reports."""
    found = scipy.stats.ttest_rel(values[:, 1:], values[:, :1], axis=2).pvalue
    return found < LEVEL / found.shape[1]


def paired_holm(values: np.ndarray) -> np.ndarray:
    """Return what paired t-tests say, corrected for their number (Holm)."""
    return _holm(scipy.stats.ttest_rel(values[:, 1:], values[:, :1], axis=2).pvalue)


def welch_holm(values: np.ndarray) -> np.ndarray:
    """Return what Welch's t-tests say, corrected for their number (Holm)."""
    found = scipy.stats.ttest_ind(values[:, 1:], values[:, :1], axis=2, equal_var=False)
    return _holm(found.pvalue)


def _holm(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p, axis=1)
    levels = LEVEL / np.arange(p.shape[1], 0, -1)
    passed = np.take_along_axis(p, order, 1) <= levels
    passed = np.logical_and.accumulate(passed, axis=1)
    found = np.zeros_like(passed)
    np.put_along_axis(found, order, passed, 1)
    return found


TESTS = {
    "Dunnett, seeds as blocks": with_blocks,
    "Dunnett, pooled": pooled,
    "paired t, Bonferroni": paired_bonferroni,
    "paired t, Holm": paired_holm,
    "Welch, Holm": welch_holm,
}


def check_same_test(values: np.ndarray) -> None:
    """Raise unless the formula here says what the reports' own test says."""
    rows = [dict(enumerate(map(float, row))) for row in values]
    family = dunnett(rows[0], dict(enumerate(rows[1:])))
    own = [found.differs for found in family.rows.values()]
    if own != with_blocks(values[None])[0].tolist():
        raise AssertionError("The simulated test is not that of the reports.")


def missing_seeds(generator, tables: int) -> dict[str, float]:
    """Return false alarms and power where half of 14 rows lack two of five seeds."""
    values, away = drawn(generator, tables, (14, 5, 0.3, 0.0))
    alarms, found = 0, 0
    for table in values:
        rows = [dict(enumerate(map(float, row))) for row in table]
        few = {i: dict(list(row.items())[: 5 - 2 * (i % 2)]) for i, row in enumerate(rows[1:])}
        said = np.array([row.differs for row in dunnett(rows[0], few).rows.values()])
        alarms += bool((said & ~away).any())
        found += int((said & away).sum())
    return {"false_alarm": alarms / tables, "power": found / tables / int(away.sum())}


def mcnemar_errors(generator, tables: int, images: int, gain: float) -> float:
    """Return how often McNemar's test tells networks apart that disagree about 15 % of images."""
    labels = np.zeros(images, int)
    told = 0
    for _ in range(tables):
        kind = generator.choice(3, images, p=[0.85, 0.075 + gain / 2, 0.075 - gain / 2])
        first = Predictions(labels, (kind == 1).astype(int), labels)
        second = Predictions(labels, (kind == 2).astype(int), labels)
        told += mcnemar(first, second).differs
    return told / tables


def measured(tables: int) -> dict:
    """Return the errors of every test in every scenario."""
    generator = np.random.default_rng(0)
    lines = []
    for scenario in SCENARIOS:
        values, away = drawn(generator, tables, scenario)
        check_same_test(values[0])
        shift = AWAY * np.concatenate([[False], away])[None, :, None]
        line = dict(zip(("rows", "seeds", "correlation", "spread"), scenario, strict=True))
        for name, test in TESTS.items():
            said = test(values)
            power = float(said[:, away].mean())
            # Of a single row, which is away, the same tables tell without what it is away by.
            others = said[:, ~away] if not away.all() else test(values - shift)
            line[name] = {"false_alarm": float(others.any(1).mean()), "power": power}
        lines.append(line)
    few = max(tables // 20, 50)
    return {
        "tables": tables,
        "away": AWAY,
        "tests": lines,
        "missing_seeds": missing_seeds(generator, few),
        "mcnemar": [
            {
                "images": images,
                "false_alarm": mcnemar_errors(generator, 4 * few, images, 0.0),
                "gain": gain,
                "power": mcnemar_errors(generator, 4 * few, images, gain),
            }
            for images, gain in ((800, 0.03), (10_000, 0.01))
        ],
    }


def printed(found: dict) -> None:
    """Print the errors as a Markdown table, in percent: false alarms / power."""
    print(f"| rows, seeds, correlation, spread | {' | '.join(TESTS)} |")
    print(f"| --- | {' | '.join(['---:'] * len(TESTS))} |")
    for line in found["tests"]:
        cells = [
            f"{100 * line[name]['false_alarm']:.1f} / {100 * line[name]['power']:.0f}"
            for name in TESTS
        ]
        words = ", ".join(f"{line[name]:g}" for name in ("rows", "seeds", "correlation", "spread"))
        print(f"| {words} | {' | '.join(cells)} |")
    lacking = found["missing_seeds"]
    print(
        f"\nHalf of 14 rows lack two of five seeds: {100 * lacking['false_alarm']:.1f} / "
        f"{100 * lacking['power']:.0f}"
    )
    for line in found["mcnemar"]:
        print(
            f"McNemar, {line['images']} images, {100 * line['gain']:.0f} points away: "
            f"{100 * line['false_alarm']:.1f} / {100 * line['power']:.0f}"
        )


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=4000)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    found = measured(given.tables)
    printed(found)
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
