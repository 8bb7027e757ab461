"""Do disjoint parts of a layer's channels each hold enough to tell the classes apart?

Source: Allen-Zhu & Li (arXiv 2012.09816), the table of split channels: ResNet-28 and its wide forms
on CIFAR-100. A trained network is cut after its first (a) or second (b) residual stage, one n-th of
the channels there is kept, all below is frozen, and a fresh upper part is trained on them; ten
networks for each n. Expected: single networks lose little as n grows, and their ensemble nearly
nothing, because the channels hold many views of an image and each network learns from some of them.
Cost: for every network one training of it, and `count` trainings of its upper part for every cut
and n. Command: tfdistill run configs/channel_split/{small,full}.yaml.
"""

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tfdistill.config import ChannelSplitConfig, ModelConfig, RunConfig, StudyConfig, settings_of
from tfdistill.records import Record, Table, accuracy_by_seed, by_row
from tfdistill.reporting.significance import Family, compare_runs
from tfdistill.studies import common
from tfdistill.utils import checks
from tfdistill.utils.text import MISSING, points

TITLE = "Channels split among networks"
QUESTION = (
    "Do disjoint parts of a trained layer's channels each hold enough views of an image to train a "
    "good network on, and does an ensemble of such networks gain?"
)
SOURCE = "Allen-Zhu & Li (arXiv 2012.09816), the table of split channels"
COMMANDS = {
    "tfdistill run configs/channel_split/small.yaml": "45 minutes on two cores",
    "tfdistill run configs/channel_split/full.yaml": "some weeks of one GPU",
}

PUBLISHED_ON = ("tfds:cifar100", "tfds:cifar10")
Cut = tuple[ModelConfig, str, list[int]]  # network, layer, numbers of parts of its channels
# (network, layer): accuracy in percent of the single networks and of their ensemble, by n.
_PARTS = (1, 2, 4, 8)
_SINGLE = {
    ("wrn-28-1", "stage1"): ("70.44 ± 0.29", "68.77 ± 0.25", "66.70 ± 0.66"),
    ("wrn-28-1", "stage2"): ("70.49 ± 0.29", "67.62 ± 0.89", "63.28 ± 0.50"),
    ("wrn-28-2", "stage1"): ("76.09 ± 0.23", "74.50 ± 0.68", "72.47 ± 1.78", "70.84 ± 1.32"),
    ("wrn-28-2", "stage2"): ("76.12 ± 0.23", "74.88 ± 0.22", "72.81 ± 0.29", "69.21 ± 0.49"),
    ("wrn-28-4", "stage1"): ("79.10 ± 0.18", "78.57 ± 0.29", "77.94 ± 0.43", "76.88 ± 0.35"),
    ("wrn-28-4", "stage2"): ("78.53 ± 0.16", "77.72 ± 0.20", "76.62 ± 0.29", "74.93 ± 0.40"),
    ("wrn-28-10", "stage1"): ("81.23 ± 0.23", "81.03 ± 0.17", "80.53 ± 0.09", "80.12 ± 0.26"),
    ("wrn-28-10", "stage2"): ("80.76 ± 0.27", "80.41 ± 0.24", "80.09 ± 0.16", "79.02 ± 0.22"),
}
_ENSEMBLE = {
    ("wrn-28-1", "stage1"): ("75.52", "74.07", "73.63"),
    ("wrn-28-1", "stage2"): ("74.47", "73.58", "72.17"),
    ("wrn-28-2", "stage1"): ("80.33", "79.73", "79.58", "78.75"),
    ("wrn-28-2", "stage2"): ("79.63", "80.18", "79.17", "78.20"),
    ("wrn-28-4", "stage1"): ("82.64", "82.81", "82.56", "82.24"),
    ("wrn-28-4", "stage2"): ("81.84", "82.06", "81.89", "81.74"),
    ("wrn-28-10", "stage1"): ("84.05", "84.08", "83.65", "83.51"),
    ("wrn-28-10", "stage2"): ("83.10", "83.40", "83.81", "83.53"),
}


def whole_row(network: str) -> str:
    """Return the name of the row of the networks that are cut, e.g. `trained wrn-28-2`."""
    return f"trained {network}"


def single_row(network: str, layer: str, parts: int) -> str:
    """Return the name of a cell's row, e.g. `single wrn-28-2 stage1, split in 4`."""
    return f"single {network} {layer}, {_kept(parts)}"


def ensemble_row(network: str, layer: str, parts: int) -> str:
    """Return the name of the row of a cell's ensemble."""
    return f"ensemble {network} {layer}, {_kept(parts)}"


