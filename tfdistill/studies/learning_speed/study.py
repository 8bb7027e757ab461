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
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdistill.config import RunConfig, StudyConfig, settings_of
from tfdistill.config.registry import NETWORKS
from tfdistill.records import Record, Spread, Table, by_row
from tfdistill.reporting.significance import (
    CLAIM_SEEDS,
    Family,
    best_row,
    compare_runs,
    dunnett,
)
from tfdistill.reporting.verdicts import few_seeds
from tfdistill.studies import common
from tfdistill.studies.common import INTERVAL, TEACHER
from tfdistill.utils import checks
from tfdistill.utils.text import MISSING, mean_std, percent

HARD = _WORDS = "hard labels"
_SPEED, _END = "speed, validation accuracy averaged over all epochs", "test accuracy at the end"
# The published mistakes, as `published` rebuilds them: a loss, and the end of a network's name.
ZERO, DROPPING = "kl_of_log", "-dropout-in-evaluation"

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

_PUBLISHED_CELLS = {
    (0.1, 20): 0.407,
    (0.5, 20): 0.413,
    (0.9, 20): 0.407,
    (0.99, 20): 0.418,
    (0.5, 1): 0.414,
    (0.5, 5): 0.423,
    (0.5, 100): 0.398,
}
PUBLISHED_ON = ("imagewoof",)
_PUBLISHED_TESTED = 3929  # images, of which the published figures are shares


def cell_row(alpha: float, temperature: float) -> str:
    """Return the name of a cell's row, as it was meant: `alpha 0.5, T 20`."""
    return f"alpha {alpha:g}, T {temperature:g}"


def flawed_row(of: str, zero: bool, dropout: bool) -> str:
    """Return the name of the row `of` with a flaw or two: `alpha 0.5, T 20, soft loss zero`."""
    return of + ", soft loss zero" * zero + ", dropout on" * dropout


# Test accuracy of the last epoch in 0..1, one run each; on the images that are our test images. The
# published rows are what the page says, and under it what its program did.
PUBLISHED = {
    TEACHER: 0.902,
    HARD: 0.402,
    **{cell_row(*cell): accuracy for cell, accuracy in _PUBLISHED_CELLS.items()},
    flawed_row(HARD, False, True): 0.402,
    **{
        flawed_row(cell_row(*cell), True, True): accuracy
        for cell, accuracy in _PUBLISHED_CELLS.items()
    },
}


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
        default_factory=lambda: [list(map(float, cell)) for cell in _PUBLISHED_CELLS]
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
    flawed = (_compare_flawed(rows, dropout) for dropout in (False, True))
    end = compare_runs(rows.get(HARD, []), _cells(rows), _WORDS, _END)
    return common.compared(_compare_speed(rows), end, *flawed)


def tables(records: Sequence[Record]) -> list[Table]:
    """Return the tables of accuracy, of speed (where curves were kept) and of the flaws."""
    rows = by_row(records)
    shown = common.published_on(records, PUBLISHED_ON)
    speed = [_speed_table(rows)] if _curves_kept(rows) else []
    return [_accuracy_table(rows, shown), *speed, _flaws_table(rows, shown)]


def figures(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return the validation curves as published, over alpha and over T, and those of the flaws."""
    from tfdistill.studies.learning_speed import figures as pictures

    rows = by_row(records)
    if not _curves_kept(rows):
        return []
    caption = "Validation accuracy, mean over seeds; band: standard deviation. Dashed: hard labels."
    return [
        (
            "Learning curves",
            pictures.over_alpha_and_temperature(
                {_cell(members[0]): members for members in _cells(rows).values()},
                {HARD: rows.get(HARD, [])},
            ),
            caption,
        ),
        (
            "Learning curves with the published flaws",
            pictures.curves(_flaw_panels(rows), HARD, "Validation accuracy with published flaws"),
            f"{caption} Where the soft loss is zero, the student is one of hard labels.",
        ),
    ]


def _curves_kept(rows: dict[str, list[Record]]) -> bool:
    """Return whether students' records hold their curves."""
    students = [record for row, runs in rows.items() if row != TEACHER for record in runs]
    return all(_curve(record) for record in students)


def _kind(record: Record) -> tuple[bool, bool]:
    """Return whether a student's soft loss is zero, and whether dropout is on in validation."""
    taught = record.config["distillation"] or {}
    return taught.get("loss") == ZERO, record.config["model"]["name"].endswith(DROPPING)


def _cell(record: Record) -> tuple[float, float]:
    taught = record.config["distillation"]
    return taught["alpha"], taught["temperature"]


def _cells(
    rows: dict[str, list[Record]], zero: bool = False, dropout: bool = False
) -> dict[str, list[Record]]:
    """Return the rows of taught students of one kind."""
    return {
        row: members
        for row, members in rows.items()
        if members[0].config["distillation"] and _kind(members[0]) == (zero, dropout)
    }


def _accuracy_table(rows: dict[str, list[Record]], published: bool) -> Table:
    hard, cells = rows.get(HARD, []), _cells(rows)
    family = compare_runs(hard, cells, _WORDS)
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
        f"labels. {_verdict(family)}"
    )
    if published:
        columns += ("published",)
        note += (
            " Published: last epoch, one run each, on the images that are the test images here, "
            "but of the flawed program (last table)."
        )
    return Table("Test accuracy", columns, tuple(lines), note)


