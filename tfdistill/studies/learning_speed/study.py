"""Does a network that is taught by a bigger one learn faster than from the labels alone?

Source: github valukov-alex/knoledge_distilling (2020), a ResNet-50 with ImageNet weights teaching a
CNN of four convolutions on ImageWoof, loss alpha T^2 soft + (1 - alpha) hard, validation accuracy
of every epoch, one run a setting. Its program has two flaws. The teacher's log-probabilities stand
where probabilities belong, so that the soft loss and its gradient are identically zero: every
distilled row is training on the labels with the loss times 1 - alpha, which Adam ignores. And the
student stays in training mode in validation, with its dropout of 0.5. Here all settings are run as
they were meant, with several seeds, and a few with a zero soft loss, with dropout on (batch norm
keeps its moving averages), and with both. Expected: a student with a zero soft loss is one of hard
labels, and the published differences (39.8 to 42.3) are those of eight such runs; whether students
learn faster where the soft loss is meant is what the study asks. Dropout before max pooling makes
maxima larger in training than in tests (arXiv 1512.01400), so turning it off in validation need not
help. Cost: one training of the teacher; per seed one of the student for each row. Command:
tfdistill run configs/learning_speed/{small,full}.yaml.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdistill.config import RunConfig, StudyConfig, settings_of
from tfdistill.config.registry import NETWORKS
from tfdistill.records import Record, Table, by_row
from tfdistill.reporting.significance import Family, compare_runs
from tfdistill.studies import common
from tfdistill.studies.common import INTERVAL, TEACHER
from tfdistill.studies.learning_speed import flaws, speed
from tfdistill.studies.learning_speed.rows import (
    DROPPING,
    HARD,
    PUBLISHED,
    PUBLISHED_CELLS,
    ZERO,
    cell_of,
    cell_row,
    cells_of,
    comparison_note,
    flawed_row,
)
from tfdistill.utils import checks
from tfdistill.utils.text import percent

_END = "test accuracy at the end"

TITLE = "Learning speed"
QUESTION = (
    "Does a network that is taught by a bigger one learn faster than from the labels alone, and "
    "what did a published answer really measure?"
)

SOURCE = "github valukov-alex/knoledge_distilling, ResNet-50 to a CNN of four convolutions"
COMMANDS = {
    "tfdistill run configs/learning_speed/small.yaml": "half an hour on two cores",
    "tfdistill run configs/learning_speed/full.yaml": "65 small trainings on one GPU",
}

PUBLISHED_ON = ("imagewoof",)


@dataclass(frozen=True)
class Settings:
    """The rows of the study.

    Args:
        cells: Pairs [alpha, temperature] at which the student is taught.
        flawed_cells: Those that are run once more with a soft loss of zero. The first of them is
            also run with dropout on in validation and test, and with both flaws, as published; so
            are hard labels.
    """

    cells: list[list[float]] = field(
        default_factory=lambda: [list(map(float, cell)) for cell in PUBLISHED_CELLS]
    )
    flawed_cells: list[list[float]] = field(default_factory=lambda: [[0.5, 5.0], [0.99, 20.0]])

    def __post_init__(self):
        for name in ("cells", "flawed_cells"):
            _check_cells(f"settings.{name}", getattr(self, name))
        checks.different("settings.cells", self.cells)
        for cell in self.flawed_cells:
            if cell not in self.cells:
                raise checks.UsageError(
                    "settings.flawed_cells must be some of settings.cells. Received: "
                    f"{cell!r}, which is none of {self.cells!r}."
                )


def _check_cells(name: str, cells: list[list[float]]) -> None:
    if any(len(cell) != 2 for cell in cells):
        raise checks.UsageError(
            f"{name} must be a list of pairs [alpha, temperature]. Received: {cells!r}."
        )
    for alpha, temperature in cells:
        checks.fraction(name, alpha)
        checks.temperature(name, temperature)


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs: the teacher; then for each seed hard labels, cells and controls.

    All rows of a seed have the same initial weights, order of images and draws of dropout.

    Raises:
        UsageError: There is no teacher, or a setting that does not fit.
    """
    teacher = common.check_teacher(config)
    common.check_unused(
        config, "self_distillation", "distillation.alpha", "distillation.temperature"
    )
    settings = settings_of(Settings, config)
    student = config.student or teacher
    if settings.flawed_cells and student.name + DROPPING not in NETWORKS["learning_speed"].names:
        raise checks.UsageError(
            "settings.flawed_cells need the student cnn2 or cnn4, whose dropout can be left on. "
            f"Received: {student.name}. Take one of them, or set settings.flawed_cells to []."
        )
    students = [run for seed in config.seeds for run in _students(config, settings, seed)]
    return [common.teacher(config), *students]


