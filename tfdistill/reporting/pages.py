"""A study's page: the part of a README.md that is made of its records, between two marks.

What people wrote around the marks stays. The same records give the same text and pictures, so that
a page can be made again at any time and compared.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfdistill.records import Table
from tfdistill.reporting.reports import Drawn
from tfdistill.utils.storage import appearing
from tfdistill.utils.text import MISSING

PAGE_FILE = "README.md"
BEGIN = "<!-- From here on made by `tfdistill report`; write above. -->"
END = "<!-- Up to here made by `tfdistill report`; write below. -->"
# Of a page that is light whatever the reader's setting: a file does not know the page around it.
_PAPER, _INK = "#ffffff", "#1c2128"


@dataclass(frozen=True)
class Page:
    """What is made of a study's records.

    Args:
        title: Title of a page that is not there yet.
        verdict: What came out, in one or two sentences.
        setting: Data, networks and sizes in one line.
        tables: The study's tables.
        pictures: (title, SVG text, caption), that of the verdict first.
        source: What it was made of, in a sentence.
    """

    title: str
    verdict: str
    setting: str
    tables: Sequence[Table]
    pictures: Sequence[Drawn]
    source: str


def write_page(folder: Path, page: Page) -> Path:
    """Write the made part of `README.md` and its pictures, `TITLE.svg`; return the page's path.

    A page without marks gets them, and the part between them, at its end.
    """
    folder = Path(folder)
    for title, svg, _ in page.pictures:
        with appearing(folder / f"{_name(title)}.svg") as temporary:
            temporary.write_text(_standing_alone(svg), encoding="utf-8")
    path = folder / PAGE_FILE
    before = path.read_text(encoding="utf-8") if path.exists() else f"# {page.title}\n"
    with appearing(path) as temporary:
        temporary.write_text(_replaced(before, _made(page)), encoding="utf-8")
    return path


def markdown(table: Table) -> str:
    """Return a table as Markdown, its note below."""
    rows = [tuple(cell or MISSING for cell in row) for row in table.rows]
    lines = [table.columns, ("---", *["---:"] * (len(table.columns) - 1)), *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in map(_escaped, lines))
    parts = [f"### {table.title}", text, table.note]
    return "\n\n".join(part for part in parts if part)


def _escaped(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]


def _made(page: Page) -> str:
    pictures = [
        f"![{title}]({_name(title)}.svg)\n\n{caption}" for title, _, caption in page.pictures
    ]
    parts = [
        f"**{page.verdict}**",
        page.setting,
        *pictures[:1],
        *map(markdown, page.tables),
        *pictures[1:],
        page.source,
    ]
    return "\n\n".join(part for part in parts if part)


def _replaced(text: str, made: str) -> str:
    before, begin, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if begin else ""
    return f"{before.rstrip()}\n\n{BEGIN}\n\n{made}\n\n{END}{after.rstrip()}\n"


def _name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _standing_alone(svg: str) -> str:
    """Return a picture of a report as a file: dark on white."""
    start = svg.index(">") + 1
    paper = f'<rect width="100%" height="100%" fill="{_PAPER}"/>'
    return (svg[:start] + paper + svg[start:]).replace("currentColor", _INK) + "\n"
