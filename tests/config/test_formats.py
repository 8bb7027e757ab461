"""Earlier formats: configurations are brought to the present one, finished studies go on."""

import copy
import dataclasses
import shutil

import pytest
import yaml

from tests.conftest import LEARNING_SPEED
from tfdistill import records
from tfdistill.config import (
    DataConfig,
    DistillationConfig,
    ModelConfig,
    PopulationConfig,
    RunConfig,
    StudyConfig,
    TrainingConfig,
    build,
    formats,
    to_dict,
)
from tfdistill.training.runner import CONFIG_FILE, run_study
from tfdistill.utils import storage

DROPPING = "-dropout-in-evaluation"
NETWORKS = [
    ModelConfig("cnn4", width=0.5),
    ModelConfig("cnn4" + DROPPING, width=0.5),
    ModelConfig("cnn2" + DROPPING, dropout=0.25),
]
LEARNED = [
    None,
    DistillationConfig(0.5, 2.0, divergence="cross_entropy"),
    DistillationConfig(loss="kl_of_log"),
    DistillationConfig(loss="dist"),
]


def of_format_1(config):
    """Return plain values as version 1 had them."""
    if isinstance(config, list):
        return [of_format_1(part) for part in config]
    if not isinstance(config, dict):
        return config
    config = {key: of_format_1(part) for key, part in config.items()}
    if {"name", "width", "outputs"} <= set(config):
        config["dropout_in_evaluation"] = config["name"].endswith(DROPPING)
        config["name"] = config["name"].removesuffix(DROPPING)
    if config.get("loss") == "kl_of_log":
        config |= {"loss": "soft_targets", "divergence": "kl_of_log"}
    return config


@pytest.mark.parametrize("learned", LEARNED)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_of_format_1_reads_as_the_same_run(network, learned):
    run = RunConfig("a", "row", 0, DataConfig(), network, TrainingConfig(), distillation=learned)
    values = to_dict(run)
    old = of_format_1(values)
    assert old != values
    assert formats.current_run(copy.deepcopy(old), 1) == values
    assert build(RunConfig, formats.current(old, 1)) == run


@pytest.mark.parametrize("learned", LEARNED[1:])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_study_of_format_1_reads_as_the_same_study(network, learned):
    study = StudyConfig(
        teacher=network,
        student=NETWORKS[0],
        distillation=learned,
        self_distillation=LEARNED[2],
        settings={"networks": [to_dict(network)], "student": to_dict(network)},
    )
    old = of_format_1(to_dict(study))
    assert "dropout_in_evaluation" in old["settings"]["networks"][0]
    assert build(StudyConfig, formats.current(old, 1)) == study


def test_a_file_that_a_person_wrote_may_leave_out_what_is_the_default():
    found = formats.current(
        {"student": {"dropout_in_evaluation": True}, "distillation": {"divergence": "kl_of_log"}}, 1
    )
    assert build(StudyConfig, found).student == ModelConfig("cnn2" + DROPPING)
    assert build(StudyConfig, found).distillation == DistillationConfig(loss="kl_of_log")


def test_a_loss_without_a_divergence_stays_what_it_was():
    old = {"distillation": {"loss": "decoupled", "divergence": "kl_of_log"}}
    found = build(StudyConfig, formats.current(old, 1)).distillation
    assert found == DistillationConfig(loss="decoupled")


@pytest.mark.slow
def test_a_study_of_format_1_is_continued_without_doing_runs_again(learning_speed, tmp_path):
    shutil.copytree(learning_speed, tmp_path, dirs_exist_ok=True)
    first = {record.name: record for record in records.read_all(tmp_path)}
    _make_old(tmp_path)
    (tmp_path / "runs" / "a0.5-T4-zero-s0" / "record.json").unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    config = dataclasses.replace(LEARNING_SPEED, population=PopulationConfig(size=1))
    again = {record.name: record for record in run_study(config, tmp_path)}
    assert {name: record.weights for name, record in again.items()} == {
        name: record.weights for name, record in first.items()
    }
    kept = [path for path in before if path.parent.parent.name == "runs"]
    kept = [path for path in kept if path.parent.name != "a0.5-T4-zero-s0"]
    assert len(kept) >= 6 * 3
    assert [path for path in kept if path.read_bytes() != before[path]] == []
    [manifest] = [path for path in before if path.name == "manifest.json"]
    assert manifest.read_bytes() == before[manifest]  # the teacher's logits are used as they are


def _make_old(folder):
    """Write a study's records and configuration as the version of format 1 wrote them."""
    for path in folder.glob("runs/*/record.json"):
        values = storage.read_checked(path)
        values |= {"format": 1, "config": of_format_1(values["config"])}
        for each in values["needed"]:
            each["config"] = of_format_1(each["config"])
        storage.write_checked(path, values)
        assert records.read(path.parent).config != values["config"]
    path = folder / CONFIG_FILE
    values = yaml.safe_load(storage.unmarked(path))
    old = of_format_1(values | {"format": 1})
    path.write_text(storage.marked(yaml.safe_dump(old, sort_keys=False)), encoding="utf-8")
