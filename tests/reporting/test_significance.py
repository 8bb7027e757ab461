"""Comparison with a baseline: known cases of Dunnett's test, and its edges."""

import numpy as np
import pytest
import scipy.stats

from tfdistill.reporting.significance import dunnett, paired


def test_with_one_row_it_is_the_t_test_of_pooled_variance():
    # Means 4 and 2, both variances 1: t = 2 / sqrt(2 / 3) = 2.449 with 4 degrees, p = 0.0705.
    family = dunnett([1.0, 2.0, 3.0], {"row": [3.0, 4.0, 5.0]})
    assert family.rows["row"].difference == pytest.approx(2.0)
    assert family.rows["row"].p == pytest.approx(0.0705, abs=5e-5)
    assert family.std == pytest.approx(1.0) and family.degrees == 4
    # 2.776 is the 97.5 % quantile of t with 4 degrees.
    assert family.visible == pytest.approx(2.776 * np.sqrt(2 / 3), abs=1e-3)


@pytest.mark.parametrize("baseline, row", [((1, 4), (3, 9, 10)), ((1, 2, 9, 4, 2), (6, 8))])
def test_counts_may_differ(baseline, row):
    expected = scipy.stats.ttest_ind(baseline, row).pvalue
    assert dunnett(baseline, {"row": row}).rows["row"].p == pytest.approx(expected, abs=1e-6)


def test_the_critical_values_are_those_of_the_published_table():
    # Dunnett 1964, two-sided 5 %, equal counts: 3 rows and 16 degrees 2.59; 9 rows and 20, 2.95.
    for rows, count, critical in ((3, 5, 2.59), (9, 3, 2.95)):
        values = np.linspace(-1.0, 1.0, count)
        family = dunnett(values, {i: values + 10 * i for i in range(rows)})
        unit = family.std * np.sqrt(2 / count)
        assert family.degrees == (rows + 1) * (count - 1)
        assert family.visible / unit == pytest.approx(critical, abs=0.006)


def test_rows_of_different_counts_agree_with_the_sampled_test():
    rows = [[2.1, 3.0, 2.6, 2.2], [1.1, 2.5], [3.1, 2.0, 3.3]]
    baseline = [1.0, 2.0, 1.4, 1.7, 1.2]
    expected = scipy.stats.dunnett(*rows, control=baseline, random_state=np.random.default_rng(0))
    found = dunnett(baseline, dict(enumerate(rows)))
    assert [found.rows[i].p for i in range(3)] == pytest.approx(expected.pvalue, abs=1e-3)


def test_only_differences_beyond_the_visible_are_significant():
    baseline = [0.0, 1.0, -1.0]
    visible = dunnett(baseline, {"a": baseline, "b": baseline}).visible
    rows = {"a": np.add(baseline, 1.001 * visible), "b": np.subtract(baseline, 0.999 * visible)}
    found = dunnett(baseline, rows).rows
    assert found["a"].significant and not found["b"].significant
    assert found["b"].difference < 0


def test_the_more_rows_the_larger_the_p():
    baseline, row = [0.0, 1.0, 2.0], [2.0, 3.0, 4.0]
    alone = dunnett(baseline, {0: row}).rows[0].p
    assert dunnett(baseline, {i: row for i in range(45)}).rows[0].p > alone


@pytest.mark.parametrize("baseline, row", [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0]), ([], [])])
def test_a_single_run_is_not_tested(baseline, row):
    assert dunnett(baseline, {"row": row}) is None


def test_a_row_with_a_single_run_is_left_out_of_the_family():
    assert set(dunnett([1.0, 2.0], {"one": [9.0], "two": [1.0, 2.0]}).rows) == {"two"}


def test_without_any_variance_only_equal_means_are_the_same():
    found = dunnett([0.6128] * 3, {"same": [0.6128] * 3, "other": [0.6129] * 3}).rows
    assert found["same"].p == 1 and found["other"].p == 0


@pytest.mark.slow
def test_under_chance_alone_one_study_in_twenty_finds_something():
    generator = np.random.default_rng(0)

    def finds(values):
        found = dunnett(values[0], dict(enumerate(values[1:]))).rows
        return any(row.significant for row in found.values())

    # 100 studies of which 5 % find something: 5, with a deviation of 2.2.
    count = sum(finds(generator.normal(size=(7, 3))) for _ in range(100))
    assert 1 <= count <= 12


def test_a_paired_comparison_is_the_t_test_of_the_differences():
    baseline, values = [61.2, 61.5, 61.0, 60.7], [62.4, 62.2, 62.0, 61.9]
    found = paired(baseline, values)
    expected = scipy.stats.ttest_rel(values, baseline)
    assert found.difference == pytest.approx(1.025)
    assert found.p == pytest.approx(expected.pvalue)


def test_a_paired_comparison_needs_two_seeds_and_bears_equal_differences():
    assert paired([0.5], [0.6]) is None
    assert paired([0.5, 0.6], [0.5, 0.6]).p == pytest.approx(1.0)
