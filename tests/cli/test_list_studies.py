"""The list of studies: complete, and no line wider than a terminal."""

import shlex
from pathlib import Path

import pytest

import tfdistill
from tfdistill.cli import list_studies
from tfdistill.config import read_yaml
from tfdistill.config.registry import STUDIES
from tfdistill.utils.checks import UsageError

ROOT = Path(tfdistill.__file__).parents[1]


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_study_has_all_that_the_list_shows(study):
    assert study.__doc__ and study.TITLE and study.QUESTION.endswith("?") and study.SOURCE
    assert study.COMMANDS and all(study.COMMANDS.values())
    assert all(0 < accuracy < 1 for accuracy in study.PUBLISHED.values())


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_its_commands_name_files_that_are_there_and_are_of_this_study(study):
    for command in study.COMMANDS:
        path = shlex.split(command)[2]
        if path != "CONFIG":
            assert STUDIES[read_yaml(ROOT / path)["study"]] is study


def test_the_list_names_every_study_with_its_commands():
    text = list_studies.pages()
    for name, study in STUDIES.items():
        assert f"\n{name}\n" in f"\n{text}\n"
        assert all(command in text for command in study.COMMANDS)


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_shows_settings_with_defaults_within_eighty_columns(name):
    text = list_studies.page(name)
    assert max(map(len, text.splitlines())) <= 100
    if hasattr(STUDIES[name], "Settings"):
        assert all(f"  {key}:" in text for key in STUDIES[name].Settings.__dataclass_fields__)


def test_an_unknown_study_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="one of: .*mysteries.* Did you mean 'mysteries'"):
        list_studies.page("mystery")
