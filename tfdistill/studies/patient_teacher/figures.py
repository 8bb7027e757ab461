"""The figure of the study `patient_teacher`: accuracy over the length of the training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from tfdistill.records import Record, spread
from tfdistill.reporting.svg import COLORS, INK, MARKERS, svg


def accuracy_by_length(lines: Mapping[str, Sequence[Record]], teacher: Sequence[Record]) -> str:
    """Return mean test accuracy over epochs, a line for each variant of the student.

    Args:
        lines: The students' records of every variant, trained for different numbers of epochs.
        teacher: The teacher's records; drawn as a dashed line.

    Returns:
        SVG text, or "" where no variant has a record.
    """
    points = {variant: _points(records) for variant, records in lines.items() if records}
    lengths = sorted({epochs for found in points.values() for epochs in found})

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for variant, found in points.items():
            means, stds = 100 * np.array(list(found.values())).T
            place = list(lines).index(variant)
            look: dict[str, Any] = {"color": COLORS[place], "marker": MARKERS[place]}
            look |= {"ms": 5, "lw": 1.8}
            axes.errorbar(list(found), means, stds, label=variant, capsize=3, elinewidth=1, **look)
        if accuracy := spread(teacher, "test_accuracy"):
            axes.axhline(100 * accuracy.mean, color=INK, lw=1, ls="--", label="teacher")
        axes.set_xscale("log")
        axes.set_xticks(lengths, [str(epochs) for epochs in lengths])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="epochs of the training", ylabel="test accuracy in %")
        figure.legend(loc="outside lower center", ncols=2)

    return svg(draw, 4.2, "Test accuracy by length of training") if points else ""


def _points(records: Sequence[Record]) -> dict[int, tuple[float, float]]:
    """Return mean and deviation of the test accuracy by number of epochs."""
    by_epochs: dict[int, list[Record]] = {}
    for record in records:
        by_epochs.setdefault(record.config["training"]["epochs"], []).append(record)
    found = {epochs: spread(by_epochs[epochs], "test_accuracy") for epochs in sorted(by_epochs)}
    return {epochs: (accuracy.mean, accuracy.std) for epochs, accuracy in found.items()}
