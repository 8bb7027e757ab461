"""Comparison with a baseline of the same seeds: SciPy's tests on random tables, and the edges."""

import math

import numpy as np
import pytest
import scipy.stats

from tfdistill.records import Predictions
from tfdistill.reporting.largest_t import critical_value, detectable
from tfdistill.reporting.significance import (
    dunnett,
    mcnemar,
    paired,
    welch,
)


def by_seed(values, seeds=None):
    return dict(zip(range(len(values)) if seeds is None else seeds, values, strict=True))


def table(generator, rows, seeds, spread=0.0):
    """Return random rows, the baseline first, with an effect of each seed of this deviation."""
    values = generator.normal(size=(rows, seeds)) + spread * generator.normal(size=seeds)
    return [by_seed(row) for row in values]


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_one_row_has_the_interval_of_the_paired_t_test(seeds):
    baseline, row = table(np.random.default_rng(seeds), 2, seeds, spread=3.0)
    found = dunnett(baseline, {"row": row}).rows["row"]
    expected = scipy.stats.ttest_rel(list(row.values()), list(baseline.values()))
    interval = expected.confidence_interval()
    assert found.seeds == seeds
    assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-8)


def test_without_an_effect_of_the_seeds_it_is_scipys_test_within_its_sampling():
    # Of many seeds, what the fit of the seeds takes away is little, and the degrees are many.
    rows = table(np.random.default_rng(7), 5, 400)
    for row, shift in zip(rows[1:], (0.0, 0.1, -0.15, 0.25), strict=True):
        row.update({seed: value + shift for seed, value in row.items()})
    found = dunnett(rows[0], dict(enumerate(rows[1:]))).rows.values()
    first, *others = (list(row.values()) for row in rows)
    generator = np.random.default_rng(0)
    expected = scipy.stats.dunnett(*others, control=first, random_state=generator)
    assert [row.p for row in found] == pytest.approx(list(expected.pvalue), abs=0.02)
    interval = expected.confidence_interval()
    assert [row.low for row in found] == pytest.approx(list(interval.low), abs=0.01)
    assert [row.high for row in found] == pytest.approx(list(interval.high), abs=0.01)


def test_the_residual_is_that_of_the_fit_of_rows_and_seeds():
    found = dunnett({0: 0.0, 1: 1.0, 2: 2.0}, {"row": {0: 2.0, 1: 3.0, 2: 7.0}})
    # Differences 2, 2, 5: mean 3, variance 3; s^2 is half of that, with 2 degrees.
    assert found.rows["row"].difference == pytest.approx(3.0)
    assert found.std == pytest.approx(math.sqrt(1.5)) and found.degrees == 2


def test_what_a_seed_does_to_all_rows_changes_nothing():
    rows = table(np.random.default_rng(1), 5, 4)
    shifted = [{seed: value + 10.0 * seed for seed, value in row.items()} for row in rows]
    plain, moved = (dunnett(each[0], dict(enumerate(each[1:]))) for each in (rows, shifted))
    assert moved.std == pytest.approx(plain.std)
    assert [row.p for row in moved.rows.values()] == pytest.approx(
        [row.p for row in plain.rows.values()]
    )


def test_the_critical_values_are_those_of_the_published_table():
    # Dunnett 1964, two-sided 5 %: 2 rows and 10 degrees 2.57; 4 and 16, 2.71; 5 and 20, 2.73.
    for rows, seeds, critical in ((2, 6, 2.57), (4, 5, 2.71), (5, 5, 2.73)):
        values = table(np.random.default_rng(0), rows + 1, seeds)
        family = dunnett(values[0], dict(enumerate(values[1:])))
        assert family.degrees == rows * (seeds - 1)
        unit = family.std * math.sqrt(2 / seeds)
        assert family.visible / unit == pytest.approx(critical, abs=0.006)


def test_only_seeds_of_row_and_baseline_count():
    baseline = by_seed([61.0, 61.5, 61.2, 99.0, 0.0], seeds=[0, 1, 2, 7, 8])
    row = by_seed([62.0, 62.4, 62.3, 0.0], seeds=[0, 1, 2, 5])
    few = dunnett({seed: baseline[seed] for seed in (0, 1, 2)}, {"row": {**row}})
    found = dunnett(baseline, {"row": row})
    assert found == few and found.rows["row"].seeds == 3


