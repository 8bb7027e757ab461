"""Figures of a grid of alpha and temperature: accuracy as a heat map, and curves of every cell.

A cell is blue where it is better than the student alone and orange where it is worse, the fainter
the smaller the difference, so that a cell that differs by nothing has the colour of the page. The
published grid stands beside ours in the same colours. Records without a grid give "".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from tfdistill.records import Record, spread
from tfdistill.reporting import grids
from tfdistill.reporting.grids import Cell, Grid
from tfdistill.reporting.svg import COLORS, FULL_WIDTH, INK, WIDTH, svg

BETTER, WORSE, ALONE = COLORS[0], COLORS[1], "#7f7f7f"
# Stronger colours would hide the numbers on them, dark on a light page or light on a dark one.
STRONGEST = 0.7


@dataclass(frozen=True)
class _Panel:
    """One heat map; accuracies in percent."""

    title: str
    cells: dict[Cell, float]
    baseline: float
    differing: set[Cell] = field(default_factory=set)

    @property
    def gains(self) -> dict[Cell, float]:
        return {cell: value - self.baseline for cell, value in self.cells.items()}


def alpha_temperature(
    records: Iterable[Record], published: Mapping[str, float] | None = None
) -> str:
    """Return the mean test accuracy of every cell, coloured by its gain over the student alone.

    Args:
        records: Records of one study; diverged ones are left out.
        published: Published test accuracy by row, in 0..1; a panel where it has the rows of cells
            and of the student alone.

    Returns:
        SVG text with a panel for each kind of grid (without and with the factor T^2), or "" where
        there is no grid, no student alone, or no test accuracy. Framed and bold: the simultaneous
        95 % interval of the difference excludes 0.
    """
    panels = list(_panels(grids.find(records), published or {}))
    if not panels:
        return ""
    strongest = max(abs(gain) for panel in panels for gain in panel.gains.values()) or 1.0
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    alphas = max(len({alpha for alpha, _ in panel.cells}) for panel in panels)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(lines, columns, squeeze=False)
        for panel, place in zip(panels, axes.flat, strict=False):
            _heat_map(place, panel, strongest)
        for place in axes.flat[len(panels) :]:
            place.set_axis_off()
        figure.set_layout_engine("constrained", hspace=0.06, wspace=0.04)
        _color_scale(figure, strongest)

    width = FULL_WIDTH if columns > 1 else WIDTH
    height = 0.7 + lines * (0.95 + 0.33 * alphas)
    return svg(draw, height, "Test accuracy by alpha and temperature", width)


def curves_per_cell(records: Iterable[Record]) -> str:
    """Return small panels in the layout of the grid: validation accuracy over epochs of each cell.

    Args:
        records: Records of one study; diverged ones are left out.

    Returns:
        SVG text, or "" where there is no grid or no cell has a history. Lines are means over seeds;
        grey: the student alone. The panels begin where most of the rise is over.
    """
    found = grids.find(records)
    curves = [{cell: _mean_curve(runs) for cell, runs in grid.cells.items()} for grid in found]
    drawn = [curve for cells in curves for curve in cells.values() if len(curve)]
    if not drawn:
        return ""
    alone = _mean_curve(found[0].alone)
    alphas, temperatures = _sides(cell for grid in found for cell in grid.cells)
    looks = [
        {"color": WORSE if grid.scale_by_t2 else BETTER, "ls": "-", "lw": 1.3} for grid in found
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(
            len(alphas), len(temperatures), sharex=True, sharey=True, squeeze=False
        )
        for (line, column), panel in np.ndenumerate(axes):
            panel.plot(*_points(alone), color=ALONE, lw=1.1)
            for cells, look in zip(curves, looks, strict=True):
                curve = cells.get((alphas[line], temperatures[column]), ())
                panel.plot(*_points(curve), **look)
        axes[0, 0].set_ylim(*_ends([*drawn, alone]))
        _label_sides(axes, alphas, temperatures)
        figure.supxlabel("epoch", fontsize=9.5)
        figure.supylabel("validation accuracy in %", fontsize=9.5)
        _legend(figure, found, looks)

    height = 0.9 + 1.05 * len(alphas)
    return svg(draw, height, "Validation accuracy by epoch, for each cell", FULL_WIDTH)


def _panels(found: Sequence[Grid], published: Mapping[str, float]) -> Iterator[_Panel]:
    """Yield the published grid, where it has one with our cells, and ours."""
    for grid in found:
        alone = spread(grid.alone, "test_accuracy")
        spreads = {cell: spread(runs, "test_accuracy") for cell, runs in grid.cells.items()}
        cells = {cell: 100 * value.mean for cell, value in spreads.items() if value}
        if not alone or not cells:
            continue
        theirs = {
            cell: 100 * published[runs[0].row]
            for cell, runs in grid.cells.items()
            if runs[0].row in published
        }
        baseline = published.get(grid.alone[0].row)
        if theirs and baseline and not grid.scale_by_t2:
            title = f"Published, one run a cell; student alone {100 * baseline:.2f}"
            yield _Panel(title, theirs, 100 * baseline)
        family = grid.compare()
        tested = family.rows if family else {}
        differing = {cell for cell, compared in tested.items() if compared.differs}
        title = f"{_kind(grid)}; student alone {alone.text()}"
        yield _Panel(title, cells, 100 * alone.mean, differing)


def _heat_map(axes, panel: _Panel, strongest: float) -> None:
    alphas, temperatures = _sides(panel.cells)
    size = min(8.5, 66 / len(temperatures))
    for (alpha, temperature), gain in panel.gains.items():
        x, y = temperatures.index(temperature), alphas.index(alpha)
        bold = (alpha, temperature) in panel.differing
        axes.add_patch(_tile(x, y, gain / strongest))
        if bold:
            frame: dict[str, Any] = {"facecolor": "none", "edgecolor": INK, "lw": 1.4, "zorder": 3}
            axes.add_patch(Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, **frame))
        text = f"{panel.cells[alpha, temperature]:.2f}"
        weight = "bold" if bold else "normal"
        axes.text(x, y, text, ha="center", va="center", fontsize=size, fontweight=weight)
    axes.set(xlim=(-0.5, len(temperatures) - 0.5), ylim=(len(alphas) - 0.5, -0.5))
    axes.set_xticks(range(len(temperatures)), [f"{value:g}" for value in temperatures])
    axes.set_yticks(range(len(alphas)), [f"{value:g}" for value in alphas])
    axes.set(xlabel="temperature", ylabel="alpha")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title(panel.title, loc="left")


def _tile(x: float, y: float, share: float, width: float = 1.0) -> Rectangle:
    """Return a coloured rectangle around (x, y); `share` in -1..1 is that of the largest gain."""
    color = BETTER if share > 0 else WORSE
    look: dict[str, Any] = {"facecolor": color, "alpha": STRONGEST * abs(share), "lw": 0}
    return Rectangle((x - width / 2 + 0.02, y - 0.48), width - 0.04, 0.96, **look)


def _color_scale(figure: Figure, strongest: float) -> None:
    shares = np.linspace(-1, 1, 9)
    handles = [_tile(0, 0, share) for share in shares]
    labels = [f"{share * strongest:+.1f}" if share else "0" for share in shares]
    figure.legend(
        handles,
        labels,
        title="points over the student alone",
        title_fontsize=9,
        loc="outside lower center",
        ncols=len(shares),
        columnspacing=0.6,
        handletextpad=0.3,
        handlelength=1.2,
        fontsize=8.5,
    )


def _label_sides(axes, alphas: Sequence[float], temperatures: Sequence[float]) -> None:
    for panel, temperature in zip(axes[0], temperatures, strict=True):
        panel.set_title(f"T {temperature:g}", fontsize=9)
    for panel, alpha in zip(axes[:, -1], alphas, strict=True):
        panel.annotate(
            f"alpha {alpha:g}",
            (1.04, 0.5),
            xycoords="axes fraction",
            rotation=-90,
            va="center",
            fontsize=9,
        )
    for panel in axes.flat:
        panel.tick_params(labelsize=8, length=2)
        panel.locator_params(nbins=3)


def _legend(figure: Figure, found: Sequence[Grid], looks: Sequence[dict]) -> None:
    lines = [(_kind(grid), Line2D([], [], **look)) for grid, look in zip(found, looks, strict=True)]
    if found[0].alone:
        lines.append(("student alone", Line2D([], [], color=ALONE, lw=1.1)))
    names, handles = zip(*lines, strict=True)
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))


def _mean_curve(runs: Sequence[Record]) -> np.ndarray:
    """Return the mean validation accuracy in percent by epoch, as far as the shortest run goes."""
    curves = [run.history["val_accuracy"] for run in runs if run.history.get("val_accuracy")]
    shortest = min(map(len, curves), default=0)
    return 100 * np.mean([curve[:shortest] for curve in curves], axis=0) if curves else np.zeros(0)


def _points(curve: Sequence[float] | np.ndarray) -> tuple[range, Sequence[float] | np.ndarray]:
    return range(1, len(curve) + 1), curve


def _ends(curves: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return limits that leave out the rise of the first epochs, beside which all lines are one."""
    values = np.concatenate(curves)
    top, bottom = values.max(), np.percentile(values, 25)
    margin = max(0.06 * (top - bottom), 0.1)
    return bottom - margin, top + margin


def _sides(cells: Iterable[Cell]) -> tuple[list[float], list[float]]:
    alphas, temperatures = zip(*cells, strict=True)
    return sorted(set(alphas)), sorted(set(temperatures))


def _kind(grid: Grid) -> str:
    return "With the factor T²" if grid.scale_by_t2 else "Without T²"
