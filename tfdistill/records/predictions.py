"""What a network said of each test image: a small file beside the record of its run.

Two networks can be compared on the same images only if it is known which images each has right.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfdistill.records.record import Record, check_files, run_folder
from tfdistill.utils import checks, storage

if TYPE_CHECKING:
    import numpy as np

PREDICTIONS_FILE = "predictions.npy"
_COLUMNS = [("label", "<u2"), ("class", "<u2"), ("probability", "<f2")]


@dataclass(frozen=True)
class Predictions:
    """Answers to test images, in the order of the data set.

    Args:
        labels: `[n]` uint16, what each image shows.
        classes: `[n]` uint16, the class with the largest probability.
        probabilities: `[n]` float16 in 0..1, that probability.
    """

    labels: "np.ndarray"
    classes: "np.ndarray"
    probabilities: "np.ndarray"

    @property
    def right(self) -> "np.ndarray":
        """`[n]` bool: whether the class is the label."""
        return self.classes == self.labels


def write_predictions(path: Path, predictions: Predictions) -> str:
    """Write predictions, six bytes an image, and return the file's SHA-256."""
    import numpy as np

    table = np.zeros(len(predictions.labels), _COLUMNS)
    table["label"], table["class"] = predictions.labels, predictions.classes
    table["probability"] = predictions.probabilities
    with storage.appearing(path) as temporary, temporary.open("wb") as file:
        np.save(file, table)
    return storage.sha256(path)


def with_predictions(study_folder: Path, record: Record) -> Record:
    """Return a record with what its run said of each test image, where that was stored.

    Raises:
        DamagedError: A file beside the record is not as it was written.
    """
    if PREDICTIONS_FILE not in record.files:
        return record
    import numpy as np

    folder = run_folder(study_folder, record.name)
    check_files(folder, record)
    path = folder / PREDICTIONS_FILE
    try:
        # In place: its first bytes say how large it is, and the file may be smaller.
        table = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError) as error:
        line = checks.first_line(error).rstrip(".")
        raise storage.DamagedError(path, f"is damaged ({line})") from None
    if table.ndim != 1 or table.dtype != _COLUMNS:
        raise storage.DamagedError(path, "is damaged (it holds other than predictions)")
    table = np.array(table)
    found = Predictions(table["label"], table["class"], table["probability"])
    return dataclasses.replace(record, predictions=found)