def _kept(parts: int) -> str:
    return "original" if parts == 1 else f"split in {parts}"


_KINDS = {"network": single_row, "ensemble": ensemble_row}
# Test accuracy in 0..1 on CIFAR-100.
PUBLISHED = {
    row(*cut, parts): float(text.split()[0]) / 100
    for row, table in ((single_row, _SINGLE), (ensemble_row, _ENSEMBLE))
    for cut, texts in table.items()
    for parts, text in zip(_PARTS, texts, strict=False)
}


def _published_networks() -> list[ModelConfig]:
    return [ModelConfig(name) for name in dict.fromkeys(network for network, _ in _SINGLE)]


@dataclass(frozen=True)
class Settings:
    """The cells of the study.

    Args:
        networks: The networks that are trained and cut: `wrn-D-K` or a resnet, not `resnet50`.
        cuts: The layers after which they are cut: `stage1`, `stage2`.
        parts: Numbers n of disjoint parts of a layer's channels; 1 keeps them all ("original").
        count: Networks of every cell; network i has part i modulo n, so at least the largest n.
        floor: Fewest channels that a part may have at any cut; a network is not split further.
    """

    networks: list[ModelConfig] = field(default_factory=_published_networks)
    cuts: list[str] = field(default_factory=lambda: ["stage1", "stage2"])
    parts: list[int] = field(default_factory=lambda: list(_PARTS))
    count: int = 10
    floor: int = 4

    def __post_init__(self):
        checks.different("settings.networks", list(map(label, self.networks)))
        checks.different("settings.cuts", self.cuts)
        checks.different("settings.parts", self.parts)
        for parts in self.parts:
            checks.count("settings.parts", parts)
        checks.count("settings.floor", self.floor)
        if checks.count("settings.count", self.count) < max(self.parts):
            raise checks.UsageError(
                "settings.count must be at least the largest of settings.parts, so that every part "
                f"of the channels has a network. Received: count={self.count}, "
                f"parts={self.parts!r}."
            )
        for network in self.networks:
            for cut in self.cuts:
                checks.one_of("settings.cuts", cut, stage_channels(network))
            if not self.splits(network):
                raise checks.UsageError(
                    f"{label(network)} has no layer in settings.cuts that can be split so. "
                    f"Received: parts={self.parts!r}, floor={self.floor}. Lower them."
                )

    def splits(self, network: ModelConfig) -> list[tuple[str, int]]:
        """Return the cells (layer, n) of a network, in order."""
        channels = {cut: stage_channels(network)[cut] for cut in self.cuts}
        return [
            (cut, parts)
            for cut in self.cuts
            for parts in self.parts
            if channels[cut] % parts == 0 and min(channels.values()) >= parts * self.floor
        ]


def label(network: ModelConfig) -> str:
    """Return what a network is called in the tables, e.g. `resnet8 x 0.5`."""
    return network.name if network.width == 1 else f"{network.name} x {network.width:g}"


def network_of(record: Record) -> ModelConfig:
    """Return name and width of a record's network, which are all that a table needs."""
    model = record.config["model"]
    return ModelConfig(model["name"], width=model["width"])


