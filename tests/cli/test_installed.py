"""What is installed is enough: the wheel has all configurations, and commands find them."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tfdistill.cli import options
from tfdistill.cli.commands import quickstart
from tfdistill.cli.main import main
from tfdistill.config import read_yaml, schema

ROOT = Path(__file__).parents[2]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_wheel_runs_without_the_checkout(tmp_path):
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*wheel, "--wheel-dir", str(tmp_path / "built"), str(ROOT)], check=True)
    (file,) = (tmp_path / "built").glob("*.whl")
    with zipfile.ZipFile(file) as packed:
        names = set(packed.namelist())
        packed.extractall(tmp_path / "installed")
    for configuration in (ROOT / "configs").rglob("*.yaml"):
        assert f"tfdistill/{configuration.relative_to(ROOT)}" in names
    assert {"tfdistill/config/schema.json", "tfdistill/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
    (tmp_path / "empty").mkdir()
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "tfdistill", "run", "quickstart", "--dry-run"],
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert "41 runs" in answer.stdout and "results/quickstart" in answer.stdout
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize(
    "name", ["quickstart", "configs/quickstart.yaml", "quickstart.yaml", "mysteries/small"]
)
def test_configurations_that_come_along_are_found_by_name(elsewhere, name):
    found = options.study_config([name])
    assert found.output == f"results/{'quickstart' if 'quick' in name else 'mysteries-small'}"


def test_a_file_of_the_users_own_goes_before(elsewhere):
    Path("quickstart").write_text("study: mysteries\nseeds: [7]\n")
    assert options.study_config(["quickstart"]).seeds == [7]


def test_an_unknown_name_is_answered_with_those_that_there_are(elsewhere, capsys):
    for name in ("mysteries/smal", "../configs/quickstart", "/none/quickstart"):
        assert main(["run", name]) == 2
        error = capsys.readouterr().err
        assert name in error and "`tfdistill studies` has them" in error
        assert ("Did you mean 'mysteries/small'?" in error) == (name == "mysteries/smal")


def test_init_writes_a_commented_configuration_that_runs(elsewhere, capsys):
    assert main(["init", "mine"]) == 0
    assert "tfdistill run mine/study.yaml" in capsys.readouterr().out
    text = Path("mine/study.yaml").read_text()
    first, comment, *_ = text.splitlines()
    assert first == f"# yaml-language-server: $schema={schema.FILE}" and comment.startswith("# ")
    assert yaml.safe_load(text) == read_yaml(ROOT / "configs" / "quickstart.yaml")
    assert main(["run", "mine/study.yaml", "--dry-run"]) == 0
    capsys.readouterr()
    assert main(["init", "mine"]) == 2
    assert "mine/study.yaml is there already" in capsys.readouterr().err
    assert main(["init", "other", "--like", "sweeps/digits"]) == 0
    assert main(["init", "third", "--like", "nothing"]) == 2
    assert not Path("third").exists()


def test_quickstart_is_the_study_of_that_name():
    assert options.study_config(["quickstart", "--seeds", "[3]"], quickstart).seeds == [3]
    assert {line for line in options.shipped()} >= {"quickstart", "label_free/small"}
