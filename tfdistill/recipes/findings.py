"""What a study's records say: its verdict, tables and pictures, as a report or as a page."""

import functools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdistill.config import StudyConfig
from tfdistill.config.registry import STUDIES
from tfdistill.utils import checks
from tfdistill.utils.text import printable

if TYPE_CHECKING:
    from tfdistill.records import Record, Table
    from tfdistill.reporting.reports import Drawn
    from tfdistill.reporting.significance import Family


# The deviation of a run, in points, where nothing tells it.
ASSUMED = 1.0


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
    found: "list[Record]" = field(default_factory=list)

    @functools.cached_property
    def pictures(self) -> "list[Drawn]":
        """All pictures, drawn once for whatever shows them."""
        from tfdistill.reporting import reports

        return reports.pictures(self.found, self.comparisons, self.published, self.figures)


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
        return Findings(*said, compared, notes=notes, found=found)
    drawn = study.figures(found) if hasattr(study, "figures") else []
    planned = len(runner.plan(config))
    if len(found) < planned:
        notes.append(f"Unfinished: {len(found)} of {planned} runs are done.")
    published = study.PUBLISHED if published_on(found, study.PUBLISHED_ON) else None
    return Findings(*said, compared, drawn, published, notes, found)


def of_folder(
    config: StudyConfig, folder: Path, found: "list[Record]", search: Any = None
) -> Findings:
    """Return what the records of a study's folder say, also of each test image and their code."""
    from tfdistill.records import revisions, with_predictions

    says = findings(config, [with_predictions(folder, record) for record in found], search)
    says.notes.extend(filter(None, [revisions(found)]))
    return says


def write(folder: Path, says: Findings) -> "tuple[list[Table], Path]":
    """Write the report of a study and return its tables, the exports' among them, and its path."""
    from tfdistill.export import study_exports
    from tfdistill.reporting import reports

    tables = [*says.tables, *study_exports.tables(folder)]
    path = reports.write_report(
        folder,
        says.title,
        says.question,
        tables,
        says.found,
        says.notes,
        verdict=says.verdict,
        comparisons=says.comparisons,
        drawn=says.pictures,
    )
    return tables, path


def keep(
    config: StudyConfig, found: "list[Record]", archive: Path, searched: bool = False
) -> StudyConfig:
    """Keep a study's records and its configuration in another folder, beside those of other seeds.

    Args:
        config: The study.
        found: Its records.
        archive: A new folder, or one that keeps some of the same study's runs, of other seeds or of
            these: what was done in pieces, on whatever machines, comes together there.
        searched: Whether they are those of a search, of which no other's are taken.

    Returns:
        The study as it is in `archive`, with the seeds of all.

    Raises:
        UsageError: `archive` holds another study, or a run that ended there with other weights.
    """
    from tfdistill.records import ARCHIVE_FILE, write_archive
    from tfdistill.training import study_folder

    kept, whole = archive / ARCHIVE_FILE, config
    if (archive / study_folder.CONFIG_FILE).exists():
        whole = study_folder.with_seeds_of(config, archive)
    if (archive / "runs").exists() or (searched and whole != config):
        raise checks.UsageError(f"{archive} holds another study. Give a new folder.")
    if kept.exists() and not searched:
        found = _together(whole, found, archive)
    archive.mkdir(parents=True, exist_ok=True)
    write_archive(kept, found)
    study_folder.write_config(whole, archive)
    return whole


def _together(config: StudyConfig, found: "list[Record]", archive: Path) -> "list[Record]":
    """Return the records of a study and those that an archive keeps of it, as they were planned."""
    from tfdistill.config import to_dict
    from tfdistill.records import ARCHIVE_FILE, read_archive
    from tfdistill.training import runner

    kept = {record.name: record for record in read_archive(archive / ARCHIVE_FILE)}
    for record in found:
        other = kept.get(record.name, record)
        if other.weights and record.weights and other.weights != record.weights:
            raise checks.UsageError(
                f"{archive} keeps the run {record.name} with other weights than it has here, where "
                "it was done again. Give a new folder."
            )
    kept |= {record.name: record for record in found}
    planned = {run.name: to_dict(run) for run in runner.plan(config)}
    for name, record in kept.items():
        if planned.get(name) != record.config:
            raise checks.UsageError(
                f"{archive} and the study do not go together: with the seeds of both, {name} would "
                "be another run. Give a new folder."
            )
    return [kept[name] for name in planned if name in kept]


