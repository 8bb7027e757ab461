"""What studies have in common: the runs that most of them list, and the usual cells of a table.

A study is free to list other runs and to make other cells; nothing here knows a study.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from tfdistill.config import DistillationConfig, ModelConfig, RunConfig, StudyConfig
from tfdistill.records import Record, Table, spread
from tfdistill.reporting.significance import CLAIM_SEEDS, Family, paired_runs
from tfdistill.reporting.verdicts import few_seeds
from tfdistill.utils import checks, text

TEACHER, ALONE = "teacher", "student alone"
INTERVAL = "gain, 95 % interval"
# How figures are shown that are not shares, such as a loss.
PLAIN: dict[str, Any] = {"scale": 1.0, "digits": 3}
SEVERAL_LABELS_NOTE = (
    "Accuracy and agreement: share of all labels of all images at 0.5. mAP: average precision, "
    "mean over labels. Exact match: share of images of which all labels are right."
)


def check_teacher(config: StudyConfig) -> ModelConfig:
    """Return the teacher; raise `UsageError` if a study that needs one has none."""
    if config.teacher is None:
        raise checks.UsageError(
            f"The study {config.study} needs a teacher. Received: teacher=null. Give a network to "
            "train, or a saved one."
        )
    return config.teacher


def check_unused(config: StudyConfig, *names: str) -> None:
    """Raise `UsageError` if one of the settings is given that the study does not use.

    Args:
        config: The study.
        names: Keys, such as `training` or `distillation.alpha`; given is what is not the default.
    """
    for name in names:
        part, _, key = name.partition(".")
        value, usual = getattr(config, part), getattr(StudyConfig(), part)
        if key and value is not None:
            value, usual = getattr(value, key), getattr(usual or type(value)(), key)
        if value != usual:
            name, value = _first_difference(name, value, usual)
            raise checks.UsageError(
                f"The study {config.study} does not use {name}. Received: "
                f"{checks.shown(value)}. Remove it."
            )


def _first_difference(name: str, value: Any, usual: Any) -> tuple[str, Any]:
    """Return the key below `name` that was given, and its value."""
    if not dataclasses.is_dataclass(value) or type(value) is not type(usual):
        return name, value
    for field in dataclasses.fields(value):
        found, other = getattr(value, field.name), getattr(usual, field.name)
        if found != other:
            return _first_difference(f"{name}.{field.name}", found, other)
    return name, value


def network(config: StudyConfig, name: str, row: str, seed: int, **other) -> RunConfig:
    """Return a run of the teacher's network, trained on labels; `other`: fields that differ."""
    # Without a teacher, nothing is learned of images without labels.
    fields = {
        "data": config.data.labelled_only,
        "model": config.teacher,
        "training": config.training,
    }
    return RunConfig(name=name, row=row, seed=seed, **fields | other)


def student(config: StudyConfig, name: str, row: str, seed: int, **other) -> RunConfig:
    """Return a run of the student's network, trained on labels; `other`: fields that differ.

    Without a student of its own, a study has students of the teacher's size.
    """
    fields = {
        "model": config.student or config.teacher,
        "training": config.student_training or config.training,
    }
    return network(config, name, row, seed, **fields | other)


def teacher(config: StudyConfig) -> RunConfig:
    """Return the run `teacher`, which has a seed of its own; a saved one is only evaluated."""
    data = (config.teacher_data or config.data).labelled_only
    trained = not check_teacher(config).is_finished
    seed = config.seeds[0] + 1000
    return network(config, "teacher", TEACHER, seed, data=data, trained=trained)


def taught(
    config: StudyConfig,
    run: RunConfig,
    *teachers: str,
    distillation: DistillationConfig | None = None,
    **other,
) -> RunConfig:
    """Return a run that also learns from the runs named, by the study's `distillation` or another.

    Args:
        config: The study.
        run: The same network without teachers.
        teachers: Names of runs.
        distillation: What it learns from them; None means what the study's students learn.
        other: Fields that differ from `run`, such as name and row.
    """
    learned: dict[str, Any] = {
        "distillation": distillation or config.distillation,
        "cache": config.cache,
    }
    if run.data == config.data.labelled_only:
        learned["data"] = config.data
    return dataclasses.replace(run, teachers=teachers, **learned | other)


def ensemble(
    config: StudyConfig, name: str, row: str, seed: int, members: Sequence[RunConfig]
) -> RunConfig:
    """Return the average of some networks, which is only evaluated."""
    return network(
        config,
        name,
        row,
        seed,
        model=None,
        training=members[0].training,
        members=tuple(run.name for run in members),
        trained=False,
        average=config.distillation.average,
    )


def figure_cell(
    records: Iterable[Record],
    figure: str,
    part: str | None = None,
    scale: float = 100.0,
    digits: int = 2,
) -> str:
    """Return mean and deviation of a row's figure as `records.spread` and `text.mean_std` do."""
    return text.mean_std(spread(records, figure, part), scale, digits)


