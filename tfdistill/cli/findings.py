"""What a study's records say: its verdict, tables and pictures, as a report or as a page."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdistill.config import StudyConfig
from tfdistill.config.registry import STUDIES
from tfdistill.utils import checks

if TYPE_CHECKING:
    from tfdistill.records import Record, Table
    from tfdistill.reporting.reports import Drawn
    from tfdistill.reporting.significance import Family

# What wrote `results.csv` before records were kept with results.
_BEFORE_RECORDS = "0.1.0"


@dataclass(frozen=True)
class Findings:
    """What a study's records say."""

    title: str
    question: str
    verdict: str
    tables: "list[Table]"
    comparisons: "list[Family]"
    figures: "list[Drawn]" = field(default_factory=list)
    published: dict[str, float] | None = None
    notes: list[str] = field(default_factory=list)


def findings(config: StudyConfig, found: "list[Record]", search: Any = None) -> Findings:
    """Return what the records of a study say, or those of a search, given its module."""
    from tfdistill.reporting.verdicts import verdict
    from tfdistill.studies.common import published_on
    from tfdistill.training import runner

    study, notes = search or STUDIES[config.study], [config.note] if config.note else []
    compared = study.comparisons(found) if hasattr(study, "comparisons") else []
    names = study.NAMES if hasattr(study, "NAMES") else None
    said = study.TITLE, study.QUESTION, verdict(compared, found, names), study.tables(found)
    if search:
        return Findings(*said, compared, notes=notes)
    drawn = study.figures(found) if hasattr(study, "figures") else []
    planned = len(runner.plan(config))
    if len(found) < planned:
        notes.append(f"Unfinished: {len(found)} of {planned} runs are done.")
    published = study.PUBLISHED if published_on(found, study.PUBLISHED_ON) else None
    return Findings(*said, compared, drawn, published, notes)


def write(folder: Path, says: Findings, found: "list[Record]", more: "list[Table]") -> Path:
    """Write the report of a study; `more`: tables after the study's own."""
    from tfdistill.reporting import reports

    return reports.write_report(
        folder,
        says.title,
        says.question,
        [*says.tables, *more],
        found,
        says.notes,
        verdict=says.verdict,
        comparisons=says.comparisons,
        published=says.published,
        figures=says.figures,
    )


def keep(folder: Path, archive: Path, found: "list[Record]") -> None:
    """Keep a study's records and its configuration in another folder.

    Raises:
        UsageError: That folder holds another study.
    """
    from tfdistill.records import ARCHIVE_FILE, write_archive
    from tfdistill.utils import storage

    text = (folder / "config.yaml").read_text(encoding="utf-8")
    there = archive / "config.yaml"
    if (archive / "runs").exists() or (there.exists() and there.read_text("utf-8") != text):
        raise checks.UsageError(
            f"{archive} holds another study. Give a new folder for the records of {folder}."
        )
    archive.mkdir(parents=True, exist_ok=True)
    write_archive(archive / ARCHIVE_FILE, found)
    with storage.appearing(there) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_kept(folder: Path) -> bool:
    """Return whether a folder holds a study's records or results, and no runs."""
    from tfdistill.records import ARCHIVE_FILE, RESULTS_FILE

    names = (ARCHIVE_FILE, RESULTS_FILE)
    return not (folder / "runs").exists() and any((folder / name).exists() for name in names)


def write_kept(config: StudyConfig, folder: Path) -> tuple[Findings, Path]:
    """Write the page of kept records or results, and of records the report, too."""
    from tfdistill.config import to_dict
    from tfdistill.records import ARCHIVE_FILE, RESULTS_FILE, read_archive, read_results
    from tfdistill.reporting import reports
    from tfdistill.reporting.pages import Page, write_page
    from tfdistill.training import runner

    if whole := (folder / ARCHIVE_FILE).exists():
        found = read_archive(folder / ARCHIVE_FILE)
    else:
        configs = {run.name: to_dict(run) for run in runner.plan(config)}
        found = read_results(folder / RESULTS_FILE, configs)
    says = findings(config, found)
    if whole:
        write(folder, says, found, [])
    else:
        reports.write_comparisons(folder, says.comparisons)
    drawn = reports.pictures(found, says.comparisons, says.published, says.figures)
    source = _of_records(found) if whole else _of_results(found)
    page = Page(says.title, says.verdict, reports.setting(found), says.tables, drawn, source)
    return says, write_page(folder, page)


def _of_records(found: "list[Record]") -> str:
    versions = sorted({record.versions.get("tfdistill", "unknown") for record in found})
    return (
        f"Made of [records.jsonl.xz](records.jsonl.xz), {len(found)} runs of tfdistill "
        f"{' and '.join(versions)}. Every comparison with its p value: "
        "[comparisons.csv](comparisons.csv)."
    )


def _of_results(found: "list[Record]") -> str:
    return (
        f"Made of [results.csv](results.csv), {len(found)} runs of tfdistill {_BEFORE_RECORDS} "
        "from before records were kept: figures alone, no learning curves, no calibration "
        "diagrams, no comparison of networks image by image. [report.html](report.html) "
        "is as that version wrote it, with an older test. Every comparison with its p value: "
        "[comparisons.csv](comparisons.csv)."
    )


def failures(found: "list[Record]") -> int:
    """Tell which runs failed; return an exit status."""
    from tfdistill.records import FINISHED

    failed = [record for record in found if record.status != FINISHED]
    for record in failed:
        print(f"{record.name} failed: {record.message}", file=sys.stderr)
    return 1 if failed else 0
