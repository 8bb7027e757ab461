"""The pictures of the multi-view theory: what they show of the figures that they are given."""

import xml.etree.ElementTree as ElementTree

import pytest

from tfdistill.records import Spread
from tfdistill.reporting.svg import COLORS, INK, is_wide
from tfdistill.studies.multi_view.figures import error_by_mu, learned_views, pairs

LEARNED = {"single": [[[True, False], [True, True]], [[False, False], [True, True]]], "none": []}
ERRORS = {
    "single": {0.1: Spread(0.05, 0.01, 5), 0.02: Spread(0.01, 0.02, 5)},
    "ensemble": {0.1: Spread(0.0, 0.0, 1), 0.02: Spread(0.0, 0.0, 1)},
}
PAIRS = {"self-distilled": [(0.3, 0.1), (0.2, 0.25)], "distilled": [(0.3, 0.0)], "none": []}


def texts(svg):
    return [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]


def painted(svg, color):
    """Return how many shapes are filled with a colour."""
    return svg.count(f"fill: {color};")


def test_every_learned_view_is_filled_and_no_other():
    assert painted(learned_views(LEARNED), COLORS[0]) == 5
    nothing = {"single": [[[False, False], [False, False]]]}
    assert painted(learned_views(nothing), COLORS[0]) == 0


def test_of_how_many_classes_a_network_has_both_views():
    shown = texts(learned_views(LEARNED))
    assert shown.count("1 of 2") == 2
    assert "single" in shown and "none" not in shown
    assert is_wide(learned_views(LEARNED))


def test_error_by_mu_names_rows_and_the_theory():
    shown = texts(error_by_mu(ERRORS, {"single": 0.5}))
    assert {"single", "ensemble", "theory"} <= set(shown)


def test_the_theory_is_a_line_for_each_row_that_it_is_about():
    without, one, both = (
        error_by_mu(ERRORS, theory).count("stroke-dasharray")
        for theory in ({}, {"single": 0.5}, {"single": 0.5, "ensemble": 0.01})
    )
    assert (one - without, both - without) == (1, 2)


def test_pairs_say_how_many_students_are_better():
    shown = texts(pairs(PAIRS))
    assert "1 of 2 better" in shown and "1 of 1 better" in shown
    assert "none" not in shown


def test_students_that_are_worse_have_another_colour():
    assert COLORS[1] not in pairs({"distilled": PAIRS["distilled"]})
    assert COLORS[1] in pairs(PAIRS)


@pytest.mark.parametrize(
    "svg",
    [learned_views(LEARNED), error_by_mu(ERRORS, {}), pairs(PAIRS)],
    ids=["views", "mu", "pairs"],
)
def test_pictures_take_the_colour_of_the_page(svg):
    assert svg.startswith("<svg role=") and "currentColor" in svg and INK not in svg


def test_nothing_to_draw_is_no_picture():
    assert learned_views({"single": []}) == ""
    assert pairs({"distilled": []}) == ""
    assert error_by_mu({"single": {0.1: Spread(0.05, 0.01, 5)}}, {}) == ""
