"""Tables made of records: rows, and mean and deviation over seeds."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfdistill.records.checking import FINISHED
from tfdistill.records.record import Record
from tfdistill.utils.text import mean_std

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of one figure over `count` runs; false of none."""

    mean: float
    std: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Return the spread of `values`; of none it is false, and shown as a dash."""
        values = list(values)
        if not values:
            return cls(math.nan, math.nan, 0)
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(statistics.fmean(values), std, len(values))

    def __bool__(self) -> bool:
        return self.count > 0

    def text(self, scale: float = 100.0, digits: int = 2) -> str:
        """Return e.g. `86.38 ± 0.70`; without a deviation for a single run."""
        return mean_std(self, scale, digits)


@dataclass(frozen=True)
class Table:
    """A table for terminal, HTML and CSV: text cells, the first column a label."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def by_row(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the finished records of every row, in order of first appearance."""
    rows: dict[str, list[Record]] = {}
    for record in records:
        if record.status == FINISHED:
            rows.setdefault(record.row, []).append(record)
    return rows


def spread(records: Iterable[Record], figure: str, part: str | None = None) -> Spread:
    """Return mean and deviation of a figure; `part` is `best`, `last` or None for the selected."""
    parts = (getattr(record, part) if part else record.figures for record in records)
    return Spread.of(figures[figure] for figures in parts if figures.get(figure) is not None)


def accuracy_by_seed(records: Iterable[Record]) -> dict[int, float]:
    """Return the test accuracy of every seed of a row that has one, in 0..1."""
    found = {record.seed: record.figures.get("test_accuracy") for record in records}
    return {seed: value for seed, value in found.items() if value is not None}


def revisions(records: Iterable[Record]) -> str:
    """Return a line where records were made by several revisions of this package; else nothing.

    Those of versions that kept no hash of the code count as one.
    """
    codes = Counter(str(record.environment.get("code", "not recorded"))[:12] for record in records)
    if len(codes) < 2:
        return ""
    told = ", ".join(f"{count} by {code}" for code, count in codes.most_common())
    return (
        f"Of these runs, {told}: they were done by different revisions of tfdistill, named by the "
        "start of their code's SHA-256, and may differ by more than their settings."
    )


def frame(records: Iterable[Record]) -> "pd.DataFrame":
    """Return a pandas DataFrame with one row per record: the study's results.csv."""
    import pandas as pd

    rows = []
    for record in records:
        row = {"run": record.name, "row": record.row, "seed": record.seed, "status": record.status}
        taught = record.config.get("distillation") or {}
        row |= {name: taught.get(name) for name in ("alpha", "temperature", "scale_by_t2", "loss")}
        row["features"] = "+".join(feature["loss"] for feature in taught.get("features", ()))
        row |= {f"best_{name}": value for name, value in record.best.items()}
        row |= {f"last_{name}": value for name, value in record.last.items()}
        row |= {"select": record.select, "parameters": record.parameters, "flops": record.flops}
        row |= {"seconds": round(record.seconds, 2), "key": record.key}
        row |= {f"weights_{part}": value for part, value in record.weights.items()}
        rows.append(row)
    return pd.DataFrame(rows)