def test_rows_may_lack_seeds():
    generator = np.random.default_rng(2)
    baseline, full, other = table(generator, 3, 5)
    short = {seed: other[seed] for seed in (1, 3)}
    found = dunnett(baseline, {"full": full, "short": short})
    assert [row.seeds for row in found.rows.values()] == [5, 2] and found.seeds == 2
    # 12 values, less 3 rows and 5 seeds that are told apart up to a constant.
    assert found.degrees == 12 - 7
    expected = np.mean([short[seed] - baseline[seed] for seed in (1, 3)])
    assert found.rows["short"].difference == pytest.approx(expected)
    wide, narrow = (row.high - row.low for row in (found.rows["short"], found.rows["full"]))
    assert wide / narrow == pytest.approx(math.sqrt(5 / 2))


def test_an_interval_excludes_0_where_p_is_below_5_percent():
    generator = np.random.default_rng(3)
    for _ in range(10):
        rows = table(generator, 6, 5, spread=1.0)
        rows[1] = {seed: value + 2.0 for seed, value in rows[1].items()}
        for found in dunnett(rows[0], dict(enumerate(rows[1:]))).rows.values():
            assert found.differs == (found.low > 0 or found.high < 0)
            assert found.low <= found.difference <= found.high


def test_only_differences_beyond_the_visible_differ():
    rows = table(np.random.default_rng(4), 4, 5)
    family = dunnett(rows[0], dict(enumerate(rows[1:])))

    def moved(row, by):  # so that its difference is `by`, and all residuals are the same
        shift = by - family.rows[row].difference
        return {seed: value + shift for seed, value in rows[row + 1].items()}

    changed = {0: moved(0, 1.001 * family.visible), 1: moved(1, -0.999 * family.visible)}
    found = dunnett(rows[0], {**changed, 2: rows[3]}).rows
    assert found[0].differs and not found[1].differs


def test_the_more_rows_the_wider_the_intervals():
    few, many = (table(np.random.default_rng(5), count, 5) for count in (11, 46))
    one, other = (dunnett(rows[0], dict(enumerate(rows[1:]))) for rows in (few, many))
    assert other.degrees == 45 * 4 and one.degrees == 10 * 4
    assert other.visible / other.std > one.visible / one.std


@pytest.mark.parametrize(
    "baseline, row", [({0: 1.0}, {0: 1.0, 1: 2.0}), ({0: 1.0, 1: 2.0}, {1: 1.0, 5: 2.0}), ({}, {})]
)
def test_a_single_common_seed_is_no_test(baseline, row):
    assert dunnett(baseline, {"row": row}) is None


def test_a_row_with_a_single_run_is_left_out_of_the_family():
    rows = {"one": {0: 9.0}, "two": {0: 1.0, 1: 2.5}}
    assert set(dunnett({0: 1.0, 1: 2.0}, rows).rows) == {"two"}


def test_without_any_variance_only_equal_means_are_the_same():
    baseline = by_seed([0.6128] * 3)
    rows = {"same": by_seed([0.6128] * 3), "other": by_seed([0.6129] * 3)}
    found = dunnett(baseline, rows).rows
    assert found["same"].p == 1 and found["other"].p == 0


@pytest.mark.slow
@pytest.mark.slow
def test_under_chance_alone_one_study_in_twenty_finds_something():
    generator = np.random.default_rng(0)

    def finds(rows):
        found = dunnett(rows[0], dict(enumerate(rows[1:]))).rows
        return any(row.differs for row in found.values())

    # 100 studies of which 5 % find something: 5, with a deviation of 2.2.
    count = sum(finds(table(generator, 7, 3, spread=1.0)) for _ in range(100))
    assert 1 <= count <= 12


@pytest.mark.slow
def test_a_difference_of_the_detectable_size_is_seen_four_times_in_five():
    generator = np.random.default_rng(6)
    size = detectable(1.0, seeds=5, rows=3)

    def seen():
        rows = table(generator, 4, 5, spread=1.0)
        rows[1] = {seed: value + size for seed, value in rows[1].items()}
        return dunnett(rows[0], dict(enumerate(rows[1:]))).rows[0].differs

    # 60 studies at 80 %: 48, with a deviation of 3.1.
    assert 37 <= sum(seen() for _ in range(60)) <= 57


