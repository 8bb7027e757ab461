"""How much of a grid of alpha and temperature is the weight of the labels, and needs no teacher?

Where the teacher is sure, the gradient of the soft loss (without T^2) is that of the labels' loss
divided by T, so that a cell trains with the weight c = (1 - alpha) + alpha / T of the labels; with
SGD, and with momentum, that is the learning rate times c. Rows of labels alone with such weights,
and a soft loss of weight 0, say what a smaller learning rate does without any teacher.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from tfdistill.records import Record, Table, spread
from tfdistill.reporting.grids import Cell, Grid
from tfdistill.reporting.significance import Family, best_row, compare_runs
from tfdistill.reporting.svg import COLORS, FULL_WIDTH, INK, MARKERS, svg
from tfdistill.studies import common
from tfdistill.studies.common import ALONE, INTERVAL
from tfdistill.utils.text import MISSING, interval

Rows = Mapping[str, Sequence[Record]]
# Of the published grid, by alpha and T.
Published = Mapping[Cell, float]
_LINE = "labels alone"
_LABELS = f"{_LINE}, weight "
# A fit of fewer cells says nothing.
_FEWEST_CELLS = 6


def labels_row(weight: float) -> str:
    """Return the name of a row of labels alone, e.g. `labels alone, weight 0.25`."""
    return f"{_LABELS}{weight:g}"


def effective(alpha: float, temperature: float, scale_by_t2: bool = False) -> float:
    """Return c = (1 - alpha) + alpha / T; where the soft loss has the factor T^2, + alpha T."""
    return 1 - alpha + alpha * (temperature if scale_by_t2 else 1 / temperature)


def labels(rows: Rows) -> dict[float, Sequence[Record]]:
    """Return the rows of labels alone by their weight, the smallest first; {} without such rows."""
    found = {
        float(row.removeprefix(_LABELS)): members
        for row, members in rows.items()
        if row.startswith(_LABELS)
    }
    return dict(sorted((found | {1.0: rows.get(ALONE, [])}).items())) if found else {}


def compare(grid: Grid, rows: Rows, kind: str) -> Family | None:
    """Compare a grid's cells with labels alone at the weight that is best on validation images.

    Args:
        grid: The cells.
        rows: Records by row.
        kind: What tells the grid from the other, in words.
    """
    known = labels(rows)
    if (weight := best_row(known)) is None:
        return None
    family = compare_runs(known[weight], grid.cells, f"labels alone at weight {weight:g}", kind)
    return family and dataclasses.replace(family, best=grid.best())


def tables(
    grids: Sequence[Grid], rows: Rows, kind: Callable[[Grid], str], published: Published
) -> list[Table]:
    """Return labels alone by their weight, and how much of each grid the weight explains.

    Args:
        grids: The grids.
        rows: Records by row.
        kind: What tells a grid from the other, in words.
        published: The published grid, {} where it is of other images.
    """
    known = labels(rows)
    if not known:
        return []
    fits = [(f"ours {kind(grid)}", _means(grid), grid.scale_by_t2) for grid in grids]
    fits += [("published", dict(published), False)] if published else []
    lines = tuple(line for fit in fits if (line := fit_line(*fit)))
    return [_labels_table(known, grids), *([_fit_table(lines)] if lines else [])]


def _labels_table(known: Mapping[float, Sequence[Record]], grids: Sequence[Grid]) -> Table:
    alone = known[1.0]
    family = compare_runs(alone, {w: members for w, members in known.items() if w != 1})
    plain = next((grid for grid in grids if not grid.scale_by_t2), None)
    cells = {w: cell for w in known if plain and (cell := _hottest(plain, w))}
    taught_of = {weight: plain.cells[cell] for weight, cell in cells.items()} if plain else {}
    pairs = common.paired_together(
        (known[weight], weight, taught, "", "") for weight, taught in taught_of.items()
    )
    same = {weight: found for pair in pairs for weight, found in pair.rows.items()}
    lines = []
    for weight, members in known.items():
        cell, taught = cells.get(weight), taught_of.get(weight, [])
        lines.append(
            (
                f"{weight:g}",
                str(len(members)),
                common.figure_cell(members, "test_accuracy"),
                common.interval_cell(family, weight, members, alone if weight != 1 else []),
                f"alpha {cell[0]:g}, T {cell[1]:g}" if cell else MISSING,
                common.figure_cell(taught, "test_accuracy") if taught else MISSING,
                interval(same[weight]) if weight in same else MISSING,
            )
        )
    columns = (
        *("weight", "runs", "labels alone", INTERVAL),
        *("cell of that weight", "taught, without T²", "difference, 95 % interval"),
    )
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds; differences in points. "
        "Labels alone, the loss times the weight, no teacher; gain over weight 1. Beside it the "
        "cell without T² of the highest temperature whose labels have that weight, 1 - alpha; its "
        f"difference from labels alone by a paired t-test{common.at_once(len(same))}."
    )
    return Table("Labels alone with a smaller weight", columns, tuple(lines), note)


def _hottest(grid: Grid | None, weight: float) -> Cell | None:
    """Return the cell of the highest temperature with 1 - alpha = weight, None without one."""
    found = [cell for cell in grid.cells if math.isclose(1 - cell[0], weight)] if grid else []
    return max(found, key=lambda cell: cell[1]) if found else None


def _fit_table(lines: tuple[tuple[str, ...], ...]) -> Table:
    columns = ("grid", "cells", "weight alone, R²", "alpha and T, R²", "best weight")
    note = (
        "Share of the variance of the cells' mean test accuracy that is explained by a parabola in "
        "the logarithm of the effective weight c = (1 - alpha) + alpha / T (with the factor T²: + "
        "alpha T), two parameters beside the mean; and by an effect of each alpha and of each T, "
        "added, one parameter for each but the first. Best weight: where the parabola has its top, "
        "if that lies among the cells."
    )
    return Table("What the effective weight of the labels explains", columns, lines, note)


def fit_line(label: str, cells: Published, scaled: bool) -> tuple[str, ...] | None:
    """Return what is explained of a grid, as its line of a table; None where it is too small.

    Args:
        label: The grid in words.
        cells: Accuracy by (alpha, T).
        scaled: Whether the soft loss has the factor T^2.
    """
    if len(cells) < _FEWEST_CELLS:
        return None
    weights = np.log([effective(*cell, scaled) for cell in cells])
    accuracy = np.array(list(cells.values()))
    if np.ptp(weights) == 0 or np.ptp(accuracy) == 0:
        return None
    parabola = np.stack([np.ones_like(weights), weights, weights**2], axis=1)
    bend, explained = _fit(parabola, accuracy)
    top = -bend[1] / (2 * bend[2]) if bend[2] < 0 else math.nan
    inside = weights.min() <= top <= weights.max()
    alphas, temperatures = (sorted(set(values)) for values in zip(*cells, strict=True))
    added = [
        [1, *(alpha == a for a in alphas[1:]), *(temperature == t for t in temperatures[1:])]
        for alpha, temperature in cells
    ]
    _, both = _fit(np.array(added, float), accuracy)
    count = len(alphas) + len(temperatures) - 2
    return (
        label,
        str(len(cells)),
        f"{explained:.2f}",
        f"{both:.2f} ({count} parameters)",
        f"{math.exp(top):.2g}" if inside else MISSING,
    )


def _fit(terms: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return coefficients by least squares, and the share of the variance that they explain."""
    found = np.linalg.lstsq(terms, values, rcond=None)[0]
    rest = values - terms @ found
    return found, 1 - float(rest @ rest / np.sum((values - values.mean()) ** 2))


