"""What do the losses of the field teach one student, with the weights that their papers give them?

Source: the CIFAR-100 comparison of RepDistiller (Tian et al. 2020, arXiv 1910.10699) and those that
went on from it: decoupled (arXiv 2203.08679), DIST (arXiv 2205.10536), standardised logits (arXiv
2403.01427). Beside the losses stand what needs no larger teacher: the student alone, label
smoothing, born-again generations and their ensemble (Furlanello et al. 2018, arXiv 1805.04770).
Published, ResNet-56 to ResNet-20: every loss is above the student alone, by 0.15 (FitNet hints) to
2.91 points (decoupled). Other data ask for other weights, so a loss that fails here with its
paper's weight may do well with another. Cost: per seed about 12 trainings of the student and one
for each generation, and one teacher. Command: tfdistill run configs/loss_family/{small,full}.yaml.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdistill.config import (
    DistillationConfig,
    FeatureConfig,
    RunConfig,
    StudyConfig,
    TrainingConfig,
    settings_of,
)
from tfdistill.records import Record, Spread, Table, accuracy_by_seed, by_row
from tfdistill.reporting.significance import Family, compare_runs
from tfdistill.reporting.verdicts import published_verdict
from tfdistill.studies import common
from tfdistill.studies.common import ALONE, INTERVAL, PLAIN, TEACHER
from tfdistill.utils import checks
from tfdistill.utils.text import MISSING, number

TITLE = "The family of losses"
QUESTION = (
    "What do the losses of the field teach one student, with the weights that their papers give "
    "them, and is it more than a student gains without a larger teacher?"
)
SOURCE = (
    "RepDistiller (Tian et al. 2020, arXiv 1910.10699), decoupled (arXiv 2203.08679), DIST (arXiv "
    "2205.10536), standardised logits (arXiv 2403.01427), born-again networks (arXiv 1805.04770)"
)
COMMANDS = {
    "tfdistill run configs/loss_family/small.yaml": "an hour and a half on two cores",
    "tfdistill run configs/loss_family/full.yaml": "some days of one GPU",
}
PUBLISHED_ON = ("tfds:cifar100", "tfds:cifar10")
PUBLISHED: dict[str, float] = {}  # of other pairs and images: the study's own tables have them

SMOOTHED, ENSEMBLE = "label smoothing", "ensemble of the generations"
ROWS = {
    "soft_targets": "soft targets",
    "without_t2": "soft targets without T²",
    "standardized": "standardised logits",
    "decoupled": "decoupled",
    "dist": "DIST",
    "similarity_preserving": "similarity-preserving",
    "hints": "FitNet hints",
    "attention_transfer": "attention transfer",
    "relational": "relational",
    "probabilistic": "probabilistic",
}
# Beside a cross-entropy of weight 1; with standardised logits 0.1.
WEIGHTS = {
    "standardized": 9.0,
    "decoupled": 1.0,
    "dist": 2.0,
    "similarity_preserving": 3000.0,
    "hints": 100.0,
    "attention_transfer": 1000.0,
    "relational_distance": 25.0,
    "relational_angle": 50.0,
    "probabilistic": 30000.0,
}
WARMUP = 20 / 240  # of all epochs, in which the weight of `decoupled` grows from zero

_PAIRS = ("ResNet-56 to 20", "ResNet-32x4 to 8x4", "WRN-40-2 to 16-2")
# Test accuracy in percent on CIFAR-100, in the order of the pairs.
PUBLISHED_PAIRS = {
    TEACHER: (72.34, 79.42, 75.61),
    ALONE: (69.06, 72.50, 73.26),
    ROWS["soft_targets"]: (70.66, 73.33, 74.92),
    ROWS["standardized"]: (71.43, 76.62, 76.11),
    ROWS["decoupled"]: (71.97, 76.32, 76.24),
    ROWS["dist"]: (71.75, 76.31, 75.51),
    ROWS["similarity_preserving"]: (69.67, 72.94, 73.83),
    ROWS["hints"]: (69.21, 73.50, 73.58),
    ROWS["attention_transfer"]: (70.55, 73.44, 74.08),
    ROWS["relational"]: (69.61, 71.90, 73.35),
    ROWS["probabilistic"]: (70.34, 73.64, 74.54),
}


@dataclass(frozen=True)
class Settings:
    """The rows of the study.

    Args:
        losses: Which have a row: `soft_targets`, `without_t2`, `standardized`, `decoupled`, `dist`,
            `similarity_preserving`, `hints`, `attention_transfer`, `relational`, `probabilistic`.
        weights: Weights in place of the papers', by the name of the loss; that of `relational` has
            two parts, `relational_distance` and `relational_angle`. Soft targets have theirs, their
            temperature and the beta of `decoupled` in `distillation`.
        stages: Layers whose maps attention transfer compares, the weight counting for each.
        hint: Layer that FitNet hints compare; the others compare `features`.
        generations: Born-again generations, each taught by the one before; 0 leaves them out.
        label_smoothing: Share of the label spread over all classes; 0 leaves it out.
    """

    losses: list[str] = field(default_factory=lambda: list(ROWS))
    weights: dict[str, float] = field(default_factory=dict)
    stages: list[str] = field(default_factory=lambda: ["stage1", "stage2", "features"])
    hint: str = "stage2"
    generations: int = 3
    label_smoothing: float = 0.1

    def __post_init__(self):
        for name in checks.different("settings.losses", self.losses):
            checks.one_of("settings.losses", name, ROWS)
        checks.known_keys("settings.weights", self.weights, WEIGHTS)
        for name, weight in self.weights.items():
            checks.non_negative(f"settings.weights.{name}", weight)
        checks.different("settings.stages", self.stages)
        checks.count("settings.generations", self.generations, minimum=0)
        checks.fraction("settings.label_smoothing", self.label_smoothing)

    def weight(self, name: str) -> float:
        """Return the weight of a loss: the one given, else its paper's."""
        return self.weights.get(name, WEIGHTS[name])


