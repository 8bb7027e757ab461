"""Completion in real shells: commands, options, choices and the keys of a study."""

import shutil
import subprocess

import pytest

from tfdistill.cli.main import main

pytestmark = pytest.mark.slow

TYPED = [
    ("tfdistill ex", "export"),
    ("tfdistill cache ver", "verify"),
    ("tfdistill run f --dr", "--dry-run"),
    ("tfdistill predict m a --for", "--format"),
    ("tfdistill predict m a --format js", "json"),
    ("tfdistill studies multi", "multi_view"),
    ("tfdistill run f --training.ep", "--training.epochs"),
    ("tfdistill run quickstart --training.ep", "--training.epochs"),  # a command's name, too
    ("tfdistill evaluate m --data.augment.fl", "--data.augment.flip"),
]
BASH = """\
source "$1"; complete -p tfdistill >/dev/null || exit 1; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tfdistill; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        with pytest.MonkeyPatch.context() as patch, open(folder / shell, "w") as file:
            patch.setattr("sys.stdout", file)
            assert main(["completion", shell]) == 0
    return folder


def printed(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(("typed", "completed"), TYPED)
def test_bash(scripts, typed, completed):
    assert printed("bash", "-c", BASH, "bash", scripts / "bash", *typed.split()) == [completed]


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
@pytest.mark.parametrize(("typed", "completed"), TYPED)
def test_fish(scripts, typed, completed):
    script = f"source {scripts / 'fish'}; complete -C '{typed}'"
    assert completed in printed("fish", "-c", script)


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_reads_it(scripts):
    assert printed("zsh", "-n", scripts / "zsh") == []


def test_zsh_has_commands_options_choices_and_keys(scripts):
    text = (scripts / "zsh").read_text()
    assert all(word in text for word in ("export:", "--dry-run", "(table json csv)"))
    assert "--training.epochs" in text and text.endswith("compdef _cyclopts_tfdistill tfdistill\n")
