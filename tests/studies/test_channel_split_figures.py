"""The picture of split channels: which lines it draws, and where it has none."""

import xml.etree.ElementTree as ElementTree

import pytest

from tfdistill.records import DIVERGED, Record, by_row
from tfdistill.reporting.svg import COLORS, is_wide
from tfdistill.studies.channel_split.figures import _cells, _lines, accuracy_by_share


def record(name, row, accuracy, network="wrn-10-1", split=None, members=()):
    config = {
        "model": None if members else {"name": network, "width": 1.0},
        "split": split,
        "members": list(members),
        "training": {"select": "last"},
    }
    return Record(name, row, 0, "", config, last={"test_accuracy": accuracy})


def cell(network, layer, parts, accuracies):
    split = {"base": network, "layer": layer, "parts": parts, "part": 0}
    row = f"{network} {layer} {parts}"
    singles = [
        record(f"{row} {i}", f"single {row}", accuracy, network, split)
        for i, accuracy in enumerate(accuracies)
    ]
    names = [single.name for single in singles]
    return [*singles, record(row, f"ensemble {row}", 0.9, members=names)]


def study(layers=("stage1", "stage2")):
    found = [record("whole", "trained wrn-10-1", 0.99)]
    for network in ("wrn-10-1", "wrn-10-2"):
        for layer in layers:
            for parts in (1, 4):
                found += cell(network, layer, parts, (0.7, 0.8))
    return found


def texts(svg):
    return [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]


def test_every_network_and_cut_has_a_line_of_networks_and_one_of_ensembles():
    lines = _lines(by_row(study()))
    assert len(lines) == 2 * 2 * 2
    assert lines["single", "wrn-10-2", "stage1"][4].mean == pytest.approx(0.75)
    assert lines["ensemble", "wrn-10-2", "stage2"][1].text() == "90.00"


def test_cuts_networks_and_shares_are_named():
    svg = accuracy_by_share(study())
    named = texts(svg)
    expected = {"cut after stage1", "cut after stage2", "wrn-10-1", "wrn-10-2", "all", "1/4"}
    assert expected | {"single", "ensemble"} <= set(named)
    assert "published" not in named and "1/2" not in named
    assert COLORS[0] in svg and COLORS[1] in svg and COLORS[2] not in svg
    assert is_wide(svg) and not is_wide(accuracy_by_share(study(layers=["stage1"])))


def test_published_values_of_rows_that_are_drawn_are_marked():
    assert "published" in texts(accuracy_by_share(study(), {"single wrn-10-1 stage1 4": 0.72}))
    assert "published" not in texts(accuracy_by_share(study(), {"single wrn-28-1 stage1 4": 0.72}))


def test_networks_of_two_widths_are_two_lines():
    half = record(
        "half", "half", 0.5, split={"base": "b", "layer": "stage1", "parts": 1, "part": 0}
    )
    half.config["model"]["width"] = 0.5
    assert list(_cells(by_row([half]))) == [("single", "wrn-10-1 x 0.5", "stage1", 1)]


def test_without_split_networks_there_is_no_picture():
    assert accuracy_by_share([]) == ""
    others = [record("whole", "whole", 0.7), record("all", "all", 0.8, members=["whole"])]
    assert accuracy_by_share(others) == ""
    lost = [
        Record("lost", "lost", 0, "", run.config, status=DIVERGED)
        for run in cell("a", "b", 2, [0.5])
    ]
    assert accuracy_by_share(lost) == ""


def test_an_ensemble_of_diverged_networks_is_left_out():
    only = [run for run in study() if "ensemble" in run.row]
    assert accuracy_by_share(only) == ""