def _verdict(family: Family | None) -> str:
    if family is None:
        return "Fewer than two common seeds: no test."
    better = sum(found.differs and found.difference > 0 for found in family.rows.values())
    worse = sum(found.differs and found.difference < 0 for found in family.rows.values())
    return (
        f"Of {len(family.rows)} cells {better} are above hard labels and {worse} below by more "
        "than luck (simultaneous 95 % intervals, Dunnett's test with seeds as blocks); a cell must "
        f"differ by {100 * family.visible:.2f} points."
        + (f" {few_seeds(family.seeds)}" if family.seeds < CLAIM_SEEDS else "")
    )


def _teacher_label(record: Record) -> str:
    model = record.config["model"]
    if model["name"] == "saved":
        return f"{TEACHER} (a saved model)"
    if model["weights"] is None:
        return f"{TEACHER} ({model['name']}, from scratch)"
    origin = "ImageNet" if model["weights"] == "imagenet" else "a file's"
    return f"{TEACHER} ({model['name']}, from {origin} weights)"


def _compare_speed(rows: dict[str, list[Record]]) -> Family | None:
    """Compare the areas under the curves, where those were kept."""
    hard, cells = rows.get(HARD, []), _cells(rows)
    if not hard or not _curves_kept(rows):
        return None
    family = dunnett(_areas(hard), {row: _areas(members) for row, members in cells.items()})
    if family is None:
        return None
    best = best_row({row: cells[row] for row in family.rows})
    return dataclasses.replace(family, baseline=_WORDS, title=_SPEED, best=best)


def _speed_table(rows: dict[str, list[Record]]) -> Table:
    columns = (
        *("", "last epoch", "reached", "epochs", "seconds"),
        *("mean over epochs", "difference, 95 % interval", "mean over time"),
    )
    hard, cells = rows.get(HARD, []), _cells(rows)
    if not hard:
        return Table("Speed of learning", columns, (), "There is no finished run of hard labels.")
    goal = statistics.fmean(_curve(record)[-1] for record in hard)
    duration = statistics.fmean(record.seconds for record in hard)
    family = _compare_speed(rows)
    lines = []
    for row, members in {HARD: hard, **cells}.items():
        reaching = [(record, epoch) for record in members if (epoch := reached(record, goal))]
        seconds = [epoch * seconds_per_epoch(record) for record, epoch in reaching]
        lines.append(
            (
                row,
                mean_std(Spread.of(_curve(record)[-1] for record in members)),
                f"{len(reaching)} of {len(members)}",
                mean_std(Spread.of(epoch for _, epoch in reaching), 1.0, 1),
                mean_std(Spread.of(seconds), 1.0, 1),
                mean_std(Spread.of(map(mean_over_epochs, members))),
                common.interval_cell(family, row),
                mean_std(Spread.of(mean_over_time(record, duration) for record in members)),
            )
        )
    return Table("Speed of learning", columns, tuple(lines), _speed_note(goal, duration, family))


def _speed_note(goal: float, duration: float, family: Family | None) -> str:
    return (
        "Accuracy in percent on validation images held back from the training images; mean ± "
        "standard deviation over seeds. Reached: runs with an epoch of at least the mean last "
        f"accuracy of hard labels, {100 * goal:.2f} %; epochs and seconds: until the first such "
        "epoch, of these runs alone. Mean over epochs: the area under the curve. "
        f"{_verdict(family)} Mean over time: of the last finished epoch, over the {duration:.0f} s "
        "of a run of hard labels. Seconds are a run's time for training and evaluation, by its "
        "epochs; of students trained together each has an equal share. The teacher's training is "
        "not counted; where its logits are stored, neither are its passes, done once for all."
    )


def _flaws_table(rows: dict[str, list[Record]], published: bool) -> Table:
    lines = [*_flaw_lines(rows, dropout=False), *_flaw_lines(rows, dropout=True)]
    columns = ("", "soft loss", "dropout", "runs", "accuracy", INTERVAL, "published")
    shown = len(columns) if published else -1
    cut = tuple(line[:shown] for line in lines)
    return Table("The published flaws", columns[:shown], cut, _flaws_note(rows))


