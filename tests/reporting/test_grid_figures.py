"""Figures of a grid: every cell and only cells are drawn, with what was measured in them."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from tfdistill.records import DIVERGED, Record
from tfdistill.reporting import grid_figures, grids
from tfdistill.reporting.svg import INK

both_figures = pytest.mark.parametrize(
    "figure", [grid_figures.alpha_temperature, grid_figures.curves_per_cell]
)


def record(name, accuracy, taught=None, seed=0, **changes):
    config = {
        "name": name,
        "row": name.rpartition("-")[0],
        "seed": seed,
        "training": {"select": "best"},
        "model": {"name": "cnn2"},
        "teachers": ["teacher"] if taught else [],
        "distillation": taught,
    }
    values = {
        "best": {"test_accuracy": accuracy, "validation_accuracy": accuracy},
        "last": {"test_accuracy": 0.01},
        "history": {"val_accuracy": [0.1, accuracy - 0.02, accuracy - 0.01, accuracy]},
    }
    return Record(name, config["row"], seed, "", **({"config": config} | values | changes))


def cell(alpha, temperature, accuracy, scaled=False, seed=0, **more):
    taught = {"alpha": alpha, "temperature": temperature, "scale_by_t2": scaled, **more}
    name = f"alpha {alpha}, T {temperature}{', T2' if scaled else ''}-{seed}"
    return record(name, accuracy, taught, seed)


def study(kinds=(False,), seeds=(0, 1, 2)):
    records = [record(f"alone-{seed}", 0.61 + seed / 1000, seed=seed) for seed in seeds]
    for scaled in kinds:
        for seed in seeds:
            records += [
                cell(0.1, 1, 0.611 + (seed + 1) % 3 / 1000, False, seed),
                cell(0.1, 4, 0.612 + (seed + 2) % 3 / 1000, scaled, seed),
                cell(0.9, 1, 0.610 + (seed + 1) % 3 / 1000, False, seed),
                cell(0.9, 4, 0.652 + seed / 1000, scaled, seed),
            ]
    # A cell at T = 1 belongs to both grids, and is run once.
    return list({record.name: record for record in records}.values())


def texts(svg):
    return [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]


def bold(svg):
    return re.findall(r'<text style="font-weight: 700[^"]*"[^>]*>([^<]*)</text>', svg)


def test_every_cell_shows_its_mean_and_only_what_differs_is_bold():
    svg = grid_figures.alpha_temperature(study())
    assert {"61.20", "61.30", "61.10", "65.30"} <= set(texts(svg))
    assert "Without T²; student alone 61.10 ± 0.10" in texts(svg)
    assert bold(svg) == ["65.30"]


def test_nothing_is_bold_with_one_run_a_cell():
    assert bold(grid_figures.alpha_temperature(study(seeds=(0,)))) == []


def test_cells_at_temperature_1_are_in_both_grids():
    shown = texts(grid_figures.alpha_temperature(study(kinds=(False, True))))
    assert shown.count("61.20") == 2 and shown.count("65.30") == 2
    assert sum(text.startswith("With the factor T²") for text in shown) == 1


def test_colours_say_better_and_worse():
    records = [record("alone-0", 0.61), *(cell(a, t, 0.6) for a in (0.1, 0.9) for t in (1, 4))]
    svg = grid_figures.alpha_temperature(records)
    # Four cells below; in the scale, four strengths of each colour and nothing in the middle.
    assert svg.count(f"fill: {grid_figures.WORSE}") == 4 + 4
    assert svg.count(f"fill: {grid_figures.BETTER}") == 4


def test_the_published_grid_has_its_own_baseline():
    published = {"alone": 0.6128, "alpha 0.1, T 1": 0.6113, "alpha 0.9, T 4": 0.6257}
    shown = texts(grid_figures.alpha_temperature(study(), published))
    assert "Published, one run a cell; student alone 61.28" in shown
    assert "61.13" in shown and "62.57" in shown
    for known in ({"alone": 0.6128}, {"alpha 0.1, T 1": 0.6113}):
        assert "ublished" not in grid_figures.alpha_temperature(study(), known)


def test_curves_have_a_panel_for_each_cell_and_the_student_alone_for_reference():
    shown = texts(grid_figures.curves_per_cell(study(kinds=(False, True))))
    for text in ("alpha 0.1", "alpha 0.9", "T 1", "T 4", "student alone", "With the factor T²"):
        assert shown.count(text) == 1
    svg = grid_figures.curves_per_cell(study())
    # One line in each of the four panels, one in the legend.
    assert (
        svg.count(f"stroke: {grid_figures.ALONE}")
        == svg.count(f"stroke: {grid_figures.BETTER}")
        == 5
    )


@both_figures
def test_without_a_grid_there_is_no_figure(figure):
    line = [record for record in study() if "0.9" not in record.name]
    corner = [cell(0.1 * i, i, 0.6) for i in range(1, 5)]
    lost = [record("alone-0", 0.61), *(cell(a, t, 0.6) for a in (0.1, 0.9) for t in (1, 4))]
    lost = [Record(r.name, r.row, 0, "", r.config, status=DIVERGED) for r in lost]
    for records in ([], line, corner, lost):
        assert figure(records) == ""


@both_figures
def test_figures_take_the_colour_of_the_page(figure):
    svg = figure(study())
    assert "currentColor" in svg and INK not in svg and svg == figure(study())


def test_an_unfinished_grid_is_drawn_as_far_as_it_goes():
    shown = texts(grid_figures.alpha_temperature(study(seeds=(0,))[:-1]))
    assert "61.20" in shown and "65.20" not in shown


def test_students_that_learn_something_else_are_no_cells():
    others = [cell(0.0, 4, 0.5, features=[{"loss": "hints"}]), cell(0.5, 10, 0.9, standardize=True)]
    (grid,) = grids.find([*study(), *others])
    assert set(grid.cells) == {(0.1, 1), (0.1, 4), (0.9, 1), (0.9, 4)}


def test_two_grids_of_different_students_are_not_mixed():
    other = [cell(a, t, 0.7, standardize=True) for a in (0.1, 0.9) for t in (1, 4)]
    assert grids.find(study(seeds=(0,)) + other) == []


def test_the_teacher_is_no_student_alone():
    (grid,) = grids.find([record("teacher", 0.9), *study()])
    assert [run.name for run in grid.alone] == ["alone-0", "alone-1", "alone-2"]


def test_the_best_cell_is_chosen_on_validation_images():
    records = study(seeds=(0,))
    figures = {"test_accuracy": 0.5, "validation_accuracy": 0.9}
    records[1] = Record("a-0", "a", 0, "", records[1].config, best=figures)
    (grid,) = grids.find(records)
    assert grid.best() == (0.1, 1)
