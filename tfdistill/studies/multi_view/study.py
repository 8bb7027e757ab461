"""Why does an ensemble of equal networks help, and why can one network learn it from the ensemble?

Source: Allen-Zhu & Li, "Towards Understanding Ensemble, Knowledge Distillation and Self-
Distillation in Deep Learning" (arXiv 2012.09816; ICLR 2023). Data of k classes, each with two
views, of which a share mu of the examples shows only one; networks of one hidden layer with a
smoothed ReLU. Theory, for large k: a single network learns one view of each class, whichever its
initial weights favour, and is wrong in 0.5 mu of the test examples; an ensemble has both views and
at most 0.01 mu; a student of the ensemble too; a self-distilled network adds its own views to its
teacher's and has at most 0.26 mu. Controls in which an ensemble has nothing to add: a convex model,
one wide network, labels planted in Gaussian inputs. Controls of distillation: the student's own
initial weights trained as long on labels alone, and taught by logits that tell the label and
nothing of the views; only what a student gains beyond both comes from its teacher's knowledge.
Expected at small sizes: one view of most classes in a single network and both in the ensemble, not
the theory's constants; how much of a student's gain is its teacher's is the open question. Cost:
for N networks in all, about 11 N trainings of a small network. Command: tfdistill run
configs/multi_view/{small,full}.yaml.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

from tfdistill.config import DistillationConfig, RunConfig, StudyConfig, settings_of, to_dict
from tfdistill.records import Record, Spread, Table, by_row
from tfdistill.reporting.significance import Family, paired
from tfdistill.studies import common
from tfdistill.studies.multi_view.settings import GroupSettings, Settings
from tfdistill.utils.text import MISSING, interval, mean_std, percent

SINGLE = "single network"
LOGITS = "ensemble, mean of logits"
PROBABILITIES = "ensemble, mean of probabilities"
CONTROL = "single network, trained as long as a student"
DISTILLED = "distilled, paper's update"
SELF_DISTILLED = "self-distilled, paper's update"
LABELS = "taught the labels, paper's update"
SOFT_DISTILLED = "distilled, soft targets"
SOFT_SELF_DISTILLED = "self-distilled, soft targets"
SOFT_LABELS = "taught the labels, soft targets"
# Name of the row, of its runs, what teaches, and by which loss.
_STUDENTS = (
    (DISTILLED, "distilled", "ensemble", "one_sided"),
    (SELF_DISTILLED, "self-distilled", "next", "one_sided"),
    (LABELS, "labels", "labels", "one_sided"),
    (SOFT_DISTILLED, "soft-distilled", "ensemble", "soft_targets"),
    (SOFT_SELF_DISTILLED, "soft-self-distilled", "next", "soft_targets"),
    (SOFT_LABELS, "soft-labels", "labels", "soft_targets"),
)
WIDE = "one network, as wide as the ensemble"
LINEAR, LINEAR_ENSEMBLE = "linear network", "ensemble of linear networks"
PLANTED, PLANTED_ENSEMBLE = "planted labels, single network", "planted labels, ensemble"

TITLE = "Multi-view theory"
QUESTION = (
    "Why does an ensemble of networks that differ only in their initial weights do better, and why "
    "can one network learn that from it?"
)
SOURCE = "Allen-Zhu & Li (arXiv 2012.09816), the theorems on multi-view data"
COMMANDS = {
    "tfdistill run configs/multi_view/small.yaml": "11 minutes on two cores",
    "tfdistill run configs/multi_view/full.yaml": "an hour of one GPU",
}
PUBLISHED_ON: tuple[str, ...] = ()
PUBLISHED: dict[str, float] = {}  # the theory's errors are in units of mu, see THEORY

_PARTS = tuple(part for part, *_ in _STUDENTS)
# What is compared over seeds: (baseline, row, the baseline in words).
_COMPARED = (
    (CONTROL, DISTILLED, "labels alone"),
    (LABELS, DISTILLED, "labels as teacher"),
    (CONTROL, SELF_DISTILLED, "labels alone"),
    (CONTROL, SOFT_DISTILLED, "labels alone"),
    (SOFT_LABELS, SOFT_DISTILLED, "labels as teacher"),
)
NAMES = {part: "the student" for part in _PARTS}
_SMALL = 0.005  # an error of which it makes no sense to tell shares
_ERRORS = ("training", "multi_view", "single_view")
# Test error in units of mu, for many classes: of a single network within 0.01 of this, of the
# others at most this.
THEORY = {SINGLE: 0.5, LOGITS: 0.01, DISTILLED: 0.01, SELF_DISTILLED: 0.26}
_THEORY_TEXT = {part: f"≤ {value}" for part, value in THEORY.items()} | {SINGLE: "0.49 to 0.51"}


def row_of(part: str, mu: float) -> str:
    """Return the name of a row of multi-view data, e.g. `self-distilled, mu 0.05`."""
    return f"{part}, mu {mu:g}"


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each a group of networks or their ensemble.

    Network i has the same initial weights in all groups of a seed. The groups of single networks
    are trained on to be the students' controls.
    """
    unused = ("data", "teacher", "student", "training", "student_training", "self_distillation")
    common.check_unused(config, *unused, "teacher_data", "cache")
    settings = settings_of(Settings, config)
    found: list[RunConfig] = []
    for mu in settings.mus:
        seeds = config.seeds if mu == settings.data.mu else config.seeds[: settings.other_seeds]
        for seed in seeds:
            found += _multi_view_runs(config, settings, mu, seed)
    for seed in config.seeds[: settings.control_seeds]:
        found += _control_runs(config, settings, seed)
    return found