def generation_row(generation: int) -> str:
    """Return the name of the row of a born-again generation, counted from 1."""
    return f"born-again, generation {generation}"


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each after those that it depends on.

    All rows have the same seeds, that is the same initial weights, orders and views of the images.
    A generation starts from the weights of the next seed: from its teacher's own it would only
    retrace it.

    Raises:
        UsageError: There is no teacher.
    """
    common.check_teacher(config)
    settings = settings_of(Settings, config)
    return [
        common.teacher(config),
        *(_alone(config, seed) for seed in config.seeds),
        *_smoothed(config, settings),
        *(
            _taught(config, settings, loss, seed)
            for loss in settings.losses
            for seed in config.seeds
        ),
        *_generations(config, settings),
        *_ensembles(config, settings),
    ]


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return all rows but the teacher's against the student alone."""
    return common.compared(_compare(by_row(records)))


def tables(records: Sequence[Record]) -> list[Table]:
    """Return accuracy with gains beside the published; calibration, fidelity and time; all that is
    published."""
    rows = by_row(records)
    shown = common.published_on(records, PUBLISHED_ON)
    published = [_published_table()] if shown else []
    return [_accuracy_table(rows, shown), _fidelity_table(rows), *published]


def figures(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return the gain of every row, seed by seed, beside the published."""
    from tfdistill.studies.loss_family import figures as pictures

    family = _compare(rows := by_row(records))
    alone = accuracy_by_seed(rows.pop(ALONE, []))
    rows.pop(TEACHER, None)
    gains = {
        row: [
            accuracy - alone[seed]
            for seed, accuracy in accuracy_by_seed(members).items()
            if seed in alone
        ]
        for row, members in rows.items()
    }
    published = {}
    if common.published_on(records, PUBLISHED_ON):
        published = {row: _published_gain(row) / 100 for row in gains if row in PUBLISHED_PAIRS}
    diamond = f"; hollow diamond: published, {_PAIRS[0]} on CIFAR-100" if published else ""
    caption = (
        "Test accuracy over that of the student alone. A point for each seed, the bar their mean"
        f"{diamond}. In the band a mean cannot be told from luck (Dunnett's test, seeds as blocks)."
    )
    drawn = pictures.gains(gains, published, family.visible if family else 0.0)
    return [("Gain over the student alone", drawn, caption)]


def _alone(config: StudyConfig, seed: int) -> RunConfig:
    return common.student(config, f"alone-s{seed}", ALONE, seed)


def _training(config: StudyConfig) -> TrainingConfig:
    return config.student_training or config.training


def _smoothed(config: StudyConfig, settings: Settings) -> Iterator[RunConfig]:
    share = settings.label_smoothing
    training = dataclasses.replace(_training(config), label_smoothing=share)
    for seed in config.seeds if share else ():
        name = f"label-smoothing-s{seed}"
        yield common.student(config, name, SMOOTHED, seed, training=training)


def _taught(config: StudyConfig, settings: Settings, loss: str, seed: int) -> RunConfig:
    distillation = _distillation(config, settings, loss)
    return common.taught(
        config,
        common.student(config, f"{loss.replace('_', '-')}-s{seed}", ROWS[loss], seed),
        "teacher",
        distillation=distillation,
        cache=None if distillation.features else config.cache,
    )


def _distillation(config: StudyConfig, settings: Settings, loss: str) -> DistillationConfig:
    """Return what the student learns in the row of a loss."""
    base = config.distillation
    if loss == "soft_targets":
        return base
    if loss == "without_t2":
        return dataclasses.replace(base, scale_by_t2=False)
    if loss == "standardized":
        beside: dict[str, Any] = {"hard_weight": 0.1, "soft_weight": settings.weight(loss)}
        return dataclasses.replace(base, standardize=True, temperature=2.0, **beside)
    if loss in ("decoupled", "dist"):
        beside = {"hard_weight": 1.0, "soft_weight": settings.weight(loss)}
        warmup = WARMUP * _training(config).epochs if loss == "decoupled" else 0.0
        return dataclasses.replace(base, loss=loss, warmup_epochs=warmup, **beside)
    return dataclasses.replace(base, alpha=0.0, features=_features(settings, loss))


def _features(settings: Settings, loss: str) -> list[FeatureConfig]:
    parts = ("relational_distance", "relational_angle") if loss == "relational" else (loss,)
    layers = {"attention_transfer": settings.stages, "hints": [settings.hint]}
    return [
        FeatureConfig(part, settings.weight(part), layer, layer)
        for part in parts
        for layer in layers.get(loss, ["features"])
    ]


def _generations(config: StudyConfig, settings: Settings) -> Iterator[RunConfig]:
    own = config.self_distillation or DistillationConfig(alpha=1.0, temperature=1.0)
    for generation in range(1, settings.generations + 1):
        for place in range(len(config.seeds)):
            name = _generation(config, place, generation)
            seed = _seed(config, place, generation)
            run = common.student(config, name, generation_row(generation), seed)
            before = _generation(config, place, generation - 1)
            yield common.taught(config, run, before, distillation=own)


def _generation(config: StudyConfig, place: int, generation: int) -> str:
    """Return the name of a run of the line that begins with the student alone of a seed."""
    seed = config.seeds[place]
    return f"born-again-{generation}-from-s{seed}" if generation else f"alone-s{seed}"


def _seed(config: StudyConfig, place: int, generation: int) -> int:
    """Return the seed of a generation: never its teacher's, and every seed once in a row."""
    if len(config.seeds) == 1:
        return config.seeds[0] + 1000 * generation
    return config.seeds[(place + generation) % len(config.seeds)]


def _ensembles(config: StudyConfig, settings: Settings) -> Iterator[RunConfig]:
    generations = range(1, settings.generations + 1)
    for place, seed in enumerate(config.seeds if settings.generations > 1 else ()):
        members = tuple(_generation(config, place, number) for number in generations)
        evaluated = {"model": None, "members": members, "trained": False}
        name = f"born-again-ensemble-from-s{seed}"
        yield common.student(config, name, ENSEMBLE, seed, **evaluated)


def _compare(rows: dict[str, list[Record]]) -> Family | None:
    """Return all rows but the teacher's against the student alone."""
    others = {row: members for row, members in rows.items() if row not in (TEACHER, ALONE)}
    return compare_runs(rows.get(ALONE, []), others, "the student alone")


def _published_gain(row: str, pair: int = 0) -> float:
    """Return a row's published gain over the student alone, in points."""
    return PUBLISHED_PAIRS[row][pair] - PUBLISHED_PAIRS[ALONE][pair]


def _accuracy_table(rows: dict[str, list[Record]], published: bool) -> Table:
    family = _compare(rows)
    alone = rows.get(ALONE, [])
    lines = tuple(
        (
            row,
            *common.accuracy_cells(members),
            common.interval_cell(family, row, members, alone if row != ALONE else []),
            *(_published_cells(family, row) if published else ()),
        )
        for row, members in rows.items()
    )
    theirs = ("published gain", "ours beside it") if published else ()
    columns = ("", "runs", "best epoch", "last epoch", INTERVAL, *theirs)
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds: of the weights with the "
        "best validation accuracy, and of the last epoch. Gain in points over the student alone. "
        f"{common.interval_note(family)}"
    )
    if published:
        note += (
            f" Published gain: {_PAIRS[0]} on CIFAR-100, last epoch; decoupled: best epoch. Beside "
            "it: not seen at this size, where our interval excludes it for other networks and "
            "images; compatible, where it holds it."
        )
    return Table("Test accuracy", columns, lines, note)


