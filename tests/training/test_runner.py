"""How a study's runs are put together: groups, their order, and folders of other configurations."""

import dataclasses

import pytest
import yaml

from tfdistill.config import (
    AugmentConfig,
    DataConfig,
    ModelConfig,
    PopulationConfig,
    StudyConfig,
    TrainingConfig,
)
from tfdistill.training import runner, study_folder
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError

CONFIG = StudyConfig(
    study="alpha_temperature",
    seeds=[0, 1],
    data=DataConfig(train_examples=96, validation=100, augment=AugmentConfig(flip=True, views=2)),
    teacher=ModelConfig("cnn2", width=0.5),
    student=ModelConfig("cnn2", width=0.125),
    training=TrainingConfig(epochs=1, batch_size=32),
    student_training=TrainingConfig(epochs=2, batch_size=32),
    settings={"alphas": [0.1, 0.9], "temperatures": [2.0, 4.0], "baseline_seeds": [7]},
    population=PopulationConfig(size=3),
)


def groups(config):
    return [
        [run.name for run in group]
        for group in runner.groups(config, runner.plan(config), Session())
    ]


def test_every_run_is_in_one_group_after_what_it_needs():
    found, runs = groups(CONFIG), runner.plan(CONFIG)
    names = [name for group in found for name in group]
    assert sorted(names) == sorted(run.name for run in runs)
    place = {name: number for number, group in enumerate(found) for name in group}
    assert all(place[need] < place[run.name] for run in runs for need in run.needs)


def test_students_of_one_seed_and_one_training_stand_together():
    found = groups(CONFIG)
    assert max(map(len, found)) == 3
    seeds = [{name.rpartition("-s")[2] for name in group} for group in found]
    assert all(len(each) == 1 for each in seeds)
    assert ["teacher"] in found
    similar = [group for group in found if any("similarity" in name for name in group)]
    assert all(len(group) == 1 for group in similar)


def test_one_after_the_other_is_in_the_order_of_the_plan():
    alone = dataclasses.replace(CONFIG, population=PopulationConfig(size=1))
    assert groups(alone) == [[run.name] for run in runner.plan(alone)]


@pytest.mark.slow
def test_as_many_as_the_memory_holds_are_trained_together():
    def largest(memory):
        config = dataclasses.replace(CONFIG, population=PopulationConfig(size=None, memory=memory))
        return max(map(len, groups(config)))

    assert largest(1e-6) == 1
    # All eight cells of one seed, of both kinds, and four weights of labels alone.
    assert largest(8.0) == 12


def test_a_folder_of_another_configuration_is_refused_but_not_of_another_population(tmp_path):
    study_folder.write_config(CONFIG, tmp_path)
    study_folder.check_folder(
        dataclasses.replace(CONFIG, population=PopulationConfig(size=1)), tmp_path
    )
    with pytest.raises(UsageError, match=r"training\.epochs is 1 there and 5 here"):
        other = dataclasses.replace(CONFIG.training, epochs=5)
        study_folder.check_folder(dataclasses.replace(CONFIG, training=other), tmp_path)


def test_a_folder_takes_more_seeds_and_rows_but_loses_none(tmp_path):
    def check(config=CONFIG, grows=True, **changes):
        study_folder.check_folder(dataclasses.replace(config, **changes), tmp_path, grows)

    settings = CONFIG.settings
    study_folder.write_config(CONFIG, tmp_path)
    check(seeds=[0, 1, 2], settings={**settings, "alphas": [0.1, 0.5, 0.9]})
    with pytest.raises(UsageError, match=r"\[0, 1\] there and \[0\] here: the run alone-s1"):
        check(seeds=[0])
    with pytest.raises(UsageError, match=r"temperatures is .*: the run a0.1-T2-s0 would be"):
        check(settings={**settings, "temperatures": [4.0]})
    with pytest.raises(UsageError, match=r"epochs is 1 there and 5 here and 1 more\. Choose"):
        check(seeds=[0, 1, 2], training=dataclasses.replace(CONFIG.training, epochs=5))
    with pytest.raises(UsageError, match=r"here\. Choose"):  # a search compares its trials
        check(seeds=[0, 1, 2], grows=False)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_runs_that_are_added_leave_those_before_as_they_are(tmp_path):
    few = {"alphas": [0.1], "temperatures": [2.0], "label_weights": [], "similarity": 0.0}
    first = dataclasses.replace(
        CONFIG,
        seeds=[0],
        data=DataConfig(train_examples=64, validation=64, test_examples=64),
        student_training=TrainingConfig(epochs=1, batch_size=32),
        settings={**few, "same_size": [], "scale_by_t2": [True]},
        population=PopulationConfig(size=3),
    )
    before = {record.name: record for record in runner.run_study(first, tmp_path)}
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*")}
    more = dataclasses.replace(
        first, settings={**first.settings, "alphas": [0.1, 0.9]}, seeds=[0, 1]
    )
    found = {record.name: record for record in runner.run_study(more, tmp_path)}
    added = {"a0.9-T2-t2-s0", "a0.1-T2-t2-s1", "a0.9-T2-t2-s1", "alone-s1"}
    assert found.keys() - before.keys() == added
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_a_folder_takes_no_seed_that_makes_another_ensemble(tmp_path):
    config = dataclasses.replace(CONFIG, study="mysteries", student=None, settings={})
    study_folder.write_config(config, tmp_path)
    with pytest.raises(UsageError, match="the run ensemble would be another or left out"):
        study_folder.check_folder(dataclasses.replace(config, seeds=[0, 1, 2]), tmp_path)


def test_keys_that_an_older_version_did_not_write_had_their_defaults(tmp_path):
    study_folder.write_config(CONFIG, tmp_path)
    path = tmp_path / study_folder.CONFIG_FILE
    values = yaml.safe_load(path.read_text())
    del values["sweep"], values["cache"]
    path.write_text(yaml.safe_dump(values))
    study_folder.check_folder(CONFIG, tmp_path)
    with pytest.raises(UsageError, match="cache"):
        study_folder.check_folder(dataclasses.replace(CONFIG, cache=None), tmp_path)


def test_layers_that_losses_cannot_compare_are_refused_before_anything_is_trained(tmp_path):
    config = StudyConfig(
        study="loss_family",
        seeds=[0],
        data=DataConfig(source="digits", train_examples=64),
        teacher=ModelConfig("resnet8"),
        student=ModelConfig("cnn2"),
        training=TrainingConfig(epochs=1, batch_size=32),
        settings={"losses": ["hints"], "generations": 0, "hint": "stage2"},
    )
    with pytest.raises(UsageError, match="layer of cnn2 must be one of: .*features"):
        runner.run_study(config, tmp_path / "study")
    assert not (tmp_path / "study").exists()
