"""Reports: a study's tables and records as one HTML page, and in the terminal.

The page loads nothing, follows the reader's light or dark setting, scrolls wide tables in their own
box and prints. The numbers of the study's tables come as text from the study; only the table of
single runs is made here.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfdistill.records import DIVERGED, FINISHED, Record, Table, frame
from tfdistill.reporting.significance import Family
from tfdistill.reporting.verdicts import power
from tfdistill.utils import storage
from tfdistill.utils.storage import appearing
from tfdistill.utils.text import (
    MISSING,
    amount,
    cell,
    counted,
    measured_time,
    number,
    percent,
    printable_lines,
)

if TYPE_CHECKING:
    import pandas as pd
    import rich.console
    import rich.table

REPORT_FILE, RESULTS_FILE, CONFIG_FILE = "report.html", "results.csv", "config.yaml"
COMPARISONS_FILE = "comparisons.csv"
TEXT_COLUMNS = ("run", "row", "status")
# More rows make figures with a mark for each row, and more runs their table, too long.
MANY_ROWS, MANY_RUNS = 24, 60
MOST_FAMILIES = 5  # in one picture
Drawn = tuple[str, str, str]  # title, SVG text, caption


def write_report(
    folder: Path,
    title: str,
    question: str,
    tables: Sequence[Table],
    records: Iterable[Record],
    notes: Sequence[str] = (),
    *,
    verdict: str = "",
    comparisons: Sequence[Family] = (),
    published: Mapping[str, float] | None = None,
    figures: Sequence[Drawn] = (),
    drawn: Sequence[Drawn] | None = None,
) -> Path:
    """Write `report.html`, `results.csv` and, where rows were compared, `comparisons.csv`.

    Each appears whole or not at all. The page opens with the verdict and one picture.

    Args:
        folder: The study's folder; its `config.yaml`, if there is one, is shown.
        title: Title of the page.
        question: What the study asks.
        tables: The study's tables.
        records: All records, diverged ones too.
        notes: Remarks that stand under the tables.
        verdict: What came out, in one or two sentences.
        comparisons: What was compared, the study's first question first.
        published: Published test accuracy by row, in 0..1, marked in the figures.
        figures: The study's own figures, (title, SVG text, caption), before those of every study.
        drawn: All `pictures`, where they have been drawn; None draws them.

    Returns:
        Path of the report.

    Example:
        >>> path = write_report(folder, "Mysteries", "Why does it work?", [table], records)
    """
    import jinja2

    folder, records = Path(folder), list(records)
    if drawn is None:
        drawn = pictures(records, comparisons, published, figures)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfdistill.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html.j2").render(
        title=title,
        question=question,
        verdict=verdict,
        setting=setting(records, comparisons),
        facts=_facts(records),
        tables=tables,
        notes=notes,
        diverged=[record for record in records if record.status == DIVERGED],
        first=_shown(drawn[0]) if drawn else None,
        figures=[_shown(each) for each in drawn[1:]],
        figures_note=_figures_note(records),
        runs=[_run_row(record) for record in records],
        folded=len(records) > MANY_RUNS,
        run_columns=list(_run_row(records[0])) if records else [],
        text_columns=TEXT_COLUMNS,
        selected=" or ".join(sorted({_SELECTED[record.select] for record in records})),
        configuration=_configuration(folder),
        versions=_versions(records),
        missing=MISSING,
    )
    with appearing(folder / RESULTS_FILE) as temporary:
        frame(records).map(cell).to_csv(temporary, index=False)
    write_comparisons(folder, comparisons)
    with appearing(folder / REPORT_FILE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / REPORT_FILE


def write_comparisons(folder: Path, comparisons: Sequence[Family]) -> None:
    """Write `comparisons.csv`, where rows were compared."""
    if comparisons:
        with appearing(Path(folder) / COMPARISONS_FILE) as temporary:
            comparison_frame(comparisons).map(cell).to_csv(temporary, index=False)


def comparison_frame(comparisons: Iterable[Family]) -> "pd.DataFrame":
    """Return a pandas DataFrame with one row for each comparison; differences are shares of 1."""
    import pandas as pd

    return pd.DataFrame(
        {
            "family": family.title,
            "row": row if isinstance(row, str) else "alpha {:g}, T {:g}".format(*row),
            "baseline": family.baseline,
            "seeds": found.seeds,
            "difference": found.difference,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "std": family.std,
            "degrees": family.degrees,
        }
        for family in comparisons
        for row, found in family.rows.items()
    )


def setting(records: Sequence[Record], comparisons: Sequence[Family] = ()) -> str:
    """Return data, networks, sizes and power of a study in one line."""
    if not records:
        return ""
    networks: dict[str, int] = {}
    for record in records:
        if (model := record.config.get("model")) and record.config.get("width", 1) == 1:
            name = _network(model)  # of which parts may be trained alone
            networks[name] = max(networks.get(name, 0), record.parameters)
    sizes = [f"{name} ({amount(size)} weights)" for name, size in networks.items() if size]
    seeds: dict[str, set[int]] = {}
    for record in records:
        seeds.setdefault(record.row, set()).add(record.seed)
    counts = sorted({len(each) for each in seeds.values() if len(each) > 1}) or [1]
    most = counted(counts[-1], "seed")
    several = f"{counted(counts[0], '').split()[0]} to {most}" if len(counts) > 1 else most
    parts = [_data(records), ", ".join(_few(sizes)), several, power(comparisons)]
    return " · ".join(part for part in parts if part)


def _data(records: Sequence[Record]) -> str:
    """Return e.g. `digits, 200 training images, 797 test images`, as far as it is known."""
    of_images = [record for record in records if record.config.get("kind", "network") == "network"]
    data = [record.config.get("data") or {} for record in of_images]
    sources = dict.fromkeys(each["source"] for each in data if each.get("source"))
    counts = {each.get("train_examples") for each in data}
    counts = counts if counts != {None} else set()
    tested = {int(sum(record.calibration.get("count", ()))) for record in of_images} - {0}
    parts = [" and ".join(sources)]
    for numbers, what in ((counts, "training"), (tested, "test")):
        if numbers:
            known = sorted((number for number in numbers if number), reverse=True)
            every = ["all"] * (None in numbers)
            listed = " or ".join([*every, *(f"{number:,}" for number in known)])
            parts.append(f"{listed} {what} images")
    return ", ".join(part for part in parts if part)


def _network(model: Mapping) -> str:
    width = model.get("width", 1)
    return model["name"] + (f", width {width:g}" if width != 1 else "")


def _few(names: Sequence[str], most: int = 4) -> Sequence[str]:
    return names if len(names) <= most else [*names[:most], f"{len(names) - most} more"]


def terminal_table(table: Table, width: int = 80) -> "rich.table.Table":
    """Return a table for `rich` that loses no text in `width` columns.

    Args:
        table: Any table.
        width: Columns of the terminal. Where the cells do not fit side by side, intervals and then
            deviations move under their means; labels and headings always wrap.

    Returns:
        A `rich.table.Table`.
    """
    import rich.box
    import rich.table
    from rich.text import Text

    rows = [[row[0], *(text or MISSING for text in row[1:])] for row in table.rows]
    rows = [list(map(printable_lines, row)) for row in rows]
    widths = _widths([table.columns, *rows], width)
    for whole, broken in ((", ", ",\n"), (" ± ", "\n±")):
        if sum(widths) <= width:
            break
        rows = [[row[0], *(text.replace(whole, broken) for text in row[1:])] for row in rows]
        widths = _widths([table.columns, *rows], width)
    result = rich.table.Table(
        title=Text(printable_lines(table.title)),
        caption=Text(printable_lines(table.note)) if table.note else None,
        box=rich.box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for i, (column, space) in enumerate(zip(table.columns, widths, strict=True)):
        result.add_column(
            Text(column),
            justify="right" if i else "left",
            overflow="fold",
            width=space - _GAP,
        )
    for row in rows:
        result.add_row(*map(Text, row))
    return result


def print_tables(
    tables: Iterable[Table], console: "rich.console.Console", verdict: str = ""
) -> None:
    """Print a verdict and tables, a blank line after each; none is wider than the console."""
    if verdict:
        from rich.text import Text

        console.print(Text(printable_lines(verdict)), "")
    for table in tables:
        console.print(terminal_table(table, console.width), "")


_SELECTED = {"best": "best validation", "last": "last"}
# What rich puts between two columns.
_GAP = 2


def _widths(lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the widths of all columns with their gaps; labels take what the numbers leave.

    No word is broken, so the sum may be more than `width`.
    """
    labels, *columns = zip(*lines, strict=True)
    # A heading wraps between words, a number only where it holds a line break.
    numbers = [
        max([_longest(column[0].split()), *(_longest(text.split("\n")) for text in column[1:])])
        for column in columns
    ]
    rest = width - sum(numbers) - _GAP * len(lines[0])
    words = _longest(word for label in labels for word in label.split())
    return [space + _GAP for space in (min(_longest(labels), max(words, rest)), *numbers)]