def _multi_view_runs(
    config: StudyConfig, settings: Settings, mu: float, seed: int
) -> Iterator[RunConfig]:
    group = _group(settings, mu)
    rest = dataclasses.replace(group, steps=settings.student_steps - settings.steps)

    def run(part: str, name: str, settings: GroupSettings, **more) -> RunConfig:
        return _run(config, row_of(part, mu), f"{name}-mu{mu:g}-s{seed}", seed, settings, **more)

    single = run(SINGLE, "single", group)
    yield single
    yield run(LOGITS, "ensemble-logits", group, members=(single.name,), average="logits")
    yield run(PROBABILITIES, "ensemble-probabilities", group, members=(single.name,))
    yield run(CONTROL, "control", rest, start=single.name)
    for part, name, taught_by, soft_loss in _STUDENTS:
        student = dataclasses.replace(
            group, steps=settings.student_steps, taught_by=taught_by, soft_loss=soft_loss
        )
        distillation = _distillation(config, settings, soft_loss)
        yield run(part, name, student, teachers=(single.name,), distillation=distillation)


def _control_runs(config: StudyConfig, settings: Settings, seed: int) -> Iterator[RunConfig]:
    group = _group(settings, settings.data.mu)
    several = settings.networks
    wide = dataclasses.replace(settings.network, neurons=several * settings.network.neurons)
    one_wide = dataclasses.replace(group, network=wide, networks=1)
    linear = dataclasses.replace(settings.network, neurons=1, activation="linear")
    convex = dataclasses.replace(group, network=linear, steps=settings.linear_steps)

    def both(row: str, ensemble_row: str, name: str, settings: GroupSettings):
        alone = _run(config, row, f"{name}-s{seed}", seed, settings)
        yield alone
        members = {"members": (alone.name,), "average": "logits"}
        yield _run(config, ensemble_row, f"{name}-ensemble-s{seed}", seed, settings, **members)

    yield _run(config, WIDE, f"wide-s{seed}", seed, one_wide)
    yield from both(LINEAR, LINEAR_ENSEMBLE, "linear", convex)
    if settings.planted:
        planted = dataclasses.replace(
            group,
            data=None,
            planted=settings.planted,
            network=settings.planted_network,
            steps=settings.planted_steps,
        )
        yield from both(PLANTED, PLANTED_ENSEMBLE, "planted", planted)


