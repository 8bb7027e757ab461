"""Does a student match its teacher's function best when both see the same image, and for long?

Source: Beyer et al., "Knowledge distillation: A good teacher is patient and consistent" (arXiv
2106.05237), section 3: the student learns from the teacher alone (alpha = 1), T^2 KL(teacher ||
student), and both see the same crop, mixed up with another image (function matching). Against it:
a teacher that answered once for the original image, one that sees another crop, and the same crops
without mixup; each at short and long schedules. Expected: fixed and independent teachers overfit
and fall behind in long schedules, function matching is slow and ends best. Other than there: each
image has its own mixup weight instead of one for the batch, and the number of different views is
finite, so that the teacher's logits are stored. Cost: five trainings of the student for each seed
and schedule, and the teacher's. Command: tfdistill run configs/patient_teacher/{small,full}.yaml.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdistill.config import RunConfig, StudyConfig, settings_of
from tfdistill.records import Record, Table, by_row, spread
from tfdistill.reporting.significance import Family, compare_runs
from tfdistill.studies import common
from tfdistill.studies.common import INTERVAL, PLAIN, TEACHER
from tfdistill.utils import checks
from tfdistill.utils.text import MISSING, gain, mean_std

LABELS, FIXED, INDEPENDENT = "hard labels", "fixed teacher", "independent crops"
SAME, MATCHING = "same crops", "same crops and mixup"
VARIANTS = (LABELS, FIXED, INDEPENDENT, SAME, MATCHING)

TITLE = "A patient and consistent teacher"
QUESTION = (
    "Does a student learn most when its teacher sees the same crops and mixtures as it, and when "
    "it learns for long?"
)

SOURCE = "Beyer et al. 2021 (arXiv 2106.05237), section 3"
COMMANDS = {
    "tfdistill run configs/patient_teacher/small.yaml": "45 minutes on two cores",
    "tfdistill run configs/patient_teacher/full.yaml": "some days of one GPU",
}
PUBLISHED_ON: tuple[str, ...] = ()
PUBLISHED: dict[str, float] = {}  # only of teachers trained on images that are not public


@dataclass(frozen=True)
class Settings:
    """Schedules and mixup of the study.

    Args:
        epochs: Lengths of the students' training, which replace `training.epochs`; a schedule of
            `cosine` ends with each of them.
        mixup: Parameter a of the Beta(a, a) from which the weights of mixtures are drawn, > 0.
    """

    epochs: list[int] = field(default_factory=lambda: [10, 100])
    mixup: float = 1.0

    def __post_init__(self):
        checks.different("settings.epochs", self.epochs)
        for epochs in self.epochs:
            checks.count("settings.epochs", epochs)
        checks.positive("settings.mixup", self.mixup)


def row(variant: str, epochs: int) -> str:
    """Return the name of a variant's row, e.g. `same crops, 100 epochs`."""
    return f"{variant}, {epochs} epochs"


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each after those that it depends on.

    All variants of a seed have the same initial weights, orders of images and crops.

    Raises:
        UsageError: There is no teacher, or the images are mixed up already.
    """
    common.check_teacher(config)
    common.check_unused(config, "self_distillation", "student_training.epochs")
    augment = config.data.augment
    if augment.mixes:
        raise checks.UsageError(
            "The study patient_teacher sets mixup itself, in one of its rows. Received: "
            f"data.augment.mixup={augment.mixup!r}, data.augment.cutmix={augment.cutmix!r}. Set "
            "settings.mixup instead."
        )
    settings = settings_of(Settings, config)
    return [
        common.teacher(config),
        *(
            _student(config, settings, variant, epochs, seed)
            for epochs in sorted(settings.epochs)
            for variant in VARIANTS
            for seed in config.seeds
        ),
    ]


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return the taught students against hard labels, a family for each length, longest first."""
    rows = by_row(records)
    return common.compared(*(_compare(rows, epochs) for epochs in reversed(_epochs(rows))))


def tables(records: Sequence[Record]) -> list[Table]:
    """Return accuracy and fidelity of every variant and schedule, and variants by schedules."""
    rows = by_row(records)
    return [_summary_table(rows), _schedules_table(rows)]


