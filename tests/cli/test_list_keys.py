"""The keys of a study: all of them, within eighty columns, and as a page of the documentation."""

from pathlib import Path

import pytest

import tfdistill
from tests.faults import configurations
from tfdistill.cli import list_keys
from tfdistill.cli.main import main
from tfdistill.config.registry import FEATURE_LOSSES, STUDIES

PAGE = Path(tfdistill.__file__).parents[1] / "docs" / "keys.md"


def test_every_key_is_listed_but_those_of_a_group_that_stands_twice():
    found = {key.name: key for group in list_keys.groups() for key in group.keys}
    twice = [name for name, key in found.items() if "Keys as of" in key.about]
    for field in configurations.LEAVES:
        assert field.key in found or field.key.startswith(tuple(f"{name}." for name in twice))
    assert "distillation.features[].loss" in found and "student" in twice


def test_no_line_is_wider_than_eighty_columns():
    assert max(map(len, list_keys.page().splitlines())) <= 80


def test_choices_come_from_the_registries():
    text = " ".join(list_keys.page().split())
    assert all(f"`{name}`" in text for name in (*STUDIES, *FEATURE_LOSSES))


@pytest.mark.parametrize(
    ("part", "there", "absent"),
    [
        ("training", "training.epochs: whole number", "student_training"),
        ("data", "data.augment.flip: true or false", "data: keys\n\n\n"),
        ("student", "Keys as of `teacher`", "student_training"),
    ],
)
def test_one_part(capsys, part, there, absent):
    assert main(["keys", part]) == 0
    printed = capsys.readouterr().out
    assert there in " ".join(printed.split()) and f"  {absent}:" not in printed


def test_the_page_of_the_documentation_is_what_the_command_writes(capsys):
    assert main(["keys", "--markdown"]) == 0
    made = capsys.readouterr().out
    assert PAGE.read_text() == made, "run: tfdistill keys --markdown > docs/keys.md"
    assert "tfdistill keys --markdown > docs/keys.md" in "\n".join(made.splitlines()[:3])
