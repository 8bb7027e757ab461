"""Answers about images as a table, JSON or CSV: printed as they come, or whole in a file."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from tfdistill.config.registry import ANSWER_FORMATS
from tfdistill.inference import predictions
from tfdistill.inference.classifiers import Guess
from tfdistill.inference.predictions import Answer, Predictions
from tfdistill.records import Table
from tfdistill.reporting import reports
from tfdistill.utils import checks, storage
from tfdistill.utils.pixels import FULL, PixelRange
from tfdistill.utils.text import MISSING, cell, printable

WIDTH, LEAST_IMAGE = 80, 18
# Letters of a class name in the table, of the first class and of those after it.
FIRST, NEXT = 16, 8
DIGITS = 6


def run(
    model: str,
    images: Sequence[str],
    *,
    format: str = "table",
    top: int = 3,
    batch_size: int = 32,
    output: str | None = None,
    allow_unsafe: bool = False,
    pixel_range: PixelRange = FULL,
) -> int:
    """Classify image files and write the answers; what `tfdistill predict` does.

    Args:
        model, images, top, batch_size, allow_unsafe, pixel_range: As of `predictions.classify`.
        format: `table`, `json` or `csv`.
        output: The file to write, which appears whole or not at all; None prints.

    Returns:
        Exit status: 0 if all images were answered, 1 if some were not.

    Raises:
        UsageError: As of `predictions.classify`; or `output` cannot be written.

    Example:
        >>> run("saved_models/quickstart-student", ["photos"], format="csv", output="answers.csv")
        0
    """
    checks.one_of("format", format, ANSWER_FORMATS)
    if output and Path(output).is_dir():
        raise checks.UsageError(f"output must be a file's path. Received: {output!r}, a folder.")
    answers = predictions.classify(
        model,
        images,
        top=top,
        batch_size=batch_size,
        allow_unsafe=allow_unsafe,
        pixel_range=pixel_range,
    )
    if output:
        save(answers, format, Path(output))
        print("\n".join([*summary(answers), f"Written: {output}"]))
        return 1 if answers.failed else 0
    write(answers, format, sys.stdout)
    if format != "table":
        print("\n".join(summary(answers)), file=sys.stderr)
    return 1 if answers.failed else 0


def save(answers: Predictions, format: str, path: Path) -> None:
    """Write answers to a file, which appears whole or not at all; arguments as of `write`."""
    with (
        storage.appearing(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        write(answers, format, file)


def write(answers: Predictions, format: str, file: TextIO) -> None:
    """Write answers: JSON and CSV as they come, a table at the end with its summary.

    Args:
        answers: The answers.
        format: `table`, `json` or `csv`.
        file: A text file.
    """
    ANSWER_FORMATS[format](answers, file)


def table(answers: Sequence[Answer], width: int = WIDTH) -> Table:
    """Return answers as a table of at most `width` columns, long names shortened.

    Args:
        answers: The answers; where there is none, the class is `failed`.
        width: Columns of the terminal.
    """
    several = any(answer.multi_label for answer in answers)
    heading = _LABELS_HEADING if several else _HEADING
    cells = [(_label_cells if several else _cells)(answer) for answer in answers]
    widths = [max(map(_longest_line, column)) for column in zip(*cells, heading, strict=True)]
    room = max(LEAST_IMAGE, width - sum(widths) - 2 * (len(widths) + 1))
    names = [_end_of(printable(answer.image), room) for answer in answers]
    rows = tuple((name, *row) for name, row in zip(names, cells, strict=True))
    return Table("", ("image", *heading), rows)


def summary(answers: Predictions) -> list[str]:
    """Return what is to be said at the end, in lines."""
    each = 1000 * answers.seconds / max(1, answers.images)
    number = f"{answers.images} image{'s' * (answers.images != 1)}, {answers.failed} failed"
    lines = [f"{number}. {each:.1f} ms for each, with reading it."]
    lines.append(printable(f"Model: {answers.model.path} ({answers.model.runtime.title})"))
    assumed = [answers.model.assumed] if answers.model.assumed else []
    return lines + assumed + answers.skipped.lines()


_HEADING = ("class", "prob.", "next")
_LABELS_HEADING = ("labels",)


def write_table(answers: Predictions, file: TextIO) -> None:
    """Write a table, and under it what failed."""
    from rich.console import Console

    found = list(answers)
    console = Console(file=file, highlight=False)
    console.print(reports.terminal_table(table(found, console.width), console.width))
    lines = [
        printable(f"{answer.image}: {answer.error}") for answer in found if answer.error is not None
    ]
    lines = ["Failed:", *lines, ""] if lines else []
    file.write("".join(f"{line}\n" for line in ["", *lines, *summary(answers)]))


def write_json(answers: Predictions, file: TextIO) -> None:
    """Write a list of objects, one for each image."""
    start = "["
    for answer in answers:
        file.write(f"{start}\n {json.dumps(_fields(answer))}")
        start = ","
    file.write("\n]\n")


def write_csv(answers: Predictions, file: TextIO) -> None:
    """Write a row for each image under a row of names."""
    if answers.model.multi_label:
        return _write_csv_of_labels(answers, file)
    top = min(answers.top, len(answers.model.class_names))
    ranks = [f"_{rank}" if rank > 1 else "" for rank in range(1, top + 1)]
    columns = [f"{key}{rank}" for rank in ranks for key in ("class", "class_id", "probability")]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", *columns, "error"])
    for answer in answers:
        values = [value for guess in answer.top for value in _guess(guess).values()]
        row = [answer.image, *(values or [""] * len(columns)), answer.error or ""]
        writer.writerow(map(cell, row))


def _write_csv_of_labels(answers: Predictions, file: TextIO) -> None:
    names = answers.model.class_names
    writer = csv.writer(file, lineterminator="\n")
    columns = [cell(f"probability_{name}") for name in names]
    writer.writerow(["image", "labels", *columns, "error"])
    for answer in answers:
        values = {guess.number: round(guess.probability, DIGITS) for guess in answer.top}
        there = sorted(answer.labels, key=lambda guess: guess.number)
        shown = "|".join(guess.name for guess in there)
        shares = [values.get(number, "") for number in range(len(names))]
        writer.writerow(map(cell, [answer.image, shown, *shares, answer.error or ""]))


def _fields(answer: Answer) -> dict:
    if answer.error is not None:
        return {"image": answer.image, "error": answer.error}
    if answer.multi_label:
        each = [
            {
                "label": one.name,
                "label_id": one.number,
                "probability": round(one.probability, DIGITS),
            }
            for one in answer.top
        ]
        there = len(answer.labels)
        return {"image": answer.image, "labels": each[:there], "others": each[there:]}
    top = [_guess(guess) for guess in answer.top]
    return {"image": answer.image, **top[0], "top": top}


def _guess(guess: Guess) -> dict:
    probability = round(guess.probability, DIGITS)
    return {"class": guess.name, "class_id": guess.number, "probability": probability}


def _cells(answer: Answer) -> tuple[str, str, str]:
    if answer.error is not None:
        return "failed", "", ""
    first, *others = answer.top
    shown = [f"{_start_of(printable(one.name), NEXT)} {_percent(one)}" for one in others]
    pairs = [", ".join(shown[at : at + 2]) for at in range(0, len(shown), 2)]
    return _start_of(printable(first.name), FIRST), _percent(first), "\n".join(pairs)


def _label_cells(answer: Answer) -> tuple[str]:
    if answer.error is not None:
        return ("failed",)
    shown = [f"{_start_of(printable(one.name), FIRST)} {_percent(one)}" for one in answer.labels]
    return (",\n".join(", ".join(shown[at : at + 2]) for at in range(0, len(shown), 2)) or MISSING,)


def _percent(guess: Guess) -> str:
    return f"{100 * guess.probability:.1f} %"


def _start_of(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _end_of(text: str, length: int) -> str:
    return text if len(text) <= length else f"…{text[len(text) - length + 1 :]}"


def _longest_line(text: str) -> int:
    return max(map(len, text.split("\n")))
