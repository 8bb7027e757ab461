"""A list of image files in a CSV file: `path,label` and, if wanted, the part that each is of.

Paths are absolute or from the list's folder. Classes are numbered in the order of their names, or
of their numbers where all are numbers; examples in the order of the rows.
"""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from tfdistill.config import DataConfig
from tfdistill.data.dataset import Reader, Source
from tfdistill.data.sources import parts
from tfdistill.utils import checks

PATH, LABEL, SPLIT = "path", "label", "split"
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
SEVERAL = re.compile(r"[|;]")


def read(config: DataConfig, name: str) -> Source:
    """Return the images that the CSV file `name` lists.

    Raises:
        UsageError: The file is missing or has other columns; a row lacks something, names a missing
            file, one of another row or several labels; a part lacks a class; a file cannot be read;
            or sizes differ and `config.image_size` is None.
    """
    file = Path(name).expanduser()
    rows = _rows(file)
    paths = _paths(rows, file)
    _check_labels(rows)
    classes = sorted(rows[LABEL].unique(), key=_place(rows[LABEL]))
    numbers = {label: number for number, label in enumerate(classes)}
    labels = np.array([numbers[label] for label in rows[LABEL]], np.int32)
    of = _parts(rows)
    names = {part: set(rows[LABEL][of == part]) for part in parts.WORDS if (of == part).any()}
    parts.same_classes(names, str(file))
    found = {
        part: parts.examples(
            [path for path, its in zip(paths, of, strict=True) if its == part],
            labels[of == part],
            config,
            f"{file.resolve()} {part}",
        )
        for part in names
    }
    notes = parts.kinds(paths)
    return parts.source(classes, found, config.split_seed, lambda part: f"the split {part}", notes)


def _rows(file: Path) -> pd.DataFrame:
    """Return path, label and split, if given, by the number that a row has in a table."""
    if not file.is_file():
        raise checks.UsageError(
            f"data.source 'csv:FILE' needs a CSV file. Received: {str(file)!r}, which is no file."
        )
    try:
        # The names are read as a row: otherwise a longer one would shift the columns in silence.
        table = pd.read_csv(
            file,
            header=None,
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,
            encoding="utf-8-sig",
        )
    except (OSError, ValueError) as error:  # among them those of pandas and of Unicode
        raise checks.UsageError(
            f"Cannot read the CSV file {file}: {checks.first_line(error)} Give one in UTF-8 with "
            "the columns path,label."
        ) from None
    table = table.map(lambda cell: str(cell).strip())
    columns = [cell.lower() for cell in table.iloc[0]]
    if sorted(columns) not in ([LABEL, PATH], [LABEL, PATH, SPLIT]):
        raise checks.UsageError(
            f"The first line of {file} must name the columns path,label or path,label,split; each "
            f"image has one label. Received: {checks.shown(','.join(table.iloc[0]))}."
        )
    table.index = pd.RangeIndex(1, len(table) + 1)
    rows = table.iloc[1:].set_axis(columns, axis=1)
    rows = rows[(rows != "").any(axis=1)]
    if rows.empty:
        raise checks.UsageError(f"{file} lists no image. Add a row path,label for each.")
    return rows


def _paths(rows: pd.DataFrame, file: Path) -> list[Path]:
    first: dict[str, int] = {}
    for row, name in rows[PATH].items():
        if not name:
            raise _wrong(row, "names no file", "Give its path")
        path = os.path.normpath(file.parent / name)
        if not os.path.isfile(path):
            raise _wrong(row, f"names {name!r}, which is no file", f"Paths are from {file.parent}")
        if path in first:
            raise _wrong(row, f"names {name!r} as row {first[path]} does", "Remove one of them")
        first[path] = row
    return list(map(Path, first))


def _check_labels(rows: pd.DataFrame) -> None:
    for row, label in rows[LABEL].items():
        if not label:
            raise _wrong(row, "has no label", "Give one, or remove the row")
        if SEVERAL.search(label):
            raise _wrong(row, f"has several labels ({label!r})", "Give one for each image")
        if not label.isprintable():
            raise _wrong(row, f"has the label {label!r}", "Give one of a single line")


def _place(labels: pd.Series):
    """Return what labels are sorted by: their numbers if all are, else their names."""
    if all(map(NUMBER.fullmatch, labels)):
        return lambda label: (float(label), label)
    return None


def _parts(rows: pd.DataFrame) -> np.ndarray:
    """Return the part that each row is of."""
    if SPLIT not in rows:
        return np.full(len(rows), parts.TRAIN)
    for row, name in rows[SPLIT].items():
        if parts.part_of(name) is None:
            raise _wrong(row, f"has the split {name!r}", f"Give one of {parts.words()}")
    found = rows[SPLIT].map(parts.part_of).to_numpy()
    if parts.TRAIN not in found:
        raise checks.UsageError(
            "The column split needs rows to train on (train or training). Received: "
            f"{', '.join(sorted(set(rows[SPLIT])))} alone."
        )
    return found


def _wrong(row, what: str, advice: str) -> checks.UsageError:
    return checks.UsageError(f"Row {row} of the CSV file {what}. {advice}.")


READER = Reader(read, argument="FILE")