def _longest(texts: Iterable[str]) -> int:
    return max(map(len, texts), default=1)


def _run_row(record: Record) -> dict[str, str]:
    best, last, figures = record.best, record.last, record.figures
    return {
        "run": record.name,
        "row": record.row,
        "seed": str(record.seed),
        "status": record.status,
        "best epoch": number(best.get("epoch"), 0),
        "validation, best": percent(best.get("validation_accuracy")),
        "test, best": percent(best.get("test_accuracy")),
        "test, last": percent(last.get("test_accuracy")),
        "NLL": number(figures.get("test_nll"), 4),
        **_quality(record),
        "agreement": percent(figures.get("test_agreement")),
        "KL": number(figures.get("test_teacher_kl"), 4),
        "parameters": amount(record.parameters),
        "FLOPs": amount(record.flops),
        "time": measured_time(record.seconds),
    }


def _quality(record: Record) -> dict[str, str]:
    figures = record.figures
    if not record.multi_label:
        return {"ECE": number(figures.get("test_ece"), 4)}
    return {
        "mAP": percent(figures.get("test_mean_average_precision")),
        "exact match": percent(figures.get("test_exact_match")),
    }


def pictures(
    records: Sequence[Record],
    comparisons: Sequence[Family],
    published: Mapping[str, float] | None = None,
    own: Sequence[Drawn] = (),
) -> list[Drawn]:
    """Return all pictures of a study as (title, SVG text, caption), that of the verdict first."""
    grids = _grid_figures(records, published)
    rows = _row_figures(_few_rows(records), published)
    compared = [] if any(svg for _, svg, _ in grids) else [_comparison_figure(comparisons)]
    return [drawn for drawn in (*compared, *grids[:1], *own, *grids[1:], *rows) if drawn[1]]