def _students(config: StudyConfig, settings: Settings, seed: int) -> Iterator[RunConfig]:
    yield (hard := common.student(config, f"hard-s{seed}", HARD, seed))
    for cell in settings.cells:
        yield _taught(config, hard, cell)
    for cell in settings.flawed_cells:
        yield _taught(config, hard, cell, zero=True)
    for cell in settings.flawed_cells[:1]:
        yield _with_dropout(hard)
        yield _with_dropout(_taught(config, hard, cell))
        yield _with_dropout(_taught(config, hard, cell, zero=True))


def _taught(
    config: StudyConfig, hard: RunConfig, cell: Sequence[float], zero: bool = False
) -> RunConfig:
    alpha, temperature = cell
    changes: dict[str, Any] = {"alpha": alpha, "temperature": temperature}
    if zero:
        changes |= {"loss": ZERO, "divergence": "kl"}
    return common.taught(
        config,
        hard,
        "teacher",
        name=f"a{alpha:g}-T{temperature:g}{'-zero' if zero else ''}-s{hard.seed}",
        row=flawed_row(cell_row(alpha, temperature), zero, False),
        distillation=dataclasses.replace(config.distillation, **changes),
    )


def _with_dropout(run: RunConfig) -> RunConfig:
    return dataclasses.replace(
        run,
        name=f"dropout-{run.name}",
        row=flawed_row(run.row, False, True),
        model=dataclasses.replace(run.network, name=run.network.name + DROPPING),
    )


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return the cells against hard labels, in speed and at the end, and the published flaws."""
    rows = by_row(records)
    flawed = (flaws.compare(rows, dropout) for dropout in (False, True))
    end = compare_runs(rows.get(HARD, []), cells_of(rows), HARD, _END)
    return common.compared(speed.compare(rows), end, *flawed)


def tables(records: Sequence[Record]) -> list[Table]:
    """Return the tables of accuracy, of speed (where curves were kept) and of the flaws."""
    rows = by_row(records)
    shown = common.published_on(records, PUBLISHED_ON)
    learning = [speed.table(rows)] if speed.curves_kept(rows) else []
    return [_accuracy_table(rows, shown), *learning, flaws.table(rows, shown)]


def figures(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return the validation curves as published, over alpha and over T, and those of the flaws."""
    from tfdistill.studies.learning_speed import figures as pictures

    rows = by_row(records)
    if not speed.curves_kept(rows):
        return []
    caption = "Validation accuracy, mean over seeds; band: standard deviation. Dashed: hard labels."
    return [
        (
            "Learning curves",
            pictures.over_alpha_and_temperature(
                {cell_of(members[0]): members for members in cells_of(rows).values()},
                {HARD: rows.get(HARD, [])},
            ),
            caption,
        ),
        (
            "Learning curves with the published flaws",
            pictures.curves(flaws.panels(rows), HARD, "Validation accuracy with published flaws"),
            f"{caption} Where the soft loss is zero, the student is one of hard labels.",
        ),
    ]


def _accuracy_table(rows: dict[str, list[Record]], published: bool) -> Table:
    hard, cells = rows.get(HARD, []), cells_of(rows)
    family = compare_runs(hard, cells, HARD)
    lines = []
    for row, members in {TEACHER: rows.get(TEACHER), HARD: hard, **cells}.items():
        if members:
            count, best, last = common.accuracy_cells(members)
            lines.append(
                (
                    _teacher_label(members[0]) if row == TEACHER else row,
                    *(count, last, best),
                    common.interval_cell(family, row, members, hard if row in cells else []),
                    *([percent(PUBLISHED.get(row), 1)] if published else []),
                )
            )
    columns: tuple[str, ...] = ("", "runs", "last epoch", "best epoch", INTERVAL)
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds. Gain in points over hard "
        f"labels. {comparison_note(family)}"
    )
    if published:
        columns += ("published",)
        note += (
            " Published: last epoch, one run each, on the images that are the test images here, "
            "but of the flawed program (last table)."
        )
    return Table("Test accuracy", columns, tuple(lines), note)


def _teacher_label(record: Record) -> str:
    model = record.config["model"]
    if model["name"] == "saved":
        return f"{TEACHER} (a saved model)"
    if model["weights"] is None:
        return f"{TEACHER} ({model['name']}, from scratch)"
    origin = "ImageNet" if model["weights"] == "imagenet" else "a file's"
    return f"{TEACHER} ({model['name']}, from {origin} weights)"
