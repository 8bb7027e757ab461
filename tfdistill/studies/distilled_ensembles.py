"""How much of an ensemble's gain fits into one network, and what is left for ensembling after it?

Source: Allen-Zhu & Li (arXiv 2012.09816), second table: six Wide ResNets on CIFAR-10, ten runs
each. For every architecture: single networks, their ensemble, networks distilled from it, and the
ensemble of these. Expected: a distilled network keeps more than half of the ensemble's gain, and
ensembling adds less to distilled networks than to single ones, as these have learned the same
features of one teacher. Cost: two trainings a seed and architecture. Command: tfdistill run
configs/distilled_ensembles/{small,full}.yaml.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tfdistill.config import ModelConfig, RunConfig, StudyConfig, settings_of
from tfdistill.records import Record, Spread, Table, by_row, spread
from tfdistill.reporting.significance import Family
from tfdistill.studies import common
from tfdistill.utils import checks
from tfdistill.utils.text import MISSING, gain, interval, mean_std, percent

SINGLE, ENSEMBLE = "single", "ensemble"
DISTILLED, DISTILLED_ENSEMBLE = "distilled", "ensemble of distilled"
KINDS = (SINGLE, ENSEMBLE, DISTILLED, DISTILLED_ENSEMBLE)

TITLE = "Ensembles of distilled networks"
QUESTION = (
    "How much of an ensemble's gain does one distilled network keep, and does ensembling still "
    "help networks that were distilled from an ensemble?"
)

SOURCE = "Allen-Zhu & Li (arXiv 2012.09816), second table: Wide ResNets on CIFAR-10"
COMMANDS = {
    "tfdistill run configs/distilled_ensembles/small.yaml": "23 minutes on two cores",
    "tfdistill run configs/distilled_ensembles/full.yaml": "some weeks of one GPU",
}


@dataclass(frozen=True)
class Settings:
    """The architectures of the study.

    Args:
        networks: One line of the table each; empty means the study's `teacher` alone.
    """

    networks: list[ModelConfig] = field(default_factory=list)

    def __post_init__(self):
        if self.networks:
            checks.different("settings.networks", [label(network) for network in self.networks])


def label(network: ModelConfig) -> str:
    """Return the name of an architecture's line, e.g. `wrn-28-2` or `resnet8, width 0.5`."""
    return network.name + (f", width {network.width:g}" if network.width != 1 else "")


def row(architecture: str, kind: str) -> str:
    """Return the name of the row of one kind of network, e.g. `wrn-28-2: distilled`."""
    return f"{architecture}: {kind}"


# Test accuracy in percent on CIFAR-10, ten runs each: mean and deviation of single networks, their
# ensemble, mean and deviation of the distilled, their ensemble. The published "ResNet-d-k" have
# the 6n + 4 layers of Wide ResNets, as 34, which no residual network of 6n + 2 layers has.
_PUBLISHED = {
    "wrn-28-2": (95.22, 0.14, 96.33, 95.89, 0.07, 96.21),
    "wrn-34-1": (93.65, 0.19, 94.97, 94.37, 0.13, 94.88),
    "wrn-34-2": (95.45, 0.14, 96.55, 96.00, 0.12, 96.42),
    "wrn-16-10": (96.08, 0.16, 96.80, 96.73, 0.07, 96.76),
    "wrn-22-10": (96.44, 0.09, 97.12, 97.01, 0.09, 97.09),
    "wrn-28-10": (96.70, 0.21, 97.20, 97.06, 0.08, 97.24),
}
_RUNS = 10


def published(architecture: str) -> dict[str, Spread]:
    """Return the published test accuracies in 0..1 of every kind; none of other architectures."""
    if architecture not in _PUBLISHED:
        return {}
    single, single_std, ensemble, distilled, distilled_std, last = (
        value / 100 for value in _PUBLISHED[architecture]
    )
    return {
        SINGLE: Spread(single, single_std, _RUNS),
        ENSEMBLE: Spread(ensemble, 0.0, 1),
        DISTILLED: Spread(distilled, distilled_std, _RUNS),
        DISTILLED_ENSEMBLE: Spread(last, 0.0, 1),
    }