def accuracy_cells(records: Sequence[Record]) -> tuple[str, str, str]:
    """Return the cells `runs`, `best epoch` and `last epoch`: test accuracy in percent."""
    best, last = (figure_cell(records, "test_accuracy", part) for part in ("best", "last"))
    return str(len(records)), best, last


def quality(records: Iterable[Record]) -> dict[str, str]:
    """Return the figures beside the accuracy, all in percent, by the columns that they stand in."""
    if any(record.multi_label for record in records):
        return {"mAP %": "test_mean_average_precision", "exact match %": "test_exact_match"}
    return {"ECE %": "test_ece"}


def gain_cell(records: Iterable[Record], baseline: Iterable[Record]) -> str:
    """Return the cell `gain`: test accuracy above that of a baseline, in points."""
    return text.gain(spread(records, "test_accuracy"), spread(baseline, "test_accuracy"))


def interval_cell(
    family: Family | None,
    row: Hashable,
    records: Iterable[Record] = (),
    baseline: Iterable[Record] = (),
) -> str:
    """Return the cell `gain, 95 % interval` of a row; where it was not compared, the gain alone.

    Args:
        family: The rows that were compared.
        row: The row in it.
        records: The row's records, for a gain without interval.
        baseline: The baseline's.
    """
    if family and row in family.rows:
        return text.interval(family.rows[row])
    return gain_cell(records, baseline)


def interval_note(family: Family | None) -> str:
    """Return what stands under a table with intervals: how they were made, and how many seeds."""
    if family is None:
        return "No row has two seeds in common with the baseline: no intervals."
    few = family.seeds < CLAIM_SEEDS
    return (
        "Intervals: Dunnett's test with seeds as blocks, simultaneous over the "
        f"{len(family.rows)} rows, of the seeds that row and baseline share; standard deviation of "
        f"a run beside its row's and its seed's effect, pooled: {100 * family.std:.2f} points."
        + (f" {few_seeds(family.seeds)}" if few else "")
    )


def compared(*families: Family | None) -> list[Family]:
    """Return the families in which there was something to test."""
    return [family for family in families if family]


def paired_rows(
    rows: Mapping[str, Sequence[Record]], pairs: Iterable[tuple[str, str, str]]
) -> list[Family]:
    """Compare rows two by two, each pair on the seeds that both have, by the paired t-test, with
    intervals that hold for all pairs at once.

    Args:
        rows: The records of every row.
        pairs: What is compared, in words; the row; the row that it is compared with.
    """
    return paired_together(
        (rows.get(other, []), row, rows.get(row, []), f"“{other}”", words)
        for words, row, other in pairs
    )


def paired_together(
    pairs: Iterable[tuple[Sequence[Record], Hashable, Sequence[Record], str, str]],
) -> list[Family]:
    """Return a family of one row for each pair that has two seeds in common, with intervals that
    hold for all of them at once.

    Args:
        pairs: The arguments of `paired_runs`: the baseline's runs, the row, its runs, the baseline
            in words, and the pair's title.
    """
    pairs = list(pairs)
    count = len(compared(*(paired_runs(*pair) for pair in pairs)))
    return compared(*(paired_runs(*pair, together=count) for pair in pairs))


def pairs_table(title: str, families: Iterable[Family], of: str = "") -> Table:
    """Return the table of what `paired_rows` compared.

    Args:
        title: The table's.
        families: Families of one row.
        of: What else the note says of the differences.
    """
    families = list(families)
    lines: tuple[tuple[str, ...], ...] = tuple(
        (family.title, str(family.seeds), text.interval(family.alone), text.ends(found))
        for family in families
        for found in family.rows.values()
    )
    note = (
        f"Mean difference of the test accuracy of the same seeds in points{of}, with the 95 % "
        "interval of the paired t-test for each line alone, and the one that holds for the "
        f"{len(lines)} lines at once (Bonferroni), on which claims rest."
    )
    columns: tuple[str, ...] = ("", "seeds", "difference, 95 % interval", "all lines at once")
    if len(lines) < 2:  # of one line they are the same
        lines, columns = tuple(line[:-1] for line in lines), columns[:-1]
        note = f"{note.partition(' for each line alone')[0]}."
    return Table(title, columns, lines, note)


def at_once(lines: int) -> str:
    """Return what a note says of the intervals of so many lines, after "the paired t-test"."""
    return f"; the {lines} intervals hold at once (Bonferroni)" if lines > 1 else ""


def published_on(records: Iterable[Record], sources: Sequence[str]) -> bool:
    """Return whether a study's images are of those that its published figures are of."""
    used = {record.config["data"]["source"] for record in records}
    return bool(used) and all(any(name.startswith(source) for source in sources) for name in used)
