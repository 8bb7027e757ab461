"""Where does rounding to few bits cost a student accuracy, and does a teacher win it back?

Source: rounding after training and quantisation-aware training (Jacob et al. 2018, arXiv
1712.05877); a teacher while a student is rounded (Polino et al. 2018, arXiv 1802.05668; Mishra &
Marr 2018, arXiv 1711.05852). Each student is trained in float, on labels and by the teacher, and
then for some more epochs: in float, after which it is rounded, or rounded all the while. So all
have had the same steps, and what a longer training gains is not sold as that of rounding in
training. Expected: at 8 bits little is lost by rounding afterwards; at 4 bits much, and rounding in
training wins back most of it. Cost: per seed four trainings of the student in float, two of which
are short, two short ones for each number of bits, and the teacher's. Command: tfdistill run
configs/low_bits/{small,resnet8,full}.yaml, or configs/mlperf_tiny.yaml.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from tfdistill.config import QuantizeConfig, RunConfig, StudyConfig, TrainingConfig, settings_of
from tfdistill.config.choices import OneOf, check_words
from tfdistill.config.study import RANGES
from tfdistill.records import Record, Table, by_row
from tfdistill.reporting.significance import Family
from tfdistill.studies import common
from tfdistill.studies.common import ALONE, TEACHER
from tfdistill.utils import checks

TAUGHT = "student taught"
# How a student goes on from there: taught or on labels, rounded afterwards or in training.
LABELS_FLOAT, TAUGHT_FLOAT = "on labels, in float", "taught, in float"
LABELS_AFTER, TAUGHT_AFTER = "on labels, rounded afterwards", "taught, rounded afterwards"
LABELS_AWARE, TAUGHT_AWARE = "on labels, rounded in training", "taught, rounded in training"
WAYS = (LABELS_AFTER, TAUGHT_AFTER, LABELS_AWARE, TAUGHT_AWARE)

TITLE = "Students of few bits"
QUESTION = (
    "Where does rounding to few bits cost a student accuracy, and does a teacher, or rounding in "
    "training, win it back?"
)
SOURCE = "Jacob et al. 2018 (arXiv 1712.05877); Polino et al. 2018 (arXiv 1802.05668)"
COMMANDS = {
    "tfdistill run configs/low_bits/small.yaml": "20 minutes on two cores",
    "tfdistill run configs/low_bits/resnet8.yaml": "half an hour on two cores",
    "tfdistill run configs/low_bits/mlperf_resnet8.yaml": "two hours on two cores",
    "tfdistill run configs/mlperf_tiny.yaml": "21 hours of one core",
    "tfdistill run configs/low_bits/full.yaml": "a day of one GPU",
}
PUBLISHED_ON: tuple[str, ...] = ()
PUBLISHED: dict[str, float] = {}


@dataclass(frozen=True)
class Settings:
    """How students go on, and to how many bits they are rounded.

    Args:
        weight_bits: Numbers of bits of the weights, each 2 to 8.
        activation_bits: 2 to 8, of activations.
        ranges: Of activations: `average` moves with each batch's extremes, `learned` is trained.
        calibration: Training images from which ranges are measured.
        epochs: How long a student goes on, in float or rounded.
        learning_rate: Peak learning rate then; the rest is as in `student_training`.
    """

    weight_bits: list[int] = field(default_factory=lambda: [8, 4])
    activation_bits: int = 8
    ranges: Annotated[str, OneOf(RANGES)] = "average"
    calibration: int = 500
    epochs: int = 5
    learning_rate: float = 0.0003

    def __post_init__(self):
        checks.different("settings.weight_bits", self.weight_bits)
        for bits in self.weight_bits:
            checks.bits("settings.weight_bits", bits)
        checks.bits("settings.activation_bits", self.activation_bits)
        check_words(self, "settings")
        checks.count("settings.calibration", self.calibration)
        checks.count("settings.epochs", self.epochs)
        checks.positive("settings.learning_rate", self.learning_rate)


def row(way: str, bits: int) -> str:
    """Return the name of a row, e.g. `4 bits: taught, rounded afterwards`."""
    return f"{bits} bits: {way}"


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each after those that it depends on.

    All students of a seed have the same initial weights and orders of images.

    Raises:
        UsageError: There is no teacher.
    """
    common.check_teacher(config)
    common.check_unused(config, "self_distillation")
    settings = settings_of(Settings, config)
    return [
        common.teacher(config),
        *(run for seed in config.seeds for run in _in_float(config, settings, seed)),
        *(
            run
            for bits in settings.weight_bits
            for seed in config.seeds
            for run in _rounded(config, settings, bits, seed)
        ),
    ]


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return what rounding costs and what wins it back, a family each; the fewest bits first."""
    return _compare(by_row(records))


def tables(records: Sequence[Record]) -> list[Table]:
    """Return the accuracy of every row, and the comparisons."""
    rows = by_row(records)
    compared = common.pairs_table("What rounding costs, and what wins it back", _compare(rows))
    return [_accuracy_table(rows), compared]


def figures(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return accuracy over the bits of the weights, a line for each way."""
    from tfdistill.studies.low_bits import figures as pictures

    rows = by_row(records)
    in_float = {"on labels": rows.get(LABELS_FLOAT, []), "taught": rows.get(TAUGHT_FLOAT, [])}
    lines = {
        way: {"float": in_float[way.partition(",")[0]]}
        | {str(bits): rows.get(row(way, bits), []) for bits in reversed(_bits(rows))}
        for way in WAYS
    }
    return [
        (
            "Accuracy by bits of the weights",
            pictures.accuracy_by_bits(lines),
            "Mean test accuracy over seeds, with the standard deviation as a bar; all after the "
            "same steps.",
        )
    ]


