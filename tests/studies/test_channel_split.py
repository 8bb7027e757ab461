"""The study of split channels: its runs and tables, and one of it on real images."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from tfdistill import data, models
from tfdistill.cli import options
from tfdistill.config import (
    ChannelSplitConfig,
    DataConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.records import DIVERGED, Record
from tfdistill.studies.channel_split import study as study
from tfdistill.training import evaluation, runner
from tfdistill.utils.checks import UsageError
from tfdistill.utils.progress import Silent


def config(networks=("wrn-10-1", "wrn-10-2"), seeds=(0,), **settings):
    named = [{"name": each} if isinstance(each, str) else each for each in networks]
    values = {"networks": named, "parts": [1, 2, 4], "count": 4}
    return StudyConfig("channel_split", seeds=list(seeds), settings=values | settings)


def test_the_published_cells_are_those_of_the_published_table():
    runs = study.runs(StudyConfig("channel_split", seeds=[0]))
    rows = {run.row for run in runs if run.split or run.members}
    assert rows == set(study.PUBLISHED)
    assert len(rows) == 2 * (2 * 3 + 6 * 4)
    assert "single wrn-28-1 stage2, split in 8" not in rows  # two channels in 16 / 8


def test_the_published_figures():
    assert study.PUBLISHED["single wrn-28-2 stage1, split in 8"] == pytest.approx(0.7084)
    assert study.PUBLISHED["ensemble wrn-28-10 stage2, original"] == pytest.approx(0.8310)


def test_every_part_has_its_networks_on_the_trained_one():
    runs = {run.name: run for run in study.runs(config(networks=["wrn-10-2"], seeds=[3], count=6))}
    base = runs["wrn-10-2-s3"]
    assert base.split is None and base.seed == 3 and base.trained
    uppers = [run for run in runs.values() if run.row == "single wrn-10-2 stage2, split in 4"]
    assert sorted(run.split.part for run in uppers) == [0, 0, 1, 1, 2, 3]
    assert len({run.seed for run in uppers} | {base.seed}) == 7
    assert runs["wrn-10-2-s3-stage2-4-5"].split == ChannelSplitConfig("wrn-10-2-s3", "stage2", 4, 1)
    ensemble = runs["wrn-10-2-s3-stage2-4-ensemble"]
    assert set(ensemble.members) == {run.name for run in uppers}
    assert not ensemble.trained and ensemble.model is None


def test_networks_of_one_part_follow_one_another_and_cells_share_their_seeds():
    runs = study.runs(config(networks=["wrn-10-1"], count=5))
    parts = [run.split.part for run in runs if run.row == "single wrn-10-1 stage1, split in 2"]
    assert parts == [0, 0, 0, 1, 1]
    seeds = {}
    for run in runs:
        seeds.setdefault(run.row, set()).add(run.seed)
    cells = [found for row, found in seeds.items() if row.startswith("single")]
    assert len(cells) == 6 and all(found == cells[0] for found in cells)


def test_all_of_a_network_stands_together_with_each_run_after_its_needs():
    runs = study.runs(config(seeds=[0, 1]))
    kinds = [run.name.rpartition("-s")[0] for run in runs if not run.split and not run.members]
    assert kinds == ["wrn-10-1", "wrn-10-1", "wrn-10-2", "wrn-10-2"]
    place = {run.name: number for number, run in enumerate(runs)}
    assert len(place) == len(runs) == 2 * 2 * (1 + 6 * 5)
    assert all(place[need] < place[run.name] for run in runs for need in run.needs)


def test_trained_networks_and_upper_parts_may_differ_in_images_and_training():
    many, few = DataConfig(train_examples=500), DataConfig(train_examples=100)
    long, short = TrainingConfig(epochs=9), TrainingConfig(epochs=3)
    changes = {"data": few, "teacher_data": many, "training": long, "student_training": short}
    for run in study.runs(dataclasses.replace(config(), **changes)):
        whole = not run.split and not run.members
        assert (run.data, run.training) == ((many, long) if whole else (few, short))


def test_cells_of_too_few_or_indivisible_channels_are_left_out():
    def cells(**settings):
        found = study.runs(config(networks=["wrn-10-1"], count=8, **settings))
        return {(run.split.layer, run.split.parts) for run in found if run.split}

    assert cells(parts=[1, 3, 4]) == {(cut, n) for cut in ("stage1", "stage2") for n in (1, 4)}
    # At the narrowest cut 16 / 8 = 2 channels are left: then the other one has no 8 either.
    assert ("stage2", 8) not in cells(parts=[4, 8])
    assert ("stage2", 8) in cells(parts=[4, 8], floor=2)
    assert ("stage2", 8) in cells(parts=[4, 8], cuts=["stage2"])


KNOWN = ["wrn-16-2", "resnet8", "resnet8x4", "resnet18", "resnet34-imagenet"]


@pytest.mark.parametrize("name", KNOWN)
def test_the_channels_are_those_of_the_networks(name):
    wide = 1.0 if name.startswith("wrn") else 0.3
    network = models.build(ModelConfig(name, width=wide), (32, 32, 3), 5)
    for layer, channels in study.stage_channels(ModelConfig(name, width=wide)).items():
        assert network.get_layer(layer).output.shape[-1] == channels


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 3}, "settings.count must be at least the largest"),
        ({"cuts": ["stage3"]}, "settings.cuts must be one of: stage1, stage2"),
        ({"networks": ["cnn2"]}, "whose stages can be cut. Received: 'cnn2'"),
        ({"networks": ["resnet8", "resnet8"]}, "settings.networks must be a list of one or"),
        ({"networks": []}, "settings.networks must be a list of one or more"),
        ({"parts": [3]}, "no layer in settings.cuts that can be split so"),
        ({"parts": [0]}, "settings.parts must be a whole number"),
        ({"floor": 0}, "settings.floor must be a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        study.runs(config(**settings))


def test_networks_of_one_name_and_two_widths_are_told_apart():
    networks = [{"name": "resnet8"}, {"name": "resnet8", "width": 0.5}]
    runs = study.runs(config(networks, floor=2))
    assert {run.row for run in runs if not run.split and not run.members} == {
        "trained resnet8",
        "trained resnet8 x 0.5",
    }
    assert len({run.name for run in runs}) == len(runs)


def made_up(run, accuracy, **changes):
    figures = {"test_accuracy": accuracy}
    values = {"best": figures, "last": figures, "config": to_dict(run)} | changes
    return Record(run.name, run.row, run.seed, "", **values)


def results():
    """Return records: 0.70 on all channels, 0.02 and 0.06 less on parts; ensembles 0.05 more."""
    found = []
    for run in study.runs(dataclasses.replace(config(), data=DataConfig("tfds:cifar100"))):
        if run.members:
            parts = int(run.name.split("-")[-2])
            accuracy = {1: 0.70, 2: 0.68, 4: 0.64}[parts] + 0.05
        elif run.split:
            accuracy = {1: 0.70, 2: 0.68, 4: 0.64}[run.split.parts]
            accuracy += 0.01 * (1 if run.seed > 2500 else -1)
        else:
            accuracy = 0.72
        found.append(made_up(run, accuracy))
    return found


def rows(table):
    return {row[0]: row[1:] for row in table.rows}


def test_tables_are_laid_out_as_published():
    ours, lost, published, gains = study.tables(results())
    assert rows(lost)["ensembles, wrn-10-2 stage2"] == ("-2.00", "-6.00")
    assert ours.columns[1:] == ("channels", "trained whole", "original", "split in 2", "split in 4")
    single = ("32", "72.00", "70.00 ± 1.15", "68.00 ± 1.15", "64.00 ± 1.15")
    assert rows(ours)["single wrn-10-1 stage2"] == single
    assert rows(ours)["ensemble wrn-10-2 stage2"] == ("64", "–", "75.00", "73.00", "69.00")
    assert len(published.rows) == 16
    theirs = ("16", "70.44 ± 0.29", "68.77 ± 0.25", "66.70 ± 0.66", "–")
    assert rows(published)["single wrn-28-1 stage1"] == theirs
    assert rows(gains)["wrn-10-1 stage1"] == ("+5.00", "+5.00", "+5.00", "–")
    assert rows(gains)["published, wrn-28-1 stage1"] == ("+5.08", "+5.30", "+6.93", "–")
    assert all(
        len(row) == len(table.columns)
        for table in (ours, lost, published, gains)
        for row in table.rows
    )


def test_an_unfinished_study_has_tables_of_what_there_is():
    some = [record for record in results() if "ensemble" not in record.name][:3]
    some[2] = dataclasses.replace(some[2], status=DIVERGED, best={}, last={})
    ours, _, gains = study.tables(some)
    assert rows(ours) == {
        "single wrn-10-1 stage1": ("16", "72.00", "69.00"),
        "ensemble wrn-10-1 stage1": ("16", "–", "–"),
    }
    assert rows(gains)["wrn-10-1 stage1"] == ("–",) * 4
    assert study.tables([])[0].rows == ()
    assert study.figures([]) == []


def on_five(lost):
    """Return records of five trained networks, whose split networks lose `lost` points, one each,
    and whose ensembles lose nothing."""
    found = []
    small = config(networks=["wrn-10-2"], cuts=["stage2"], parts=[1, 2], seeds=range(5))
    for run in study.runs(small):
        base = int(run.name.split("-s")[1].split("-")[0])
        if run.members:
            found.append(made_up(run, 0.75 + 0.001 * base))
        elif run.split:
            part = lost[base] / 100 if run.split.parts == 2 else 0.0
            found.append(made_up(run, 0.70 + 0.001 * run.seed / 1000 - part))
        else:
            found.append(made_up(run, 0.72))
    return found


def test_each_trained_network_counts_once():
    lost = [1.0, 2.0, 3.0, 2.0, 2.0]
    networks, ensembles = study.comparisons(on_five(lost))
    (found,) = networks.rows.values()
    low, high = stats.ttest_1samp(lost, 0).confidence_interval()
    assert (found.seeds, networks.degrees) == (5, 4)
    ours = [100 * -end for end in (found.difference, found.high, found.low)]
    assert ours == pytest.approx([2.0, low, high])
    assert ensembles.title == "wrn-10-2 stage2, ensembles"
    assert ensembles.rows["split in 2"].difference == pytest.approx(0.0)
    table = study.tables(on_five(lost))[1]
    assert rows(table)["networks, wrn-10-2 stage2"] == (f"-2.00, {-high:.2f} to {-low:.2f}",)


def test_an_ensemble_whose_members_are_gone_is_not_compared():
    found = on_five([1.0] * 5)
    gone = "wrn-10-2-s0-stage2-2-0"  # the first member of an ensemble
    networks, ensembles = study.comparisons([record for record in found if record.name != gone])
    assert (networks.seeds, ensembles.seeds) == (5, 4)


def test_networks_on_one_trained_network_are_compared_by_seed():
    first = [record for record in on_five([1.0] * 5) if "-s0" in record.name]
    (networks,) = study.comparisons(first)
    assert networks.rows["split in 2"].seeds == 4
    (widest, *_) = study.comparisons(results())
    assert widest.title == "wrn-10-2 stage2, networks"


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_configurations_are_those_of_the_study(size, pytestconfig):
    file = pytestconfig.rootpath / "configs/channel_split" / f"{size}.yaml"
    runs = study.runs(options.study_config([str(file)]))
    published = {run.row for run in runs if run.row in study.PUBLISHED}
    assert published == (set(study.PUBLISHED) if size == "full" else set())


@pytest.mark.slow
def test_a_small_study_on_real_images(tmp_path):
    small = dataclasses.replace(
        config(networks=["resnet8"], parts=[2], count=2, cuts=["stage2"]),
        data=DataConfig(train_examples=32, validation=100),
        training=TrainingConfig(epochs=1, batch_size=32, optimizer="sgd", learning_rate=0.05),
    )
    records = {record.name: record for record in runner.run_study(small, tmp_path, Silent())}
    assert list(records) == [
        "resnet8-s0",
        "resnet8-s0-stage2-2-0",
        "resnet8-s0-stage2-2-1",
        "resnet8-s0-stage2-2-ensemble",
    ]
    images = data.load(small.data)
    base, first, second = (
        evaluation.load_network(tmp_path, name, images) for name in list(records)[:3]
    )
    below = base.get_layer("stage1").get_weights() + base.layers[2].get_weights()
    for network in (first, second):
        for old, new in zip(below, network.layers[2].get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    assert first.count_params() == second.count_params() < base.count_params()
    assert (
        first.get_layer("logits").kernel.numpy() != second.get_layer("logits").kernel.numpy()
    ).any()
    assert "single resnet8 stage2" in rows(study.tables(list(records.values()))[0])
