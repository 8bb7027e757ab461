"""The JSON Schema for editors: it is up to date, takes what is right and refuses what is wrong."""

import json
import os
from pathlib import Path

import jsonschema
import pytest

import tfdistill
from tfdistill.config import StudyConfig, formats, read_yaml, schema, to_dict
from tfdistill.config.registry import (
    EXPORT_FORMATS,
    FEATURE_LOSSES,
    LOGIT_LOSSES,
    SOURCES,
    STUDIES,
)

ROOT = Path(tfdistill.__file__).parents[1]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def validator():
    found = json.loads(schema.FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def test_the_file_is_what_the_dataclasses_make():
    again = "python -m tfdistill.config.schema > tfdistill/config/schema.json"
    assert schema.FILE.read_text(encoding="utf-8") == schema.text(), f"Run: {again}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
class TestEveryConfiguration:
    def test_it_is_valid(self, validator, path):
        validator.validate(read_yaml(path))

    def test_its_first_line_names_the_schema_for_editors(self, path):
        name, _, place = path.read_text().splitlines()[0].partition("$schema=")
        assert name == "# yaml-language-server: "
        assert Path(os.path.normpath(path.parent / place)) == schema.FILE


def test_what_a_study_has_written_is_valid(validator):
    validator.validate(to_dict(StudyConfig()) | {formats.KEY: formats.FORMAT})


@pytest.mark.parametrize(
    "values",
    [
        *({"study": name} for name in STUDIES),
        *({"data": {"source": name}} for name in (*SOURCES, "arrays", "tfds:cifar10", "folder:a")),
        *({"distillation": {"loss": name}} for name in LOGIT_LOSSES),
        *({"distillation": {"features": [{"loss": name}]}} for name in FEATURE_LOSSES),
        *({"export": {"formats": [name]}} for name in EXPORT_FORMATS),
        *({"teacher": {"name": name}} for name in ("resnet8", "wrn-28-10", "keras:VGG16", "saved")),
        *({"data": {"normalize": given}} for given in ("none", "measured", [0.5, [0.1, 0.2]])),
        *({"student": given} for given in (None, {}, {"width": 2})),
        {"training": {"jit": "on", "optimizer": "adamw"}, "sweep": {"tuner": "hyperband"}},
        {"study": "assistants", "settings": {"assistant": {"name": "cnn4"}}},
    ],
    ids=str,
)
def test_what_is_right_is_valid(validator, values):
    validator.validate(values)


@pytest.mark.parametrize(
    "values",
    [
        {"sede": [1]},
        {"data": {"augment": {"flp": True}}},
        {"distillation": {"features": [{"los": "hints"}]}},
        {"study": "mystery"},
        {"data": {"source": "cifar10"}},
        {"data": {"source": "arrays:a"}},
        {"data": {"normalize": "mean"}},
        {"teacher": {"name": "resnet21"}},
        {"teacher": {"name": "wrn-27-10"}},
        {"teacher": {"name": "keras:VGG17"}},
        {"distillation": {"loss": "kd"}},
        {"distillation": {"features": [{"loss": "hint"}]}},
        {"export": {"formats": ["tflite"]}},
        {"sweep": {"tuner": "best"}},
        {"training": {"optimizer": "sdg"}},
        {"training": {"jit": True}},
        {"training": {"epochs": "10"}},
        {"training": None},
        {"cache": {"dtype": "int8"}},
        {"study": "assistants", "settings": {"asistant": {}}},
        {"study": "mysteries", "settings": {"pairs": 3}},
        {formats.KEY: "2"},
    ],
    ids=str,
)
def test_what_is_wrong_is_not(validator, values):
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(values)


def test_every_key_is_explained():
    for name, part in schema.schema()["$defs"].items():
        for key, field in part["properties"].items():
            assert len(field["description"]) > 5, f"{name}.{key}"