def _compare_flawed(rows: dict[str, list[Record]], dropout: bool) -> Family | None:
    hard = rows.get(flawed_row(HARD, False, dropout), [])
    title = f"with a soft loss of zero, dropout {'on' if dropout else 'off'} in validation"
    return compare_runs(hard, _flawed(rows, dropout), _WORDS, title)


def _flawed(rows: dict[str, list[Record]], dropout: bool) -> dict[str, list[Record]]:
    """Return the flawed cells as meant and with a soft loss of zero."""
    zero, meant = _cells(rows, True, dropout), _cells(rows, False, dropout)
    flawed = {_cell(members[0]) for members in zero.values()}
    return {row: found for row, found in meant.items() if _cell(found[0]) in flawed} | zero


def _flaw_lines(rows: dict[str, list[Record]], dropout: bool) -> Iterator[tuple[str, ...]]:
    """Yield hard labels, and the flawed cells as meant and with a soft loss of zero."""
    baseline = flawed_row(HARD, False, dropout)
    zero, taught = _cells(rows, True, dropout), _flawed(rows, dropout)
    hard = rows.get(baseline, [])
    family = _compare_flawed(rows, dropout)
    for row, members in {baseline: hard, **taught}.items():
        if members:
            soft = "zero" if row in zero else "as meant" if row in taught else "–"
            yield (
                cell_row(*_cell(members[0])) if row in taught else HARD,
                soft,
                "on" if dropout else "off",
                str(len(members)),
                common.figure_cell(members, "test_accuracy"),
                common.interval_cell(family, row, members, hard if row in taught else []),
                percent(PUBLISHED.get(row), 1) if dropout else MISSING,
            )


def _flaws_note(rows: dict[str, list[Record]]) -> str:
    published = [PUBLISHED[HARD], *_PUBLISHED_CELLS.values()]
    mean = statistics.fmean(published)
    error = (mean * (1 - mean) / _PUBLISHED_TESTED) ** 0.5
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds; gain in points over hard "
        "labels with dropout alike, intervals as above. Soft loss zero: of the teacher's "
        "log-probabilities in the place of probabilities, as published; so its temperature changes "
        "nothing. Dropout: on or off in validation and test; of one seed the weights are the same. "
        f"The eight published students have {100 * mean:.2f} % with a standard deviation of "
        f"{100 * Spread.of(published).std:.2f} points, about what the {_PUBLISHED_TESTED:,} test "
        f"images alone give to eight runs of hard labels ({100 * error:.2f})."
    )
    zero = _cells(rows, True, False) | _cells(rows, True, True)
    runs = [run for members in zero.values() for run in members]
    losses = [abs(x) for run in runs for x in run.history.get("soft_loss", ())]
    return f"{note} Largest soft loss in the rows of zero: {max(losses):g}." if losses else note


def _curve(record: Record) -> list[float]:
    return record.history.get("val_accuracy", [])


def _areas(records: Sequence[Record]) -> dict[int, float]:
    return {record.seed: mean_over_epochs(record) for record in records}


def seconds_per_epoch(record: Record) -> float:
    """Return a run's time for training and evaluation, by its epochs."""
    return record.seconds / len(_curve(record))


def reached(record: Record, goal: float) -> int | None:
    """Return the first epoch (1, 2, ...) with at least this validation accuracy, None without."""
    return next((epoch for epoch, value in enumerate(_curve(record), 1) if value >= goal), None)


def mean_over_epochs(record: Record) -> float:
    """Return the area under the validation curve, in accuracy: its mean over the epochs."""
    return statistics.fmean(_curve(record))


def mean_over_time(record: Record, duration: float) -> float:
    """Return the mean over `duration` seconds of the validation accuracy reached by then.

    That is the accuracy of the last finished epoch; before the first it counts as 0. A run with
    as many epochs in `duration` as it has at all gets its mean over epochs.
    """
    curve, steps = [0.0, *_curve(record)], len(_curve(record))
    # A thousandth of a step, so that round-off does not count as an epoch not finished.
    done = (
        int(step * duration / steps / seconds_per_epoch(record) + 1e-3)
        for step in range(1, steps + 1)
    )
    return statistics.fmean(curve[min(epochs, steps)] for epochs in done)


def _flaw_panels(rows: dict[str, list[Record]]) -> dict[str, dict[str, list[Record]]]:
    panels = {}
    for dropout in (False, True):
        panel = {HARD: rows.get(flawed_row(HARD, False, dropout), [])}
        for members in _cells(rows, True, dropout).values():
            name = cell_row(*_cell(members[0]))
            panel[name] = rows.get(flawed_row(name, False, dropout), [])
            panel[f"{name}, soft loss zero"] = members
        panels[f"dropout {'on' if dropout else 'off'} in validation"] = panel
    return panels if any(len(panel) > 1 for panel in panels.values()) else {}
