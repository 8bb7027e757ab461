"""Figures of records: every row with data is named, and the SVG may stand inside a page."""

import xml.etree.ElementTree as ElementTree

import pytest

from tfdistill.records import Record
from tfdistill.reporting import figures
from tfdistill.reporting.svg import INK


def record(name, row, accuracy=0.8, teachers=(), members=(), epochs=4, seed=0, **changes):
    config = {"training": {"select": "best"}, "teachers": teachers, "members": members}
    curve = [accuracy * epoch / epochs for epoch in range(1, epochs + 1)]
    values = {
        "best": {"test_accuracy": accuracy, "test_ece": 0.05},
        "last": {"test_accuracy": 0.01},
        "history": {} if members else {"val_accuracy": curve},
        "calibration": {"count": [0, 4, 6], "confidence": [0, 0.5, 0.9], "accuracy": [0, 0.5, 0.8]},
    }
    return Record(name, row, seed, "key", config, **(values | changes))


def study():
    singles = [record(f"single-{seed}", "single", 0.80 + seed / 100, seed=seed) for seed in (0, 1)]
    names = [run.name for run in singles]
    students = [record(f"student-{i}", "distilled", 0.85, teachers=names, seed=i) for i in (0, 1)]
    again = [record("again", "self-distilled", 0.83, teachers=names[:1])]
    return [*singles, record("both", "ensemble", 0.9, members=names), *students, *again]


ALL_ROWS = {"single", "ensemble", "distilled", "self-distilled"}
EXPECTED_ROWS = {
    figures.accuracy_by_epoch: ALL_ROWS - {"ensemble"},
    figures.student_against_teacher: {"distilled", "self-distilled"},
    figures.calibration: ALL_ROWS,
    figures.accuracy_by_row: ALL_ROWS,
}
all_figures = pytest.mark.parametrize("figure", EXPECTED_ROWS, ids=lambda figure: figure.__name__)


def texts(svg):
    return [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]


@all_figures
def test_exactly_the_rows_with_data_are_named(figure):
    assert set(texts(figure(study()))) & ALL_ROWS == EXPECTED_ROWS[figure]


@all_figures
def test_the_same_records_give_the_same_text(figure):
    assert figure(study()) == figure(study())


@all_figures
def test_a_figure_without_data_is_empty(figure):
    empty = record("lost", "single", history={}, calibration={}, best={}, status="diverged")
    assert figure([]) == "" and figure([empty]) == ""


@all_figures
def test_figures_take_the_colour_of_the_page_and_load_nothing(figure):
    svg = figure(study())
    assert "currentColor" in svg and INK not in svg
    assert svg.startswith("<svg role=") and "<!DOCTYPE" not in svg
    assert "href" not in svg.replace('xlink:href="#', "").replace("xmlns:xlink", "")
    assert '<g id="' not in svg


@all_figures
def test_names_are_text_not_markup_or_formulae(figure):
    name = "<b>$x_1$ & co"
    teacher = record("teacher", name)
    assert name in texts(figure([teacher, record("student", name, teachers=["teacher"])]))


@all_figures
def test_a_diverged_run_is_left_out(figure):
    lost = [record(f"lost-{i}", "lost", teachers=["single-0"], status="diverged") for i in (0, 1)]
    assert "lost" not in texts(figure(study() + lost))


@all_figures
def test_more_rows_than_colours_are_all_named(figure):
    rows = [f"alpha 0.5, T {i}" for i in range(figures.FEW_ROWS + 5)]
    runs = [record("teacher", rows[0])] + [record(row, row, teachers=["teacher"]) for row in rows]
    assert set(rows) <= set(texts(figure(runs)))


def test_a_row_has_the_same_colour_in_every_figure():
    looks = figures._looks(study())
    for figure, rows in EXPECTED_ROWS.items():
        svg = figure(study())
        assert all(looks[row]["color"] in svg for row in rows)
        assert not any(looks[row]["color"] in svg for row in ALL_ROWS - rows)


def test_a_student_of_several_teachers_needs_the_ensemble_of_exactly_these():
    runs = [run for run in study() if run.name != "both"]
    other = record("three", "ensemble", 0.9, members=["single-0", "single-1", "single-2"])
    named = texts(figures.student_against_teacher([*runs, other]))
    assert "self-distilled" in named and "distilled" not in named


def test_the_strip_shows_mean_and_deviation_of_the_selected_epoch():
    # 80 and 81: mean 80.5, deviation sqrt(0.5) = 0.71; the last epochs are at 1 %.
    assert "80.50 ± 0.71" in texts(figures.accuracy_by_row(study()))


def test_published_values_are_marked_once_in_the_legend():
    published = {"single": 0.86, "ensemble": 0.89, "unknown": 0.5}
    assert texts(figures.accuracy_by_row(study(), published)).count("published") == 1
    assert "published" not in texts(figures.accuracy_by_row(study(), {"unknown": 0.5}))


def test_calibration_panels_show_the_mean_error_of_the_runs():
    ece = [text for text in texts(figures.calibration(study())) if text.startswith("ECE")]
    assert sorted(ece) == ["ECE 0.0500"] * 2 + ["ECE 0.0500 ± 0.0000"] * 2
