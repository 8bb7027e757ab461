"""Which alpha and temperature teach a small network best, and by how much is it better at all?

Source: a public experiment with ResNet-18 (91.54 %) teaching a CNN of two convolutions (61.28 %
alone) on CIFAR-10, alpha x temperature, one run a cell. It multiplies the soft loss by no T^2, so
the soft gradient fades as 1 / T^2 and a cell with a high temperature is nearly plain training with
the weight 1 - alpha; and one run a cell has a standard error of about 0.5 points, as large as most
of its differences. Here every cell has several seeds, a second grid has the factor T^2, and every
cell is tested against the student alone (`reporting.significance`). Rows of labels alone with a
smaller weight, which with plain SGD is a smaller learning rate, tell what of it needs no teacher
(`label_weight`), and cells with T^2 at smaller rates whether a teacher beats the best rate of
labels alone (`own_rate`). Expected: without T^2 most of a cell's gain is that of labels alone; the
similarity-preserving loss (Tung & Mori 2019), which the source names as the next method, has a row
of its own. Cost: per seed, about 90 trainings of the student and one for each network of the
teacher's size, and one of the teacher. Command:
tfdistill run configs/alpha_temperature/{small,full}.yaml.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdistill.config import FeatureConfig, RunConfig, StudyConfig, settings_of
from tfdistill.records import Record, Table, by_row, spread
from tfdistill.reporting.grids import Grid, arrange
from tfdistill.reporting.significance import (
    CLAIM_SEEDS,
    Comparison,
    Family,
    compare_runs,
)
from tfdistill.reporting.verdicts import few_seeds
from tfdistill.studies import common
from tfdistill.studies.alpha_temperature import label_weight, own_rate
from tfdistill.studies.alpha_temperature.label_weight import labels_row
from tfdistill.studies.common import ALONE, INTERVAL, TEACHER
from tfdistill.utils import checks
from tfdistill.utils.text import MISSING, percent

SIMILARITY, SAME_SIZE_ALONE = "similarity-preserving", "same size, alone"

TITLE = "Alpha and temperature"
QUESTION = (
    "Which weight of the soft loss and which temperature teach a small network best, and which "
    "differences are more than the luck of a seed?"
)

SEVERAL_LABELS = True
SOURCE = (
    "a public experiment, ResNet-18 to a CNN of two convolutions on CIFAR-10; Hinton et al. 2015 "
    "(arXiv 1503.02531); Tung & Mori 2019 (arXiv 1907.09682)"
)
COMMANDS = {
    "tfdistill run configs/alpha_temperature/small.yaml": "an hour on two cores",
    "tfdistill run configs/alpha_temperature/full.yaml": "about a day of one GPU",
}

_LOSS_WEIGHTS = (0.3, 0.1, 0.03, 0.01)
_TEMPERATURES = (1, 2.5, 5, 7.5, 10, 20, 30, 40, 50)
_GRID = {
    0.1: (0.6113, 0.6117, 0.6100, 0.6121, 0.6095, 0.6127, 0.6095, 0.6096, 0.6115),
    0.25: (0.6108, 0.6086, 0.6103, 0.6187, 0.6177, 0.6226, 0.6201, 0.6213, 0.6206),
    0.5: (0.6118, 0.6198, 0.6193, 0.6205, 0.6255, 0.6238, 0.6233, 0.6245, 0.6245),
    0.75: (0.6106, 0.6227, 0.6227, 0.6215, 0.6227, 0.6214, 0.6228, 0.6205, 0.6208),
    0.9: (0.6122, 0.6194, 0.6257, 0.6218, 0.6178, 0.6150, 0.6146, 0.6136, 0.6136),
}
_PUBLISHED_CELLS = {
    (alpha, temperature): accuracy
    for alpha, line in _GRID.items()
    for temperature, accuracy in zip(_TEMPERATURES, line, strict=True)
}


@dataclass(frozen=True)
class Settings:
    """The rows of the study.

    Args:
        alphas: Weights of the soft loss.
        temperatures: Temperatures.
        scale_by_t2: One grid for each: false as published, true with the factor T^2.
        baseline_seeds: Further seeds of the student alone, with which every cell is compared.
        same_size: Pairs [alpha, temperature] at which the teacher's own architecture is taught.
        similarity: Weight of the similarity-preserving loss in its row; 0 leaves it out.
        label_weights: Weights below 1 of rows that learn from the labels alone.
        weighted_cells: Pairs [alpha, temperature] that are run with the factor T^2 and their whole
            loss times each of `loss_weights`, with SGD a smaller learning rate.
        loss_weights: Weights below 1 of these cells.
    """

    alphas: list[float] = field(default_factory=lambda: [0.1, 0.25, 0.5, 0.75, 0.9])
    temperatures: list[float] = field(
        default_factory=lambda: [1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 30.0, 40.0, 50.0]
    )
    scale_by_t2: list[bool] = field(default_factory=lambda: [False, True])
    baseline_seeds: list[int] = field(default_factory=list)
    same_size: list[list[float]] = field(default_factory=lambda: [[0.5, 10.0], [0.9, 5.0]])
    similarity: float = 3000.0
    label_weights: list[float] = field(default_factory=lambda: [0.75, 0.5, 0.25, 0.1])
    weighted_cells: list[list[float]] = field(default_factory=list)
    loss_weights: list[float] = field(default_factory=lambda: [*_LOSS_WEIGHTS])

    def __post_init__(self):
        for alpha in self.alphas:
            checks.fraction("settings.alphas", alpha)
        for temperature in self.temperatures:
            checks.temperature("settings.temperatures", temperature)
        for name in ("label_weights", "loss_weights"):
            for weight in getattr(self, name):
                checks.fraction(f"settings.{name}", weight)
                if weight in (0, 1):
                    raise checks.UsageError(
                        f"settings.{name} must lie between 0 and 1; weight 1 has a row already. "
                        f"Received: {getattr(self, name)!r}."
                    )
            if getattr(self, name):
                checks.different(f"settings.{name}", getattr(self, name))
        given = tuple(self.loss_weights)
        if not given if self.weighted_cells else given != _LOSS_WEIGHTS:
            raise checks.UsageError(
                "settings.loss_weights are those of settings.weighted_cells. Received: "
                f"loss_weights={self.loss_weights!r}, weighted_cells={self.weighted_cells!r}. "
                "Give both, or neither."
            )
        for name in ("alphas", "temperatures", "scale_by_t2"):
            checks.different(f"settings.{name}", getattr(self, name))
        for seed in self.baseline_seeds:
            checks.count("settings.baseline_seeds", seed, minimum=0)
        for name in ("same_size", "weighted_cells"):
            pairs = getattr(self, name)
            if any(len(pair) != 2 for pair in pairs):
                raise checks.UsageError(
                    f"settings.{name} must be a list of pairs [alpha, temperature]. Received: "
                    f"{name}={pairs!r}."
                )
            for alpha, temperature in pairs:
                checks.fraction(f"settings.{name}", alpha)
                checks.temperature(f"settings.{name}", temperature)
        checks.non_negative("settings.similarity", self.similarity)


def cell_row(alpha: float, temperature: float, scale_by_t2: bool = False) -> str:
    """Return the name of a cell's row, e.g. `alpha 0.25, T 7.5` or `alpha 0.25, T 7.5, T²`."""
    return f"alpha {alpha:g}, T {temperature:g}" + (", T²" if scale_by_t2 else "")