def stage_channels(network: ModelConfig) -> dict[str, int]:
    """Return the channels at the ends of the stages below the last, e.g. {"stage1": 16, ...}.

    Raises:
        UsageError: A network without stages, or one whose channels are not known here.
    """
    wide = re.fullmatch(r"wrn-\d+-(\d+)", network.name)
    cifar = re.fullmatch(r"resnet(?:8|14|20|32|44|56|110)(x4)?", network.name)
    if wide:
        first, stages = 16 * int(wide[1]), 2
    elif cifar:
        first, stages = (64 if cifar[1] else 16), 2
    elif re.fullmatch(r"resnet(18|34)(-imagenet)?", network.name):
        first, stages = 64, 3
    else:
        raise checks.UsageError(
            "settings.networks must be wrn-D-K, resnet18, resnet34 or a resnet for CIFAR, whose "
            f"stages can be cut. Received: {network.name!r}."
        )
    return {f"stage{i + 1}": max(1, round(first * 2**i * network.width)) for i in range(stages)}


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each after those that it depends on; a network's stand together.

    The networks of a cell with the same part follow one another, so that they share one compiled
    step. Network i has the same seed in all cells, that is the same order of images.
    """
    common.check_unused(config, "teacher", "student", "distillation", "self_distillation", "cache")
    settings = settings_of(Settings, config)
    listed = []
    for network in settings.networks:
        for seed in config.seeds:
            base = _base(config, network, seed)
            listed.append(base)
            for layer, parts in settings.splits(network):
                uppers = _uppers(config, base, layer, parts, settings.count)
                listed += [*uppers, _ensemble(config, base, layer, parts, uppers)]
    return listed


def _base(config: StudyConfig, network: ModelConfig, seed: int) -> RunConfig:
    name, data = label(network), config.teacher_data or config.data
    file_name = f"{name.replace(' ', '')}-s{seed}"
    return common.network(config, file_name, whole_row(name), seed, data=data, model=network)


def _uppers(
    config: StudyConfig, base: RunConfig, layer: str, parts: int, count: int
) -> list[RunConfig]:
    members = sorted(range(count), key=lambda i: i % parts)
    return [
        common.student(
            config,
            f"{base.name}-{layer}-{parts}-{i}",
            single_row(label(base.network), layer, parts),
            base.seed + 1000 * (i + 1),
            model=base.model,
            split=ChannelSplitConfig(base.name, layer, parts, i % parts),
        )
        for i in members
    ]


def _ensemble(
    config: StudyConfig, base: RunConfig, layer: str, parts: int, members: Sequence[RunConfig]
) -> RunConfig:
    row = ensemble_row(label(base.network), layer, parts)
    name = f"{base.name}-{layer}-{parts}-ensemble"
    return common.ensemble(config, name, row, members[0].seed, members)


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return networks on a part of the channels against those on all, and their ensembles likewise,
    for each cut; the one with the most channels first.

    The networks of a cell share the trained one below them: of what other trained networks hold
    they are one sample, not several. So each trained network counts once, with the mean of its
    cell. Where there is only one, its networks are compared seed by seed.
    """
    rows, bases = by_row(records), _bases(records)
    cuts = sorted(_cuts(rows), key=lambda cut: -stage_channels(cut[0])[cut[1]])
    found = (_compare(rows, bases, cut, kind) for cut in cuts for kind in _KINDS)
    return common.compared(*found)


def tables(records: Sequence[Record]) -> list[Table]:
    """Return accuracies, what splitting costs, the published, and the gain of the ensembles."""
    rows = by_row(records)
    cuts = list(_cuts(rows))
    parts = sorted({n for *_, split in cuts for n in split})
    shown = common.published_on(records, PUBLISHED_ON) or not records
    published = [_published_table()] if shown else []
    accuracy = _accuracy_table(rows, cuts, parts)
    split = _split_table(rows, _bases(records), cuts)
    return [accuracy, *split, *published, _gain_table(rows, cuts, parts, shown)]


