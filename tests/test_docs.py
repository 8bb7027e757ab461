"""The examples of the documentation run as they stand."""

import ast
import dataclasses
import itertools
import re
import shlex
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

import tfdistill
from tfdistill import data, models
from tfdistill.cli import commands, options
from tfdistill.cli.commands import COMMANDS
from tfdistill.cli.main import app
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
SHELL = {"|", "||", "&&", ">", "&"}


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


def block(language):
    return blocks("docs/studies.md", language)[0]


def test_the_example_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("README.md", "python")
    names = {}
    exec(example, names)
    digits, distiller = names["digits"], names["distiller"]
    found = distiller.evaluate(digits.test.images, digits.test.labels, verbose=0, return_dict=True)
    assert found["accuracy"] > 0.8
    student = keras.saving.load_model(tmp_path / "student.keras")
    assert round(names["teacher"].count_params() / student.count_params()) == 19


def test_the_example_of_the_first_page(small_network, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"images": images[0], "labels": images[1]}
    names |= {"student": small_network(), "teacher": small_network()}
    (example,) = blocks("docs/index.md", "python")
    exec(example, names)
    assert (tmp_path / "student.keras").exists()
    assert names["distiller"].temperature == 2.0


def pages():
    """The pages that a user reads, but for the guides, which scripts/guides.py runs."""
    found = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    return [str(path.relative_to(ROOT)) for path in sorted(found)]


@pytest.mark.parametrize("page", pages())
def test_commands_of_a_page_are_such(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text((ROOT / "configs/quickstart.yaml").read_text())
    for example in blocks(page, "sh"):
        for line in example.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            places = [place for place, word in enumerate(words) if Path(word).name == "tfdistill"]
            if not places or words[0].endswith(("pip", "python")):
                continue
            given = list(
                itertools.takewhile(lambda word: word not in SHELL, words[places[0] + 1 :])
            )
            command, bound, _ = app(COMMANDS).parse_args(
                given, exit_on_error=False, print_error=False
            )
            if command in (commands.run, commands.train, commands.sweep, commands.cache_build):
                fixed = {"study": "single"} if command is commands.train else None
                options.study_config(bound.args, command, fixed)


@pytest.mark.parametrize("page", pages())
def test_python_of_a_page_is_python_and_its_imports_are_there(page):
    for example in blocks(page, "python"):
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                exec(ast.unparse(node), {})


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
