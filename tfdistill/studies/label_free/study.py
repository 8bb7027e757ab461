"""What are images without labels worth to a student that has a teacher?

Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised Learners" (arXiv 2006.10029,
section 4.3), ask it of ImageNet with 1 % and 10 % of its labels: a student learns from labels
alone, from the teacher on the labelled images, from the teacher on all images, or from labels and
the teacher on all images. Here every row makes the same number of steps, so that none sees more
images than another. Command: tfdistill run configs/label_free/{small,full}.yaml.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from tfdistill.config import DataConfig, DistillationConfig, RunConfig, StudyConfig
from tfdistill.config.building import settings_of
from tfdistill.records import Record, Table, by_row
from tfdistill.reporting.significance import Family, compare_runs
from tfdistill.studies import common
from tfdistill.studies.common import TEACHER
from tfdistill.utils import checks, text

TITLE = "Images without labels"
QUESTION = "What are images without labels worth to a student that has a teacher?"
SOURCE = "Chen et al. 2020, arXiv 2006.10029"
COMMANDS = {
    "tfdistill run configs/quickstart.yaml": "a minute on two cores",
    "tfdistill run configs/label_free/small.yaml": "40 minutes on two cores",
    "tfdistill run configs/label_free/full.yaml": "ten hours of one GPU",
}
PUBLISHED: dict[str, float] = {}
PUBLISHED_ON: tuple[str, ...] = ()

ENSEMBLE = "ensemble of teachers"
NO_LABELS = "no labels, teacher on all images"
ALL_LABELS, ALL_TAUGHT = "all labels alone", "all labels and the teacher"
NAMES = {NO_LABELS: "the student that saw no label"}
OTHERS = ", other rows"


@dataclass(frozen=True)
class Settings:
    """What the study compares.

    Args:
        budgets: Numbers of labelled images.
        teachers: Number of teachers that are trained, on all labels, and teach together; 1 of a
            saved one.
    """

    budgets: list[int] = field(default_factory=lambda: [300, 900, 3000])
    teachers: int = 1

    def __post_init__(self) -> None:
        checks.different("settings.budgets", self.budgets)
        for budget in self.budgets:
            checks.count("settings.budgets", budget)
        checks.count("settings.teachers", self.teachers)


def alone(budget: int) -> str:
    """Return the name of a row, e.g. `900 labels alone`."""
    return f"{budget} labels alone"


def on_labelled(budget: int) -> str:
    """Return the name of a row, e.g. `no labels, teacher on 900 images`."""
    return f"no labels, teacher on {budget} images"


def mixed(budget: int) -> str:
    """Return the name of a row, e.g. `900 labels, teacher on all images`."""
    return f"{budget} labels, teacher on all images"


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each after those that it depends on.

    All rows of a seed have the same initial weights and make as many steps. Labels and teacher are
    mixed only where `labelled_share` is given.

    Raises:
        UsageError: There is no teacher, several saved ones, no number of steps, or weights would be
            chosen by labels that are not to be known.
    """
    common.check_teacher(config)
    common.check_unused(config, "self_distillation")
    settings = settings_of(Settings, config)
    training = config.student_training or config.training
    _check_training(training.steps, training.select)
    teachers = _teachers(config, settings)
    names = [run.name for run in teachers if run.row == TEACHER]
    whole = config.data.labelled_only
    mixture = config.distillation
    pure = dataclasses.replace(mixture, alpha=1.0, hard_weight=None, soft_weight=None)

    def each(name: str, row: str, told: DistillationConfig | None, data: DataConfig):
        for seed in config.seeds:
            run = common.student(config, f"{name}-{seed}", row, seed, data=data)
            yield common.taught(config, run, *names, distillation=told, data=data) if told else run

    found = list(teachers)
    for budget in settings.budgets:
        few = dataclasses.replace(whole, train_examples=budget)
        found += each(f"labels-{budget}", alone(budget), None, few)
        found += each(f"labelled-{budget}", on_labelled(budget), pure, few)
        if training.labelled_share is not None:
            some = dataclasses.replace(config.data, labelled_examples=budget)
            found += each(f"mixed-{budget}", mixed(budget), mixture, some)
    found += each("no-labels", NO_LABELS, pure, config.data)
    found += each("all-labels", ALL_LABELS, None, whole)
    return [*found, *each("all-taught", ALL_TAUGHT, mixture, whole)]


def _check_training(steps: int | None, select: str) -> None:
    if steps is None:
        raise checks.UsageError(
            "The study label_free compares rows of as many steps, whatever images they have. "
            "Received: training.steps=null. Set it, or student_training.steps."
        )
    if select != "last":
        raise checks.UsageError(
            "A student without labels has none to choose its weights by. Received: "
            f"training.select={select!r}. Set it, or student_training.select, to 'last'."
        )


