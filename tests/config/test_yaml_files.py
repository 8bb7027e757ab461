"""YAML as configurations have it: the core schema of YAML 1.2, and what is written is read."""

import math

import pytest

from tfdistill.config.yaml_files import parse_yaml, read_yaml, yaml_text
from tfdistill.utils.checks import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("no", "on", "yes", "off", "y", "n", "No", "ON", "Y", "tRue")),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        *((word, None) for word in ("null", "Null", "NULL", "~", "")),
        ("010", 10),
        ("-07", -7),
        ("+3", 3),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("-0x1F", "-0x1F"),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("1_000", "1_000"),
        ("1_000.5", "1_000.5"),
        ("1e3", 1000.0),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5E+2", -150.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("inf", "inf"),
        ("nan", "nan"),
        ("2020-01-31", "2020-01-31"),
        ("2020-01-31 10:00:00", "2020-01-31 10:00:00"),
        ("=", "="),
        ("'10'", "10"),
        ('"true"', "true"),
        ("!!str 10", "10"),
        ("!!float 10", 10.0),
        ("[no, 010]", ["no", 10]),
    ],
)
def test_words_are_those_of_yaml_1_2(text, value):
    found = parse_yaml(f"key: {text}\n", "file.yaml")["key"]
    assert found == value and type(found) is type(value)


def test_not_a_number_is_read_for_the_configuration_to_refuse():
    assert math.isnan(parse_yaml(".nan", "file.yaml"))


@pytest.mark.parametrize("key", ["on", "no", "3", "010", "1.5", "true", "null", "2020-01-31"])
def test_a_key_is_text(key):
    assert parse_yaml(f"{key}: 1\n", "file.yaml") == {key: 1}


@pytest.mark.parametrize(
    "text", ["!!int 3.5", "!!int 1_000", "!!bool yes", "!!float 1:30", "!!null 3"]
)
def test_a_tag_makes_nothing_of_other_words(text):
    with pytest.raises(UsageError, match="file.yaml holds an unreadable value") as caught:
        parse_yaml(text, "file.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["!!timestamp 2020-01-31", "!!binary YQ==", "!!set {a, b}"])
def test_only_plain_data_has_a_tag(text):
    with pytest.raises(UsageError, match="is not YAML: could not determine a constructor"):
        parse_yaml(text, "file.yaml")


def test_what_is_written_is_read_as_the_same(tmp_path):
    texts = ["no", "true", "010", "0o10", "0x1F", "1:30", "1e3", "-1E3", "1_0", ".5", "5.", "=", ""]
    values = {text: text for text in [*texts, "2020-01-31", "~", "null", ".inf", "é", "a: b"]}
    values["numbers"] = [1e-5, 1e20, 0.1, 3, -7, 1.0, True, False, None]
    path = tmp_path / "values.yaml"
    path.write_text(yaml_text(values))
    assert read_yaml(path) == values
    assert list(map(type, read_yaml(path)["numbers"])) == list(map(type, values["numbers"]))
