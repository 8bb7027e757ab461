"""The example of docs/studies.md: one file and one YAML make a study."""

import re
import types
from pathlib import Path

import yaml

import tfdistill
from tfdistill import runner, studies
from tfdistill.config import (
    DataConfig,
    DistillationConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
)

TEXT = (Path(tfdistill.__file__).parents[1] / "docs" / "studies.md").read_text()


def block(language):
    return re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL).group(1)


def test_the_example_is_a_study_that_runs(tmp_path, monkeypatch):
    module = types.ModuleType("student_width")
    monkeypatch.setitem(__import__("sys").modules, "student_width", module)
    exec(block("python"), vars(module))
    monkeypatch.setitem(studies.STUDIES, "student_width", module)
    values = yaml.safe_load(block("yaml"))
    config = StudyConfig(
        study=values["study"],
        seeds=values["seeds"],
        data=DataConfig(**values["data"], train_examples=64),
        teacher=ModelConfig("cnn2"),
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
        ("width 0.25, alone", "2"),
        ("width 0.25, taught", "2"),
        ("width 1, alone", "2"),
        ("width 1, taught", "2"),
    ]
