"""Configurations: what is refused, and with which words."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from tfdistill import config
from tfdistill.config import (
    AugmentConfig,
    CacheConfig,
    DataConfig,
    DistillationConfig,
    ExportConfig,
    FeatureConfig,
    ModelConfig,
    RunConfig,
    StudyConfig,
    TrainingConfig,
    settings_of,
)
from tfdistill.utils.checks import UsageError


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: DistillationConfig(alpha=1.5),
            "alpha must be a number from 0 to 1. Received: .*1.5",
        ),
        (
            lambda: DistillationConfig(temperature=0.0),
            "temperature must be a number from 0.001 to 1000",
        ),
        (lambda: DistillationConfig(temperature=float("inf")), "temperature must be a number"),
        (
            lambda: DistillationConfig(divergence="js"),
            "one of: kl, cross_entropy. Received: .*'js'",
        ),
        (lambda: DistillationConfig(loss="dst"), "loss must be one of: .*Did you mean 'dist'"),
        (lambda: FeatureConfig(loss="hint"), "loss must be one of: .*Did you mean 'hints'"),
        (lambda: ModelConfig("resnet21"), "model.name must be one of: cnn2, .*'resnet21'"),
        (
            lambda: ExportConfig(folder="models [old]"),
            r"export.folder must be without \* \? \[ \].* Received: .*'models \[old\]'",
        ),
        (lambda: ExportConfig(name="a b"), "export.name must be one folder's name, of letters"),
        (lambda: TrainingConfig(epochs=0), "training.epochs must be a whole number, at least 1"),
        (lambda: TrainingConfig(optimizer="sdg"), "Did you mean 'sgd'"),
        (lambda: TrainingConfig(precision="float16"), "one of: float32, mixed_bfloat16"),
        (lambda: TrainingConfig(learning_rate=-1.0), "learning_rate must be a finite number > 0"),
        (lambda: TrainingConfig(ema=1.0), "training.ema must be a number above 0 and below 1"),
        (lambda: TrainingConfig(ema=0.0), "training.ema must be a number above 0 and below 1"),
        (lambda: DataConfig(source="cifar10"), "data.source must be one of: digits, tfds"),
        (
            lambda: DataConfig(train_examples=200, labelled_examples=-1),
            "data.labelled_examples must be a whole number, at least 1",
        ),
        (lambda: DataConfig(normalize=[0.5]), "'measured', 'none' or"),
        (lambda: AugmentConfig(resized_crop=2.0), "resized_crop must be a number from 0 to 1"),
        (lambda: AugmentConfig(erasing=1.1), "erasing must be a number from 0 to 1"),
        (lambda: AugmentConfig(cutmix=-1.0), "cutmix must be a finite number >= 0"),
        (
            lambda: AugmentConfig(mixup=0.2, cutmix=1.0),
            "Received: augment.mixup=0.2, augment.cutmix=1.0. Set one of them to 0",
        ),
        (lambda: ModelConfig(name="saved"), "needs a path"),
        (lambda: StudyConfig(seeds=[1, 1]), "different values"),
        (lambda: StudyConfig(seeds=[]), "different values"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(make, message):
    with pytest.raises(UsageError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "folder, name",
    [
        ("quickstart-student", "quickstart-student"),
        ("results [1] (é)", "results-1"),
        (".hidden*", "hidden"),
        ("ключ", "model"),
    ],
)
def test_the_name_of_an_export_that_is_made_from_a_folder_is_one_that_may_be_given(folder, name):
    assert config.export_name(folder) == name
    assert ExportConfig(name=name).name == name


def test_an_unknown_key_is_refused_at_any_depth_with_the_known_ones():
    values = {"data": {"augment": {"flp": True}}}
    with pytest.raises(
        UsageError, match="data, augment: unknown key 'flp'. Did you mean 'flip'"
    ) as caught:
        config.check_keys(StudyConfig, values, "file.yaml")
    assert "Known keys: pad_crop, flip" in str(caught.value)


def test_a_configuration_survives_yaml():
    study = StudyConfig(
        student=ModelConfig("cnn4"), seeds=[7], data=DataConfig(normalize=[0.5, 0.2])
    )
    values = yaml.safe_load(yaml.safe_dump(config.to_dict(study)))
    config.check_keys(StudyConfig, values, "file.yaml")
    assert values["student"]["name"] == "cnn4" and values["data"]["normalize"] == [0.5, 0.2]


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match="Cannot read the configuration"):
        config.read_yaml(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(UsageError, match="must hold keys and values. Received: list"):
        config.read_yaml(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(UsageError, match="is not YAML"):
        config.read_yaml(tmp_path / "broken.yaml")


def test_a_run_without_a_network_or_teachers_says_so_where_they_are_needed():
    run = RunConfig("mean-of-3", "row", 0, DataConfig(), None, TrainingConfig())
    for name, field in {"network": "model", "taught": "distillation", "stored": "cache"}.items():
        with pytest.raises(ValueError, match=f"The run mean-of-3 has no {field}"):
            getattr(run, name)
    learned, cache = DistillationConfig(), CacheConfig()
    whole = dataclasses.replace(run, model=ModelConfig(), distillation=learned, cache=cache)
    assert (whole.network, whole.taught, whole.stored) == (ModelConfig(), learned, cache)


def test_a_study_has_a_folder_once_its_output_is_set():
    assert StudyConfig(output="results/a").folder == Path("results/a")
    with pytest.raises(ValueError, match="The study mysteries has no output"):
        StudyConfig().folder  # noqa: B018


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings as a study has them."""

    pairs: int = 20
    networks: list[ModelConfig] = dataclasses.field(default_factory=list)


class TestSettingsOfAStudy:
    def test_defaults_and_nested_values(self):
        assert settings_of(Settings, StudyConfig()) == Settings()
        given = {"pairs": 3, "networks": [{"name": "resnet8", "width": 0.5}]}
        assert settings_of(Settings, StudyConfig(settings=given)) == Settings(
            3, [ModelConfig("resnet8", width=0.5)]
        )

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"pair": 3}, "unknown key 'pair'. Did you mean 'pairs'"),
            ({"pairs": "many"}, "pairs"),
            ({"networks": [{"nme": "resnet8"}]}, "nme"),
            ({"networks": [{"width": -1.0}]}, "model.width must be a finite number > 0"),
        ],
    )
    def test_what_is_wrong_is_named(self, given, message):
        with pytest.raises(UsageError, match=message) as caught:
            settings_of(Settings, StudyConfig(settings=given))
        assert "\n" not in str(caught.value)


def test_losses_between_layers_and_a_cache_exclude_each_other():
    settings = DistillationConfig(features=[FeatureConfig("hints")])
    with pytest.raises(UsageError, match="hints together with a cache. Set cache: null"):
        StudyConfig(distillation=settings)
    assert StudyConfig(distillation=settings, cache=None).distillation == settings
