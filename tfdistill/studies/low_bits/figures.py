"""The figure of the study `low_bits`: accuracy over the bits of the weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tfdistill.records import Record, spread
from tfdistill.reporting.svg import COLORS, MARKERS, svg


def accuracy_by_bits(lines: Mapping[str, Mapping[str, Sequence[Record]]]) -> str:
    """Return mean test accuracy over the bits of the weights, a line for each way.

    Args:
        lines: For each way the records of `float` and of each number of bits, in the picture's
            order.

    Returns:
        SVG text, or "" where no way has a record of few bits.
    """
    found = {
        way: {bits: accuracy for bits in by_bits if (accuracy := _accuracy(by_bits[bits]))}
        for way, by_bits in lines.items()
    }
    shown = {way: points for way, points in found.items() if set(points) - {"float"}}
    places = {bits: place for place, bits in enumerate(next(iter(lines.values()), {}))}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, way in enumerate(lines):
            if way not in shown:
                continue
            # Side by side, so that bars do not cover each other.
            x = [places[bits] + 0.05 * (number - 1.5) for bits in shown[way]]
            y = [100 * accuracy.mean for accuracy in shown[way].values()]
            bars = [100 * accuracy.std for accuracy in shown[way].values()]
            look: dict[str, Any] = {"color": COLORS[number], "marker": MARKERS[number]}
            axes.errorbar(x, y, bars, label=way, ms=5, lw=1.5, capsize=3, elinewidth=1, **look)
        axes.set_xticks(list(places.values()), list(places))
        axes.set(xlabel="bits of the weights", ylabel="test accuracy in %")
        figure.legend(loc="outside lower center", ncols=2)

    return svg(draw, 4.2, "Test accuracy by bits of the weights") if shown else ""


def _accuracy(records: Sequence[Record]):
    return spread(records, "test_accuracy")
