"""Where do single networks, their ensemble and its student look in an image?

Source: Allen-Zhu & Li, "Towards Understanding Ensemble, Knowledge Distillation and Self-
Distillation in Deep Learning" (arXiv 2012.09816): a network finds only some of the features
("views") by which a class can be told, other initial weights lead to other features, the ensemble
has them all, and a student has to learn them to imitate it. Its heat maps of F_1 ... F_10 and of
the ensemble show that on CIFAR-10. How they were made is not verified here; these are Grad-CAM
(Selvaraju et al., arXiv 1610.02391), and the figures of coverage are our own. Expected: single
networks cover each other's view less than they cover the ensemble's, and a distilled network covers
most of it; a self-distilled one is between. Cost: for N seeds 2 N + 1 trainings. Command:
tfdistill run configs/saliency/{small,full}.yaml.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tfdistill.config import RunConfig, StudyConfig, settings_of, to_dict
from tfdistill.records import FINISHED, Record, Spread, Table, accuracy_by_seed, by_row
from tfdistill.reporting.significance import Family, welch
from tfdistill.studies import common
from tfdistill.utils import checks, text
from tfdistill.utils.text import mean_std, percent

SINGLE = "single network"
ENSEMBLE = "ensemble of the single networks"
DISTILLED = "distilled from the ensemble"
SELF_DISTILLED = "self-distilled"
HEAT_MAPS = "heat maps"

TITLE = "Where networks look"
QUESTION = "Where do single networks, their ensemble and its student look in an image?"
SOURCE = (
    "Allen-Zhu & Li (arXiv 2012.09816), heat maps of ten networks on CIFAR-10; Grad-CAM: Selvaraju "
    "et al. (arXiv 1610.02391)"
)
COMMANDS = {
    "tfdistill run configs/saliency/small.yaml": "half an hour on two cores",
    "tfdistill run configs/saliency/full.yaml": "about half a day of one GPU, an estimate",
}
PUBLISHED_ON = ("tfds:cifar10",)
# ResNet-34 on CIFAR-10, means of ten networks.
PUBLISHED = {SINGLE: 0.9365, ENSEMBLE: 0.9497, DISTILLED: 0.9437}

# More networks in one row of a picture would make its tiles too small.
MOST_COLUMNS = 10


@dataclass(frozen=True)
class Settings:
    """What is looked at.

    Args:
        images: Number of images to show. Of those that the ensemble has right, the ones in which
            the single networks' views differ most are taken, from each class in turn.
        image_ids: Ids of the test images to show instead.
        test_images: Number of test images, a stratified part, over which coverage is averaged;
            null means all.
        layer: The layer whose maps are shown, such as `stage2`; null means the last feature map.
        channels: Number of channels of the first single network's layer to show, those that speak
            most for a class; 0 shows none.
        channel_class: Name of that class, such as `automobile`; null means the first.
        students: Number of networks distilled from the ensemble; null means one for each seed.
        self_distilled: Number of networks distilled from one single network, each from another.
    """

    images: int = 8
    image_ids: list[int] = field(default_factory=list)
    test_images: int | None = 2000
    layer: str | None = None
    channels: int = 6
    channel_class: str | None = None
    students: int | None = None
    self_distilled: int = 1

    def __post_init__(self):
        checks.count("settings.images", self.images)
        for number in self.image_ids:
            checks.count("settings.image_ids", number, minimum=0)
        if self.test_images is not None:
            checks.count("settings.test_images", self.test_images)
        checks.count("settings.channels", self.channels, minimum=0)
        if self.students is not None:
            checks.count("settings.students", self.students)
        checks.count("settings.self_distilled", self.self_distilled, minimum=0)


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the single networks, their ensemble, the students, and the look at all of them.

    Students have seeds that no single network has: one that started like a member of the ensemble
    could look where that member looks without having learned it.
    """
    common.check_unused(config, "teacher_data")
    settings = settings_of(Settings, config)
    if len(config.seeds) < 2:
        raise checks.UsageError(
            f"The study saliency compares two or more single networks. Received: "
            f"seeds={config.seeds!r}. Give a seed for each."
        )
    singles = [common.network(config, f"single-{seed}", SINGLE, seed) for seed in config.seeds]
    names = tuple(run.name for run in singles)
    students = [
        common.student(config, f"distilled-{number}", DISTILLED, 1000 + number)
        for number in range(_count("students", settings.students, config.seeds))
    ]
    distilled = [common.taught(config, run, *names) for run in students]
    count = _count("self_distilled", settings.self_distilled, config.seeds)
    selfs = [
        common.taught(
            config,
            common.network(config, f"self-distilled-{number}", SELF_DISTILLED, 2000 + number),
            teacher,
            distillation=config.self_distillation,
        )
        for number, teacher in enumerate(names[:count])
    ]
    return [
        *singles,
        common.ensemble(config, "ensemble", ENSEMBLE, config.seeds[0], singles),
        *distilled,
        *selfs,
        _heat_maps(config, settings, names, [run.name for run in [*distilled, *selfs]]),
    ]