def _means(grid: Grid) -> dict[Cell, float]:
    means = {cell: spread(runs, "test_accuracy") for cell, runs in grid.cells.items()}
    return {cell: value.mean for cell, value in means.items() if value}


def figures(
    grids: Sequence[Grid],
    rows: Rows,
    kind: Callable[[Grid], str],
    published: Published,
    published_alone: float,
) -> list[tuple[str, str, str]]:
    """Return the gain of every cell over the student alone, by its effective label weight.

    Args:
        grids: The grids.
        rows: Records by row.
        kind: What tells a grid from the other, in words.
        published: The published grid, {} where it is of other images.
        published_alone: The published student alone.
    """
    known = {
        weight: found
        for weight, members in labels(rows).items()
        if (found := spread(members, "test_accuracy"))
    }
    if not grids or 1.0 not in known:
        return []
    alone = known[1.0].mean

    def panel(axes: Any, grid: Grid, place: int) -> None:
        cells = {cell: mean - alone for cell, mean in _means(grid).items()}
        marks(axes, cells, grid.scale_by_t2, MARKERS[place], COLORS[place], kind(grid))
        if not grid.scale_by_t2:
            theirs = {cell: mean - published_alone for cell, mean in published.items()}
            marks(axes, theirs, False, "D", COLORS[3], "published")
            gains = [100 * (value.mean - alone) for value in known.values()]
            stds = [100 * value.std for value in known.values()]
            axes.errorbar(list(known), gains, stds, color=INK, lw=1.6, capsize=3, label=_LINE)
        best = 100 * (max(value.mean for value in known.values()) - alone)
        axes.axhline(best, color=INK, lw=1, ls="--", label=f"{_LINE}, best weight")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="effective label weight c", title=kind(grid))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(grids), squeeze=False)[0]
        for place, (axes, grid) in enumerate(zip(panels, grids, strict=True)):
            panel(axes, grid, place)
        panels[0].set_ylabel("gain over the student alone, points")
        named: dict[str, Any] = {}
        for axes in panels:
            handles, names = axes.get_legend_handles_labels()
            named |= dict(zip(names, handles, strict=True))
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=3)

    def marks(axes: Any, gains: Published, scaled: bool, marker: str, color: str, label: str):
        if gains:
            weights = [effective(*cell, scaled) for cell in gains]
            look: dict[str, Any] = {"color": color, "ls": "", "ms": 5, "label": label}
            fill = {"mfc": "none"} if marker == "D" else {}
            axes.plot(weights, [100 * gain for gain in gains.values()], marker, **look | fill)

    caption = (
        "A mark for each cell: mean test accuracy above the student alone, by its effective weight "
        "c = (1 - alpha) + alpha / T (with the factor T²: + alpha T). Line: labels alone, their "
        "loss times c, ± standard deviation."
    )
    label = "Gain by effective label weight"
    return [(label, svg(draw, 4.2, label, FULL_WIDTH), caption)]
