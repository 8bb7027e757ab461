"""The study as a pure function: its runs, and what its tables and figures say of the heat maps."""

import pytest

from tfdistill.config import DataConfig, ModelConfig, StudyConfig, to_dict
from tfdistill.records import Record
from tfdistill.studies.saliency import study
from tfdistill.utils.checks import UsageError


def by_name(seeds=(3, 5, 8), source="digits", **settings):
    data = DataConfig(source)
    config = StudyConfig(study="saliency", seeds=list(seeds), data=data, settings=settings)
    return {run.name: run for run in study.runs(config)}


def test_runs_of_three_seeds():
    runs = by_name(students=2)
    assert list(runs) == [
        *("single-3", "single-5", "single-8", "ensemble"),
        *("distilled-0", "distilled-1", "self-distilled-0", "heat-maps"),
    ]
    singles = ("single-3", "single-5", "single-8")
    assert runs["ensemble"].members == runs["distilled-1"].teachers == singles
    assert runs["self-distilled-0"].teachers == ("single-3",)
    heat_maps = runs["heat-maps"]
    assert heat_maps.members == (*singles, "distilled-0", "distilled-1", "self-distilled-0")
    assert heat_maps.kind == "saliency" and not heat_maps.trained
    assert heat_maps.settings["singles"] == list(singles)


def test_no_student_starts_like_a_member_of_the_ensemble():
    runs = by_name(self_distilled=3)
    seeds = [run.seed for name, run in runs.items() if name[-1].isdigit()]
    assert len(seeds) == len(set(seeds)) == 9
    assert runs["self-distilled-2"].teachers == ("single-8",)


def test_settings_reach_the_look():
    asked = {"images": 3, "image_ids": [7, 4], "test_images": None, "layer": "stage2"}
    assert asked.items() <= by_name(**asked)["heat-maps"].settings.items()


def test_students_of_another_kind_are_looked_at_too():
    config = StudyConfig(seeds=[0, 1], student=ModelConfig("cnn4"))
    runs = {run.name: run for run in study.runs(config)}
    assert runs["distilled-0"].model.name == runs["heat-maps"].settings["student"]["name"] == "cnn4"
    assert runs["self-distilled-0"].model.name == runs["heat-maps"].model.name == "cnn2"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"students": 4}, "settings.students must be at most 3"),
        ({"self_distilled": 4}, "settings.self_distilled must be at most 3"),
        ({"images": 0}, "settings.images must be a whole number"),
        ({"image_ids": [-1]}, "settings.image_ids must be a whole number, at least 0"),
        ({"students": 0}, "settings.students must be a whole number"),
        ({"layers": "stage2"}, "unknown key 'layers'"),
        ({"seeds": [0]}, "two or more single networks"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(UsageError, match=message):
        by_name(**settings)


def measured(run, accuracy):
    figures = {"test_accuracy": accuracy}
    return Record(run.name, run.row, run.seed, "", to_dict(run), best=figures, last=figures)


def network(name, row, ensemble, one=0.5, blank=0.0):
    means = {"ensemble": ensemble, "one": one, "chance": ensemble / 2}
    coverage = {what: {"mean": mean, "std": 0.1} for what, mean in means.items()}
    return {"name": name, "row": row, "blank": blank, **coverage}


def looked(runs, **changes):
    students = [name for name in runs if "distilled" in name]
    names = [*(name for name in runs if name.startswith("single")), *students]
    view = {"map": GREY, "predicted": "cat", "probability": 0.9, "right": True}
    extra = {
        "layer": None,
        "tested": 100,
        "networks": [network(name, runs[name].row, 0.6) for name in names],
        "images": [
            {
                "id": 12,
                "label": "cat",
                "png": GREY,
                "views": [view | {"name": name} for name in (*names, "ensemble")],
            }
        ],
    } | changes
    run = runs["heat-maps"]
    return Record(run.name, run.row, run.seed, "", to_dict(run), extra=extra)


# Two by two pixels, of one brightness.
GREY = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNs"
    "YGBiYAAAApIAhPd8o1gAAAAASUVORK5CYII="
)


