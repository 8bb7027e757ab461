"""The JSON Schema of a study's YAML file, with which editors complete and check one.

Made of the dataclasses, the registries and the studies' own settings, and kept beside this module.
After a change: python -m tfdistill.config.schema > tfdistill/config/schema.json
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any

from tfdistill.config import formats
from tfdistill.config.building import adapter
from tfdistill.config.registry import STUDIES
from tfdistill.config.study import StudyConfig

FILE = Path(__file__).with_name("schema.json")


def explained(cls: type[Any]) -> dict[str, str]:
    """Return what the docstring of a dataclass, and of those it extends, says of each field.

    Example:
        >>> explained(PopulationConfig)["memory"]
        'Limit of their memory in GB, where the size is null.'
    """
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        said = inspect.cleandoc(each.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
        for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", said, re.M):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the file that `tfdistill run` takes.

    It holds keys, types and words; ranges, and what goes with what, are the dataclasses' to check.
    """
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        def dataclass_schema(self, schema: Any) -> Any:
            found, about = super().dataclass_schema(schema), explained(schema["cls"])
            for name, part in found["properties"].items():
                part["description"] = about[name]
            summary = (inspect.getdoc(schema["cls"]) or "").partition("\n\nArgs:")[0]
            return found | {"description": " ".join(summary.split())}

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

    own = {name: getattr(study, "Settings", None) for name, study in STUDIES.items()}
    classes = {"": StudyConfig} | {name: cls for name, cls in own.items() if cls}
    found, shared = TypeAdapter.json_schemas(
        [(name, "validation", adapter(cls)) for name, cls in classes.items()],
        schema_generator=Generator,
    )
    # Each is a reference to a definition, or null.
    references = {name: schema["anyOf"][0] for (name, _), schema in found.items()}
    study = shared["$defs"]["StudyConfig"]
    study["properties"][formats.KEY] = {
        "type": "integer",
        "minimum": 1,
        "maximum": formats.FORMAT,
        "description": "Format of a configuration that a study has written.",
    }
    study["allOf"] = [
        {
            "if": {"properties": {"study": {"const": name}}, "required": ["study"]},
            "then": {"properties": {"settings": references.get(name, {"maxProperties": 0})}},
        }
        for name in STUDIES
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study of tfdistill",
        **references[""],
        **shared,
    }


def text() -> str:
    """Return the schema as it lies in `schema.json`."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