def _shown(drawn: Drawn) -> dict:
    # Matplotlib takes half a second to import; tables in the terminal need not wait for it.
    from tfdistill.reporting.svg import is_wide

    title, svg, caption = drawn
    return {"title": title, "svg": svg, "caption": caption, "wide": is_wide(svg)}


def _comparison_figure(comparisons: Sequence[Family]) -> Drawn:
    from tfdistill.reporting import figures

    return (
        "Differences from the baseline",
        figures.differences(comparisons[:MOST_FAMILIES]),
        "Each difference of the verdict and its 95 % interval. Filled: one that excludes "
        "0; hollow: a difference that cannot be told from luck.",
    )


def _grid_figures(
    records: Sequence[Record], published: Mapping[str, float] | None
) -> list[tuple[str, str, str]]:
    from tfdistill.reporting import grid_figures

    return [
        (
            "Accuracy by alpha and temperature",
            grid_figures.alpha_temperature(records, published),
            "Mean test accuracy in percent. Blue: above the student alone, orange: below. Framed "
            "and bold: by more than luck (simultaneous 95 % intervals, seeds as blocks).",
        ),
        (
            "Accuracy by epoch, for each cell",
            grid_figures.curves_per_cell(records),
            "Validation accuracy, mean over seeds. The rise of the first epochs lies below the "
            "panels.",
        ),
    ]


def _row_figures(
    records: Sequence[Record], published: Mapping[str, float] | None
) -> list[tuple[str, str, str]]:
    from tfdistill.reporting import figures

    shown = any(record.row in (published or {}) for record in records)
    return [
        (
            "Test accuracy",
            figures.accuracy_by_row(records, published),
            "A point for each run; bar and line: mean and standard deviation over seeds."
            + (" Hollow diamond: published." if shown else ""),
        ),
        (
            "Accuracy by epoch",
            figures.accuracy_by_epoch(records),
            "Validation accuracy; bold: mean over seeds, thin: single runs (not with many rows).",
        ),
        (
            "Student against teacher",
            figures.student_against_teacher(records),
            "Test accuracy. Above the line, the student is better than what taught it.",
        ),
        (
            "Calibration",
            figures.calibration(records),
            "Accuracy by confidence on the test set, seeds taken together. Hatched: the gap "
            "between accuracy and confidence; bars under the line: over-confident.",
        ),
    ]


def _few_rows(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records whose rows the figures by row can hold: of a grid only the best cells."""
    from tfdistill.reporting import grids

    if _row_count(records) <= MANY_ROWS:
        return records
    cells, best = set(), set()
    for grid in grids.find(records):
        cells |= {run.row for runs in grid.cells.values() for run in runs}
        if (cell := grid.best()) is not None:
            best |= {run.row for run in grid.cells[cell]}
    few = [record for record in records if record.row not in cells - best]
    return few if _row_count(few) <= MANY_ROWS else []


def _row_count(records: Iterable[Record]) -> int:
    return len({record.row for record in records})


def _figures_note(records: Sequence[Record]) -> str:
    """Return what the reader should know where not every row is drawn."""
    shown = _few_rows(records)
    if len(shown) == len(records):
        return ""
    if not shown:
        return f"There are no figures with a mark for each of the {_row_count(records)} rows."
    return (
        "Of each grid, figures with a mark for each row show only the cell with the best "
        "validation accuracy."
    )


def _facts(records: Sequence[Record]) -> str:
    finished = sum(record.status == FINISHED for record in records)
    total = measured_time(sum(record.seconds for record in records))
    return f"{finished} of {len(records)} runs finished · {total} of training and evaluation"


def _configuration(folder: Path) -> str:
    path = folder / CONFIG_FILE
    return storage.unmarked(path).strip() if path.exists() else ""


def _versions(records: Sequence[Record]) -> dict[str, str]:
    """Return every version and device that occurs; more than one if the records differ."""
    seen: dict[str, set[str]] = {}
    for record in records:
        code = str(record.environment.get("code", ""))[:12]
        for name, value in {**record.versions, "device": record.device, "code": code}.items():
            if value:
                seen.setdefault(name, set()).add(str(value))
    return {name: ", ".join(sorted(values)) for name, values in seen.items()}
