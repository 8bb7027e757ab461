"""Every committed configuration: its study plans it, and its comment says how to run it."""

import contextlib
import dataclasses
import functools
from pathlib import Path

import pytest

import tfdistill
from tfdistill.cli import options
from tfdistill.config import (
    CacheConfig,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
)
from tfdistill.config.registry import STUDIES
from tfdistill.training import runner
from tfdistill.utils.checks import UsageError

ROOT = Path(tfdistill.__file__).parents[1]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))


@functools.cache
def config_of(path):
    return options.study_config([str(path)])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
class TestEveryConfiguration:
    def test_every_run_comes_after_what_it_needs_and_has_a_name_of_its_own(self, path):
        seen = set()
        for run in runner.plan(config_of(path)):
            assert set(run.needs) <= seen
            assert run.name not in seen
            seen.add(run.name)
        assert len(seen) > 2 or path.parent.name == "teachers"  # one network, for studies

    def test_no_augmentation_is_in_pixels_of_another_size(self, path):
        """Which would be refused, but only once the images are read."""
        for run in runner.plan(config_of(path)):
            augment, sizes = run.data.augment, (run.data.input_size, run.teacher_input_size)
            assert not any(sizes) or not (augment.pad_crop or augment.cutout)

    def test_its_comment_names_its_cost_and_its_command(self, path):
        comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
        text = " ".join(line.lstrip("# ") for line in comment)
        assert "Cost" in text
        assert f" {path.relative_to(ROOT)}" in text

    def test_its_results_go_to_a_folder_of_their_own(self, path):
        assert config_of(path).output.startswith("results/")


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "single"])
def test_every_study_has_a_full_and_a_small_configuration(name):
    found = {path.stem for path in FILES if config_of(path).study == name}
    assert {"full", "small"} <= found


# How a study is done, displayed and exported; or for another command.
BESIDE = {"output", "sweep", "export", "tensorboard", "threads", "note", "population"}


def changed(config):
    """Yield each number of a configuration's key and a few values that it may have instead; whole
    parts, too."""
    parts = {
        "data": DataConfig(split_seed=77),
        "teacher": ModelConfig("resnet44"),
        "student": ModelConfig("resnet32"),
        "student_training": TrainingConfig(learning_rate=0.06),
        "self_distillation": DistillationConfig(alpha=0.12, temperature=9.0),
        "teacher_data": DataConfig(split_seed=5),
        "cache": CacheConfig(folder="elsewhere"),
    }
    for name, value in parts.items():
        yield name, [dataclasses.replace(config, **{name: value})]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in BESIDE and dataclasses.is_dataclass(value):
            for key, values in numbers(value):
                yield (
                    f"{field.name}.{key}",
                    [dataclasses.replace(config, **{field.name: each}) for each in values],
                )


def numbers(part):
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            for key, inner in numbers(value):
                yield (
                    f"{field.name}.{key}",
                    [dataclasses.replace(part, **{field.name: each}) for each in inner],
                )
        elif isinstance(value, int | float):
            tried = [not value] if isinstance(value, bool) else [value + 1, 0.9 * value, 0.123]
            found = []
            for other in (each for each in tried if each != value):
                with contextlib.suppress(UsageError):  # not every number is allowed
                    found.append(dataclasses.replace(part, **{field.name: other}))
            yield field.name, found


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "single"])
def test_no_setting_is_left_out_in_silence(name):
    """What is given changes the study's runs, or is refused."""
    config, study = config_of(ROOT / f"configs/{name}/small.yaml"), STUDIES[name]
    before, seen = study.runs(config), set()
    for key, others in changed(config):
        for other in others:
            with contextlib.suppress(UsageError):
                assert study.runs(other) != before, f"{name} does nothing with {key}"
            seen.add(key)
    assert {"student", "training.learning_rate", "distillation.temperature"} <= seen


def test_what_a_study_does_not_use_is_named():
    training = TrainingConfig(weight_decay=0.25)
    config = dataclasses.replace(StudyConfig(study="multi_view", seeds=[0]), training=training)
    expected = "multi_view does not use training.weight_decay. Received: 0.25. Remove it."
    with pytest.raises(UsageError, match=expected):
        STUDIES["multi_view"].runs(config)
    student = StudyConfig(study="distilled_ensembles", student=ModelConfig("cnn4"))
    with pytest.raises(UsageError, match="does not use student. Received: ModelConfig"):
        STUDIES["distilled_ensembles"].runs(student)