def test_a_paired_comparison_is_the_t_test_of_the_differences():
    baseline, values = [61.2, 61.5, 61.0, 60.7], [62.4, 62.2, 62.0, 61.9]
    found = paired(baseline, values)
    # Differences 1.2, 0.7, 1.0, 1.2: mean 1.025, deviation 0.236; 3.182 is t's quantile.
    assert found.difference == pytest.approx(1.025)
    assert found.low == pytest.approx(1.025 - 3.182 * 0.23629 / 2, abs=1e-3)
    assert found.high == pytest.approx(1.025 + 3.182 * 0.23629 / 2, abs=1e-3)
    assert found.p == pytest.approx(scipy.stats.ttest_rel(values, baseline).pvalue)


def test_comparisons_that_shall_hold_at_once_are_wider():
    one, three = (paired([61.2, 61.5, 61.0], [62.4, 62.2, 62.0], together=k) for k in (1, 3))
    # Of two degrees t is 4.303 at 0.975 and 7.649 at 1 - 0.05 / 6.
    assert (three.high - three.low) / (one.high - one.low) == pytest.approx(7.649 / 4.303, rel=1e-3)
    assert three.p == pytest.approx(3 * one.p) and three.difference == one.difference
    assert critical_value(1, 2, together=3) == pytest.approx(7.649, abs=1e-3)
    assert detectable(1.0, 5, 1, together=3) > detectable(1.0, 5, 1)


def test_a_paired_comparison_needs_two_seeds_and_bears_equal_differences():
    assert paired([0.5], [0.6]) is None
    assert paired([0.5, 0.6], [0.5, 0.6]).p == pytest.approx(1.0)
    assert paired([0.5, 0.6], [0.6, 0.7]).p == 0.0


def test_networks_without_common_seeds_are_compared_by_welchs_test():
    # Means 2 and 6, variances 1 and 20/3, so the error is sqrt(1/3 + 5/3) and the degrees
    # 2^2 / ((1/3)^2 / 2 + (5/3)^2 / 3) = 4.08; t's quantiles there are 2.756 and 4.55 (0.99375).
    one, four = (
        welch([1.0, 2.0, 3.0], "row", [3.0, 5.0, 7.0, 9.0], together=k).rows["row"] for k in (1, 4)
    )
    assert one.difference == four.difference == pytest.approx(4.0) and one.seeds == 3
    error = math.sqrt(2)
    quantile, wider = (scipy.stats.t.ppf(p, 4 / (1 / 18 + 25 / 27)) for p in (0.975, 1 - 0.05 / 8))
    assert (one.low, one.high) == pytest.approx((4 - quantile * error, 4 + quantile * error))
    assert (four.low, four.high) == pytest.approx((4 - wider * error, 4 + wider * error))
    assert one.differs and not four.differs and four.p == pytest.approx(4 * one.p)


def test_welchs_test_needs_two_networks_that_differ():
    assert welch([0.5], "row", [0.6, 0.7]) is None
    assert welch([0.5, 0.5], "row", [0.6, 0.6]) is None


def answers(right, labels=None):
    labels = np.arange(len(right)) % 3 if labels is None else labels
    classes = np.where(right, labels, labels + 1)
    return Predictions(labels, classes, np.ones(len(right)))


def test_two_networks_are_told_apart_by_the_images_that_one_alone_has_right():
    # 20 images: both right 8, only the second 9, only the first 1, neither 2.
    first = answers([True] * 8 + [False] * 9 + [True] + [False] * 2)
    second = answers([True] * 8 + [True] * 9 + [False] + [False] * 2)
    found = mcnemar(first, second)
    assert found.difference == pytest.approx(8 / 20)
    # Two-sided: 2 * (1 + 10) / 2^10. Clopper and Pearson for 9 of 10: 0.5550 to 0.9975.
    assert found.p == pytest.approx(22 / 1024)
    assert (found.low, found.high) == pytest.approx((0.1100 / 2, 0.9950 / 2), abs=1e-4)
    assert found.differs and found.seeds == 1
    back = mcnemar(second, first)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_networks_that_are_right_about_the_same_images_cannot_be_told_apart():
    same = answers([True, False, True])
    assert mcnemar(same, same).p == 1.0
    with pytest.raises(ValueError, match="same test images"):
        mcnemar(same, answers([True, False, True], labels=np.array([1, 1, 1])))
