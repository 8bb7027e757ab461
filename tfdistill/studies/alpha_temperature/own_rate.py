"""With the factor T^2, does a teacher beat the best learning rate of labels alone?

At a rate that suits labels alone, the gradient of a cell with T^2 is up to (1 - alpha) + alpha T
times as large, and SGD diverges. So cells are run again with their whole loss times smaller
weights, which with SGD, and with momentum, is the learning rate times the weight. Both sides are
tuned alike: each cell at the weight that is best on validation images stands against labels alone
at the weight that is best there.
"""

from collections.abc import Sequence

from tfdistill.records import Record, Table
from tfdistill.reporting.grids import Cell, Grid
from tfdistill.reporting.significance import Family, best_row, compare_runs
from tfdistill.studies import common
from tfdistill.studies.alpha_temperature import label_weight
from tfdistill.studies.alpha_temperature.label_weight import Rows
from tfdistill.utils import text

KIND = "with the factor T², each cell at its best rate"
_MARK = ", loss x "

Weighted = dict[Cell, dict[float, Sequence[Record]]]


def weighted_row(cell: str, weight: float) -> str:
    """Return the name of a cell's row whose loss has a weight, `alpha 0.9, T 5, T², loss x 0.1`."""
    return f"{cell}{_MARK}{weight:g}"


def compare(grids: Sequence[Grid], rows: Rows) -> Family | None:
    """Compare each cell at its best weight with labels alone at theirs, all by validation images.

    Args:
        grids: The grids; cells of the one with T^2 have weight 1.
        rows: Records by row.

    Returns:
        The comparisons by (alpha, T); None without rows of labels alone or of weighted cells.
    """
    known = label_weight.labels(rows)
    weight = best_row(known)
    if weight is None:
        return None
    best = {
        cell: weights[chosen]
        for cell, weights in _weighted(grids, rows).items()
        if (chosen := best_row(weights)) is not None
    }
    return compare_runs(known[weight], best, f"labels alone at weight {weight:g}", KIND)


def table(grids: Sequence[Grid], rows: Rows) -> list[Table]:
    """Return the cells by the weight of their loss, [] where none were run.

    Args:
        grids: The grids; cells of the one with T^2 have weight 1.
        rows: Records by row.
    """
    cells = _weighted(grids, rows)
    if not cells:
        return []
    family = compare(grids, rows)
    weights = sorted({weight for found in cells.values() for weight in found}, reverse=True)

    def line(cell: Cell) -> tuple[str, ...]:
        found = cells[cell]
        best = best_row(found)
        return (
            f"alpha {cell[0]:g}, T {cell[1]:g}",
            *(common.figure_cell(found.get(weight, []), "test_accuracy") for weight in weights),
            text.MISSING if best is None else f"{best:g}",
            common.interval_cell(family, cell),
        )

    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds, of cells with the factor "
        "T² whose whole loss is multiplied by a weight: with SGD the learning rate times the "
        "weight. The best weight is chosen on validation images; there the cell stands against "
        "labels alone at the weight that is best for them on validation images. "
        + common.interval_note(family)
    )
    columns = (
        "",
        *(f"loss x {weight:g}" for weight in weights),
        *("best", "over labels alone, 95 % interval"),
    )
    return [
        Table("With the factor T², at other learning rates", columns, tuple(map(line, cells)), note)
    ]


def _weighted(grids: Sequence[Grid], rows: Rows) -> Weighted:
    """Return the records of each cell that was run with a smaller loss by weight, 1 included."""
    found: Weighted = {}
    for row, records in rows.items():
        if _MARK in row:
            taught = records[0].config["distillation"]
            total = taught["hard_weight"] + taught["soft_weight"]
            cell = (taught["alpha"], taught["temperature"])
            found.setdefault(cell, {})[round(total, 6)] = records
    whole = next((grid for grid in grids if grid.scale_by_t2), None)
    for cell, weights in found.items():
        if whole and cell in whole.cells:
            weights[1.0] = whole.cells[cell]
    return dict(sorted(found.items()))