def _distillation(config: StudyConfig, settings: Settings, soft_loss: str) -> DistillationConfig:
    if soft_loss == "soft_targets":
        return config.distillation
    return DistillationConfig(
        temperature=settings.one_sided_temperature,
        hard_weight=1.0,
        soft_weight=settings.one_sided_weight,
        average="logits",
    )


def _group(settings: Settings, mu: float) -> GroupSettings:
    return GroupSettings(
        network=settings.network,
        descent=settings.descent,
        data=dataclasses.replace(settings.data, mu=mu),
        networks=settings.networks,
        steps=settings.steps,
    )


def _run(
    config: StudyConfig, row: str, name: str, seed: int, settings: GroupSettings, **more
) -> RunConfig:
    return common.network(
        config,
        name,
        row,
        seed,
        model=None,
        training=dataclasses.replace(config.training, epochs=settings.steps),
        trained="members" not in more,
        kind="multi_view",
        settings=to_dict(settings),
        **more,
    )


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return students against labels alone and against labels as teacher, each pair for itself.

    A student that sometimes fails has many times the deviation of the others, which a pooled one
    would spread over all. A seed is a data set: the networks on it share examples and teachers, so
    their mean is compared.
    """
    mus = mus_of(records)
    if not mus:
        return []
    rows = by_row(records)
    return common.paired_together(
        (
            _of(rows, baseline, mus[0]),
            part,
            _of(rows, part, mus[0]),
            words,
            f"{part}, against {words}",
        )
        for baseline, part, words in _COMPARED
    )


def tables(records: Sequence[Record]) -> list[Table]:
    """Return the tables: all rows beside the theory, pairs, error by mu, and the controls."""
    rows = by_row(records)
    mus = mus_of(records)
    if not mus:
        return []
    parts = (SINGLE, LOGITS, PROBABILITIES, CONTROL, *_PARTS)
    found = {part: members for part in parts if (members := _of(rows, part, mus[0]))}
    return [
        _errors_table(found, mus[0]),
        _views_table(found, mus[0]),
        _pairs_table(rows, mus[0]),
        *([_mu_table(rows, mus)] if len(mus) > 1 else []),
        _controls_table(rows, mus[0]),
        *_seeds_tables(records, mus[0]),
    ]


def figures(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return the figures: views that networks learned, error by mu, students and controls."""
    from tfdistill.studies.multi_view import figures as pictures

    rows = by_row(records)
    mus = mus_of(records)
    if not mus:
        return []
    shown = (SINGLE, LOGITS, *_PARTS)
    first = {part: _values(_of(rows, part, mus[0])[:1], "learned") for part in shown}
    by_mu = {part: _errors_by_mu(rows, part, mus) for part in THEORY}
    compared = {part: _pairs(rows, CONTROL, part, mus[0]) for part in _PARTS}
    return [
        (
            "Views that the networks have learned",
            pictures.learned_views(first),
            f"Networks of the first seed, mu {mus[0]:g}; a column for each class, in it its two "
            "views. Filled: learned. The single networks are the ensemble's members.",
        ),
        (
            "Error by mu",
            pictures.error_by_mu(by_mu, THEORY),
            "Test error, mean and standard deviation over networks. Dashed: the theory, for many "
            "classes.",
        ),
        (
            "Every student and the network trained like it on labels alone",
            pictures.pairs(compared),
            f"Error on single-view test examples, mu {mus[0]:g}; a line for each pair with the "
            "same initial weights and steps.",
        ),
    ]


def mus_of(records: Sequence[Record]) -> list[float]:
    """Return all values of mu, that of most runs first."""
    data = (record.config["settings"]["data"] for record in records)
    return [mu for mu, _ in Counter(each["mu"] for each in data if each).most_common()]


def _of(rows: dict[str, list[Record]], part: str, mu: float) -> list[Record]:
    return rows.get(row_of(part, mu), [])


