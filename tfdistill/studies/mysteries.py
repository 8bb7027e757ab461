"""Do an ensemble's better answers fit into one network, and can a network teach itself?

Source: Allen-Zhu & Li, "Towards Understanding Ensemble, Knowledge Distillation and Self-
Distillation in Deep Learning" (arXiv 2012.09816), first table: WRN-28-10 on CIFAR-100; and a public
reproduction on CIFAR-10 with ResNet-18, five seeds. Expected: the ensemble is clearly above a
single network, the average trained as one network is not; a student of the ensemble and a self-
distilled network come out between the two. Cost: for N seeds, about 5 N trainings of one network,
one of them N times as large. Command: tfdistill run configs/quickstart.yaml, or
configs/mysteries/{small,full}.yaml.
"""

import dataclasses
from collections.abc import Sequence

from tfdistill.config import RunConfig, StudyConfig
from tfdistill.records import Record, Table, by_row, spread
from tfdistill.reporting.cells import gain, percent, plain
from tfdistill.utils import checks

SINGLE = "single network"
ALONE = "student alone"
ENSEMBLE = "ensemble of the single networks"
AVERAGE = "average trained as one network"
DISTILLED = "distilled from the ensemble"
SELF_DISTILLED = "self-distilled"
DISTILLED_ENSEMBLE = "ensemble of the distilled"
SELF_ENSEMBLE = "ensemble of the self-distilled"

TITLE = "Ensemble, distillation and self-distillation"
QUESTION = (
    "Do an ensemble's better answers fit into one network, and can a network learn from another of "
    "its own kind?"
)

SOURCE = (
    "Allen-Zhu & Li (arXiv 2012.09816), first table; github mrpositron/distillation, ResNet-18 on "
    "CIFAR-10"
)
COMMANDS = {
    "tfdistill run configs/quickstart.yaml": "two minutes on two cores",
    "tfdistill run configs/mysteries/small.yaml": "an hour on two cores",
    "tfdistill run configs/mysteries/full.yaml": "some days of one GPU",
}
PUBLISHED: dict[str, float] = {}  # of two systems: the table has a column for each

