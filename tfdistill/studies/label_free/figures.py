"""The figure of the study `label_free`: accuracy over the number of labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from tfdistill.records import Record, by_row, spread
from tfdistill.reporting.svg import COLORS, INK, MARKERS, svg
from tfdistill.studies.common import TEACHER
from tfdistill.studies.label_free import study


def accuracy_by_labels(records: Sequence[Record]) -> str:
    """Return mean test accuracy over the number of labels, a line for each way to learn.

    Args:
        records: Of the study; rows without labels are level lines.

    Returns:
        SVG text, or "" where no student learned from labels alone.
    """
    rows, given = by_row(records), study.budgets(records)
    found = {
        "labels alone": [rows.get(study.alone(budget), []) for budget in given],
        "labels, teacher on all images": [rows.get(study.mixed(budget), []) for budget in given],
        "no labels, teacher on as many images": [
            rows.get(study.on_labelled(budget), []) for budget in given
        ],
    }
    level = {
        study.NO_LABELS: rows.get(study.NO_LABELS, []),
        study.ALL_LABELS: rows.get(study.ALL_LABELS, []),
    }

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (name, members) in enumerate(found.items()):
            points = [
                (budget, spread(each, "test_accuracy"))
                for budget, each in zip(given, members, strict=True)
            ]
            known = [(budget, value.mean, value.std) for budget, value in points if value]
            if not known:
                continue
            counts, means, stds = np.array(known).T
            look: dict[str, Any] = {"color": COLORS[place], "marker": MARKERS[place]}
            look |= {"ms": 5, "lw": 1.8, "capsize": 3, "elinewidth": 1}
            axes.errorbar(counts, 100 * means, 100 * stds, label=name, **look)
        for place, (name, each) in enumerate(level.items()):
            if value := spread(each, "test_accuracy"):
                color = COLORS[len(found) + place]
                axes.axhline(100 * value.mean, color=color, lw=1.8, ls="-:"[place], label=name)
                low, high = 100 * (value.mean - value.std), 100 * (value.mean + value.std)
                axes.axhspan(low, high, color=color, alpha=0.15, lw=0)
        best = rows.get(study.ENSEMBLE) or rows.get(TEACHER, [])
        if accuracy := spread(best, "test_accuracy"):
            axes.axhline(100 * accuracy.mean, color=INK, lw=1, ls="--", label="teacher")
        axes.set_xscale("log")
        axes.set_xticks(given, [str(budget) for budget in given])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="images with a label", ylabel="test accuracy in %")
        figure.legend(loc="outside lower center", ncols=2)

    return svg(draw, 4.6, "Test accuracy by number of labels") if given else ""
