"""One network, alone and taught: over several seeds, and of one seed image by image."""

import dataclasses

import numpy as np

from tfdistill.config import ModelConfig, StudyConfig, to_dict
from tfdistill.records import Predictions, Record
from tfdistill.reporting.verdicts import verdict
from tfdistill.studies import single


def results(seeds, gain=0.03):
    """Return records: the student `gain` above the network alone, more or less by the seed."""
    config = StudyConfig(seeds=seeds, teacher=ModelConfig("resnet8"), student=ModelConfig("cnn2"))
    sizes = {"teacher": 78_000}
    for run in single.runs(config):
        luck = 0.001 * (run.seed % 3) if run.row == single.DISTILLED else 0.0
        accuracy = 0.8 + luck + gain * (run.row == single.DISTILLED)
        figures = {"test_accuracy": accuracy}
        yield Record(
            *(run.name, run.row, run.seed, "", to_dict(run)),
            best=figures,
            last=figures,
            parameters=sizes.get(run.name, 26_000),
        )


def test_several_seeds_are_paired():
    found = list(results([0, 1, 2, 3, 4]))
    row = {row[0]: row for row in single.tables(found)[0].rows}[single.DISTILLED]
    # 3 points and 0, 0.1, 0.2, 0, 0.1 of luck: mean 3.08, deviation 0.0837, quantile 2.776.
    assert row[4] == "+3.08, +2.98 to +3.18"
    assert verdict(single.comparisons(found), found, single.NAMES) == (
        "The student is 3.1 points above the same network alone (95 % interval 3.0 to 3.2, five "
        "seeds), at about a third of the teacher's size."
    )


def test_of_one_seed_the_networks_are_compared_on_the_same_images():
    found = list(results([0]))
    assert single.comparisons(found) == []  # nothing was kept of the images
    labels = np.zeros(20, int)
    wrong = {"alone-0": [0] * 8 + [1] * 9 + [0] * 3, "distilled-0": [0] * 17 + [1] + [0] * 2}
    found = [
        dataclasses.replace(
            record, predictions=Predictions(labels, np.array(wrong[record.name]), labels)
        )
        if record.name in wrong
        else record
        for record in found
    ]
    table = single.tables(found)[0]
    # Nine images that the student alone has right, one that the other has: 8 of 20.
    row = {row[0]: row for row in table.rows}[single.DISTILLED]
    assert row[4] == "+40.00, +5.50 to +49.75" and "McNemar" in table.note
    assert "of these two networks on the same test images" in verdict(
        single.comparisons(found), found, single.NAMES
    )