def figures(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return test accuracy against the share of the channels, single networks and ensembles."""
    from tfdistill.studies.channel_split.figures import accuracy_by_share

    caption = (
        "Test accuracy of the networks on one n-th of the channels (mean ± standard deviation) and "
        "of their ensembles, one panel for each cut. Hollow diamonds, where there are any: "
        "published, CIFAR-100."
    )
    shown = common.published_on(records, PUBLISHED_ON)
    drawn = accuracy_by_share(records, PUBLISHED if shown else {})
    return [("Accuracy by share of the channels", drawn, caption)] if drawn else []


def _compare(
    rows: dict[str, list[Record]], bases: dict[str, str], cut: Cut, kind: str
) -> Family | None:
    network, layer, split = cut
    cells = {n: rows.get(_KINDS[kind](label(network), layer, n), []) for n in sorted(set(split))}
    parts = {_kept(n): members for n, members in cells.items() if n > 1}
    title = f"{label(network)} {layer}, {kind}s"
    values = partial(_accuracies, bases)
    return compare_runs(cells.get(1, []), parts, f"{kind}s on all channels", title, values)


def _bases(records: Iterable[Record]) -> dict[str, str]:
    """Return the trained network below each run and each ensemble of a cell, by their names."""
    found: dict[str, str] = {}
    for record in records:  # members stand before their ensemble
        if split := record.config.get("split"):
            found[record.name] = split["base"]
        elif base := found.get(next(iter(record.config.get("members", ())), "")):
            found[record.name] = base
    return found


def _accuracies(bases: dict[str, str], records: Iterable[Record]) -> dict[Any, float]:
    """Return a cell's mean accuracy on each trained network; on a single one, those by seed."""
    cells: dict[str, list[Record]] = {}
    for record in records:
        if base := bases.get(record.name):  # not of an ensemble whose members are gone
            cells.setdefault(base, []).append(record)
    means = {base: accuracy_by_seed(members) for base, members in cells.items()}
    if len(means) == 1:
        return dict(*means.values())
    return {base: statistics.fmean(values.values()) for base, values in means.items() if values}


def _cuts(rows: dict[str, list[Record]]) -> Iterator[Cut]:
    """Yield network, layer and the numbers of parts of every line of the table."""
    found: dict[tuple[str, str], Cut] = {}
    for records in rows.values():
        if split := records[0].config.get("split"):
            network = network_of(records[0])
            key = label(network), split["layer"]
            found.setdefault(key, (network, split["layer"], []))[-1].append(split["parts"])
    yield from found.values()


def _accuracy_table(rows, cuts, parts: Sequence[int]) -> Table:
    def line(kind: str, row, network: ModelConfig, layer: str) -> tuple[str, ...]:
        whole = rows.get(whole_row(label(network)), []) if row is single_row else []
        cells = [rows.get(row(label(network), layer, n), []) for n in parts]
        channels = str(stage_channels(network)[layer])
        accuracies = (common.figure_cell(found, "test_accuracy") for found in (whole, *cells))
        return (f"{kind} {label(network)} {layer}", channels, *accuracies)

    lines = [
        line(kind, row, network, layer)
        for kind, row in (("single", single_row), ("ensemble", ensemble_row))
        for network, layer, _ in cuts
    ]
    note = (
        "Test accuracy in percent, mean ± standard deviation over the networks of a cell. Trained "
        "whole: the network that is cut. Original: a fresh upper part on all its channels; split "
        "in n: on one n-th of them. Below the cut nothing is trained."
    )
    columns = ("", "channels", "trained whole", *map(_kept, parts))
    return Table("Test accuracy", columns, tuple(lines), note)


def _split_table(rows, bases, cuts: Sequence[Cut]) -> list[Table]:
    """Return what each cell has above the same networks on all channels; none where there is no
    such cell."""
    columns = sorted({n for *_, split in cuts for n in split if n > 1})
    lines = []
    for kind, row in _KINDS.items():
        for cut in cuts:
            network, layer, _ = cut
            family = _compare(rows, bases, cut, kind)
            cells = {n: rows.get(row(label(network), layer, n), []) for n in (1, *columns)}
            gains = (common.interval_cell(family, _kept(n), cells[n], cells[1]) for n in columns)
            lines.append((f"{kind}s, {label(network)} {layer}", *gains))
    note = (
        "Test accuracy less that of the same cut's networks, or ensemble, on all channels, in "
        "points. Intervals: Dunnett's test, simultaneous over a line, with the trained networks "
        "that are cut as blocks, each with the mean of its cell; where there is only one, with the "
        "seeds of the networks on it."
    )
    if not columns:
        return []
    return [Table("Lost by splitting", ("", *map(_kept, columns)), tuple(lines), note)]


def _published_table() -> Table:
    def lines(kind: str, table: dict) -> Iterator[tuple[str, ...]]:
        for (network, layer), texts in table.items():
            channels = stage_channels(ModelConfig(network))[layer]
            blank = (MISSING,) * (len(_PARTS) - len(texts))
            yield (f"{kind} {network} {layer}", str(channels), *texts, *blank)

    note = (
        "Test accuracy in percent on CIFAR-100, ten networks a cell (arXiv 2012.09816). There "
        "wrn-28-k is called ResNet-28-k, stage1 (a) and stage2 (b)."
    )
    rows = (*lines("single", _SINGLE), *lines("ensemble", _ENSEMBLE))
    return Table("Test accuracy as published", ("", "channels", *map(_kept, _PARTS)), rows, note)


def _gain_table(rows, cuts, parts: Sequence[int], shown: bool) -> Table:
    def ours(network: str, layer: str, n: int) -> str:
        single, ensemble = (
            rows.get(row(network, layer, n), []) for row in (single_row, ensemble_row)
        )
        return common.gain_cell(ensemble, single)

    def published(network: str, layer: str, n: int) -> str:
        single, ensemble = (
            PUBLISHED.get(row(network, layer, n)) for row in (single_row, ensemble_row)
        )
        return points(ensemble - single if single and ensemble else None)

    columns = sorted({*parts, *(_PARTS if shown else ())})
    lines = [
        (f"{label(network)} {layer}", *(ours(label(network), layer, n) for n in columns))
        for network, layer, _ in cuts
    ]
    lines += [
        (f"published, {network} {layer}", *(published(network, layer, n) for n in columns))
        for network, layer in (_SINGLE if shown else ())
    ]
    note = "Ensemble's test accuracy less the mean of its networks', in points."
    return Table("What an ensemble gains", ("", *map(_kept, columns)), tuple(lines), note)
