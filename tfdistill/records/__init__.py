"""What runs measured, and the tables made of it."""

from tfdistill.records.archive import (
    ARCHIVE_FILE,
    read_archive,
    write_archive,
)
from tfdistill.records.checking import DIVERGED, FINISHED
from tfdistill.records.predictions import (
    PREDICTIONS_FILE,
    Predictions,
    with_predictions,
    write_predictions,
)
from tfdistill.records.record import (
    RECORD_FILE,
    Record,
    check_beside,
    check_files,
    is_of,
    outcome,
    read,
    read_all,
    read_runs,
    run_folder,
    run_key,
    to_repeat,
    write,
)
from tfdistill.records.table import (
    Spread,
    Table,
    accuracy_by_seed,
    by_row,
    frame,
    revisions,
    spread,
)

__all__ = [
    "ARCHIVE_FILE",
    "DIVERGED",
    "FINISHED",
    "PREDICTIONS_FILE",
    "RECORD_FILE",
    "Predictions",
    "Record",
    "Spread",
    "Table",
    "accuracy_by_seed",
    "by_row",
    "check_beside",
    "check_files",
    "frame",
    "is_of",
    "outcome",
    "read",
    "read_all",
    "read_archive",
    "read_runs",
    "revisions",
    "run_folder",
    "run_key",
    "spread",
    "to_repeat",
    "with_predictions",
    "write",
    "write_archive",
    "write_predictions",
]
