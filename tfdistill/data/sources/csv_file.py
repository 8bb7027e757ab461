"""A list of image files in a CSV file: `path,label` and, if wanted, the part that each is of.

Paths are absolute or from the list's folder. Classes are numbered in the order of their names, or
of their numbers where all are numbers; examples in the order of the rows. Images have any number of
labels where a row's are `a|b`, or where there is a column of 0 and 1 for each label.
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
BAR = "|"
YES_OR_NO = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


def read(config: DataConfig, name: str) -> Source:
    """Return the images that the CSV file `name` lists.

    Raises:
        UsageError: The file is missing or has other columns; a row lacks something, names a missing
            file or one of another row; a part lacks a class; a file cannot be read; or sizes differ
            and `config.image_size` is None.
    """
    file = Path(name).expanduser()
    rows = _rows(file)
    paths = _paths(rows, file)
    names, labels = _labels(rows)
    of = _parts(rows)
    each = {part: labels[of == part] for part in parts.WORDS if (of == part).any()}
    if labels.ndim == 1:  # of several labels, a part may have none
        shown = {part: {names[number] for number in its} for part, its in each.items()}
        parts.same_classes(shown, str(file))
    config, told = parts.resolved(config, paths)
    found = {
        part: parts.examples(
            [path for path, its in zip(paths, of, strict=True) if its == part],
            its_labels,
            config,
            f"{file.resolve()} {part}",
        )
        for part, its_labels in each.items()
    }
    notes = parts.kinds(paths) + told
    return parts.source(names, found, config.split_seed, lambda part: f"the split {part}", notes)


def _rows(file: Path) -> pd.DataFrame:
    """Return path, split, if given, and labels by the number that a row has in a table."""
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
    given = [
        name.lower() if name.lower() in (PATH, LABEL, SPLIT) else name for name in table.iloc[0]
    ]
    others = [name for name in given if name not in (PATH, SPLIT)]
    well = given.count(PATH) == 1 and given.count(SPLIT) <= 1 and len(set(others)) == len(others)
    if not well or not others or LABEL in others[1:] or LABEL in others and others[1:]:
        raise checks.UsageError(
            f"The first line of {file} must name the columns path,label or, of images with several "
            "labels, path and each label once (path,cat,dog); and split, if wanted. Received: "
            f"{checks.shown(','.join(table.iloc[0]))}."
        )
    if not all(name and name.isprintable() for name in others):
        raise checks.UsageError(
            f"Every column of {file} must have a name of a single line. Received: "
            f"{checks.shown(','.join(table.iloc[0]))}."
        )
    table.index = pd.RangeIndex(1, len(table) + 1)
    rows = table.iloc[1:].set_axis(given, axis=1)
    rows = rows[(rows != "").any(axis=1)]
    if rows.empty:
        raise checks.UsageError(f"{file} lists no image. Add a row path,label for each.")
    return rows


def _labels(rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Return the names of classes or labels, and each row's: `[n]`, or `[n, labels]` of 0 and 1."""
    if LABEL not in rows:
        return _of_columns(rows)
    if rows[LABEL].str.contains(BAR, regex=False).any():
        return _of_bars(rows)
    _check_labels(rows)
    classes = _sorted(set(rows[LABEL]))
    numbers = {label: number for number, label in enumerate(classes)}
    return classes, np.array([numbers[label] for label in rows[LABEL]], np.int32)


def _of_columns(rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    names = [name for name in rows.columns if name not in (PATH, SPLIT)]
    for name in names:
        for row, cell in rows[name].items():
            if cell not in YES_OR_NO:
                raise _wrong(
                    row,
                    f"has {checks.shown(cell)} in the column {name}",
                    "Give 1 where the image has that label, 0 where not, or one column label",
                )
    return names, rows[names].map(YES_OR_NO.__getitem__).to_numpy(np.uint8)


def _of_bars(rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    each = [[name.strip() for name in cell.split(BAR)] if cell else [] for cell in rows[LABEL]]
    for row, names in zip(rows.index, each, strict=True):
        if "" in names or len(set(names)) < len(names):
            cell = checks.shown(rows[LABEL][row])
            raise _wrong(row, f"has the labels {cell}", "Give each once, with a | between two")
        for name in names:
            _check_name(row, name)
    known = _sorted({name for names in each for name in names})
    return known, np.array([[name in names for name in known] for names in each], np.uint8)


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
        _check_name(row, label)


def _check_name(row, label: str) -> None:
    if ";" in label:
        raise _wrong(row, f"has several labels ({label!r})", "Give one, or several as a|b")
    if not label.isprintable():
        raise _wrong(row, f"has the label {label!r}", "Give one of a single line")


def _sorted(labels: set[str]) -> list[str]:
    """Return labels in the order of their numbers if all are, else of their names."""
    if all(map(NUMBER.fullmatch, labels)):
        return sorted(labels, key=lambda label: (float(label), label))
    return sorted(labels)


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