def _published_cells(family: Family | None, row: str) -> tuple[str, str]:
    """Return a row's published gain, and how ours stands to it: of other networks, on others'
    images, so that nothing here is of the published size."""
    if row not in PUBLISHED_PAIRS or row == ALONE:
        return MISSING, MISSING
    gain = _published_gain(row)
    ours = family.rows.get(row) if family else None
    return f"{gain:+.2f}", published_verdict(ours, gain / 100, same_size=False)


def _fidelity_table(rows: dict[str, list[Record]]) -> Table:
    alone = Spread.of(record.seconds for record in rows.get(ALONE, []))
    lines = tuple(
        (
            row,
            common.figure_cell(members, "test_agreement"),
            common.figure_cell(members, "test_teacher_kl", **PLAIN),
            common.figure_cell(members, "test_nll", **PLAIN),
            common.figure_cell(members, "test_ece"),
            _time(members, alone),
        )
        for row, members in rows.items()
    )
    columns = ("", "agreement %", "KL from teacher", "NLL", "ECE %", "time")
    note = (
        "On the test set. Agreement: share of images where student and teacher name the same "
        "class; KL(teacher || student) at temperature 1; of a generation, with the one before. "
        "ECE: 15 bins of equal width. Time of a run, training and evaluation, over that of the "
        "student alone; storing the teacher's logits once for all is not in it."
    )
    return Table("Fidelity, calibration and time", columns, lines, note)


def _published_table() -> Table:
    lines = tuple(
        (
            row,
            *(f"{of_pair:.2f} ({_published_gain(row, i):+.2f})" for i, of_pair in enumerate(found)),
        )
        for row, found in PUBLISHED_PAIRS.items()
    )
    note = (
        "Test accuracy in percent on CIFAR-100 after 240 epochs, and the gain over the student "
        "alone in points. Last epoch, from RepDistiller and the papers; decoupled: best epoch, "
        "which is not comparable; of standardised logits it is not known."
    )
    return Table("Published", ("", *_PAIRS), lines, note)


def _time(members: Sequence[Record], alone: Spread) -> str:
    seconds = Spread.of(record.seconds for record in members if record.config["trained"])
    return number(seconds.mean / alone.mean if seconds and alone else None, 2)