def is_kept(folder: Path) -> bool:
    """Return whether a folder holds a study's records in one file, and no runs."""
    from tfdistill.records import ARCHIVE_FILE

    return not (folder / "runs").exists() and (folder / ARCHIVE_FILE).exists()


def write_kept(config: StudyConfig, folder: Path) -> tuple[Findings, Path]:
    """Write report and page of kept records."""
    from tfdistill.records import ARCHIVE_FILE, read_archive
    from tfdistill.reporting import reports
    from tfdistill.reporting.pages import Page, write_page

    found = read_archive(folder / ARCHIVE_FILE)
    says = findings(config, found)
    write(folder, says)
    setting = reports.setting(found, says.comparisons)
    page = Page(says.title, says.verdict, setting, says.tables, says.pictures, _source(says, found))
    return says, write_page(folder, page)


def _source(says: Findings, found: "list[Record]") -> str:
    versions = sorted({record.versions.get("tfdistill", "unknown") for record in found})
    runs = "1 run" if len(found) == 1 else f"{len(found)} runs"
    made = f"Made of [records.jsonl.xz](records.jsonl.xz), {runs} of tfdistill "
    compared = " Every comparison with its p value: [comparisons.csv](comparisons.csv)."
    return f"{made}{' and '.join(versions)}.{compared if says.comparisons else ''}"


def power_table(config: StudyConfig, folder: Path, deviation: float | None) -> "Table":
    """Return which differences the planned seeds could show.

    Args:
        config: The study.
        folder: Where its results are or will be; runs that are finished there tell the deviation.
        deviation: Standard deviation of a run beside its row's and its seed's effect, in points;
            None means that of the runs in `folder`, and without any `ASSUMED`.
    """
    from tfdistill.records import Table
    from tfdistill.reporting.largest_t import detectable
    from tfdistill.reporting.significance import CLAIM_SEEDS
    from tfdistill.reporting.verdicts import few_seeds
    from tfdistill.training.study_folder import readable

    if deviation is not None:
        checks.positive("--deviation", deviation)
    whole = [] if deviation else list(readable(folder))
    done = {key: each.std for key, each in _families(config, whole)}
    lines = []
    for key, family in _families(config, _planned(config)):
        std = deviation or 100 * done.get(key, 0.0) or ASSUMED
        seen = detectable(std, family.seeds, len(family.rows), family.degrees, family.together)
        rows = f"{len(family.rows)} rows" if len(family.rows) > 1 else next(iter(family.rows))
        words = f"{rows}, over {family.baseline}"
        if family.title:
            words = f"{family.title}: {words}" if len(family.rows) > 1 else family.title
        lines.append((words, str(family.seeds), f"{std:.2f}", f"{seen:.1f}"))
    assumed = f" assumed to be {ASSUMED:g} where no finished runs tell it (--deviation)"
    note = (
        "Difference: the true one, in points of test accuracy, that is told from luck with a "
        "probability of 80 %. Deviation: of a run beside its row's and its seed's effect, in points"
        f"{'' if deviation else ',' + assumed}."
    )
    if lines and (fewest := min(int(line[1]) for line in lines)) < CLAIM_SEEDS:
        note += f" {few_seeds(fewest)}"
    if not lines:
        note = "No row has two seeds in common with a baseline: nothing could be told from luck."
    columns = ("", "seeds", "deviation", "difference")
    return Table("What the planned seeds could show", columns, tuple(lines), note)


def _families(config: StudyConfig, found: "list[Record]") -> "list[tuple[tuple[str, str], Family]]":
    study = STUDIES[config.study]
    compared = study.comparisons(found) if hasattr(study, "comparisons") and found else []
    return [((each.title, each.baseline), each) for each in compared if each.seeds > 1]


def _planned(config: StudyConfig) -> "list[Record]":
    """Return the records of planned runs, as if all had been equally good."""
    from tfdistill.config import to_dict
    from tfdistill.records import Record
    from tfdistill.training import runner

    figures = {"test_accuracy": 0.5, "validation_accuracy": 0.5}
    return [
        Record(run.name, run.row, run.seed, "", to_dict(run), best=figures, last=figures)
        for run in runner.plan(config)
    ]


def failures(found: "list[Record]") -> int:
    """Tell which runs failed; return an exit status."""
    from tfdistill.records import FINISHED

    failed = [record for record in found if record.status != FINISHED]
    for record in failed:
        print(printable(f"{record.name} failed: {record.message}"), file=sys.stderr)
    return 1 if failed else 0
