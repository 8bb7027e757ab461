"""Test accuracy against the share of a layer's channels: one network, and an ensemble of them.

The picture of the study `channel_split` (arXiv 2012.09816): a panel for each cut, a colour for each
network, a full line for single networks and a dashed one for their ensembles.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tfdistill.records import Record, Spread, by_row, spread
from tfdistill.reporting.svg import COLORS, FULL_WIDTH, INK, WIDTH, svg
from tfdistill.studies.channel_split.study import label, network_of

SINGLE, ENSEMBLE = "single", "ensemble"
STYLES: dict[str, dict[str, Any]] = {
    SINGLE: {"ls": "-", "marker": "o"},
    ENSEMBLE: {"ls": "--", "marker": "s"},
}
# kind, network, layer: the points of a line, number of parts: test accuracy
Lines = dict[tuple[str, str, str], dict[int, Spread]]


def accuracy_by_share(
    records: Iterable[Record], published: Mapping[str, float] | None = None
) -> str:
    """Return test accuracy in percent over 1/n, where each network has one n-th of the channels.

    Args:
        records: Records of one study; diverged ones and those of whole networks are left out.
        published: Published test accuracy by row, in 0..1, drawn as hollow diamonds.

    Returns:
        SVG text, or "" where no network stands on a part of another's channels. Bars: standard
        deviation.

    Example:
        >>> text = accuracy_by_share(records, {"single wrn-28-1 stage1, split in 2": 0.6877})
    """
    rows = by_row(records)
    lines, theirs = _lines(rows), _published(rows, published or {})
    if not lines:
        return ""
    networks = list(dict.fromkeys(network for _, network, _ in lines))
    layers = list(dict.fromkeys(layer for *_, layer in lines))
    colors = {network: COLORS[i % len(COLORS)] for i, network in enumerate(networks)}

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
        for panel, layer in zip(panels, layers, strict=True):
            panel.set_title(f"cut after {layer}")
            for (kind, network, at), points in lines.items():
                if at == layer:
                    _line(panel, points, {"color": colors[network], **STYLES[kind]})
                    _diamonds(panel, theirs.get((kind, network, at), {}), colors[network])
            _share_axis(panel, sorted({n for points in lines.values() for n in points}))
        panels[0].set_ylabel("test accuracy in %")
        _legend(figure, colors, any(theirs.values()))

    width = WIDTH if len(layers) == 1 else FULL_WIDTH
    return svg(draw, 3.9, "Test accuracy by share of the channels", width)


def _lines(rows: Mapping[str, Sequence[Record]]) -> Lines:
    lines: Lines = {}
    for (kind, network, layer, parts), records in _cells(rows).items():
        if value := spread(records, "test_accuracy"):
            lines.setdefault((kind, network, layer), {})[parts] = value
    return lines


def _published(rows: Mapping[str, Sequence[Record]], published: Mapping[str, float]) -> dict:
    """Return published accuracies in percent by line and number of parts."""
    theirs: dict[tuple[str, str, str], dict[int, float]] = {}
    for (kind, network, layer, parts), records in _cells(rows).items():
        if value := published.get(records[0].row):
            theirs.setdefault((kind, network, layer), {})[parts] = 100 * value
    return theirs


def _cells(
    rows: Mapping[str, Sequence[Record]],
) -> dict[tuple[str, str, str, int], Sequence[Record]]:
    """Return the records of every cell (kind, network, layer, number of parts)."""
    by_name = {record.name: record for records in rows.values() for record in records}
    cells = {}
    for records in rows.values():
        config = records[0].config
        members = config.get("members", ())
        kind = ENSEMBLE if members else SINGLE
        first = by_name.get(members[0]) if members else records[0]
        if first and (split := first.config.get("split")):
            cells[kind, label(network_of(first)), split["layer"], split["parts"]] = records
    return cells


def _line(axes, points: Mapping[int, Spread], look: dict) -> None:
    parts = sorted(points)
    means = [100 * points[n].mean for n in parts]
    deviations = [100 * points[n].std for n in parts]
    shares = [1 / n for n in parts]
    axes.errorbar(shares, means, yerr=deviations, lw=1.8, ms=5, elinewidth=1, capsize=3, **look)


def _diamonds(axes, points: Mapping[int, float], color: str) -> None:
    style = {"marker": "D", "s": 55, "facecolors": "none", "edgecolors": color, "lw": 1.3}
    axes.scatter([1 / n for n in points], list(points.values()), zorder=4, **style)


def _share_axis(axes, parts: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.invert_xaxis()
    axes.set_xticks([1 / n for n in parts], [_share(n) for n in parts])
    axes.minorticks_off()
    axes.set_xlabel("share of the layer's channels")


def _share(parts: int) -> str:
    return "all" if parts == 1 else f"1/{parts}"


def _legend(figure: Figure, colors: Mapping[str, str], published: bool) -> None:
    lines = {network: Line2D([], [], color=color, lw=4) for network, color in colors.items()}
    for kind, style in STYLES.items():
        lines[kind] = Line2D([], [], color=INK, lw=1.8, ms=5, **style)
    if published:
        lines["published"] = Line2D([], [], color=INK, ls="", marker="D", mfc="none", ms=7)
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=len(lines))