def figures(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return accuracy over the length of the schedule, a line for each variant."""
    from tfdistill.studies.patient_teacher import figures as pictures

    rows = by_row(records)
    lines = {
        variant: [
            record for epochs in _epochs(rows) for record in rows.get(row(variant, epochs), [])
        ]
        for variant in VARIANTS
    }
    return [
        (
            "Accuracy by length of training",
            pictures.accuracy_by_length(lines, rows.get(TEACHER, [])),
            "Mean test accuracy over seeds, with the standard deviation as a bar; each point is a "
            "training of its own, whose learning rate ends there. Dashed: the teacher.",
        )
    ]


def _student(
    config: StudyConfig, settings: Settings, variant: str, epochs: int, seed: int
) -> RunConfig:
    training = config.student_training or config.training
    run = common.student(
        config,
        f"{variant.replace(' ', '-')}-{epochs}-{seed}",
        row(variant, epochs),
        seed,
        data=_data(config, settings, variant),
        training=dataclasses.replace(training, epochs=epochs),
    )
    return common.taught(config, run, "teacher", distillation=_distillation(config, variant))


def _data(config: StudyConfig, settings: Settings, variant: str):
    mixup = settings.mixup if variant == MATCHING else 0.0
    augment = dataclasses.replace(config.data.augment, mixup=mixup)
    return dataclasses.replace(config.data, augment=augment)


def _distillation(config: StudyConfig, variant: str):
    """Return what a variant learns; labels alone are a teacher of no weight, so that it is known
    how near they come to the teacher's answers."""
    if variant == LABELS:
        weights: dict[str, Any] = {"alpha": 0.0, "hard_weight": None, "soft_weight": None}
        return dataclasses.replace(config.distillation, teacher_view="same", **weights)
    view = {FIXED: "fixed", INDEPENDENT: "independent"}.get(variant, "same")
    return dataclasses.replace(config.distillation, teacher_view=view)


def _epochs(rows: dict[str, list[Record]]) -> list[int]:
    """Return the lengths of the students' trainings, the shortest first."""
    students = [record for name, members in rows.items() if name != TEACHER for record in members]
    return sorted({record.config["training"]["epochs"] for record in students})


def _compare(rows: dict[str, list[Record]], epochs: int) -> Family | None:
    taught = {row(variant, epochs): rows.get(row(variant, epochs), []) for variant in VARIANTS}
    baseline = taught.pop(row(LABELS, epochs))
    return compare_runs(baseline, taught, "hard labels", f"{epochs} epochs")


def _summary_table(rows: dict[str, list[Record]]) -> Table:
    lines = [_line(TEACHER, rows.get(TEACHER, []), MISSING)]
    for epochs in _epochs(rows):
        family, baseline = _compare(rows, epochs), rows.get(row(LABELS, epochs), [])
        for variant in VARIANTS:
            name = row(variant, epochs)
            members = rows.get(name, [])
            gained = common.interval_cell(
                family, name, members, [] if variant == LABELS else baseline
            )
            lines.append(_line(name, members, gained))
    columns = ("", "runs", "best epoch", "last epoch", INTERVAL, "agreement %", "KL")
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds. Gain in points, over hard "
        "labels at the same length; intervals: Dunnett's test with seeds as blocks, simultaneous "
        "over the rows of one length. "
        "Agreement: share of test images where student and teacher name the same class; KL: mean "
        "KL(teacher || student) on test images at temperature 1."
    )
    return Table("Test accuracy and fidelity to the teacher", columns, _given(lines), note)


def _line(name: str, members: list[Record], gained: str) -> tuple[str, ...] | None:
    if not members:
        return None
    return (
        name,
        *common.accuracy_cells(members),
        gained,
        common.figure_cell(members, "test_agreement"),
        common.figure_cell(members, "test_teacher_kl", **PLAIN),
    )


def _schedules_table(rows: dict[str, list[Record]]) -> Table:
    lengths = _epochs(rows)
    lines = []
    for variant in VARIANTS:
        found = [spread(rows.get(row(variant, epochs), []), "test_accuracy") for epochs in lengths]
        if any(found):
            lines.append((variant, *map(mean_std, found), gain(found[-1], found[0])))
    columns = ("", *(f"{epochs} epochs" for epochs in lengths), "gain of the longest")
    note = "Test accuracy in percent; gain: of the longest over the shortest training, in points."
    return Table("Test accuracy by length of training", columns, _given(lines), note)


def _given(lines: Sequence[tuple[str, ...] | None]) -> tuple[tuple[str, ...], ...]:
    return tuple(line for line in lines if line)
