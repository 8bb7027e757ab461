"""Every committed configuration: its study plans it, and its comment says how to run it."""

import functools
from pathlib import Path

import pytest

import tfdistill
from tfdistill.cli import options
from tfdistill.config.registry import STUDIES
from tfdistill.training import runner

ROOT = Path(tfdistill.__file__).parents[1]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))


@functools.cache
def config_of(path):
    return options.study_config([str(path)])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
class TestEveryConfiguration:
    def test_every_run_comes_after_what_it_needs_and_has_a_name_of_its_own(self, path):
        seen = set()
        for run in runner.plan(config_of(path)):
            assert set(run.needs) <= seen
            assert run.name not in seen
            seen.add(run.name)
        assert len(seen) > 2 or path.parent.name == "teachers"  # one network, for studies

    def test_its_comment_names_its_cost_and_its_command(self, path):
        comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
        text = " ".join(line.lstrip("# ") for line in comment)
        assert "Cost" in text
        assert f" {path.relative_to(ROOT)}" in text

    def test_its_results_go_to_a_folder_of_their_own(self, path):
        assert config_of(path).output.startswith("results/")


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "single"])
def test_every_study_has_a_full_and_a_small_configuration(name):
    found = {path.stem for path in FILES if config_of(path).study == name}
    assert {"full", "small"} <= found
