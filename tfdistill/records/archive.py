"""Records of a finished study in one small file, to be kept with its results.

`records.jsonl.xz` has one line for each record: figures, history, configuration, versions, and what
the network said of each test image.
"""

import dataclasses
import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tfdistill.records.predictions import Predictions
from tfdistill.records.record import Record, as_values, of_values
from tfdistill.utils import checks, storage

ARCHIVE_FILE = "records.jsonl.xz"
_PREDICTIONS = "predictions"
# What is unpacked of a file: 1,000 records with what they say of 10,000 images are 200 MB.
_MOST_BYTES, _MOST_BYTES_OF_A_LINE, _PART = 2**28, 2**25, 2**20
_MOST_MEMORY = 100 * 2**20  # preset 9 takes 65 MiB
# More digits than float16 has.
_DIGITS = 4
# Where they are damaged: no study's command makes them again in this folder.
KEPT = "Put a whole copy in its place, or keep the study again: tfdistill report STUDY --archive."


def write_archive(path: Path, records: Iterable[Record]) -> None:
    """Write records and, of those that have them, predictions; equal records give equal bytes.

    Raises:
        UsageError: They are too many for one file.
    """
    size = 0
    with (
        storage.appearing(Path(path)) as temporary,
        lzma.open(temporary, "wt", encoding="utf-8", preset=9) as file,
    ):
        for record in records:
            values = as_values(record)
            if record.predictions is not None:
                values[_PREDICTIONS] = _listed(record.predictions)
            line = json.dumps(values, sort_keys=True) + "\n"
            size += len(line)
            if size > _MOST_BYTES or len(line) > _MOST_BYTES_OF_A_LINE:
                raise checks.UsageError(
                    f"The records are too many for one {ARCHIVE_FILE} of {_MOST_BYTES:,} bytes. "
                    "Keep the study's folder instead."
                )
            file.write(line)


def read_archive(path: Path) -> list[Record]:
    """Return the records of `write_archive`, in its order.

    Raises:
        DamagedError: The file is not as it was written.
        LaterError: A later version of this package wrote it.
    """
    path, found = Path(path), []
    try:
        for line in _lines(path):
            values = json.loads(line)
            if not isinstance(values, dict):
                raise ValueError("a line of it is no record")
            listed = values.pop(_PREDICTIONS, None)
            record = of_values(path, values)
            found.append(_with(record, listed) if listed else record)
    except storage.DamagedError as error:
        raise storage.DamagedError(path, error.problem.removeprefix(f"{path} "), KEPT) from None
    except checks.UsageError:
        raise
    except (lzma.LZMAError, EOFError, OverflowError, RecursionError, ValueError) as error:
        problem = checks.first_line(error).rstrip(".")
        raise storage.DamagedError(path, f"is damaged ({problem})", KEPT) from None
    return found


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of an archive as they are unpacked: a small file may hold any number."""
    unpacking = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)
    size, rest = 0, b""
    with open(path, "rb") as file:
        while not unpacking.eof:
            packed = file.read(2**16) if unpacking.needs_input else b""
            if unpacking.needs_input and not packed:
                raise EOFError("it is cut off")
            part = unpacking.decompress(packed, _PART)
            size += len(part)
            if size > _MOST_BYTES or len(rest) > _MOST_BYTES_OF_A_LINE:
                raise ValueError("it holds more than any study's records")
            *whole, rest = (rest + part).split(b"\n")
            yield from whole
        if rest or unpacking.unused_data or file.read(1):
            raise ValueError("something stands after its records")


def _listed(predictions: Predictions) -> dict[str, list[float]]:
    return {
        "labels": [int(label) for label in predictions.labels],
        "classes": [int(each) for each in predictions.classes],
        "probabilities": [round(float(share), _DIGITS) for share in predictions.probabilities],
    }


def _are_classes(column: list[Any]) -> bool:
    # Thousands of values a run, so without a loop in Python.
    if not {*map(type, column)} <= {int}:
        return False
    return 0 <= min(column, default=0) <= max(column, default=0) < 2**16


def _with(record: Record, listed: Any) -> Record:
    import numpy as np

    names = "labels", "classes", "probabilities"
    columns = listed.values() if isinstance(listed, dict) else ()
    if {*listed} != {*names} or not all(isinstance(column, list) for column in columns):
        raise ValueError(f"predictions of {record.name} are no {', '.join(names)}")
    *whole, shares = (listed[name] for name in names)
    fits = all(map(_are_classes, whole))
    numbers = {*map(type, shares)} <= {int, float} and not (np.array(shares, float) > 1).any()
    if len({len(column) for column in columns}) > 1 or not (fits and numbers):
        raise ValueError(f"predictions of {record.name} are no classes and probabilities")
    predictions = Predictions(
        np.array(listed["labels"], np.uint16),
        np.array(listed["classes"], np.uint16),
        np.array(listed["probabilities"], np.float16),
    )
    return dataclasses.replace(record, predictions=predictions)
