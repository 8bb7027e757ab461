"""The study as a pure function: which runs it lists, and the table that it makes of records."""

import dataclasses

import numpy as np
import pytest

from tfdistill.config import DataConfig, ModelConfig, StudyConfig, TrainingConfig, to_dict
from tfdistill.records import DIVERGED, Predictions, Record
from tfdistill.studies import mysteries
from tfdistill.utils.checks import UsageError


def by_name(config):
    return {run.name: run for run in mysteries.runs(config)}


def test_runs_of_two_seeds():
    runs = by_name(StudyConfig(seeds=[3, 5]))
    assert list(runs) == [
        "single-3",
        "single-5",
        "ensemble",
        "average",
        "distilled-3",
        "distilled-5",
        "ensemble-of-distilled",
        "self-distilled-3",
        "self-distilled-5",
        "ensemble-of-self-distilled",
    ]
    assert runs["ensemble"].members == ("single-3", "single-5")
    assert runs["average"].width == 2
    assert runs["distilled-5"].teachers == ("single-3", "single-5")
    assert runs["self-distilled-5"].teachers == ("single-5",)


TWO_ENSEMBLES = StudyConfig(seeds=[3, 5, 8, 9], settings={"ensembles": 2})


def test_two_ensembles_have_no_common_member_and_teach_students_of_their_own_seeds():
    runs = by_name(TWO_ENSEMBLES)
    assert runs["ensemble-1"].members == ("single-3", "single-5")
    assert runs["ensemble-2"].members == ("single-8", "single-9")
    assert (runs["average-1"].seed, runs["average-2"].seed) == (1003, 1008)
    assert runs["average-2"].width == 2
    assert runs["distilled-5"].teachers == ("single-3", "single-5")
    assert runs["distilled-8"].teachers == ("single-8", "single-9")
    assert runs["ensemble-of-distilled-2"].members == ("distilled-8", "distilled-9")
    assert runs["ensemble-of-self-distilled-1"].members == ("self-distilled-3", "self-distilled-5")
    assert runs["self-distilled-5"].seed == 8  # the next of all seeds


@pytest.mark.parametrize(
    ("number", "message"),
    [(0, "a whole number, at least 1"), (3, "divide the number of seeds, 4"), (5, "divide")],
)
def test_seeds_that_cannot_be_shared_out(number, message):
    config = dataclasses.replace(TWO_ENSEMBLES, settings={"ensembles": number})
    with pytest.raises(UsageError, match=f"settings.ensembles must (be )?{message}.*={number}"):
        mysteries.runs(config)


@pytest.mark.parametrize("seeds", [[3], [3, 5, 8]])
def test_rows_share_their_seeds_but_none_retraces_its_only_teacher(seeds):
    runs = by_name(StudyConfig(seeds=seeds))
    seed_of = {name: run.seed for name, run in runs.items()}
    assert [seed_of[f"distilled-{seed}"] for seed in seeds] == seeds
    for seed in seeds:
        assert seed_of[f"self-distilled-{seed}"] != seed_of[f"single-{seed}"]
    if len(seeds) > 1:
        assert sorted(seed_of[f"self-distilled-{seed}"] for seed in seeds) == seeds


def test_a_student_of_another_kind_also_trains_alone():
    config = StudyConfig(
        seeds=[0], student=ModelConfig("cnn4"), student_training=TrainingConfig(epochs=7)
    )
    runs = by_name(config)
    assert runs["alone-0"].model.name == runs["distilled-0"].model.name == "cnn4"
    assert runs["alone-0"].training.epochs == runs["distilled-0"].training.epochs == 7
    assert runs["self-distilled-0"].model.name == "cnn2"


def made_up(run, best, last, **more):
    return Record(
        name=run.name,
        row=run.row,
        seed=run.seed,
        key="",
        config=to_dict(run),
        best={"test_accuracy": best, **more},
        last={"test_accuracy": last, **more},
    )