def same_size_row(alpha: float, temperature: float) -> str:
    """Return the name of the row of the teacher's own architecture, taught by the teacher."""
    return f"same size, {cell_row(alpha, temperature)}"


PUBLISHED_ON = ("tfds:cifar10",)
# Test accuracy in 0..1, one run each; the epoch that it is from is not stated.
PUBLISHED = {
    TEACHER: 0.9154,
    ALONE: 0.6128,
    same_size_row(0.5, 10): 0.9021,
    same_size_row(0.9, 5): 0.8812,
    **{cell_row(*cell): accuracy for cell, accuracy in _PUBLISHED_CELLS.items()},
}


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each after those that it depends on.

    A seed's cells stand together, and all have the same initial weights and order of images, so
    they can be trained as one population. At T = 1 the factor T^2 changes nothing: such a cell is
    run once, for both grids.

    Raises:
        UsageError: There is no teacher.
    """
    common.check_teacher(config)
    common.check_unused(config, "self_distillation", "distillation.alpha")
    settings = settings_of(Settings, config)
    return [
        common.teacher(config),
        *(
            _alone(config, seed)
            for seed in dict.fromkeys([*config.seeds, *settings.baseline_seeds])
        ),
        *_cells(config, settings),
        *_labels(config, settings),
        *_weighted(config, settings),
        *_same_size(config, settings),
        *_similarity(config, settings),
    ]


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return each grid against the best weight of labels alone, and against the student alone.

    Where cells with the factor T^2 were run at several rates, the best of each stands for that grid
    against labels alone.
    """
    rows = by_row(records)
    grids = _grids(rows)
    own = own_rate.compare(grids, rows)
    tuned = (
        own if grid.scale_by_t2 and own else label_weight.compare(grid, rows, _kind(grid))
        for grid in grids
    )
    alone = (_compare(grid) for grid in grids)
    return common.compared(*tuned, *alone, _compare_similarity(rows), _compare_same_size(rows))


