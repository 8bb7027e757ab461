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
from tests.models import published
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
# How a page marks what cannot run here, and the reasons that it then gives.
MARK = "# Not run by our tests: "
NOT_RUN = {
    "docs/coming_from_pytorch.md": ["it needs PyTorch, and `module`, a trained network."],
    "docs/many_machines.md": ["it needs several machines, and networks and images of yours."],
    "docs/your_own_data.md": ["it needs KerasHub, which downloads the weights, and photos."],
}


def of_the_readme(names, folder):
    digits, distiller = names["digits"], names["distiller"]
    found = distiller.evaluate(digits.test.images, digits.test.labels, verbose=0, return_dict=True)
    assert found["accuracy"] > 0.8
    student = keras.saving.load_model(folder / "student.keras")
    assert round(names["teacher"].count_params() / student.count_params()) == 19


def of_the_first_page(names, folder):
    assert (folder / "student.keras").exists()
    assert names["distiller"].temperature == 2.0
    assert names["distiller"].optimizer.iterations > 0


def of_keras(names, folder):
    assert names["teacher"].output_shape == (None, 3)
    assert names["distiller"].alpha == 0.5


def of_pytorch(names, folder):
    assert keras.saving.load_model(folder / "teacher.keras").output_shape == (None, 10)


def of_deployment(names, folder):
    assert (folder / "saved_models/small/1/model.int8.tflite").exists()
    with open(folder / "digit.png", "rb") as file:
        answer = names["classify"](image_bytes=names["tf"].constant([file.read()]))
    asked = names["student"].predict(names["images"].test.images[:1], verbose=0)
    assert answer["class_name"].numpy()[0].decode() == str(asked.argmax())


def of_photos(names, folder):
    assert set(names["found"].accuracy) == {"teacher", "student alone", "student"}
    assert keras.saving.load_model(folder / "small.keras").output_shape == (None, 10)


def of_losses(names, folder):
    distiller = names["distiller"]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss, metrics=["accuracy"], run_eagerly=True)  # one step
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3))
    history = distiller.fit(pixels, np.arange(8) % 3, verbose=0).history
    assert history["feature_loss"][0] > 0
    (given,) = (yaml.safe_load(text) for text in blocks("docs/losses.md", "yaml"))
    settings = given["distillation"]
    features = [FeatureConfig(**feature) for feature in settings.pop("features")]
    assert DistillationConfig(**settings, features=features).features[0].loss == "hints"


def of_low_bits(names, folder):
    assert (folder / "saved_models/photos/1/model.int8-aware.tflite").exists()
    assert (folder / "student.tflite").stat().st_size > 2_000
    bits = [getattr(layer, "weight_bits", None) for layer in names["student"].layers]
    assert [each for each in bits if each] == [8, 4, 8]
    assert names["smaller"].count_params() < names["teacher"].count_params()


def of_sweeps(names, folder):
    assert len(names["tuner"].results()) == 4  # two widths, two alphas
    assert (folder / "student.keras").exists()


def of_the_teacher_cache(names, folder):
    assert names["cache"].logits().shape[0] == 3  # views
    logs = names["population"].member_logs(names["history"].history)
    assert [len(each["accuracy"]) for each in logs] == [3] * 2


def of_own_data(names, folder):
    assert names["head"].validation_accuracy > 0.5
    assert keras.saving.load_model(folder / "teacher.keras").output_shape == (None, 10)


# Pages, and what is looked at when their Python has run.
PLAYED = {
    "README.md": of_the_readme,
    "docs/index.md": of_the_first_page,
    "docs/coming_from_keras.md": of_keras,
    "docs/coming_from_pytorch.md": of_pytorch,
    "docs/deployment.md": of_deployment,
    "docs/distilling_photos.md": of_photos,
    "docs/losses.md": of_losses,
    "docs/low_bits.md": of_low_bits,
    "docs/sweeps.md": of_sweeps,
    "docs/teacher_cache.md": of_the_teacher_cache,
    "docs/your_own_data.md": of_own_data,
}


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


def block(language):
    return blocks("docs/studies.md", language)[0]


def pages():
    """The pages that a user reads, but for the guides, which scripts/guides.py runs."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    return [str(path.relative_to(ROOT)) for path in sorted(found) if path.parent.name != "guides"]


def play(page):
    """Run all Python of a page, as who pastes it does, and return its names."""
    names = {"__name__": "__main__"}
    for example in blocks(page, "python"):
        if not example.startswith(MARK):
            exec(compile(example, page, "exec"), names)
    return names


@pytest.fixture
def here(tmp_path, monkeypatch, forked_probes):
    """An empty folder, in which the test is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_what_is_not_run_says_why_and_imports_what_there_is():
    marked = {}
    for page in pages():
        for example in blocks(page, "python"):
            if example.startswith(MARK):
                reason = example.partition("\n")[0].removeprefix(MARK)
                marked.setdefault(page, []).append(reason)
                for node in ast.walk(ast.parse(example)):
                    if isinstance(node, (ast.Import, ast.ImportFrom)):
                        exec(ast.unparse(node), {})
    assert marked == NOT_RUN


def test_python_is_on_pages_that_a_test_plays():
    assert {page for page in pages() if blocks(page, "python")} == {
        *PLAYED,
        *NOT_RUN,
        "docs/studies.md",
    }
    for page in pages():  # written otherwise, it would be seen by no test
        otherwise = r"^ *```(?:py|pycon|py3|Python|python[^\n]+)$"
        assert not re.findall(otherwise, (ROOT / page).read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PLAYED)
def test_a_page_runs_from_top_to_bottom(page, here):
    if page == "docs/coming_from_pytorch.md":  # what its part for PyTorch leaves
        np.savez("resnet20.npz", **published.resnet((16, 16, 32, 64), [3] * 3, classes=10))
    PLAYED[page](play(page), here)


def test_the_example_is_a_study_that_runs(eagerly, tmp_path, monkeypatch):
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
