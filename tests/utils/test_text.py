"""Numbers as text: digits, units, and a dash for what there is not."""

import pytest

from tfdistill.records import Spread
from tfdistill.reporting.significance import Comparison
from tfdistill.utils import text


@pytest.mark.parametrize(
    "seconds, expected", [(41.6, "42 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds, expected):
    assert text.duration(seconds) == expected


@pytest.mark.parametrize(
    "seconds, expected",
    [(3.21, "3.2 s"), (59.97, "1 min 00 s"), (125, "2 min 05 s"), (3599, "1 h 00 min")],
)
def test_measured_times(seconds, expected):
    assert text.measured_time(seconds) == expected


@pytest.mark.parametrize(
    "count, expected",
    [(0, "–"), (812, "812"), (999_700, "1.00 M"), (61_300, "61.3 k"), (123_456_789, "123 M")],
)
def test_amounts_have_three_digits(count, expected):
    assert text.amount(count) == expected


@pytest.mark.parametrize(
    "size, expected",
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (24_612, "24.6 kB"), (999_499, "999 kB")]
    + [(999_500, "1.00 MB"), (45_000_000, "45.0 MB"), (1_250_000_000, "1.25 GB")],
)
def test_sizes_have_three_digits(size, expected):
    assert text.file_size(size) == expected


def test_what_there_is_not_is_a_dash():
    absent = (text.number(None, 2), text.percent(None), text.points(None), text.mean_std(None))
    one = Spread(0.5, 0.0, 1)
    assert {*absent, text.interval(None), text.gain(one, None), text.gain(None, one)} == {"–"}


def test_gains_have_a_sign_and_intervals_both_ends():
    assert text.gain(Spread(0.6128, 0.0, 1), Spread(0.6, 0.0, 1)) == "+1.28"
    found = Comparison(-0.005, -0.064, 0.053, 0.9, 3)
    assert text.interval(found) == "-0.50, -6.40 to +5.30"


def test_counts_and_parts_in_words():
    assert [text.counted(count, "seed") for count in (1, 5, 20)] == [
        "one seed",
        "five seeds",
        "20 seeds",
    ]
    assert [text.fraction(share) for share in (0.5, 0.21, 0.075)] == ["half", "a fifth", "1/13"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\uff1d"])
def test_no_text_in_a_cell_starts_a_formula(start):
    assert text.cell(f"{start}1") == f"'{start}1"
    assert text.cell(f"a{start}1") == f"a{start}1"


@pytest.mark.parametrize(
    "value, expected",
    [("\t=1", r"\t=1"), ("\r=1", r"\r=1"), ("a\x1b[0m", r"a\x1b[0m"), ("Käfer, 3", "Käfer, 3")]
    + [(-1.5, -1.5), (None, None), ("", "")],
)
def test_a_cell_has_no_control_characters_and_keeps_numbers(value, expected):
    assert text.cell(value) == expected
