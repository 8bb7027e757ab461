"""Figures of the study `multi_view`: what networks have learned, and how wrong they are."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle

from tfdistill.records import Spread
from tfdistill.reporting.svg import COLORS, FULL_WIDTH, INK, svg

_GAP = 0.9  # between groups of networks, in heights of a row


def learned_views(groups: Mapping[str, Sequence[Sequence[Sequence[bool]]]]) -> str:
    """Return a grid with a row for each network and, in a column for each class, its two views.

    Args:
        groups: Networks by name of their group; of each network `[classes][2]`, whether it has
            learned the view.

    Returns:
        SVG text: learned views are filled; at the right stands of how many classes a network has
        learned both. "" where there is nothing to draw.

    Example:
        >>> learned_views({"single": [[[True, False], [True, True]]]})
    """
    drawn = {name: np.array(networks) for name, networks in groups.items() if len(networks)}
    if not drawn:
        return ""
    classes = next(iter(drawn.values())).shape[1]
    height = sum(len(networks) + _GAP for networks in drawn.values())

    def draw(figure) -> None:
        axes = figure.add_subplot()
        top = 0.0
        for (name, networks), color in zip(drawn.items(), COLORS * len(drawn), strict=False):
            middle = top + len(networks) / 2
            axes.text(-0.4, middle, name, ha="right", va="center", color=color, weight="bold")
            for network in networks:
                for place in np.ndindex(classes, 2):
                    _cell(axes, place, top, color if network[place] else None)
                both = int(network.all(axis=1).sum())
                axes.text(classes * 1.2 + 0.1, top + 0.5, f"{both} of {classes}", va="center")
                top += 1
            top += _GAP
        axes.set(xlim=(-0.3, classes * 1.2 + 1.2), ylim=(top - _GAP, -0.1))
        axes.set_xticks([1.2 * i + 0.5 for i in range(classes)], range(1, classes + 1))
        axes.set(yticks=[], xlabel="class")
        axes.tick_params(length=0)
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title("both views of", loc="right")

    label = "Views that each network has learned, by class"
    return svg(draw, 0.9 + 0.25 * height, label, FULL_WIDTH)


def _cell(axes, place: tuple[int, int], top: float, color: str | None) -> None:
    class_index, view = place
    corner = 1.2 * class_index + 0.5 * view, top + 0.08
    style = {"facecolor": color} if color else {"facecolor": "none", "alpha": 0.35}
    axes.add_patch(Rectangle(corner, 0.46, 0.84, edgecolor=color or INK, lw=0.7, **style))


def error_by_mu(rows: Mapping[str, Mapping[float, Spread]], theory: Mapping[str, float]) -> str:
    """Return test error over mu, with the theory's lines.

    Args:
        rows: For each name the error in 0..1 by mu, mean and deviation over networks.
        theory: Error in units of mu by name; drawn as a dashed line of the name's colour.

    Returns:
        SVG text; "" where there are fewer than two values of mu.
    """
    rows = {name: dict(sorted(errors.items())) for name, errors in rows.items() if errors}
    mus = sorted({mu for errors in rows.values() for mu in errors})
    if len(mus) < 2:
        return ""

    def draw(figure) -> None:
        axes = figure.add_subplot()
        ends = np.array([0, 1.08 * mus[-1]])
        for place, (name, errors) in enumerate(rows.items()):
            color = COLORS[place]
            mean, std = (
                np.array([100 * getattr(error, part) for error in errors.values()])
                for part in ("mean", "std")
            )
            # Side by side, or the bars of rows with the same error would hide each other.
            x = np.array(list(errors)) * (1 + 0.012 * (place - (len(rows) - 1) / 2))
            low = np.minimum(std, mean)
            style = {"color": color, "marker": "o", "ms": 5, "lw": 1.8, "capsize": 3}
            axes.errorbar(x, mean, [low, std], label=name, **style)
            if name in theory:
                axes.plot(ends, 100 * theory[name] * ends, "--", color=color, lw=1.2)
        axes.plot([], [], "--", color=INK, lw=1.2, label="theory")
        axes.set(xlabel="mu, share of single-view examples", ylabel="test error in %")
        axes.set(xlim=(0, ends[1]), ylim=(0, None))
        figure.legend(loc="outside lower center", ncols=2)

    return svg(draw, 4.4, "Test error by mu, beside the theory")


def pairs(panels: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return slopes from the error of networks trained on labels alone to that of students.

    Args:
        panels: By name of the students, the errors of each pair in 0..1, the student's second.

    Returns:
        SVG text: a line for each pair, a bold one for the mean; students that are worse in another
        colour. "" where there are no pairs.

    Example:
        >>> pairs({"self-distilled": [(0.3, 0.1), (0.2, 0.25)]})
    """
    percent = {name: 100 * np.array(values) for name, values in panels.items() if len(values)}
    if not percent:
        return ""

    def draw(figure) -> None:
        grid = figure.subplots(1, len(percent), sharey=True, squeeze=False)[0]
        for axes, (name, values) in zip(grid, percent.items(), strict=True):
            better = values[:, 1] < values[:, 0]
            for pair, won in zip(values, better, strict=True):
                axes.plot([0, 1], pair, "o-", color=COLORS[0 if won else 1], lw=1, ms=4, alpha=0.6)
            axes.plot([0, 1], values.mean(axis=0), "s-", color=INK, lw=2.6, ms=7)
            axes.set_xticks([0, 1], ["labels\nalone", "student"])
            title = name.replace(", ", ",\n") + f"\n{better.sum()} of {len(values)} better"
            axes.set(xlim=(-0.3, 1.3), title=title)
        grid[0].set(ylabel="error on single-view examples in %", ylim=(0, None))

    return svg(draw, 4.6, "Every student and its control", FULL_WIDTH)
