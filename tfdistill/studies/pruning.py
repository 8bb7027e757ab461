"""Is a student of fewer channels better pruned from a wider one, or narrow from the start?

Source: structured pruning by the L1 norm of kernels (Li et al. 2017, arXiv 1608.08710); against it,
that the same small network trained from new weights is often as good (Liu et al. 2019, "Rethinking
the Value of Network Pruning", arXiv 1810.05270). A teacher teaches a whole student, which loses
channels in steps and is taught again behind each; and it teaches a narrow student, of the same
channels as far as widths allow, for as many steps. Both are then rounded to 8 bits: the chain
prune, distil, quantise. Expected: pruning costs points of which teaching wins most back; it stays
below the narrow student (docs/results/pruning). Cost: for N steps per seed 2 N + 5 trainings, of
which 2 N + 3 are short, and the teacher's. Command: tfdistill run
configs/pruning/{small,full}.yaml.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tfdistill.config import PruneConfig, QuantizeConfig, RunConfig, StudyConfig, settings_of
from tfdistill.records import Record, Table, by_row
from tfdistill.reporting.significance import Family
from tfdistill.studies import common
from tfdistill.studies.common import TEACHER
from tfdistill.utils import checks
from tfdistill.utils.text import amount

WHOLE, WHOLE_ON = "whole student, taught", "whole, taught on"
NARROW, NARROW_ON = "narrow student, taught", "narrow, taught on"
NARROW_ALONE, ALONE_ON = "narrow student, on labels", "narrow, on labels on"
NARROW_8 = "narrow, taught on, 8 bits"

TITLE = "Pruned students and narrow ones"
QUESTION = (
    "Is a student of fewer channels better pruned from a wider one and taught again, or narrow "
    "from the start?"
)
SOURCE = "Li et al. 2017 (arXiv 1608.08710); Liu et al. 2019 (arXiv 1810.05270)"
COMMANDS = {
    "tfdistill run configs/pruning/small.yaml": "two thirds of an hour on two cores",
    "tfdistill run configs/pruning/full.yaml": "a day of one GPU",
}
PUBLISHED_ON: tuple[str, ...] = ()
PUBLISHED: dict[str, float] = {}


@dataclass(frozen=True)
class Settings:
    """How many channels are kept, in which steps, and how students are taught behind each.

    Args:
        keep: Shares of the whole student's channels, above 0 and below 1, one for each step, each
            smaller than the one before.
        multiple: The number of channels that is kept is the nearest multiple of it.
        epochs: How long a student is taught behind each step.
        learning_rate: Peak learning rate then; the rest is as in `student_training`.
        calibration: Training images from which the ranges of 8 bits are measured.
    """

    keep: list[float] = field(default_factory=lambda: [0.75, 0.5])
    multiple: int = 8
    epochs: int = 5
    learning_rate: float = 0.001
    calibration: int = 500

    def __post_init__(self):
        checks.different("settings.keep", self.keep)
        for share in self.keep:
            checks.proper_fraction("settings.keep", share)
        if self.keep != sorted(self.keep, reverse=True):
            raise checks.UsageError(
                f"settings.keep must fall from step to step. Received: {checks.shown(self.keep)}."
            )
        checks.count("settings.multiple", self.multiple)
        checks.count("settings.epochs", self.epochs)
        checks.positive("settings.learning_rate", self.learning_rate)
        checks.count("settings.calibration", self.calibration)


def cut(share: float) -> str:
    """Return the row of students that have just lost their channels, e.g. `pruned to 50 %`."""
    return f"pruned to {100 * share:g} %"


def taught(share: float, teacher: str = "taught") -> str:
    """Return the row of pruned students that went on, e.g. `pruned to 50 %, taught`."""
    return f"{cut(share)}, {teacher}"


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each after those that it depends on.

    All students of a seed have the same order of images; after the last step they have had the same
    number of steps.

    Raises:
        UsageError: There is no teacher.
    """
    common.check_teacher(config)
    common.check_unused(config, "self_distillation")
    settings = settings_of(Settings, config)
    return [
        common.teacher(config),
        *(run for seed in config.seeds for run in _narrow(config, settings, seed)),
        *(run for seed in config.seeds for run in _pruned(config, settings, seed)),
    ]


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return what the pruned student is above and below, a family each."""
    return _compare(by_row(records))


def tables(records: Sequence[Record]) -> list[Table]:
    """Return accuracy and size of every row, and the comparisons."""
    rows = by_row(records)
    compared = common.pairs_table("What pruning costs, and what wins it back", _compare(rows))
    return [_chain_table(rows), compared]


def _going_on(config: StudyConfig, settings: Settings, steps: int) -> dict:
    """Return how students go on: as they were trained, for fewer epochs at a smaller rate."""
    training = config.student_training or config.training
    shorter = dataclasses.replace(
        training,
        epochs=settings.epochs * steps,
        learning_rate=settings.learning_rate,
        steps=None,
        warmup_epochs=0.0,
        milestones=[],
    )
    return {"training": shorter}


def _narrow(config: StudyConfig, settings: Settings, seed: int) -> Iterator[RunConfig]:
    """Yield what the pruned student is held against: narrow students, and the whole one."""
    whole = config.student or common.check_teacher(config)
    narrow = dataclasses.replace(whole, width=whole.width * settings.keep[-1])
    on = _going_on(config, settings, len(settings.keep))

    def student(name: str, row: str, **other) -> RunConfig:
        return common.student(config, f"{name}-{seed}", row, seed, **other)

    def learning(name: str, row: str, **other) -> RunConfig:
        return common.taught(config, student(name, row, **other), TEACHER)

    yield student("alone", NARROW_ALONE, model=narrow)
    yield student("alone-on", ALONE_ON, model=narrow, start=f"alone-{seed}", **on)
    yield learning("narrow", NARROW, model=narrow)
    yield learning("narrow-on", NARROW_ON, model=narrow, start=f"narrow-{seed}", **on)
    yield learning("whole", WHOLE)
    yield learning("whole-on", WHOLE_ON, start=f"whole-{seed}", **on)
    yield student(
        "narrow-8-bits",
        NARROW_8,
        model=narrow,
        start=f"narrow-on-{seed}",
        trained=False,
        quantize=QuantizeConfig(calibration=settings.calibration),
        **on,
    )


def _pruned(config: StudyConfig, settings: Settings, seed: int) -> Iterator[RunConfig]:
    """Yield the chain: channels go, the student is taught, and so on; at the end 8 bits."""
    before, kept = f"whole-{seed}", 1.0
    on = _going_on(config, settings, 1)

    def student(name: str, row: str, prune: PruneConfig, **other) -> RunConfig:
        return common.student(config, f"{name}-{seed}", row, seed, prune=prune, **other)

    for share in settings.keep:
        prune = PruneConfig(before, share / kept, settings.multiple)
        step = f"pruned-{100 * share:g}"
        yield student(f"{step}-cut", cut(share), prune, trained=False, **on)
        yield common.taught(config, student(step, taught(share), prune, **on), TEACHER)
        if share == settings.keep[-1]:
            yield student(f"{step}-labels", taught(share, "on labels"), prune, **on)
            yield student(
                f"{step}-8-bits",
                taught(share, "taught, 8 bits"),
                prune,
                start=f"{step}-{seed}",
                trained=False,
                quantize=QuantizeConfig(calibration=settings.calibration),
                **on,
            )
        before, kept = f"{step}-{seed}", share


def _shares(rows: dict[str, list[Record]]) -> list[float]:
    """Return the shares of channels of which there are rows, the largest first."""
    found = []
    for row in rows:
        start, _, rest = row.partition(" to ")
        if start == "pruned" and rest.endswith(" %"):
            found.append(float(rest.removesuffix(" %")) / 100)
    return sorted(found, reverse=True)


def _compare(rows: dict[str, list[Record]]) -> list[Family]:
    last = min(_shares(rows), default=0.0)
    pairs = (
        ("pruned for narrow from the start", taught(last), NARROW_ON),
        ("behind the last cut, the teacher for labels", taught(last), taught(last, "on labels")),
        ("what fewer channels cost, pruned", taught(last), WHOLE_ON),
        ("what 8 bits cost", taught(last, "taught, 8 bits"), taught(last)),
        ("pruned for narrow, both of 8 bits", taught(last, "taught, 8 bits"), NARROW_8),
        ("narrow, the teacher for labels", NARROW_ON, ALONE_ON),
    )
    return common.paired_rows(rows, pairs)


def _chain_table(rows: dict[str, list[Record]]) -> Table:
    lines = tuple(
        (row, *common.accuracy_cells(found), *_size(found)) for row, found in rows.items()
    )
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds. Bytes: of the weights, "
        "four each, one of 8 bits. FLOPs: of one image's forward pass, 2 for each multiply-add."
    )
    columns = ("", "runs", "best epoch", "last epoch", "weights", "bytes", "FLOPs")
    return Table("Accuracy and size at each stage", columns, lines, note)


def _size(records: Sequence[Record]) -> tuple[str, str, str]:
    first = records[0]
    each = 1 if first.config.get("quantize") else 4
    return amount(first.parameters), amount(each * first.parameters), amount(first.flops)