def test_tables_keep_best_and_last_epoch_apart_and_stand_beside_the_published():
    runs = by_name(StudyConfig(seeds=[3, 5], data=DataConfig("tfds:cifar10")))
    records = [
        made_up(runs["single-3"], 0.80, 0.70),
        made_up(runs["single-5"], 0.82, 0.74),
        made_up(runs["ensemble"], 0.85, 0.79),
        made_up(runs["self-distilled-5"], 0.83, 0.75, test_agreement=0.9),
    ]
    accuracy, published, fidelity, pairs = mysteries.tables(records)
    rows = {row[0]: row[1:] for row in accuracy.rows}
    assert rows["single network"] == ("2", "81.00 ± 1.41", "72.00 ± 2.83", "–")
    theirs = {row[0]: row[1:] for row in published.rows}
    assert theirs["single network"] == ("–", "85.95 ± 0.37", "–", "81.51 ± 0.16", "–")
    # An ensemble is evaluated once, so that there is no interval to hold theirs against.
    assert theirs["ensemble of the single networks"][:3] == ("+4.00", "89.07", "not comparable")
    assert rows["ensemble of the single networks"][1:4] == ("85.00", "79.00", "+4.00")
    assert {row[0]: row[4] for row in fidelity.rows}["self-distilled"] == "90.00"
    assert pairs.rows == (("self-distilled-5", "82.00", "83.00", "+1.00"),)


def answering(run, right, validation):
    """Return the record of a run that has the given ones of 20 test images right."""
    labels = np.zeros(20, np.uint16)
    classes = np.array([image not in right for image in range(20)], np.uint16)
    record = made_up(run, len(right) / 20, 0.5, validation_accuracy=validation)
    return dataclasses.replace(record, predictions=Predictions(labels, classes, labels))


def test_each_ensemble_is_held_against_its_own_networks_on_the_same_images():
    runs = by_name(TWO_ENSEMBLES)
    right = {
        "single-3": (range(10), 0.6),
        "single-5": (range(14), 0.5),
        "single-8": (range(8), 0.5),
        "single-9": (range(5), 0.55),
        "ensemble-1": (range(12), 0.6),
        "ensemble-2": (range(14), 0.7),
        "distilled-3": (range(11), 0.7),
        "distilled-5": (range(13), 0.6),
    }
    records = [answering(runs[name], *answers) for name, answers in right.items()]
    table = next(t for t in mysteries.tables(records) if t.title.startswith("Two networks"))
    ensemble = "ensemble of the single networks"
    found = [(row, against, value.split(",")[0]) for row, against, value in table.rows]
    assert found == [
        (ensemble, "the best of its networks (single-3)", "+10.00"),
        (ensemble, "the best network that it taught (distilled-3)", "+5.00"),
        (ensemble, "the best of its networks (single-9)", "+45.00"),
    ]


def test_networks_that_an_ensemble_taught_are_held_against_those_that_taught_themselves():
    runs = by_name(TWO_ENSEMBLES)
    accuracies = {"self-distilled": (0.5, 0.52, 0.48), "distilled": (0.53, 0.54, 0.51)}
    records = [
        made_up(dataclasses.replace(runs[f"{row}-3"], seed=seed), accuracy, 0.5)
        for row, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]
    (family,) = mysteries.comparisons(records)
    assert family.baseline == "“self-distilled”"
    # Mean of 3, 2, 3 points; t of 2 degrees of freedom 4.303, times 0.577 / sqrt(3).
    found = family.rows["distilled from the ensemble"]
    assert [round(100 * value, 2) for value in (found.difference, found.low, found.high)] == [
        2.67,
        1.23,
        4.10,
    ]


def test_a_diverged_run_is_in_no_mean():
    runs = by_name(StudyConfig(seeds=[3, 5]))
    broken = Record("single-5", "single network", 5, "", to_dict(runs["single-5"]), status=DIVERGED)
    table = mysteries.tables([made_up(runs["single-3"], 0.8, 0.8), broken])[0]
    assert table.rows[0][1:3] == ("1", "80.00")
