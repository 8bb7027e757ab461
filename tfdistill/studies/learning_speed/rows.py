"""The rows of the study: their names, what was published of them, which records are theirs."""

from tfdistill.records import Record
from tfdistill.reporting.significance import CLAIM_SEEDS, Family
from tfdistill.reporting.verdicts import few_seeds
from tfdistill.studies.common import TEACHER

HARD = "hard labels"
# The published mistakes, as `published` rebuilds them: a loss, and the end of a network's name.
ZERO, DROPPING = "kl_of_log", "-dropout-in-evaluation"

PUBLISHED_CELLS = {
    (0.1, 20): 0.407,
    (0.5, 20): 0.413,
    (0.9, 20): 0.407,
    (0.99, 20): 0.418,
    (0.5, 1): 0.414,
    (0.5, 5): 0.423,
    (0.5, 100): 0.398,
}
PUBLISHED_TESTED = 3929  # images, of which the published figures are shares


def cell_row(alpha: float, temperature: float) -> str:
    """Return the name of a cell's row, as it was meant: `alpha 0.5, T 20`."""
    return f"alpha {alpha:g}, T {temperature:g}"


def flawed_row(of: str, zero: bool, dropout: bool) -> str:
    """Return the name of the row `of` with a flaw or two: `alpha 0.5, T 20, soft loss zero`."""
    return of + ", soft loss zero" * zero + ", dropout on" * dropout


# Test accuracy of the last epoch in 0..1, one run each; on the images that are our test images. The
# published rows are what the page says, and under it what its program did.
PUBLISHED = {
    TEACHER: 0.902,
    HARD: 0.402,
    **{cell_row(*cell): accuracy for cell, accuracy in PUBLISHED_CELLS.items()},
    flawed_row(HARD, False, True): 0.402,
    **{
        flawed_row(cell_row(*cell), True, True): accuracy
        for cell, accuracy in PUBLISHED_CELLS.items()
    },
}


def kind_of(record: Record) -> tuple[bool, bool]:
    """Return whether a student's soft loss is zero, and whether dropout is on in validation."""
    taught = record.config["distillation"] or {}
    return taught.get("loss") == ZERO, record.config["model"]["name"].endswith(DROPPING)


def cell_of(record: Record) -> tuple[float, float]:
    """Return alpha and temperature of a taught student."""
    taught = record.config["distillation"]
    return taught["alpha"], taught["temperature"]


def cells_of(
    rows: dict[str, list[Record]], zero: bool = False, dropout: bool = False
) -> dict[str, list[Record]]:
    """Return the rows of taught students of one kind."""
    return {
        row: members
        for row, members in rows.items()
        if members[0].config["distillation"] and kind_of(members[0]) == (zero, dropout)
    }


def comparison_note(family: Family | None) -> str:
    """Return what a table's note says of cells that were compared with hard labels."""
    if family is None:
        return "Fewer than two common seeds: no test."
    better = sum(found.differs and found.difference > 0 for found in family.rows.values())
    worse = sum(found.differs and found.difference < 0 for found in family.rows.values())
    return (
        f"Of {len(family.rows)} cells {better} are above hard labels and {worse} below by more "
        "than luck (simultaneous 95 % intervals, Dunnett's test with seeds as blocks); a cell must "
        f"differ by {100 * family.visible:.2f} points."
        + (f" {few_seeds(family.seeds)}" if family.seeds < CLAIM_SEEDS else "")
    )
