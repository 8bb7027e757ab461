"""Do an ensemble's better answers fit into one network, and can a network teach itself?

Source: Allen-Zhu & Li, "Towards Understanding Ensemble, Knowledge Distillation and Self-
Distillation in Deep Learning" (arXiv 2012.09816), first table: WRN-28-10 on CIFAR-100; and a public
reproduction on CIFAR-10 with ResNet-18, five seeds. Expected: the ensemble is clearly above a
single network, the average trained as one network is not; a student of the ensemble and a self-
distilled network come out between the two. Cost: for N seeds, about 5 N trainings of one network,
one of them N times as large. Command: tfdistill run configs/mysteries/digits.yaml, or
configs/mysteries/{small,full}.yaml.
"""

from collections.abc import Sequence

from tfdistill.config import RunConfig, StudyConfig
from tfdistill.records import Record, Table, by_row
from tfdistill.reporting import verdicts
from tfdistill.reporting.significance import Family, compare_networks, compare_runs
from tfdistill.reporting.verdicts import published_verdict
from tfdistill.studies import common
from tfdistill.studies.common import ALONE, INTERVAL, PLAIN
from tfdistill.utils.text import MISSING, interval, percent, points

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
    "tfdistill run configs/mysteries/digits.yaml": "two minutes on two cores",
    "tfdistill run configs/mysteries/small.yaml": "an hour on two cores",
    "tfdistill run configs/mysteries/full.yaml": "some days of one GPU",
}
PUBLISHED_ON = ("tfds:cifar10", "tfds:cifar100")
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


# System A's images, and what its networks were and learned from; of C the epochs are not known.
_SOURCE_A = "tfds:cifar10"
_SIZE_A = {"parameters": 11.2e6, "images": 45_000, "epochs": 100}
_CIFAR = 50_000  # training images, of which some are held back


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


NAMES = {
    ENSEMBLE: "the ensemble",
    DISTILLED: "a distilled network",
    SELF_DISTILLED: "a self-distilled network",
}


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return taught networks against those of their kind alone, and the ensemble against one."""
    rows = by_row(records)
    singles, alone = rows.get(SINGLE, []), rows.get(ALONE, [])
    taught = {row: rows.get(row, []) for row in (DISTILLED, SELF_DISTILLED)}
    distilled = {DISTILLED: taught.pop(DISTILLED)} if alone else {}
    return common.compared(
        compare_runs(alone, distilled, "the same network alone"),
        compare_runs(singles, taught, "the single networks"),
        _same_images(rows),
    )


def tables(records: Sequence[Record]) -> list[Table]:
    """Return the tables: accuracy and its gain, the published beside it, pairs of networks on the
    same images, calibration, teacher and student."""
    rows = by_row(records)
    families = comparisons(records)
    shown = common.published_on(records, PUBLISHED_ON)
    published = [_published_table(rows, families)] if shown else []
    images = _same_images(rows)
    networks = [_images_table(images)] if images else []
    accuracy = _accuracy_table(rows, families)
    return [accuracy, *published, *networks, _fidelity_table(rows), _pairs_table(rows)]


def _same_images(rows: dict[str, list[Record]]) -> Family | None:
    """Return what there is one of, an ensemble first, against the best single network."""
    singles = rows.get(SINGLE, [])
    known = [run for run in singles if run.figures.get("validation_accuracy") is not None]
    if not known:
        return None
    best = max(known, key=lambda run: run.figures["validation_accuracy"])
    one = {row: rows[row][0] for row in (ENSEMBLE, AVERAGE) if row in rows}
    return compare_networks(best, one, f"the best single network ({best.name})")


def _next(seeds: list[int]) -> list[int]:
    return seeds[1:] + seeds[:1] if len(seeds) > 1 else [seeds[0] + 1000]


def _accuracy_table(rows: dict[str, list[Record]], families: Sequence[Family]) -> Table:
    lines = tuple(
        (
            row,
            *common.accuracy_cells(records),
            common.interval_cell(_family(families, row), row, records, _baseline(rows, row)),
        )
        for row, records in rows.items()
    )
    columns = ("", "runs", "best epoch", "last epoch", INTERVAL)
    student = "; of distilled students against the same network alone" if ALONE in rows else ""
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds: of the weights with the "
        "best validation accuracy, and of the last epoch. Gain: against the single networks"
        f"{student}, in points. {common.interval_note(_family(families, DISTILLED))}"
    )
    return Table("Test accuracy", columns, lines, note)


def _family(families: Sequence[Family], row: str) -> Family | None:
    return next((family for family in families if row in family.rows and family.seeds > 1), None)


def _baseline(rows: dict[str, list[Record]], row: str) -> list[Record]:
    if row in (SINGLE, ALONE):
        return []
    students = ALONE in rows and row in (DISTILLED, DISTILLED_ENSEMBLE)
    return rows.get(ALONE if students else SINGLE, [])


def _published_table(rows: dict[str, list[Record]], families: Sequence[Family]) -> Table:
    """Return how our gains stand to those of both published systems."""
    at_size = {"A": _of_size_a(rows.get(SINGLE, [])), "C": False}
    lines = []
    for row, records in rows.items():
        family = _family(families, row)
        compared = family.rows[row] if family else None
        cells = [common.interval_cell(family, row, records, _baseline(rows, row))]
        for name, system in (("A", PUBLISHED_A), ("C", PUBLISHED_C)):
            gain, several = _published_gain(system, row), "±" in system.get(row, "")
            verdict = published_verdict(compared, gain, at_size[name], 5 if several else 1)
            cells += [system.get(row, MISSING), verdict if gain is not None else MISSING]
        if any(row in system for system in (PUBLISHED_A, PUBLISHED_C)):
            lines.append((row, *cells))
    columns = ("", "ours: gain, 95 % interval", "A", "ours beside A", "C", "ours beside C")
    note = (
        "Published test accuracy in percent. A: ResNet-18 on CIFAR-10, best epoch, of distilled "
        "networks one run; C: WRN-28-10 on CIFAR-100, ten seeds. Beside it, how our gain stands to "
        "theirs: not seen at this size, where our interval excludes it; compatible, where it holds "
        "it; not comparable without an interval."
    )
    return Table("Beside the published", columns, tuple(lines), note)


def _of_size_a(singles: Sequence[Record]) -> bool:
    if not singles:
        return False
    run, data = singles[0], singles[0].config["data"]
    images = data["train_examples"] or _CIFAR - data["validation"]
    epochs = run.config["training"]["epochs"]
    ours = {"parameters": run.parameters, "images": images, "epochs": epochs}
    return data["source"] == _SOURCE_A and verdicts.same_size(ours, _SIZE_A)


def _published_gain(system: dict[str, str], row: str) -> float | None:
    """Return a published gain over the single networks, as a share of 1."""
    if row not in system or row == SINGLE:
        return None
    ours, single = (float(system[each].split()[0]) for each in (row, SINGLE))
    return (ours - single) / 100


def _images_table(family: Family) -> Table:
    lines = tuple((row, interval(found)) for row, found in family.rows.items())
    note = (
        f"Test accuracy in points over {family.baseline}, the one with the highest validation "
        "accuracy, on the same test images: McNemar's test, exact. It is about these networks, not "
        "about how they were trained."
    )
    return Table("Two networks on the same images", ("", "difference, 95 % interval"), lines, note)


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