# Test accuracy in percent. A: ResNet-18, CIFAR-10, github mrpositron/distillation, five seeds,
# weights of the best validation epoch. C: WRN-28-10, CIFAR-100, arXiv 2012.09816, ten seeds.
PUBLISHED_A = {
    SINGLE: "85.95 ± 0.37",
    ENSEMBLE: "89.07",
    DISTILLED: "87.00",
    SELF_DISTILLED: "86.38 ± 0.70",
    SELF_ENSEMBLE: "89.38",
}
PUBLISHED_C = {
    SINGLE: "81.51 ± 0.16",
    AVERAGE: "81.83",
    ENSEMBLE: "84.87",
    DISTILLED: "83.81",
    SELF_DISTILLED: "83.56",
}


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each after those that it depends on.

    All rows have the same seeds, that is the same initial weights and orders of images, so a row's
    gain is no luck of its seeds. A self-distilled network starts from the weights of the next seed:
    from its teacher's own it would only retrace it.
    """
    checks.unused("teacher_data", config.teacher_data, "mysteries")
    singles = [_network(config, SINGLE, "single", seed) for seed in config.seeds]
    names = tuple(run.name for run in singles)
    average = dataclasses.replace(
        _network(config, AVERAGE, "average", config.seeds[0] + 1000),
        name="average",
        width=len(names),
        average="logits",
    )
    alone = [_student(config, ALONE, "alone", seed) for seed in config.seeds if config.student]
    distilled = [
        _taught(config, _student(config, DISTILLED, "distilled", seed), names, config.distillation)
        for seed in config.seeds
    ]
    own = config.self_distillation or config.distillation
    selfs = [
        dataclasses.replace(
            _taught(config, _network(config, SELF_DISTILLED, "self-distilled", seed), (name,), own),
            seed=following,
        )
        for seed, name, following in zip(config.seeds, names, _next(config.seeds), strict=True)
    ]
    return [
        *singles,
        _ensemble(config, ENSEMBLE, "ensemble", singles),
        average,
        *alone,
        *distilled,
        _ensemble(config, DISTILLED_ENSEMBLE, "ensemble-of-distilled", distilled),
        *selfs,
        _ensemble(config, SELF_ENSEMBLE, "ensemble-of-self-distilled", selfs),
    ]


def tables(records: Sequence[Record]) -> list[Table]:
    """Return the tables: accuracy beside the published, calibration, teacher and student."""
    rows = by_row(records)
    return [_accuracy_table(rows), _fidelity_table(rows), _pairs_table(rows)]


def _network(config: StudyConfig, row: str, name: str, seed: int) -> RunConfig:
    return RunConfig(
        name=f"{name}-{seed}",
        row=row,
        seed=seed,
        data=config.data,
        model=config.teacher,
        training=config.training,
    )


def _student(config: StudyConfig, row: str, name: str, seed: int) -> RunConfig:
    return dataclasses.replace(
        _network(config, row, name, seed),
        model=config.student or config.teacher,
        training=config.student_training or config.training,
    )


def _next(seeds: list[int]) -> list[int]:
    return seeds[1:] + seeds[:1] if len(seeds) > 1 else [seeds[0] + 1000]


def _taught(config: StudyConfig, run: RunConfig, teachers: tuple, distillation) -> RunConfig:
    return dataclasses.replace(
        run, teachers=teachers, distillation=distillation, cache=config.cache
    )


def _ensemble(config: StudyConfig, row: str, name: str, members: list[RunConfig]) -> RunConfig:
    return RunConfig(
        name=name,
        row=row,
        seed=config.seeds[0],
        data=config.data,
        model=None,
        training=members[0].training,
        members=tuple(run.name for run in members),
        trained=False,
        average=config.distillation.average,
    )


def _accuracy_table(rows: dict[str, list[Record]]) -> Table:
    baseline = spread(rows.get(SINGLE, []), "test_accuracy")
    lines = tuple(
        (
            row,
            str(len(records)),
            percent(spread(records, "test_accuracy", "best")),
            percent(spread(records, "test_accuracy", "last")),
            gain(spread(records, "test_accuracy"), baseline),
            PUBLISHED_A.get(row, "–"),
            PUBLISHED_C.get(row, "–"),
        )
        for row, records in rows.items()
    )
    columns = ("", "runs", "best epoch", "last epoch", "gain", "published A", "published C")
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds: of the weights with the "
        "best validation accuracy, and of the last epoch. Gain: against the single networks, in "
        "points. Published A: ResNet-18 on CIFAR-10, best epoch; C: WRN-28-10 on CIFAR-100."
    )
    return Table("Test accuracy", columns, lines, note)


def _fidelity_table(rows: dict[str, list[Record]]) -> Table:
    columns = ("", "NLL", "Brier", "ECE %", "agreement %", "KL from teacher")
    lines = tuple(
        (
            row,
            plain(spread(records, "test_nll")),
            plain(spread(records, "test_brier")),
            percent(spread(records, "test_ece")),
            percent(spread(records, "test_agreement")),
            plain(spread(records, "test_teacher_kl")),
        )
        for row, records in rows.items()
    )
    note = (
        "On the test set, without any later temperature scaling. ECE: 15 bins of equal width. "
        "Agreement: share of images where student and teacher name the same class. KL: mean "
        "KL(teacher || student) at temperature 1."
    )
    return Table("Calibration and fidelity to the teacher", columns, lines, note)


def _pairs_table(rows: dict[str, list[Record]]) -> Table:
    teachers = {record.name: record for record in rows.get(SINGLE, [])}
    lines = []
    for student in rows.get(SELF_DISTILLED, []):
        teacher = teachers[student.config["teachers"][0]].figures["test_accuracy"]
        accuracy = student.figures["test_accuracy"]
        gain = f"{100 * (accuracy - teacher):+.2f}"
        lines.append((student.name, f"{100 * teacher:.2f}", f"{100 * accuracy:.2f}", gain))
    columns = ("", "its teacher", "self-distilled", "gain")
    return Table("Every self-distilled network and its teacher", columns, tuple(lines))