def _values(records: Sequence[Record], figure: str) -> list:
    """Return a figure of all networks, group after group."""
    return [network[figure] for record in records for network in record.extra["networks"]]


def _spread(records: Sequence[Record], figure: str) -> Spread:
    return Spread.of(_values(records, figure))


def _errors_by_mu(rows, part: str, mus: list[float]) -> dict[float, Spread]:
    spreads = {mu: _spread(_of(rows, part, mu), "test_error") for mu in mus}
    return {mu: value for mu, value in spreads.items() if value}


def _pairs(rows, baseline: str, part: str, mu: float) -> list[tuple[float, float]]:
    """Return the single-view errors of networks with the same initial weights in two rows."""
    before, after = (
        {record.seed: _values([record], "single_view_error") for record in _of(rows, name, mu)}
        for name in (baseline, part)
    )
    both = [seed for seed in after if seed in before]
    return [pair for seed in both for pair in zip(before[seed], after[seed], strict=True)]


def _seeds_tables(records: Sequence[Record], mu: float) -> list[Table]:
    rows = by_row(records)
    parts = (SINGLE, LOGITS, PROBABILITIES, CONTROL, *_PARTS)
    found = {part: members for part in parts if (members := _of(rows, part, mu))}
    accuracies = tuple(
        (part, str(len(members)), common.figure_cell(members, "test_accuracy"))
        for part, members in found.items()
    )
    of_seeds = "of all examples, of the mean of a seed's networks, which share examples"
    return [
        Table(
            f"Test accuracy at mu {mu:g}",
            ("", "seeds", "accuracy"),
            accuracies,
            f"In percent, {of_seeds}; mean ± standard deviation over seeds.",
        ),
        common.pairs_table(
            f"Differences over seeds at mu {mu:g}", comparisons(records), f", {of_seeds}"
        ),
    ]


def _errors_table(found: dict[str, list[Record]], mu: float) -> Table:
    lines = [
        (
            part,
            str(len(_values(records, "test_error"))),
            *(_spread(records, f"{name}_error").text() for name in _ERRORS),
            _spread(records, "test_error").text(1 / mu, 3),
            _THEORY_TEXT.get(part, MISSING),
        )
        for part, records in found.items()
    ]
    columns = (
        *("", "networks", "training %", "multi-view %", "single-view %", "error / mu"),
        "theory",
    )
    note = (
        "Errors in percent: on the training examples, and on fresh examples with both views and "
        "with one; mean ± standard deviation over networks. Error / mu: (1 - mu) times the "
        "multi-view error plus mu times the single-view error, in units of mu. The theory is for "
        "many classes, wide networks and long inputs; its constants are not expected at a small "
        "size. Taught the labels: by logits that tell the label and nothing of the views."
    )
    return Table(f"Errors at mu {mu:g}", columns, tuple(lines), note)


def _views_table(found: dict[str, list[Record]], mu: float) -> Table:
    lines = []
    for part, records in found.items():
        views = [[sum(own) for own in network] for network in _values(records, "learned")]
        means = (Spread.of(own.count(number) for own in views).mean for number in (2, 1, 0))
        lines.append((part, *(f"{mean:.1f}" for mean in means)))
    note = (
        "Mean number of classes of which a network has learned both views, one or none. A view is "
        "learned if the class answers to it alone with at least a quarter of what the network's "
        "classes answer to their stronger view in the mean. A network that answers to views of "
        "other classes as well can be wrong though it has learned both."
    )
    columns = ("", "both views", "one view", "no view")
    return Table(f"Views learned at mu {mu:g}", columns, tuple(lines), note)


