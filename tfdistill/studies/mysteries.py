"""Do an ensemble's better answers fit into one network, and can a network teach itself?

Source: Allen-Zhu & Li, "Towards Understanding Ensemble, Knowledge Distillation and Self-
Distillation in Deep Learning" (arXiv 2012.09816), first table: WRN-28-10 on CIFAR-100; and a public
reproduction on CIFAR-10 with ResNet-18, five seeds. Expected: the ensemble is clearly above a
single network, the average trained as one network is not; a student of the ensemble and a self-
distilled network come out between the two. Cost: for N seeds, about 5 N trainings of one network,
one of them N times as large. Command: tfdistill run configs/mysteries/digits.yaml, or
configs/mysteries/{cnn2,small,full}.yaml.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tfdistill.config import RunConfig, StudyConfig, settings_of
from tfdistill.records import Record, Table, by_row
from tfdistill.reporting import verdicts
from tfdistill.reporting.significance import (
    Family,
    compare_networks,
    compare_runs,
)
from tfdistill.reporting.verdicts import published_verdict
from tfdistill.studies import common
from tfdistill.studies.common import ALONE, INTERVAL, PLAIN
from tfdistill.utils import checks
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
    "tfdistill run configs/mysteries/cnn2.yaml": "50 minutes on one core",
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


@dataclass(frozen=True)
class Settings:
    """How the seeds are shared out among ensembles.

    Args:
        ensembles: Number of ensembles, of as many seeds each and without a common member; what one
            of them teaches is then not the luck of one teacher.
    """

    ensembles: int = 1

    def __post_init__(self):
        checks.count("settings.ensembles", self.ensembles)


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each after those that it depends on.

    All rows have the same seeds, that is the same initial weights and orders of images, so a row's
    gain is no luck of its seeds. A self-distilled network starts from the weights of the next seed:
    from its teacher's own it would only retrace it.

    Raises:
        UsageError: The seeds cannot be shared out evenly.
    """
    common.check_unused(config, "teacher_data")
    groups = _groups(config.seeds, settings_of(Settings, config).ensembles)
    number = {
        group[0]: f"-{place}" if len(groups) > 1 else "" for place, group in enumerate(groups, 1)
    }
    singles = {
        seed: common.network(config, f"single-{seed}", SINGLE, seed) for seed in config.seeds
    }
    alone = [
        common.student(config, f"alone-{seed}", ALONE, seed)
        for seed in config.seeds
        if config.student
    ]
    average = [
        common.network(
            config,
            f"average{number[group[0]]}",
            AVERAGE,
            group[0] + 1000,
            width=len(group),
            average="logits",
        )
        for group in groups
    ]
    distilled = {
        seed: common.taught(
            config,
            common.student(config, f"distilled-{seed}", DISTILLED, seed),
            *(singles[member].name for member in group),
        )
        for group in groups
        for seed in group
    }
    selfs = {
        seed: common.taught(
            config,
            common.network(config, f"self-distilled-{seed}", SELF_DISTILLED, following),
            singles[seed].name,
            distillation=config.self_distillation,
        )
        for seed, following in zip(config.seeds, _next(config.seeds), strict=True)
    }

    def ensembles(name: str, row: str, members: dict[int, RunConfig]) -> list[RunConfig]:
        return [
            common.ensemble(
                config,
                f"{name}{number[group[0]]}",
                row,
                group[0],
                [members[seed] for seed in group],
            )
            for group in groups
        ]

    return [
        *singles.values(),
        *ensembles("ensemble", ENSEMBLE, singles),
        *average,
        *alone,
        *distilled.values(),
        *ensembles("ensemble-of-distilled", DISTILLED_ENSEMBLE, distilled),
        *selfs.values(),
        *ensembles("ensemble-of-self-distilled", SELF_ENSEMBLE, selfs),
    ]


NAMES = {
    ENSEMBLE: "the ensemble",
    DISTILLED: "a distilled network",
    SELF_DISTILLED: "a self-distilled network",
}


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return taught networks against those of their kind alone, each ensemble against one network,
    and networks that the ensemble taught against those that taught themselves."""
    rows = by_row(records)
    singles, alone = rows.get(SINGLE, []), rows.get(ALONE, [])
    taught = {row: rows.get(row, []) for row in (DISTILLED, SELF_DISTILLED)}
    distilled = {DISTILLED: taught.pop(DISTILLED)} if alone else {}
    return common.compared(
        compare_runs(alone, distilled, "the same network alone"),
        compare_runs(singles, taught, "the single networks"),
        *_same_images(rows),
        *_who_teaches(rows),
    )


def _who_teaches(rows: dict[str, list[Record]]) -> list[Family]:
    """Return networks that the ensemble taught against those that taught themselves."""
    if ALONE in rows:  # they are of another kind
        return []
    return common.paired_rows(
        rows, [("taught by the ensemble instead of itself", DISTILLED, SELF_DISTILLED)]
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
    taught = _who_teaches(rows)
    who = [common.pairs_table("Who teaches", taught)] if taught else []
    accuracy = _accuracy_table(rows, families)
    return [accuracy, *published, *who, *networks, _fidelity_table(rows), _pairs_table(rows)]


def _same_images(rows: dict[str, list[Record]]) -> list[Family]:
    """Return each ensemble, and the average trained as one, against the best of its members, and
    each against the best network that it taught."""
    averages = rows.get(AVERAGE, [])
    families = []
    for place, ensemble in enumerate(rows.get(ENSEMBLE, [])):
        members = ensemble.config["members"]
        one = {ENSEMBLE: ensemble} | ({AVERAGE: averages[place]} if place < len(averages) else {})
        students = [run for run in rows.get(DISTILLED, []) if run.config["teachers"] == members]
        single = _best([run for run in rows.get(SINGLE, []) if run.name in members])
        student = _best(students)
        if single:
            families.append(
                compare_networks(single, one, f"the best of its networks ({single.name})")
            )
        if student:
            words = f"the best network that it taught ({student.name})"
            families.append(compare_networks(student, {ENSEMBLE: ensemble}, words))
    return common.compared(*families)


def _best(runs: Sequence[Record]) -> Record | None:
    """Return the run with the highest validation accuracy: by test images it looked too good."""
    known = [run for run in runs if run.figures.get("validation_accuracy") is not None]
    return max(known, key=lambda run: run.figures["validation_accuracy"], default=None)


def _groups(seeds: list[int], number: int) -> list[list[int]]:
    if len(seeds) % number:
        raise checks.UsageError(
            f"settings.ensembles must divide the number of seeds, {len(seeds)}. "
            f"Received: settings.ensembles={number}."
        )
    size = len(seeds) // number
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


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


def _images_table(families: Sequence[Family]) -> Table:
    lines = tuple(
        (row, family.baseline, interval(found))
        for family in families
        for row, found in family.rows.items()
    )
    note = (
        "Test accuracy in points over a network, the one with the highest validation accuracy of "
        "its kind, on the same test images: McNemar's test, exact. It is about these networks, not "
        "about how they were trained."
    )
    columns = ("", "against", "difference, 95 % interval")
    return Table("Two networks on the same images", columns, lines, note)


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
