"""The flaws of the published program: what a soft loss of zero and dropout in validation do."""

import statistics
from collections.abc import Iterator

from tfdistill.records import Record, Spread, Table
from tfdistill.reporting.significance import Family, compare_runs
from tfdistill.studies import common
from tfdistill.studies.common import INTERVAL
from tfdistill.studies.learning_speed.rows import (
    HARD,
    PUBLISHED,
    PUBLISHED_CELLS,
    PUBLISHED_TESTED,
    cell_of,
    cell_row,
    cells_of,
    flawed_row,
)
from tfdistill.utils.text import MISSING, percent


def table(rows: dict[str, list[Record]], published: bool) -> Table:
    """Return the flawed cells, each as meant and with its flaws, beside the published."""
    lines = [*_lines(rows, dropout=False), *_lines(rows, dropout=True)]
    columns = ("", "soft loss", "dropout", "runs", "accuracy", INTERVAL, "published")
    shown = len(columns) if published else -1
    cut = tuple(line[:shown] for line in lines)
    return Table("The published flaws", columns[:shown], cut, _note(rows))


def compare(rows: dict[str, list[Record]], dropout: bool) -> Family | None:
    """Compare the flawed cells with hard labels, dropout alike."""
    hard = rows.get(flawed_row(HARD, False, dropout), [])
    title = f"with a soft loss of zero, dropout {'on' if dropout else 'off'} in validation"
    return compare_runs(hard, _flawed(rows, dropout), HARD, title)


def _flawed(rows: dict[str, list[Record]], dropout: bool) -> dict[str, list[Record]]:
    """Return the flawed cells as meant and with a soft loss of zero."""
    zero, meant = cells_of(rows, True, dropout), cells_of(rows, False, dropout)
    flawed = {cell_of(members[0]) for members in zero.values()}
    return {row: found for row, found in meant.items() if cell_of(found[0]) in flawed} | zero


def _lines(rows: dict[str, list[Record]], dropout: bool) -> Iterator[tuple[str, ...]]:
    """Yield hard labels, and the flawed cells as meant and with a soft loss of zero."""
    baseline = flawed_row(HARD, False, dropout)
    zero, taught = cells_of(rows, True, dropout), _flawed(rows, dropout)
    hard = rows.get(baseline, [])
    family = compare(rows, dropout)
    for row, members in {baseline: hard, **taught}.items():
        if members:
            soft = "zero" if row in zero else "as meant" if row in taught else "–"
            yield (
                cell_row(*cell_of(members[0])) if row in taught else HARD,
                soft,
                "on" if dropout else "off",
                str(len(members)),
                common.figure_cell(members, "test_accuracy"),
                common.interval_cell(family, row, members, hard if row in taught else []),
                percent(PUBLISHED.get(row), 1) if dropout else MISSING,
            )


def _note(rows: dict[str, list[Record]]) -> str:
    published = [PUBLISHED[HARD], *PUBLISHED_CELLS.values()]
    mean = statistics.fmean(published)
    error = (mean * (1 - mean) / PUBLISHED_TESTED) ** 0.5
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds; gain in points over hard "
        "labels with dropout alike, intervals as above. Soft loss zero: of the teacher's "
        "log-probabilities in the place of probabilities, as published; so its temperature changes "
        "nothing. Dropout: on or off in validation and test; of one seed the weights are the same. "
        f"The eight published students have {100 * mean:.2f} % with a standard deviation of "
        f"{100 * Spread.of(published).std:.2f} points, about what the {PUBLISHED_TESTED:,} test "
        f"images alone give to eight runs of hard labels ({100 * error:.2f})."
    )
    zero = cells_of(rows, True, False) | cells_of(rows, True, True)
    runs = [run for members in zero.values() for run in members]
    losses = [abs(x) for run in runs for x in run.history.get("soft_loss", ())]
    return f"{note} Largest soft loss in the rows of zero: {max(losses):g}." if losses else note


def panels(rows: dict[str, list[Record]]) -> dict[str, dict[str, list[Record]]]:
    """Return the rows of each panel of the picture: by dropout, then by cell and flaw."""
    found = {}
    for dropout in (False, True):
        panel = {HARD: rows.get(flawed_row(HARD, False, dropout), [])}
        for members in cells_of(rows, True, dropout).values():
            name = cell_row(*cell_of(members[0]))
            panel[name] = rows.get(flawed_row(name, False, dropout), [])
            panel[f"{name}, soft loss zero"] = members
        found[f"dropout {'on' if dropout else 'off'} in validation"] = panel
    return found if any(len(panel) > 1 for panel in found.values()) else {}
