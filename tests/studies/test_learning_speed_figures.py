"""Learning curves of the study of learning speed: what is drawn, and that it fits every page."""

import xml.etree.ElementTree as ElementTree

import pytest

from tfdistill.records import Record
from tfdistill.reporting.svg import COLORS, INK, is_wide
from tfdistill.studies.learning_speed.figures import curves, over_alpha_and_temperature


def records(*histories):
    return [
        Record(f"run-{i}", "row", i, "", {}, history={"val_accuracy": list(values)})
        for i, values in enumerate(histories)
    ]


PANELS = {
    "T = 20": {
        "alone": records([0.1, 0.2, 0.3], [0.2, 0.3, 0.4]),
        "alpha 0.9": records([0.3, 0.5]),
    },
    "alpha = 0.5": {"alone": records([0.1, 0.2, 0.3]), "T <1>": records([0.4]), "lost": []},
}


def texts(svg):
    return [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]


def test_every_line_with_records_is_named_in_its_panel():
    found = texts(curves(PANELS, "alone", "Curves"))
    assert found.count("alone") == 2
    assert {"T = 20", "alpha = 0.5", "alpha 0.9", "T <1>", "epoch"} <= set(found)
    assert "lost" not in found


@pytest.mark.parametrize("panels", [{}, {"T = 20": {}}, {"T = 20": {"alone": []}}])
def test_a_figure_without_data_is_empty(panels):
    assert curves(panels, "alone", "Curves") == ""


def test_the_baseline_takes_the_colour_of_the_page():
    svg = curves(PANELS, "alone", "Curves")
    assert "currentColor" in svg and INK not in svg and COLORS[0] in svg and COLORS[1] not in svg
    assert is_wide(svg) and 'aria-label="Curves"' in svg


def test_only_several_records_have_a_band():
    def bands(lines):
        return curves({"": lines}, "alone", "").count("fill-opacity: 0.13")

    assert bands({"alone": records([0.1, 0.2])}) == 0
    assert bands({"alone": records([0.1, 0.2], [0.2, 0.3])}) == 1


def test_the_most_frequent_temperature_and_alpha_have_a_panel_each():
    cells = {cell: records([0.1, 0.2]) for cell in [(0.1, 20), (0.5, 20), (0.5, 5), (0.9, 1)]}
    found = texts(over_alpha_and_temperature(cells, {"alone": records([0.1])}))
    assert {"T = 20", "alpha = 0.5", "alpha 0.1", "alpha 0.5", "T 5", "T 20"} <= set(found)
    assert "alpha 0.9" not in found and "T 1" not in found
    assert over_alpha_and_temperature({}, {"alone": records([0.1])}) == ""


def test_the_mean_ends_with_the_shortest_run():
    def drawn(*histories):
        return curves({"": {"alone": records(*histories)}}, "alone", "")

    assert drawn([0.1, 0.2, 0.9], [0.1, 0.3]) == drawn([0.1, 0.2], [0.1, 0.3])