def _pairs_table(rows: dict[str, list[Record]], mu: float) -> Table:
    compared = (
        *((CONTROL, part, f"{part}, against labels alone") for part in _PARTS),
        (LABELS, DISTILLED, "paper's update: ensemble against labels as teacher"),
        (LABELS, SELF_DISTILLED, "paper's update: network against labels as teacher"),
        (SOFT_LABELS, SOFT_DISTILLED, "soft targets: ensemble against labels as teacher"),
        (SOFT_LABELS, SOFT_SELF_DISTILLED, "soft targets: network against labels as teacher"),
        (DISTILLED, SELF_DISTILLED, "paper's update: network against ensemble as teacher"),
        (SOFT_DISTILLED, SOFT_SELF_DISTILLED, "soft targets: network against ensemble as teacher"),
    )
    lines = [
        (name, *_compared(pairs))
        for baseline, part, name in compared
        if (pairs := _pairs(rows, baseline, part, mu))
    ]
    columns = ("", "pairs", "compared with", "student", "difference", "improved", "95 % interval")
    note = (
        "Error on single-view test examples in percent. A pair has the same initial weights, "
        "examples and steps. Labels as teacher: logits of the ensemble's usual size on the label "
        "and 0 elsewhere, which tell nothing of the views. Difference: mean ± standard deviation "
        "over pairs, below 0 where the student is better; interval: of the paired t-test, which "
        "takes the pairs as independent, though those of one seed share examples and teachers."
    )
    return Table(f"Pairs of networks at mu {mu:g}", columns, tuple(lines), note)


def _compared(pairs: list[tuple[float, float]]) -> tuple[str, ...]:
    before, after = zip(*pairs, strict=True)
    return (
        str(len(pairs)),
        Spread.of(before).text(),
        Spread.of(after).text(),
        Spread.of(new - old for old, new in pairs).text(),
        f"{sum(new < old for old, new in pairs)} of {len(pairs)}",
        interval(paired(before, after)),
    )


def _mu_table(rows: dict[str, list[Record]], mus: list[float]) -> Table:
    lines = []
    for part in (SINGLE, LOGITS, CONTROL, *_PARTS):
        errors = _errors_by_mu(rows, part, mus)
        shares = (mean_std(errors.get(mu), 1 / mu, 3) for mu in sorted(mus))
        lines.append((part, *shares, _THEORY_TEXT.get(part, MISSING)))
    columns = ("", *(f"mu {mu:g}" for mu in sorted(mus)), "theory")
    note = (
        "Test error in units of mu, mean ± standard deviation over networks. The number of "
        "single-view training examples is the same for every mu, that of all examples is not."
    )
    return Table("Test error by mu", columns, tuple(lines), note)


def _controls_table(rows: dict[str, list[Record]], mu: float) -> Table:
    compared = (
        ("multi-view data, this network", row_of(SINGLE, mu), row_of(LOGITS, mu)),
        ("multi-view data, linear network", LINEAR, LINEAR_ENSEMBLE),
        ("Gaussian data, planted labels", PLANTED, PLANTED_ENSEMBLE),
    )
    lines = [
        (name, *_gain(rows[one], rows[several]))
        for name, one, several in compared
        if one in rows and several in rows
    ]
    if WIDE in rows:
        seeds = {record.seed for record in rows[WIDE]}
        alone = [record for record in _of(rows, SINGLE, mu) if record.seed in seeds]
        lines.append(("multi-view data, one wide network", *_gain(alone, rows[WIDE])))
    columns = ("", "single networks", "ensemble", "gain", "share removed")
    note = (
        "Test error in percent, of multi-view data on single-view examples. The wide network, "
        "which stands in the place of the ensemble, has all the ensemble's neurons and is trained "
        "as one. Share removed: gain as a share of the single networks' error."
    )
    return Table("Where an ensemble helps, and where it does not", columns, tuple(lines), note)


def _gain(single: Sequence[Record], ensemble: Sequence[Record]) -> tuple[str, ...]:
    figure = "single_view_error" if single[0].config["settings"]["data"] else "test_error"
    one, other = _spread(single, figure), _spread(ensemble, figure)
    gain = one.mean - other.mean
    share = f"{percent(gain / one.mean, 0)} %" if one.mean >= _SMALL else MISSING
    return one.text(), other.text(), percent(gain), share
