"""Records on a grid of alpha and temperature: the cells, and the student alone beside them.

Alpha, temperature and whether the soft loss has the factor T^2 are read from the records'
configurations, so any study or search that varies them has a grid. At T = 1 the factor is 1: such a
run is a cell of the grids with and without it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfdistill.records import FINISHED, Record, spread
from tfdistill.reporting.significance import Family, compare_runs
from tfdistill.utils.storage import digest

Cell = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """Students taught at several alphas and temperatures, and those taught by nobody.

    Args:
        scale_by_t2: Whether the soft loss has the factor T^2.
        cells: Records by (alpha, temperature), one for each seed.
        alone: Records of the student alone.
    """

    scale_by_t2: bool
    cells: dict[Cell, list[Record]]
    alone: list[Record]

    @property
    def alphas(self) -> list[float]:
        """The alphas, the smallest first."""
        return sorted({alpha for alpha, _ in self.cells})

    @property
    def temperatures(self) -> list[float]:
        """The temperatures, the smallest first."""
        return sorted({temperature for _, temperature in self.cells})

    def compare(self) -> Family | None:
        """Compare the test accuracy of every cell with the student alone."""
        return compare_runs(self.alone, self.cells, "the student alone")

    def best(self) -> Cell | None:
        """Return the cell with the highest mean accuracy on the validation images."""
        spreads = {cell: spread(runs, "validation_accuracy") for cell, runs in self.cells.items()}
        means = {cell: value.mean for cell, value in spreads.items() if value}
        return max(means, key=means.__getitem__) if means else None


def arrange(cells: Iterable[Record], alone: Sequence[Record]) -> list[Grid]:
    """Return the grid without the factor T^2, and that with it, where there are such cells.

    Args:
        cells: Finished records of taught students.
        alone: Finished records of the student alone.
    """
    cells = list(cells)
    kinds = {_scaled(record) for record in cells if _cell(record)[1] != 1}
    kinds = kinds or {_scaled(record) for record in cells}
    grids = []
    for kind in sorted(kinds):
        members: dict[Cell, list[Record]] = {}
        for record in cells:
            if _scaled(record) == kind or _cell(record)[1] == 1:
                members.setdefault(_cell(record), []).append(record)
        grids.append(Grid(kind, dict(sorted(members.items())), list(alone)))
    return grids


def find(records: Iterable[Record]) -> list[Grid]:
    """Return the grids among any records.

    Args:
        records: Records of one study. Students that differ in more than alpha, temperature, the
            factor T^2 and seed are no cells of one grid.

    Returns:
        Grids of at least two alphas and two temperatures, at least half of them filled; none where
        students of about as many runs differ in something else, in their network for example.
    """
    records = [record for record in records if record.status == FINISHED]
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.config.get("distillation"):
            groups.setdefault(_kind(record), []).append(record)
    largest, *others = sorted(groups.values(), key=len, reverse=True) or [[]]
    if not largest or any(2 * len(group) >= len(largest) for group in others):
        return []
    grids = arrange(largest, _alone(records, largest[0]))
    return grids if all(map(_is_full, grids)) else []


def _is_full(grid: Grid) -> bool:
    sides = len(grid.alphas), len(grid.temperatures)
    return min(sides) > 1 and 2 * len(grid.cells) >= sides[0] * sides[1]


def _kind(record: Record) -> str:
    """Return a hash of all that is the same in every cell of a grid."""
    config = {k: v for k, v in record.config.items() if k not in ("name", "row", "seed")}
    varied = ("alpha", "temperature", "scale_by_t2")
    taught = {k: v for k, v in config.pop("distillation").items() if k not in varied}
    return digest(config, taught)


def _alone(records: Sequence[Record], student: Record) -> list[Record]:
    """Return the records of a student's network, trained the same way but taught by nobody."""
    teachers = {name for record in records for name in record.config.get("teachers", ())}
    same = ("data", "model", "training", "width")
    return [
        record
        for record in records
        if not record.config.get("teachers")
        and not record.config.get("members")
        and record.name not in teachers
        and all(record.config.get(key) == student.config.get(key) for key in same)
    ]


def _cell(record: Record) -> Cell:
    taught = record.config["distillation"]
    return taught["alpha"], taught["temperature"]


def _scaled(record: Record) -> bool:
    return record.config["distillation"]["scale_by_t2"]