def tables(records: Sequence[Record]) -> list[Table]:
    """Return the tables: accuracy, and how much of the ensemble's view each kind covers."""
    tables = [_accuracy_table(records)]
    if (heat_maps := _heat_map_record(records)) is not None:
        tables.append(_coverage_table(heat_maps))
    if found := comparisons(records):
        tables.append(_differences_table(found))
    return tables


def figures(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return the heat maps as (title, SVG text, caption); none before they are made."""
    record = _heat_map_record(records)
    if record is None or not record.extra["images"]:
        return []
    from tfdistill.studies.saliency import figures as pictures

    singles, students = _headings(record)
    ensemble = {"ensemble": "ensemble"}
    if len(singles) + len(students) < MOST_COLUMNS:
        parts = [("Where networks look", singles | ensemble | students)]
    else:
        parts = [
            ("Where single networks look", singles | ensemble),
            ("Where the ensemble and its students look", ensemble | students),
        ]
    drawn = [(title, pictures.grid(record, shown), _caption(record)) for title, shown in parts]
    if record.extra.get("channels"):
        title = "What single channels respond to"
        drawn.append((title, pictures.channels(record), _channels_caption(record)))
    return drawn


def _heat_maps(config: StudyConfig, settings: Settings, singles, students) -> RunConfig:
    return common.network(
        config,
        "heat-maps",
        HEAT_MAPS,
        config.seeds[0],
        members=(*singles, *students),
        trained=False,
        average=config.distillation.average,
        kind="saliency",
        settings={
            "singles": list(singles),
            "images": settings.images,
            "image_ids": settings.image_ids,
            "test_images": settings.test_images,
            "layer": settings.layer,
            "channels": settings.channels,
            "channel_class": settings.channel_class,
            "student": to_dict(config.student) if config.student else None,
        },
    )


def _count(name: str, count: int | None, seeds: list[int]) -> int:
    if count is not None and count > len(seeds):
        raise checks.UsageError(
            f"settings.{name} must be at most {len(seeds)}, the number of seeds. "
            f"Received: settings.{name}={count}."
        )
    return len(seeds) if count is None else count


def _heat_map_record(records: Sequence[Record]) -> Record | None:
    found = [record for record in records if record.extra and record.status == FINISHED]
    return found[0] if found else None


def _headings(record: Record) -> tuple[dict[str, str], dict[str, str]]:
    """Return names of single networks and of students, each with the heading of its column."""
    singles: dict[str, str] = {}
    students: dict[str, str] = {}
    for network in record.extra["networks"]:
        if network["row"] == SINGLE:
            singles[network["name"]] = f"F{len(singles) + 1}"
        else:
            kind, _, number = network["name"].rpartition("-")
            named = f"{kind} {int(number) + 1}" if number.isdecimal() else network["name"]
            students[network["name"]] = named
    return singles, students


def _caption(record: Record) -> str:
    layer = record.extra["layer"] or "the last feature map"
    chosen = (
        "Images were asked for by number."
        if record.config["settings"].get("image_ids")
        else "Not typical: of the test images that the ensemble has right, those in which the "
        "single networks' views differ most, at most one of each class before a second."
    )
    return (
        f"Grad-CAM of the true class at {layer}, bright where the class is found; every map has "
        "its own scale. The ensemble's is the mean of the single networks'. Under each map what "
        f"the network says; ✗ and bold: wrong. {chosen}"
    )


def _channels_caption(record: Record) -> str:
    found = record.extra["channels"]
    return (
        f"Channels of {record.extra['layer'] or 'the last feature map'} of "
        f"{_headings(record)[0][found['network']]} that speak most for {found['label']}: the mean "
        "of gradient times activation over its test images, as a share of that of all channels "
        "that speak for it. A line has the images of the class in which the channel is most "
        "active, bright where it is; every map has its own scale."
    )


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return what networks cover of the ensemble's view, above chance, and their accuracy, each
    for two kinds of network; no two have a seed in common, so by Welch's test."""
    rows, heat_maps = by_row(records), _heat_map_record(records)
    covered: dict[str, list[float]] = {}
    for network in heat_maps.extra["networks"] if heat_maps else ():
        above = network["ensemble"]["mean"] - network["chance"]["mean"]
        covered.setdefault(network["row"], []).append(above)
    right = {row: list(accuracy_by_seed(found).values()) for row, found in rows.items()}
    kinds = {"coverage above chance": covered, "accuracy": right}
    return common.compared(
        *(
            welch(
                kinds[kind].get(other, []),
                row,
                kinds[kind].get(row, []),
                NAMES[other],
                f"{kind}, {words}",
                together=len(_COMPARED),
            )
            for kind, words, row, other in _COMPARED
        )
    )


NAMES = {
    SINGLE: "a single one",
    DISTILLED: "a distilled network",
    SELF_DISTILLED: "a self-distilled one",
}
# What is compared: (the figure, in words, row, the row that it is compared with).
_COMPARED = (
    ("coverage above chance", "distilled for single", DISTILLED, SINGLE),
    ("coverage above chance", "distilled for self-distilled", DISTILLED, SELF_DISTILLED),
    ("coverage above chance", "self-distilled for single", SELF_DISTILLED, SINGLE),
    ("accuracy", "distilled for single", DISTILLED, SINGLE),
    ("accuracy", "self-distilled for single", SELF_DISTILLED, SINGLE),
)


def _accuracy_table(records: Sequence[Record]) -> Table:
    rows = {row: found for row, found in by_row(records).items() if row != HEAT_MAPS}
    singles = rows.get(SINGLE, [])
    shown = common.published_on(records, PUBLISHED_ON)
    lines = [
        (
            row,
            *common.accuracy_cells(found),
            common.gain_cell(found, singles if row != SINGLE else []),
            *([percent(PUBLISHED.get(row))] if shown else []),
        )
        for row, found in rows.items()
    ]
    columns = ["", "runs", "best epoch", "last epoch", "gain"]
    note = (
        "Test accuracy in percent, mean ± standard deviation over networks. Gain: against the "
        "single networks, in points."
    )
    if shown:
        columns.append("published")
        note += " Published: ResNet-34 on CIFAR-10, ten networks."
    return Table("Test accuracy", tuple(columns), tuple(lines), note)


def _differences_table(families: Sequence[Family]) -> Table:
    lines = tuple(
        (family.title, str(family.seeds), text.interval(found))
        for family in families
        for found in family.rows.values()
    )
    note = (
        "In points: of the ensemble's view that a network covers, less what it covers by chance, "
        "and of test accuracy. Welch's t-test over networks, which have no seed in common; "
        f"the 95 % intervals hold for all {len(_COMPARED)} comparisons at once (Bonferroni). "
        "Networks: of the smaller side."
    )
    return Table("Differences", ("", "networks", "difference, 95 % interval"), lines, note)


def _coverage_table(record: Record) -> Table:
    extra = record.extra
    rows: dict[str, list[dict]] = {}
    for network in extra["networks"]:
        rows.setdefault(network["row"], []).append(network)
    lines = []
    for row, networks in rows.items():
        spreads = [
            Spread.of(network[what]["mean"] for network in networks)
            for what in ("ensemble", "chance", "one")
        ]
        spreads.append(Spread.of(network["blank"] for network in networks))
        lines.append((row, str(len(networks)), *map(mean_std, spreads)))
    columns = ("", "networks", "the ensemble's", "by chance", "one network's", "no map")
    note = (
        "How much of another view a network's view covers, in percent, mean ± standard deviation "
        "over networks: the part that two maps of the true class, divided by their sums, have in "
        "common (the sum of the smaller values; 100 for equal maps), in the mean over "
        f"{extra['tested']} test images. The ensemble's: of the view of single networks other than "
        "the one compared, so that none covers its own share. By chance: of the same view by the "
        "network's map of another image of the class. One network's: of the view of one other "
        "single network. No map: share of images in which the network finds nothing of the class, "
        "and so covers nothing."
    )
    return Table("How much of other views a network covers", columns, tuple(lines), note)
