"""Do an ensemble's better answers fit into one network, and can a network teach itself?

Source: Allen-Zhu & Li, "Towards Understanding Ensemble, Knowledge Distillation and Self-
Distillation in Deep Learning" (arXiv 2012.09816), first table: WRN-28-10 on CIFAR-100; and a public
reproduction on CIFAR-10 with ResNet-18, five seeds. Expected: the ensemble is clearly above a
single network, the average trained as one network is not; a student of the ensemble and a self-
distilled network come out between the two. Cost: for N seeds, about 5 N trainings of one network,
one of them N times as large. Command: tfdistill run configs/quickstart.yaml, or
configs/mysteries/{small,full}.yaml.
"""

from collections.abc import Sequence

from tfdistill.config import RunConfig, StudyConfig
from tfdistill.records import Record, Table, by_row
from tfdistill.studies import common
from tfdistill.studies.common import ALONE, PLAIN
from tfdistill.utils.text import MISSING, percent, points

SINGLE = "single network"
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
    common.check_unused(config, "teacher_data")
    seeds = config.seeds
    singles = [common.network(config, f"single-{seed}", SINGLE, seed) for seed in seeds]
    names = tuple(run.name for run in singles)
    together = {"width": len(names), "average": "logits"}
    average = common.network(config, "average", AVERAGE, seeds[0] + 1000, **together)
    alone = [
        common.student(config, f"alone-{seed}", ALONE, seed) for seed in seeds if config.student
    ]
    distilled = [
        common.taught(config, common.student(config, f"distilled-{seed}", DISTILLED, seed), *names)
        for seed in seeds
    ]
    selfs = [
        common.taught(
            config,
            common.network(config, f"self-distilled-{seed}", SELF_DISTILLED, following),
            name,
            distillation=config.self_distillation,
        )
        for seed, name, following in zip(seeds, names, _next(seeds), strict=True)
    ]
    return [
        *singles,
        common.ensemble(config, "ensemble", ENSEMBLE, seeds[0], singles),
        average,
        *alone,
        *distilled,
        common.ensemble(config, "ensemble-of-distilled", DISTILLED_ENSEMBLE, seeds[0], distilled),
        *selfs,
        common.ensemble(config, "ensemble-of-self-distilled", SELF_ENSEMBLE, seeds[0], selfs),
    ]


def tables(records: Sequence[Record]) -> list[Table]:
    """Return the tables: accuracy beside the published, calibration, teacher and student."""
    rows = by_row(records)
    return [_accuracy_table(rows), _fidelity_table(rows), _pairs_table(rows)]


def _next(seeds: list[int]) -> list[int]:
    return seeds[1:] + seeds[:1] if len(seeds) > 1 else [seeds[0] + 1000]


def _accuracy_table(rows: dict[str, list[Record]]) -> Table:
    lines = tuple(
        (
            row,
            *common.accuracy_cells(records),
            common.gain_cell(records, rows.get(SINGLE, [])),
            PUBLISHED_A.get(row, MISSING),
            PUBLISHED_C.get(row, MISSING),
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
            common.figure_cell(records, "test_nll", **PLAIN),
            common.figure_cell(records, "test_brier", **PLAIN),
            common.figure_cell(records, "test_ece"),
            common.figure_cell(records, "test_agreement"),
            common.figure_cell(records, "test_teacher_kl", **PLAIN),
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
        gain = points(accuracy - teacher)
        lines.append((student.name, percent(teacher), percent(accuracy), gain))
    columns = ("", "its teacher", "self-distilled", "gain")
    return Table("Every self-distilled network and its teacher", columns, tuple(lines))
