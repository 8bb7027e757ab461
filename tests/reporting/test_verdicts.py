"""The words that open a report follow from its numbers, and contradict nobody without cause."""

import dataclasses

import pytest

from tfdistill.records import Record
from tfdistill.reporting.significance import Comparison, Family
from tfdistill.reporting.verdicts import power, published_verdict, same_size, verdict

NONE = Comparison(-0.004, -0.009, 0.002, 0.17, 5)
UP = Comparison(0.037, 0.029, 0.046, 0.0002, 5)
ALONE = "the same network alone"


def family(baseline=ALONE, best=None, title="", **rows):
    return Family(rows, 0.008, 4 * len(rows), 0.015, baseline, title, best)


def record(name, parameters, teachers=()):
    config = {"teachers": list(teachers)}
    return Record(name, name, 0, "", config, parameters=parameters)


def test_one_row_that_differs_has_its_interval_and_its_size():
    records = [record("teacher", 50_000), record("taught", 10_200, ["teacher"])]
    assert verdict([family(taught=UP)], records, {"taught": "the student"}) == (
        "The student is 3.7 points above the same network alone (95 % interval 2.9 to 4.6, five "
        "seeds), at about a fifth of the teacher's size."
    )


def test_an_interval_that_holds_with_others_is_told_to_be_simultaneous():
    one_of_three = dataclasses.replace(family(taught=UP), together=3)
    said = verdict([one_of_three])
    assert "the same network alone (simultaneous 95 % interval 2.9 to 4.6, five seeds)" in said


def test_the_power_is_that_of_the_families_that_the_verdict_tells():
    def of(std):
        return Family({"taught": UP}, std, 4, 0.015)

    # Student's t of four degrees, shifted by delta, passes 2.776 in 80 % at delta = 3.76: so
    # delta x 0.008 x sqrt(2 / 5) = 1.9 points.
    assert power([of(0.008)]) == "differences of 1.9 points are seen four times in five"
    assert power([of(0.008), of(0.004), of(0.05)]).startswith("differences of 1.9 or 1.0 points")
    assert power([Family({"other network": dataclasses.replace(UP, seeds=1)}, 0, 1, 0)]) == ""
    assert power([]) == ""


def test_a_row_alone_is_its_accuracy():
    def one(seed, accuracy):
        config = {"teachers": [], "training": {"select": "last"}}
        return Record(f"a-{seed}", "a", seed, "", config, last={"test_accuracy": accuracy})

    assert verdict([], [one(0, 0.9141)]) == "Test accuracy 91.41 %."
    assert verdict([], [one(0, 0.5), one(1, 0.6)]) == "Test accuracy 55.00 ± 7.07 %, two seeds."


def test_a_row_below_has_its_interval_turned():
    down = Comparison(-0.0098, -0.0192, -0.0004, 0.044, 5)
    said = verdict([family(assisted=down)])
    # An end that one decimal would show as 0 has two.
    assert "is 1.0 points below the same network alone (95 % interval 0.04 to 1.9, five" in said


def test_where_nothing_differs_stands_what_would_have_been_seen():
    found = family(taught=NONE)
    said = verdict([found], names={"taught": "the student"})
    assert said.startswith(
        "No difference between the student and the same network alone can be told from luck "
        "(-0.4, -0.9 to +0.2 points, five seeds); one of "
    )
    # One row of five seeds: 1.9 standard deviations are seen four times in five.
    assert f"one of {100 * found.detectable:.1f} points would have been seen four times" in said
    assert found.detectable == pytest.approx(0.008 * 2.379, rel=1e-3)


def test_of_many_rows_stand_the_counts_and_the_best_on_validation_images():
    down = Comparison(-0.03, -0.04, -0.02, 0.001, 5)
    found = family("hard labels", "soft", soft=UP, hints=UP, other=NONE, lost=down)
    assert verdict([found]) == (
        "2 of 4 rows are above hard labels and 1 below by more than luck (five seeds, simultaneous "
        "95 % intervals); the best on validation images, “soft”, has +3.7, +2.9 to +4.6 points."
    )


def test_few_seeds_claim_nothing():
    few = Comparison(0.037, 0.029, 0.046, 0.0002, 3)
    assert verdict([family(taught=few)]).endswith("Three seeds are too few for a claim.")
    assert "too few" not in verdict([family(taught=UP)])


def test_two_networks_on_the_same_images_are_not_two_ways_of_training():
    one = Comparison(0.0088, -0.0042, 0.0194, 0.2, 1)
    said = verdict([family("the best single network", ensemble=one)])
    assert "cannot be told apart (+0.9, -0.4 to +1.9 points, of these two networks" in said
    assert "seed" not in said


def test_without_a_comparison_nothing_is_said_to_differ():
    assert "nothing here can be told from luck" in verdict([])


@pytest.mark.parametrize(
    "interval, published, at_size, runs, expected",
    [
        (NONE, 0.02, True, 5, "contradicts"),
        (NONE, 0.02, False, 5, "not seen at this size"),
        (NONE, 0.02, True, 1, "published once"),
        (NONE, -0.001, True, 5, "compatible, not shown"),
        (NONE, 0.002, False, 1, "compatible, not shown"),
        (UP, 0.03, True, 5, "compatible, an effect is shown"),
        (UP, 0.0015, False, 5, "not seen at this size"),
        (None, 0.02, True, 5, "not comparable"),
        (UP, None, True, 5, "not comparable"),
    ],
)
def test_how_an_interval_stands_to_a_published_value(interval, published, at_size, runs, expected):
    assert published_verdict(interval, published, at_size, runs) == expected


def test_the_same_size_is_within_a_factor_of_two_in_everything():
    published = {"parameters": 11.2e6, "images": 45_000, "epochs": 100}
    assert same_size({"parameters": 11e6, "images": 22_500, "epochs": 200}, published)
    assert not same_size({"parameters": 11e6, "images": 45_000, "epochs": 12}, published)
    assert not same_size({"parameters": 78_714, "images": 45_000, "epochs": 100}, published)
    assert not same_size({"parameters": 11e6, "images": 45_000}, published)