def _going_on(config: StudyConfig, settings: Settings) -> TrainingConfig:
    """Return how students go on: as they were trained, for fewer steps and with smaller ones."""
    training = config.student_training or config.training
    return dataclasses.replace(
        training,
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        steps=None,
        warmup_epochs=0.0,
        milestones=[],
    )


def _in_float(config: StudyConfig, settings: Settings, seed: int) -> Iterator[RunConfig]:
    def student(name: str, row: str, **other) -> RunConfig:
        return common.student(config, f"{name}-{seed}", row, seed, **other)

    on = _going_on(config, settings)
    yield student("alone", ALONE)
    yield common.taught(config, student("taught", TAUGHT), TEACHER)
    yield student("alone-on", LABELS_FLOAT, start=f"alone-{seed}", training=on)
    further = student("taught-on", TAUGHT_FLOAT, start=f"taught-{seed}", training=on)
    yield common.taught(config, further, TEACHER)


def _rounded(config: StudyConfig, settings: Settings, bits: int, seed: int) -> Iterator[RunConfig]:
    quantize = QuantizeConfig(bits, settings.activation_bits, settings.ranges, settings.calibration)

    def student(name: str, way: str, start: str, **other) -> RunConfig:
        return common.student(
            config,
            f"{name}-{bits}-bits-{seed}",
            row(way, bits),
            seed,
            start=f"{start}-{seed}",
            training=_going_on(config, settings),
            quantize=quantize,
            **other,
        )

    yield student("alone-after", LABELS_AFTER, "alone-on", trained=False)
    yield student("taught-after", TAUGHT_AFTER, "taught-on", trained=False)
    yield student("alone-aware", LABELS_AWARE, "alone")
    yield common.taught(config, student("taught-aware", TAUGHT_AWARE, "taught"), TEACHER)


def _bits(rows: dict[str, list[Record]]) -> list[int]:
    """Return the numbers of bits of which there are rows, the fewest first."""
    found = (record.config.get("quantize") for members in rows.values() for record in members)
    return sorted({quantize["weight_bits"] for quantize in found if quantize})


def _compare(rows: dict[str, list[Record]]) -> list[Family]:
    pairs = [
        (f"{bits} bits, {words}", row(way, bits), other if in_float else row(other, bits))
        for bits in _bits(rows)
        for words, way, other, in_float in (
            ("rounding in training for rounding afterwards", TAUGHT_AWARE, TAUGHT_AFTER, False),
            ("rounded in training, the teacher for labels", TAUGHT_AWARE, LABELS_AWARE, False),
            ("what rounding afterwards costs", TAUGHT_AFTER, TAUGHT_FLOAT, True),
            ("what rounding in training costs", TAUGHT_AWARE, TAUGHT_FLOAT, True),
            ("what rounding costs without a teacher", LABELS_AFTER, LABELS_FLOAT, True),
            ("all of it, for labels and rounding afterwards", TAUGHT_AWARE, LABELS_AFTER, False),
        )
    ]
    pairs.append(("in float, the teacher for labels", TAUGHT_FLOAT, LABELS_FLOAT))
    return common.paired_rows(rows, pairs)


def _accuracy_table(rows: dict[str, list[Record]]) -> Table:
    names = [TEACHER, ALONE, TAUGHT, LABELS_FLOAT, TAUGHT_FLOAT]
    names += [row(way, bits) for bits in reversed(_bits(rows)) for way in WAYS]
    lines = tuple(
        (
            name,
            *common.accuracy_cells(rows[name]),
            _lost(rows, name),
            common.figure_cell(rows[name], "test_nll", **common.PLAIN),
        )
        for name in names
        if name in rows
    )
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds. Against float: in points, "
        "against the same student that went on in float for as many steps. Weights are rounded to "
        "the bits of the row, and in the first and the last layer and depthwise ones to 8."
    )
    columns = ("", "runs", "best epoch", "last epoch", "against float", "NLL")
    return Table("Test accuracy", columns, lines, note)


def _lost(rows: dict[str, list[Record]], name: str) -> str:
    bits, _, way = name.partition(" bits: ")
    in_float = TAUGHT_FLOAT if way.startswith("taught") else LABELS_FLOAT
    return common.gain_cell(rows[name], rows.get(in_float, []) if bits and way else [])
