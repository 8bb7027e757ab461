"""The examples of the documentation run as they stand."""

import dataclasses
import re
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

import tfdistill
from tfdistill import data, models
from tfdistill.config import (
    DataConfig,
    DistillationConfig,
    FeatureConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
    registry,
)
from tfdistill.reporting.verdicts import verdict
from tfdistill.training import runner

pytestmark = pytest.mark.slow

ROOT = Path(tfdistill.__file__).parents[1]


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


def block(language):
    return blocks("docs/studies.md", language)[0]


def test_the_first_example_of_the_readme(small_network, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        small_network().save(f"{name}.keras")
    names = {"student": small_network(), "images": images[0], "labels": images[1]}
    exec(blocks("README.md", "python")[0], names)
    assert (tmp_path / "student.keras").exists()
    assert names["distiller"].temperature == 2.0


def test_the_examples_of_the_losses():
    config = {"input_shape": (32, 32, 3), "num_classes": 3}
    names = {
        "teacher": models.build(ModelConfig("resnet14"), **config),
        "student": models.build(ModelConfig("resnet8", width=0.5), **config),
    }
    for example in blocks("docs/losses.md", "python"):
        exec(example, names)
    distiller = names["distiller"]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss, metrics=["accuracy"])
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3))
    history = distiller.fit(pixels, np.arange(8) % 3, verbose=0).history
    assert history["feature_loss"][0] > 0
    (given,) = (yaml.safe_load(text) for text in blocks("docs/losses.md", "yaml"))
    settings = given["distillation"]
    features = [FeatureConfig(**feature) for feature in settings.pop("features")]
    assert DistillationConfig(**settings, features=features).features[0].loss == "hints"


@pytest.mark.usefixtures("forked_probes")
def test_the_examples_of_low_bits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = data.load(DataConfig("digits", validation=100))
    train = dataset.train.take(np.arange(256))
    keras.utils.set_random_seed(0)
    names = {
        name: models.build(ModelConfig("cnn4", width=0.5), (8, 8, 1), 10, 127.5, 64.0)
        for name in ("student", "teacher")
    }
    names |= {"dataset": dataset, "images": train.images, "labels": train.labels}
    names["network"] = names["teacher"]
    for example in blocks("docs/low_bits.md", "python"):
        exec(example.replace("epochs=5", "epochs=1"), names)
    assert (tmp_path / "saved_models/photos/1/model.int8-aware.tflite").exists()
    assert (tmp_path / "student.tflite").stat().st_size > 10_000
    bits = [getattr(layer, "weight_bits", None) for layer in names["student"].layers]
    assert [each for each in bits if each] == [8, 4, 4, 4, 4, 8]
    assert names["smaller"].count_params() < names["network"].count_params()


def test_the_example_is_a_study_that_runs(tmp_path, monkeypatch):
    module = types.ModuleType("student_width")
    monkeypatch.setitem(__import__("sys").modules, "student_width", module)
    exec(block("python"), vars(module))
    monkeypatch.setitem(registry.STUDIES, "student_width", module)
    values = yaml.safe_load(block("yaml"))
    config = StudyConfig(
        study=values["study"],
        seeds=values["seeds"][:1],
        data=DataConfig(**values["data"], train_examples=64),
        teacher=ModelConfig("cnn2", width=0.25),
        student=ModelConfig(**values["student"]),
        training=TrainingConfig(**values["training"] | {"epochs": 1}),
        distillation=DistillationConfig(**values["distillation"]),
        settings=values["settings"],
    )
    found = runner.run_study(config, tmp_path)
    (table,) = module.tables(found)
    rows = [row[:2] for row in table.rows]
    assert rows == [
        ("teacher", "1"),
        ("width 0.25, alone", "1"),
        ("width 0.25, taught", "1"),
        ("width 1, alone", "1"),
        ("width 1, taught", "1"),
    ]
    exec(blocks("docs/studies.md", "python")[1], vars(module))
    assert module.comparisons(found) == []  # of a single seed
    again = [dataclasses.replace(record, seed=record.seed + 1) for record in found]
    families = module.comparisons([*found, *again])
    assert [family.title for family in families] == ["width 0.25", "width 1"]
    assert "the same network alone" in verdict(families, found)