def tables(records: Sequence[Record]) -> list[Table]:
    """Return the summary, each grid with the verdict on it, and the published grid."""
    rows = by_row(records)
    grids = _grids(rows)
    families = [_compare(grid) for grid in grids]
    published = common.published_on(records, PUBLISHED_ON)
    summary = _summary_table(rows, grids, families, published)
    ours = [_grid_table(grid, family) for grid, family in zip(grids, families, strict=True)]
    weights = label_weight.tables(grids, rows, _kind, _PUBLISHED_CELLS if published else {})
    own = own_rate.table(grids, rows)
    return [summary, *ours, *weights, *own, *([_published_table()] if published else [])]


def figures(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return accuracy over the effective label weight, where there are rows of labels alone."""
    rows = by_row(records)
    theirs = _PUBLISHED_CELLS if common.published_on(records, PUBLISHED_ON) else {}
    return label_weight.figures(_grids(rows), rows, _kind, theirs, PUBLISHED[ALONE])


def _alone(config: StudyConfig, seed: int) -> RunConfig:
    return common.student(config, f"alone-s{seed}", ALONE, seed)


def _taught(config: StudyConfig, seed: int, name: str, row: str, **changes) -> RunConfig:
    """Return a run of the student; `changes` are those of the distillation."""
    return common.taught(
        config,
        _alone(config, seed),
        "teacher",
        name=f"{name}-s{seed}",
        row=row,
        distillation=dataclasses.replace(config.distillation, **changes),
        cache=None if "features" in changes else config.cache,
    )


def _cells(config: StudyConfig, settings: Settings) -> Iterator[RunConfig]:
    for scaled in sorted(settings.scale_by_t2):
        for seed in config.seeds:
            for alpha in settings.alphas:
                for temperature in settings.temperatures:
                    if scaled and temperature == 1 and False in settings.scale_by_t2:
                        continue
                    yield _taught(
                        config,
                        seed,
                        f"a{alpha:g}-T{temperature:g}" + ("-t2" if scaled else ""),
                        cell_row(alpha, temperature, scaled),
                        alpha=alpha,
                        temperature=temperature,
                        scale_by_t2=scaled,
                    )


def _labels(config: StudyConfig, settings: Settings) -> Iterator[RunConfig]:
    """Yield students of the labels alone, their loss times a weight; the soft loss has weight 0."""
    for seed in config.seeds:
        for weight in settings.label_weights:
            name = f"labels-c{weight:g}"
            yield _taught(config, seed, name, labels_row(weight), alpha=0.0, hard_weight=weight)


def _weighted(config: StudyConfig, settings: Settings) -> Iterator[RunConfig]:
    """Yield cells with the factor T^2 whose whole loss is multiplied by a weight below 1."""
    for seed in config.seeds:
        for alpha, temperature in dict.fromkeys(map(tuple, settings.weighted_cells)):
            for weight in settings.loss_weights:
                yield _taught(
                    config,
                    seed,
                    f"a{alpha:g}-T{temperature:g}-t2-w{weight:g}",
                    own_rate.weighted_row(cell_row(alpha, temperature, True), weight),
                    alpha=alpha,
                    temperature=temperature,
                    scale_by_t2=True,
                    hard_weight=weight * (1 - alpha),
                    soft_weight=weight * alpha,
                )


def _same_size(config: StudyConfig, settings: Settings) -> Iterator[RunConfig]:
    """Yield networks of the teacher's architecture, alone and taught, on the students' images."""
    teacher = common.check_teacher(config)
    if config.student in (None, teacher) or teacher.name == "saved":
        return  # then the grid is of that size itself, or cannot be
    own: dict[str, Any] = {"model": teacher, "training": config.training}
    for seed in config.seeds if settings.same_size else ():
        alone = _alone(config, seed)
        yield dataclasses.replace(alone, name=f"same-size-{alone.name}", row=SAME_SIZE_ALONE, **own)
    for alpha, temperature in dict.fromkeys(map(tuple, settings.same_size)):
        for seed in config.seeds:
            run = _taught(
                config,
                seed,
                f"same-size-a{alpha:g}-T{temperature:g}",
                same_size_row(alpha, temperature),
                alpha=alpha,
                temperature=temperature,
                scale_by_t2=False,
            )
            yield dataclasses.replace(run, **own)


def _similarity(config: StudyConfig, settings: Settings) -> Iterator[RunConfig]:
    loss = FeatureConfig("similarity_preserving", settings.similarity)
    for seed in config.seeds if settings.similarity else ():
        yield _taught(config, seed, "similarity", SIMILARITY, alpha=0.0, features=[loss])


def _grids(rows: dict[str, list[Record]]) -> list[Grid]:
    cells = [record for members in rows.values() for record in members if _is_cell(record)]
    return arrange(cells, rows.get(ALONE, []))


def _is_cell(record: Record) -> bool:
    taught = record.config["distillation"]
    names = ("alpha", "temperature", "scale_by_t2")
    return bool(taught) and record.row == cell_row(*(taught[name] for name in names))


def _compare(grid: Grid) -> Family | None:
    family = grid.compare()
    kind = _kind(grid)
    return family and dataclasses.replace(family, title=kind, best=grid.best())


def _compare_similarity(rows: dict[str, list[Record]]) -> Family | None:
    similar = {SIMILARITY: rows.get(SIMILARITY, [])}
    return compare_runs(rows.get(ALONE, []), similar, "the student alone", SIMILARITY)


def _compare_same_size(rows: dict[str, list[Record]]) -> Family | None:
    alone = rows.get(SAME_SIZE_ALONE, [])
    return compare_runs(alone, _same_size_rows(rows), "that network alone", "teacher's size")


def _same_size_rows(rows: dict[str, list[Record]]) -> dict[str, list[Record]]:
    return {row: members for row, members in rows.items() if row.startswith("same size, alp")}


def _summary_table(
    rows: dict[str, list[Record]],
    grids: Sequence[Grid],
    families: Sequence[Family | None],
    published: bool,
) -> Table:
    alone, own = rows.get(ALONE, []), rows.get(SAME_SIZE_ALONE, [])
    lines = [_line(TEACHER, rows.get(TEACHER, [])), _line(ALONE, alone)]
    for grid, family in zip(grids, families, strict=True):
        if cell := grid.best():
            members = grid.cells[cell]
            label = f"best of the grid {_kind(grid)}: {cell_row(*cell)}"
            theirs = None if grid.scale_by_t2 else PUBLISHED.get(members[0].row)
            gain = common.interval_cell(family, cell, members, alone)
            lines.append(_line(label, members, gain, theirs))
    similar = rows.get(SIMILARITY, [])
    gain = common.interval_cell(_compare_similarity(rows), SIMILARITY, similar, alone)
    lines += [_line(SIMILARITY, similar, gain), _line(SAME_SIZE_ALONE, own)]
    family = _compare_same_size(rows)
    for row, members in _same_size_rows(rows).items():
        lines.append(_line(row, members, common.interval_cell(family, row, members, own)))
    columns = ("", "runs", "best epoch", "last epoch", INTERVAL, "published")
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds. The best cell is the one "
        "with the highest validation accuracy. Gain in points, over the student alone on the seeds "
        "that both have; of students of the teacher's size, over that network alone on the same "
        "images. Intervals: Dunnett's test with seeds as blocks, simultaneous over all cells of a "
        "grid."
    )
    shown = len(columns) if published else -1
    cut = tuple(line[:shown] for line in lines if line)
    return Table("Test accuracy", columns[:shown], cut, note)


def _line(
    label: str,
    members: Sequence[Record],
    gain: str = MISSING,
    published: float | None = None,
) -> tuple[str, ...] | None:
    if not members:
        return None
    theirs = percent(published or PUBLISHED.get(label))
    return (label, *common.accuracy_cells(members), gain, theirs)


def _grid_table(grid: Grid, family: Family | None) -> Table:
    def text(alpha: float, temperature: float) -> str:
        cell = (alpha, temperature)
        compared = family.rows.get(cell) if family else None
        return _mark(compared) + common.figure_cell(grid.cells.get(cell, []), "test_accuracy")

    lines = tuple(
        (f"{alpha:g}", *(text(alpha, temperature) for temperature in grid.temperatures))
        for alpha in grid.alphas
    )
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds; a row for each alpha, a "
        f"column for each T. {_verdict(grid, family)}"
    )
    columns = ("alpha", *(f"T {temperature:g}" for temperature in grid.temperatures))
    return Table(f"Alpha x temperature {_kind(grid)}", columns, lines, note)


def _published_table() -> Table:
    columns = ("alpha", *(f"T {temperature:g}" for temperature in _TEMPERATURES))
    lines = tuple((f"{alpha:g}", *map(percent, line)) for alpha, line in _GRID.items())
    note = (
        "Test accuracy in percent of the published grid, without the factor T²; the student alone "
        "has 61.28. One run a cell: the standard error of a single one, from 10,000 test images "
        "alone, is 0.49 points."
    )
    return Table("Alpha x temperature as published", columns, lines, note)


def _verdict(grid: Grid, family: Family | None) -> str:
    """Return in words how many cells differ from the student alone, and what could be seen."""
    alone = spread(grid.alone, "test_accuracy")
    if family is None or not alone:
        if all(len(members) < 2 for members in grid.cells.values()):
            return "One run a cell: no test."
        return "Fewer than two seeds in common with the student alone: no test."
    differing = [found for found in family.rows.values() if found.differs]
    above = sum(found.difference > 0 for found in differing)
    tested = len(family.rows)
    count = "None" if not differing else "All" if len(differing) == tested else len(differing)
    sides = f" (▲ {above} above, ▼ {len(differing) - above} below)" if differing else ""
    return (
        f"{count} of {tested} cells {'differs' if len(differing) == 1 else 'differ'} from the "
        f"student alone ({alone.text()}, {alone.count} runs) by more than luck{sides}: "
        f"simultaneous 95 % intervals of Dunnett's test, {family.seeds} common seeds as blocks. "
        "Standard deviation of a run beside its cell's and its seed's effect, pooled: "
        f"{100 * family.std:.2f} points; a cell must differ by {100 * family.visible:.2f} points."
        + (f" {few_seeds(family.seeds)}" if family.seeds < CLAIM_SEEDS else "")
    )


def _kind(grid: Grid) -> str:
    return "with the factor T²" if grid.scale_by_t2 else "without T²"


def _mark(compared: Comparison | None) -> str:
    if compared is None or not compared.differs:
        return ""
    return "▲" if compared.difference > 0 else "▼"