PUBLISHED_ON = ("tfds:cifar10",)
PUBLISHED = {
    row(architecture, kind): accuracy.mean
    for architecture in _PUBLISHED
    for kind, accuracy in published(architecture).items()
}


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each after those that it depends on.

    Single and distilled networks have the same seeds, that is the same initial weights and orders
    of images, so a gain is no luck of its seeds.

    Raises:
        UsageError: There is no architecture, or a setting is given that the study does not use.
    """
    common.check_unused(config, "student", "teacher_data", "self_distillation")
    given = settings_of(Settings, config).networks
    if given:
        common.check_unused(config, "teacher")
    networks = given or [config.teacher]
    if networks == [None]:
        raise checks.UsageError(
            "The study distilled_ensembles needs networks. Received: settings.networks=[] and "
            "teacher=null. Give settings.networks a list of them."
        )
    return [run for network in networks for run in _of_network(config, network)]


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return distilled against single networks, a family for each architecture."""
    rows = by_row(records)
    return common.paired_together(
        (
            rows.get(row(architecture, SINGLE), []),
            DISTILLED,
            rows.get(row(architecture, DISTILLED), []),
            "a single one",
            architecture,
        )
        for architecture in _found(records)
    )


NAMES = {DISTILLED: "a distilled network"}


def tables(records: Sequence[Record]) -> list[Table]:
    """Return test accuracy by architecture, and what one distilled network keeps."""
    found = _found(records)
    intervals = {family.title: interval(family.rows[DISTILLED]) for family in comparisons(records)}
    shown = common.published_on(records, PUBLISHED_ON)
    lines = list(_with_published(found) if shown else found.items())
    return [_accuracy_table(lines), _kept_table(lines, intervals)]


def _of_network(config: StudyConfig, network: ModelConfig) -> list[RunConfig]:
    file_name = label(network).replace(", width ", "-w").replace(":", "-")

    def run(of, kind: str, seed: int) -> RunConfig:
        name = f"{file_name}-{kind}-{seed}"
        return of(config, name, row(label(network), kind), seed, model=network)

    def average(kind: str, members: list[RunConfig]) -> RunConfig:
        name = f"{file_name}-{kind.replace(' ', '-')}"
        return common.ensemble(config, name, row(label(network), kind), config.seeds[0], members)

    singles = [run(common.network, SINGLE, seed) for seed in config.seeds]
    students = [run(common.student, DISTILLED, seed) for seed in config.seeds]
    names = [single.name for single in singles]
    distilled = [common.taught(config, student, *names) for student in students]
    return [
        *singles,
        average(ENSEMBLE, singles),
        *distilled,
        average(DISTILLED_ENSEMBLE, distilled),
    ]


def _found(records: Sequence[Record]) -> dict[str, dict[str, Spread]]:
    """Return the test accuracies of every architecture by kind."""
    found: dict[str, dict[str, Spread]] = {}
    for name, members in by_row(records).items():
        architecture, _, kind = name.rpartition(": ")
        found.setdefault(architecture, {})[kind] = spread(members, "test_accuracy")
    return found


def _with_published(found: dict[str, dict[str, Spread]]):
    """Yield (label, accuracies by kind) of every architecture, and after it of the published."""
    for architecture, accuracies in found.items():
        yield architecture, accuracies
        if known := published(architecture):
            yield f"{architecture}, published", known


_Lines = Sequence[tuple[str, dict[str, Spread]]]


def _accuracy_table(lines: _Lines) -> Table:
    rows = tuple(
        (
            name,
            str(accuracies[SINGLE].count) if SINGLE in accuracies else MISSING,
            *(mean_std(accuracies.get(kind)) for kind in KINDS),
        )
        for name, accuracies in lines
    )
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds. Runs: of single networks; "
        "an ensemble is one average of all of them."
    )
    return Table("Test accuracy by architecture", ("", "runs", *KINDS), rows, note)


def _kept_table(lines: _Lines, intervals: dict[str, str]) -> Table:
    columns = (
        *("", "ensemble's gain", "distilled's gain, 95 % interval", "kept %"),
        "ensembling distilled adds",
    )
    rows = tuple((name, *_kept(accuracies, intervals.get(name))) for name, accuracies in lines)
    note = (
        "In points of test accuracy. Gains: of the ensemble and of one distilled network, over a "
        f"single network (paired t-test over the seeds{common.at_once(len(intervals))}); kept: "
        "the second as a share of the first. "
        "Last column: the ensemble of the distilled over one of them, to be compared with the "
        "ensemble's gain."
    )
    return Table("What a distilled network keeps of the ensemble's gain", columns, rows, note)


def _kept(accuracies: dict[str, Spread], own: str | None) -> tuple[str, str, str, str]:
    single, ensemble = accuracies.get(SINGLE), accuracies.get(ENSEMBLE)
    distilled, last = accuracies.get(DISTILLED), accuracies.get(DISTILLED_ENSEMBLE)
    kept = MISSING
    # Where the ensemble gains nothing there is nothing to keep.
    if single and ensemble and distilled and ensemble.mean > single.mean:
        share = (distilled.mean - single.mean) / (ensemble.mean - single.mean)
        kept = percent(share, 0)
    return gain(ensemble, single), own or gain(distilled, single), kept, gain(last, distilled)
