"""Learning curves side by side: the figures of the study `learning_speed`."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from tfdistill.records import Record
from tfdistill.reporting.svg import COLORS, FULL_WIDTH, INK, svg


def over_alpha_and_temperature(
    cells: Mapping[tuple[float, float], Sequence[Record]], baseline: Mapping[str, Sequence[Record]]
) -> str:
    """Return a panel of the cells of one T over alpha, and one of those of one alpha over T.

    Args:
        cells: Records by (alpha, T); the most frequent T and alpha have the panels.
        baseline: Name and records of the line that stands in both.

    Returns:
        SVG text, or "" without cells.
    """
    if not cells:
        return ""
    alpha, temperature = (statistics.mode(values) for values in zip(*cells, strict=True))
    over_alpha = {f"alpha {a:g}": cells[a, t] for a, t in sorted(cells) if t == temperature}
    over_t = {f"T {t:g}": cells[a, t] for a, t in sorted(cells) if a == alpha}
    panels = {f"T = {temperature:g}": over_alpha, f"alpha = {alpha:g}": over_t}
    return curves(
        {title: {**baseline, **lines} for title, lines in panels.items()},
        next(iter(baseline)),
        "Validation accuracy by alpha and by temperature",
    )


def curves(panels: Mapping[str, Mapping[str, Sequence[Record]]], baseline: str, label: str) -> str:
    """Return panels of validation accuracy over epochs, with one scale.

    Args:
        panels: Title of each panel, and in it the records by the name of their line.
        baseline: Name of the line with which the others are compared; drawn dashed.
        label: What readers who see no figures are told.

    Returns:
        SVG text: the mean over each line's records as far as all of them go, with a band of the
        standard deviation (n - 1); "" where there is nothing to draw. A line without records is
        left out.

    Example:
        >>> curves({"T = 20": {"hard labels": alone, "alpha 0.9": taught}}, "hard labels", "Curves")
    """
    panels = {title: {k: v for k, v in lines.items() if v} for title, lines in panels.items()}
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        return ""

    def draw(figure) -> None:
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, lines) in zip(grid, panels.items(), strict=True):
            colors = iter(COLORS * len(lines))
            for name, records in lines.items():
                color = INK if name == baseline else next(colors)
                _line(axes, records, name, color, "--" if name == baseline else "-")
            axes.set(title=title, xlabel="epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend(loc="lower right")
        grid[0].set_ylabel("validation accuracy in %")

    return svg(draw, 4.6, label, FULL_WIDTH)


def _line(axes, records: Sequence[Record], name: str, color: str, style: str) -> None:
    curves = [record.history["val_accuracy"] for record in records]
    shortest = min(map(len, curves))
    values = 100 * np.array([curve[:shortest] for curve in curves])  # [records, epochs]
    epochs, mean = np.arange(1, shortest + 1), values.mean(axis=0)
    axes.plot(epochs, mean, style, color=color, lw=1.8, label=name)
    if len(records) > 1:
        std = values.std(axis=0, ddof=1)
        axes.fill_between(epochs, mean - std, mean + std, color=color, alpha=0.13, lw=0)
