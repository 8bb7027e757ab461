"""What runs measured, and the tables made of it."""

from tfdistill.records.record import (
    DIVERGED,
    FINISHED,
    RECORD_FILE,
    Record,
    check_beside,
    check_files,
    outcome,
    read,
    read_all,
    run_folder,
    run_key,
    to_repeat,
    write,
)
from tfdistill.records.table import (
    Spread,
    Table,
    accuracies,
    accuracy_by_seed,
    by_row,
    frame,
    spread,
)

__all__ = [
    "DIVERGED",
    "FINISHED",
    "RECORD_FILE",
    "Record",
    "Spread",
    "Table",
    "accuracies",
    "accuracy_by_seed",
    "by_row",
    "check_beside",
    "check_files",
    "frame",
    "outcome",
    "read",
    "read_all",
    "run_folder",
    "run_key",
    "spread",
    "to_repeat",
    "write",
]
