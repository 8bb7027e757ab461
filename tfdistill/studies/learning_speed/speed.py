"""How fast students learn: the area under a validation curve, and when it reaches hard labels."""

import dataclasses
import statistics
from collections.abc import Sequence

from tfdistill.records import Record, Spread, Table
from tfdistill.reporting.significance import Family, best_row, dunnett
from tfdistill.studies import common
from tfdistill.studies.common import TEACHER
from tfdistill.studies.learning_speed.rows import HARD, cells_of, comparison_note
from tfdistill.utils.text import mean_std

TITLE = "speed, validation accuracy averaged over all epochs"


def curves_kept(rows: dict[str, list[Record]]) -> bool:
    """Return whether students' records hold their curves."""
    students = [record for row, runs in rows.items() if row != TEACHER for record in runs]
    return all(curve_of(record) for record in students)


def compare(rows: dict[str, list[Record]]) -> Family | None:
    """Compare the areas under the curves, where those were kept."""
    hard, cells = rows.get(HARD, []), cells_of(rows)
    if not hard or not curves_kept(rows):
        return None
    family = dunnett(_areas(hard), {row: _areas(members) for row, members in cells.items()})
    if family is None:
        return None
    best = best_row({row: cells[row] for row in family.rows})
    return dataclasses.replace(family, baseline=HARD, title=TITLE, best=best)


def table(rows: dict[str, list[Record]]) -> Table:
    """Return when each row reaches hard labels, and its means over epochs and time."""
    columns = (
        *("", "last epoch", "reached", "epochs", "seconds"),
        *("mean over epochs", "difference, 95 % interval", "mean over time"),
    )
    hard, cells = rows.get(HARD, []), cells_of(rows)
    if not hard:
        return Table("Speed of learning", columns, (), "There is no finished run of hard labels.")
    goal = statistics.fmean(curve_of(record)[-1] for record in hard)
    duration = statistics.fmean(record.seconds for record in hard)
    family = compare(rows)
    lines = []
    for row, members in {HARD: hard, **cells}.items():
        reaching = [(record, epoch) for record in members if (epoch := reached(record, goal))]
        seconds = [epoch * seconds_per_epoch(record) for record, epoch in reaching]
        lines.append(
            (
                row,
                mean_std(Spread.of(curve_of(record)[-1] for record in members)),
                f"{len(reaching)} of {len(members)}",
                mean_std(Spread.of(epoch for _, epoch in reaching), 1.0, 1),
                mean_std(Spread.of(seconds), 1.0, 1),
                mean_std(Spread.of(map(mean_over_epochs, members))),
                common.interval_cell(family, row),
                mean_std(Spread.of(mean_over_time(record, duration) for record in members)),
            )
        )
    return Table("Speed of learning", columns, tuple(lines), _note(goal, duration, family))


def _note(goal: float, duration: float, family: Family | None) -> str:
    return (
        "Accuracy in percent on validation images held back from the training images; mean ± "
        "standard deviation over seeds. Reached: runs with an epoch of at least the mean last "
        f"accuracy of hard labels, {100 * goal:.2f} %; epochs and seconds: until the first such "
        "epoch, of these runs alone. Mean over epochs: the area under the curve. "
        f"{comparison_note(family)} Mean over time: of the last finished epoch, over the "
        f"{duration:.0f} s of a run of hard labels. Seconds are a run's time for training and "
        "evaluation, by its epochs; of students trained together each has an equal share. The "
        "teacher's training is not counted; where its logits are stored, neither are its passes, "
        "done once for all."
    )


def curve_of(record: Record) -> list[float]:
    """Return the validation accuracy of every epoch, in 0..1; empty where it was not kept."""
    return record.history.get("val_accuracy", [])


def _areas(records: Sequence[Record]) -> dict[int, float]:
    return {record.seed: mean_over_epochs(record) for record in records}


def seconds_per_epoch(record: Record) -> float:
    """Return a run's time for training and evaluation, by its epochs."""
    return record.seconds / len(curve_of(record))


def reached(record: Record, goal: float) -> int | None:
    """Return the first epoch (1, 2, ...) with at least this validation accuracy, None without."""
    return next((epoch for epoch, value in enumerate(curve_of(record), 1) if value >= goal), None)


def mean_over_epochs(record: Record) -> float:
    """Return the area under the validation curve, in accuracy: its mean over the epochs."""
    return statistics.fmean(curve_of(record))


def mean_over_time(record: Record, duration: float) -> float:
    """Return the mean over `duration` seconds of the validation accuracy reached by then.

    That is the accuracy of the last finished epoch; before the first it counts as 0. A run with
    as many epochs in `duration` as it has at all gets its mean over epochs.
    """
    curve, steps = [0.0, *curve_of(record)], len(curve_of(record))
    # A thousandth of a step, so that round-off does not count as an epoch not finished.
    done = (
        int(step * duration / steps / seconds_per_epoch(record) + 1e-3)
        for step in range(1, steps + 1)
    )
    return statistics.fmean(curve[min(epochs, steps)] for epochs in done)