def test_the_tables_show_means_over_networks():
    runs = by_name(source="tfds:cifar10")
    networks = [
        network("single-3", study.SINGLE, 0.50, 0.40, 0.02),
        network("single-5", study.SINGLE, 0.54, 0.42, 0.00),
        network("distilled-0", study.DISTILLED, 0.70, 0.45),
    ]
    records = [
        measured(runs["single-3"], 0.60),
        measured(runs["single-5"], 0.62),
        measured(runs["ensemble"], 0.66),
        looked(runs, networks=networks),
    ]
    accuracy, coverage = study.tables(records)
    rows = {row[0]: row[1:] for row in accuracy.rows}
    assert list(rows) == [study.SINGLE, study.ENSEMBLE]
    assert rows[study.SINGLE][1] == "61.00 ± 1.41" and rows[study.SINGLE][4] == "93.65"
    assert rows[study.ENSEMBLE][3] == "+5.00"
    rows = {row[0]: row[1:] for row in coverage.rows}
    assert rows[study.SINGLE] == (
        *("2", "52.00 ± 2.83", "26.00 ± 1.41"),
        *("41.00 ± 1.41", "1.00 ± 1.41"),
    )
    assert rows[study.DISTILLED] == ("1", "70.00", "35.00", "45.00", "0.00")
    assert "100 test images" in coverage.note


def test_students_are_compared_with_single_networks_above_chance():
    runs = by_name()
    networks = [
        *(network(f"single-{seed}", study.SINGLE, x) for seed, x in ((3, 0.5), (5, 0.54))),
        *(network(f"distilled-{n}", study.DISTILLED, x) for n, x in enumerate((0.7, 0.72, 0.68))),
        network("self-distilled-0", study.SELF_DISTILLED, 0.6),
    ]
    records = [
        measured(runs["single-3"], 0.60),
        measured(runs["single-5"], 0.62),
        measured(runs["distilled-0"], 0.61),
        measured(runs["distilled-1"], 0.65),
        looked(runs, networks=networks),
    ]
    coverage, accuracy = study.comparisons(records)
    # Chance is half of what is covered: 0.35 for 0.26.
    assert coverage.title == "coverage above chance, distilled for single"
    assert coverage.rows[study.DISTILLED].difference == pytest.approx(0.09)
    assert accuracy.rows[study.DISTILLED].difference == pytest.approx(0.02)
    assert coverage.rows[study.DISTILLED].seeds == 2
    assert [row[0] for row in study.tables(records)[-1].rows] == [
        "coverage above chance, distilled for single",
        "accuracy, distilled for single",
    ]


def test_before_the_look_there_is_one_table_and_no_figure():
    records = [measured(by_name()["single-3"], 0.6)]
    assert len(study.tables(records)) == 1 and study.figures(records) == []


def test_the_figure_has_a_column_for_every_network():
    shown = {"number": 7, "share": 0.25, "images": [{"id": 12, "png": GREY, "map": GREY}] * 3}
    channels = {"network": "single-3", "label": "cat", "channels": [shown, shown]}
    record = looked(by_name(), channels=channels)
    (title, svg, caption), (_, by_channel, words) = study.figures([record])
    for heading in ("F1", "F3", "ensemble", "distilled 1", "distilled 3", "self-"):
        assert f">{heading}<" in svg
    assert by_channel.count("channel 7") >= 2 and "of F1 that speak most for cat" in words
    assert title == study.TITLE and "the single networks' views differ most" in caption


def test_many_networks_take_two_figures():
    record = looked(by_name(seeds=range(10), image_ids=[12]))
    (_, singles, caption), (_, students, _) = study.figures([record])
    assert ">F10<" in singles and ">distilled 10<" not in singles and ">ensemble<" in singles
    assert ">F10<" not in students and ">distilled 10<" in students and ">ensemble<" in students
    assert "asked for by number" in caption