def _teachers(config: StudyConfig, settings: Settings) -> list[RunConfig]:
    if settings.teachers == 1:
        return [common.teacher(config)]
    if config.teacher is None or config.teacher.is_finished:
        raise checks.UsageError(
            "Several teachers are trained ones. Received: settings.teachers="
            f"{settings.teachers} and a saved teacher. Set it to 1."
        )
    one = common.teacher(config)
    members = [
        dataclasses.replace(one, name=f"teacher-{place}", seed=one.seed + place)
        for place in range(settings.teachers)
    ]
    return [
        *members,
        common.ensemble(config, "ensemble", ENSEMBLE, one.seed, members),
    ]


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return what was learned without labels against labels alone.

    First no labels against the middle number of labels, then against all, then against the other
    numbers; and last the other rows of each number.
    """
    rows, given = by_row(records), budgets(records)
    main = {budget: _family(rows, str(budget), alone(budget), NO_LABELS) for budget in given}
    first = main.pop(given[len(given) // 2]) if given else None
    return common.compared(
        first,
        _family(rows, "all", ALL_LABELS, NO_LABELS, ALL_TAUGHT),
        *main.values(),
        *(
            _family(rows, str(each), alone(each), on_labelled(each), mixed(each), more=OTHERS)
            for each in given
        ),
    )


def _family(
    rows: dict[str, list[Record]], count: str, baseline: str, *names: str, more: str = ""
) -> Family | None:
    some = {name: rows[name] for name in names if name in rows}
    words = f"the same network from {count} labels alone"
    return compare_runs(rows.get(baseline, []), some, words, f"{count} labels{more}")


def budgets(records: Sequence[Record]) -> list[int]:
    """Return the numbers of labels that students learned from alone, the smallest first."""
    found = {record.row.removesuffix(" labels alone") for record in records}
    return sorted(int(number) for number in found if number.isdecimal())


def tables(records: Sequence[Record]) -> list[Table]:
    """Return the accuracy of every row, and the gains over labels alone by their number."""
    rows = by_row(records)
    return [_accuracy_table(records, rows), _gains_table(records, rows)]


def figures(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return accuracy over the number of labels, a line for each way to learn."""
    from tfdistill.studies.label_free import figures as pictures

    caption = (
        "Mean test accuracy over seeds, with the standard deviation as a bar. Level lines need no "
        "labels of their own."
    )
    picture = pictures.accuracy_by_labels(records)
    return [("Accuracy by number of labels", picture, caption)] if picture else []


def _accuracy_table(records: Sequence[Record], rows: dict[str, list[Record]]) -> Table:
    quality = common.quality(records)
    lines = tuple(
        (
            row,
            str(len(members)),
            common.figure_cell(members, "test_accuracy", "last"),
            *(common.figure_cell(members, figure) for figure in quality.values()),
            common.figure_cell(members, "test_agreement"),
            f"{max(record.parameters for record in members):,}",
        )
        for row, members in rows.items()
    )
    columns = ("", "runs", "test accuracy %", *quality, "agreement %", "weights")
    note = (
        "Mean ± standard deviation over seeds; last epoch. All students make the same number of "
        "steps. Agreement: share of test images where student and teacher name the same class."
    )
    return Table("Test accuracy", columns, lines, note)


def _gains_table(records: Sequence[Record], rows: dict[str, list[Record]]) -> Table:
    families, given = comparisons(records), budgets(records)
    kinds = {
        NO_LABELS: {budget: NO_LABELS for budget in given},
        "no labels, teacher on the labelled images": {each: on_labelled(each) for each in given},
        "labels, teacher on all images": {budget: mixed(budget) for budget in given},
        ALL_TAUGHT: {},
    }
    found = {(f.title.removesuffix(OTHERS), row): f for f in families for row in f.rows}

    def cell(title: str, row: str, baseline: str) -> str:
        members = rows.get(row, []) if row else []
        family = found.get((title, row))
        return common.interval_cell(family, row, members, rows.get(baseline, []))

    lines = []
    for kind, row_of in kinds.items():
        cells = [cell(f"{each} labels", row_of.get(each, ""), alone(each)) for each in given]
        last = kind if kind in (NO_LABELS, ALL_TAUGHT) else ""
        cells.append(cell("all labels", last, ALL_LABELS))
        if any(cell != text.MISSING for cell in cells):
            lines.append((kind, *cells))
    columns = ("", *(f"over {budget} labels" for budget in given), "over all labels")
    note = (
        "Points of test accuracy above the same network that learned from so many labels alone, "
        "with 95 % intervals: no labels by a paired t-test over the seeds; the other rows of one "
        "number of labels, and those over all, by Dunnett's test with seeds as blocks."
    )
    return Table("What the teacher's answers are worth", columns, tuple(lines), note)
