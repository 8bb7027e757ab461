"""Figures of a study: records in, SVG text out, ready to stand inside a report.

Rows differ by colour and by marker, and keep both in all figures of a study. A row without data is
left out, and a figure without any row is the empty string.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tfdistill.records import Record, by_row, spread
from tfdistill.reporting.significance import Family
from tfdistill.reporting.svg import COLORS, INK, MARKERS, svg

FEW_ROWS, FEW_EPOCHS = len(COLORS), 12
MOST_DIFFERENCES = 24
NARROW = 4.6  # inches, so that a phone shows all of it
LABEL = 28


def accuracy_by_epoch(records: Iterable[Record]) -> str:
    """Return validation accuracy over epochs: a thin line for each seed, a bold one for the mean.

    Args:
        records: Records of one study; diverged ones are left out.

    Returns:
        SVG text, or "" where no record has a history. With more than eight rows only means are
        drawn; a mean ends where its shortest run ends.
    """
    looks = _looks(records := list(records))
    rows = {
        row: [record.history["val_accuracy"] for record in runs]
        for row, runs in _rows(records, lambda record: record.history.get("val_accuracy")).items()
    }

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, curves in rows.items():
            look, shortest = looks[row], min(map(len, curves))
            mean = 100 * np.mean([curve[:shortest] for curve in curves], axis=0)
            if len(rows) <= FEW_ROWS and len(curves) > 1:
                for curve in curves:
                    epochs = range(1, len(curve) + 1)
                    axes.plot(epochs, 100 * np.array(curve), color=look["color"], lw=0.7, alpha=0.4)
            marker = look["marker"] if shortest <= FEW_EPOCHS else ""
            style: dict[str, Any] = {"color": look["color"], "marker": marker}
            label = _wrapped(row)
            axes.plot(range(1, shortest + 1), mean, label=label, ms=4.5, lw=2.2, **style)
        axes.set(xlabel="epoch", ylabel="validation accuracy in %")
        axes.locator_params("x", integer=True)
        _legend(figure, list(rows))

    return _svg(rows, 3.5 + _legend_height(rows), draw, "Validation accuracy by epoch")


def student_against_teacher(records: Iterable[Record]) -> str:
    """Return the test accuracy of every student over that of its teacher.

    Args:
        records: Records of one study. The teacher of a student with several teachers is the run
            whose members are exactly these; a student without such a run is left out.

    Returns:
        SVG text, or "" where no student's teacher has a record.
    """
    looks = _looks(records := list(records))
    taught = ((record, _teacher_accuracy(record, records)) for record in records)
    teacher_of = {record.name: value for record, value in taught if value is not None}
    rows = {
        row: [(teacher_of[record.name], record.figures["test_accuracy"]) for record in runs]
        for row, runs in _rows(records, lambda record: record.name in teacher_of).items()
    }

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, points in rows.items():
            x, y = 100 * np.array(points).T
            axes.scatter(x, y, s=42, label=_wrapped(row), lw=0, alpha=0.85, **looks[row])
        both = [100 * value for points in rows.values() for pair in points for value in pair]
        margin = max(0.08 * (max(both) - min(both)), 0.2)
        ends = (min(both) - margin, max(both) + margin)
        axes.plot(ends, ends, color=INK, lw=1, ls="--", alpha=0.6, label="student = teacher")
        axes.set(xlim=ends, ylim=ends, aspect="equal")
        axes.set(xlabel="teacher's test accuracy in %", ylabel="student's test accuracy in %")
        _legend(figure, [*rows, "student = teacher"])

    return _svg(rows, 4.2 + _legend_height(rows), draw, "Test accuracy, student against teacher")


def calibration(records: Iterable[Record]) -> str:
    """Return one reliability diagram for each row: accuracy of every bin of confidence.

    Args:
        records: Records of one study; the bins of a row's seeds are averaged, weighted by count.

    Returns:
        SVG text, or "" where no record has `calibration`. Hatched: the gap between accuracy and
        confidence; the title holds the mean ECE of the row's runs.
    """
    looks = _looks(records := list(records))
    rows = _rows(records, lambda record: sum(record.calibration.get("count", ())))
    widest = 3 if len(rows) <= FEW_ROWS else 4
    columns, lines = min(len(rows), widest), -(-len(rows) // widest)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for panel in grid.flat[len(rows) :]:
            panel.set_axis_off()
        for panel in grid.flat[len(rows) - columns : len(rows)]:
            panel.tick_params(labelbottom=True)
        for panel, (row, runs) in zip(grid.flat, rows.items(), strict=False):
            _reliability_panel(panel, runs, looks[row]["color"])
            error = spread(runs, "test_ece")
            ece = f"\nECE {error.text(1, 4)}" if error else ""
            panel.set_title(_wrapped(row, 72 // widest) + ece, fontsize=27 / widest)
        figure.supxlabel("confidence", fontsize=9.5)
        figure.supylabel("accuracy", fontsize=9.5)

    return _svg(rows, 0.5 + 7.0 / widest * lines, draw, "Calibration on the test set")


def accuracy_by_row(records: Iterable[Record], published: Mapping[str, float] | None = None) -> str:
    """Return the test accuracy of every run, one line for each row, with mean and deviation.

    Args:
        records: Records of one study; the figures of their selected epoch are shown.
        published: Published test accuracy by row, in 0..1, drawn as a hollow diamond.

    Returns:
        SVG text, or "" where no record has a test accuracy.
    """
    looks = _looks(records := list(records))
    rows = _rows(records, lambda record: record.figures.get("test_accuracy") is not None)
    published = {row: value for row, value in (published or {}).items() if row in rows}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for line, (row, runs) in enumerate(rows.items()):
            _strip(axes, line, runs, looks[row])
            if row in published:
                style: dict[str, Any] = {"marker": "D", "s": 60, "facecolors": "none"}
                style |= {"edgecolors": INK, "lw": 1.3}
                # One entry in the legend, not one a row.
                label = "published" if row == next(iter(published)) else None
                axes.scatter(100 * published[row], line, label=label, zorder=4, **style)
        axes.set_yticks(range(len(rows)), [_wrapped(row) for row in rows])
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="test accuracy in %")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)
        if published:
            figure.legend(loc="outside upper right")

    return _svg(
        rows,
        0.9 + (0.42 if len(rows) <= FEW_ROWS else 0.28) * len(rows),
        draw,
        "Test accuracy by row",
    )


def differences(families: Sequence[Family]) -> str:
    """Return the difference of every row from its baseline, with its interval, family by family.

    Args:
        families: What was compared; more than 24 rows in all are not drawn.

    Returns:
        SVG text, or "" without rows or with too many.
    """
    lines = [(family, row) for family in families for row in family.rows]
    if not 0 < len(lines) <= MOST_DIFFERENCES:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for line, (family, row) in enumerate(lines):
            found = family.rows[row]
            color = INK if not found.differs else COLORS[0 if found.difference > 0 else 1]
            axes.plot([100 * found.low, 100 * found.high], [line, line], color=color, lw=2)
            face = color if found.differs else "none"
            axes.plot(100 * found.difference, line, "o", color=color, mfc=face, ms=6, mew=1.4)
        axes.axvline(0, color=INK, lw=1)
        names = [_wrapped(_line_name(family, row, families)) for family, row in lines]
        axes.set_yticks(range(len(lines)), names)
        axes.set(ylim=(len(lines) - 0.5, -0.5), xlabel="difference in points, 95 % interval")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)

    height = 0.9 + sum(0.25 + 0.17 * _name_lines(family, row, families) for family, row in lines)
    return svg(draw, height, "Differences from the baseline", NARROW)


def _line_name(family: Family, row: Any, families: Sequence[Family]) -> str:
    if len(family.rows) == 1 and family.title:
        return family.title
    if len(families) > 1 and family.title:
        return f"{family.title}: {row}"
    several = sum(row in other.rows for other in families) > 1
    return f"{row}, against {family.baseline}" if several else str(row)


def _name_lines(family: Family, row: Any, families: Sequence[Family]) -> int:
    return _wrapped(_line_name(family, row, families)).count("\n") + 1


def _strip(axes, line: int, runs: Sequence[Record], look: dict) -> None:
    """Draw the runs of one row as dots, their mean as a bar and the deviation as a line."""
    values = 100 * np.array([record.figures["test_accuracy"] for record in runs])
    figures = spread(runs, "test_accuracy")
    mean, std = 100 * figures.mean, 100 * figures.std
    offsets = np.zeros(1)
    if len(values) > 1:
        offsets = np.linspace(-0.16, 0.16, len(values))
        axes.plot([mean - std, mean + std], [line, line], color=INK, lw=1.2, alpha=0.7)
        axes.plot([mean, mean], [line - 0.26, line + 0.26], color=INK, lw=2.2)
    axes.scatter(values, line + offsets, s=32, alpha=0.85, lw=0, zorder=3, **look)
    edge = axes.get_yaxis_transform()
    axes.text(1.02, line, figures.text(), transform=edge, va="center", ha="left", fontsize=9)


def _reliability_panel(axes, runs: Sequence[Record], color: str) -> None:
    parts = {
        name: np.array([record.calibration[name] for record in runs], float)
        for name in ("count", "confidence", "accuracy")
    }
    count = parts["count"].sum(axis=0)
    used = count > 0
    confidence, accuracy = (
        (parts["count"] * parts[name]).sum(axis=0)[used] / count[used]
        for name in ("confidence", "accuracy")
    )
    width = 1.0 / len(count)
    centers = (np.flatnonzero(used) + 0.5) * width
    axes.bar(centers, accuracy, width * 0.92, color=color, alpha=0.85, lw=0)
    low, gap = np.minimum(accuracy, confidence), np.abs(confidence - accuracy)
    hatch = {"facecolor": "none", "edgecolor": INK, "hatch": "/////", "alpha": 0.55, "lw": 0.5}
    axes.bar(centers, gap, width * 0.92, bottom=low, **hatch)
    axes.plot([0, 1], [0, 1], color=INK, lw=0.9, ls="--", alpha=0.6)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])


def _teacher_accuracy(student: Record, records: Sequence[Record]) -> float | None:
    teachers = set(student.config.get("teachers", ()))

    def is_teacher(record: Record) -> bool:
        if len(teachers) == 1:
            return record.name in teachers
        return set(record.config.get("members", ())) == teachers

    found = [record for record in records if teachers and is_teacher(record)]
    if not found or student.figures.get("test_accuracy") is None:
        return None
    return found[0].figures.get("test_accuracy")


def _rows(records: Iterable[Record], has_data: Callable) -> dict[str, list[Record]]:
    return by_row(record for record in records if has_data(record))


def _looks(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Return colour and marker of each row, the same in all figures of a study."""
    rows = list(dict.fromkeys(record.row for record in records))
    colors: Sequence[str] = COLORS
    if len(rows) > FEW_ROWS:
        # The ends of the ramp would vanish on a dark or on a light page.
        ramp = matplotlib.colormaps["plasma"](np.linspace(0.15, 0.85, len(rows)))
        colors = [matplotlib.colors.to_hex(color) for color in ramp]
    return {
        row: {"color": colors[i], "marker": MARKERS[i % len(MARKERS)]} for i, row in enumerate(rows)
    }


def _wrapped(name: str, width: int = LABEL) -> str:
    return "\n".join(textwrap.wrap(name, width, break_on_hyphens=False)) or name


def _legend_columns(names: Iterable[str]) -> int:
    longest = max(min(len(name), LABEL) for name in names)
    return max(1, min(5, 76 // (longest + 6)))


def _legend_height(rows: Iterable[str]) -> float:
    """Return the height in inches of a legend of `rows` and one more entry."""
    names = [*rows, ""]
    lines = max(len(_wrapped(name).split("\n")) for name in names)
    return 0.2 * lines * -(-len(names) // _legend_columns(names))


def _legend(figure: Figure, names: Sequence[str]) -> None:
    figure.legend(loc="outside lower left", ncols=_legend_columns(names), columnspacing=1.6)


def _svg(rows: Mapping, height: float, draw: Callable[[Figure], None], label: str) -> str:
    return svg(draw, height, label) if rows else ""
