"""The figure of the study of losses: the gain of every row over the student alone."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tfdistill.reporting.svg import COLORS, INK, svg


def gains(
    rows: Mapping[str, Sequence[float]], published: Mapping[str, float], visible: float = 0.0
) -> str:
    """Return a line for each row: a point for each seed, a bar for their mean, a hollow diamond.

    Args:
        rows: Gains of a row's runs over the student alone, as shares of 1; the first row on top.
        published: Published gain by row, as a share of 1.
        visible: The smallest mean that can be told from luck, as a share of 1; 0 draws no band.

    Returns:
        SVG text, or "" where no row has a gain.

    Example:
        >>> gains({"soft targets": [0.012, 0.015]}, {"soft targets": 0.016}, visible=0.01)
        '<svg role="img" ...
    """
    rows = {row: [100 * gain for gain in gains] for row, gains in rows.items() if gains}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (row, gains) in enumerate(rows.items()):
            mean = statistics.fmean(gains)
            above = mean >= 0
            axes.barh(place, mean, height=0.55, color=COLORS[0 if above else 1], alpha=0.45, lw=0)
            axes.plot(gains, [place] * len(gains), "o", ms=4.5, color=COLORS[0 if above else 1])
            if row in published:
                look: dict[str, Any] = {"ms": 7, "mfc": "none", "mec": INK, "mew": 1.2}
                axes.plot(100 * published[row], place, "D", **look)
        if visible:
            axes.axvspan(-100 * visible, 100 * visible, color=COLORS[-1], alpha=0.15, lw=0)
        axes.axvline(0, color=INK, lw=1)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.grid(False, axis="y")
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="gain in points")

    return svg(draw, 0.9 + 0.3 * len(rows), "Gain over the student alone") if rows else ""
