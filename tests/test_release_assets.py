"""What a release offers of a study: a network that Keras alone loads, and a card that is true."""

import hashlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from PIL import Image

from tests import forked
from tests.conftest import MYSTERIES
from tfdistill import data, records
from tfdistill.cli.main import main
from tfdistill.config import DataConfig, StudyConfig, build

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[1] / "scripts/release_assets.py"
RUN = "distilled-0"
# A process that cannot import tfdistill.
ALONE = """
import importlib.util, json, sys
sys.path = [place for place in sys.path if place]
import keras, numpy
assert not any(name.partition(".")[0] == "tfdistill" for name in sys.modules)
network = keras.saving.load_model(sys.argv[1])
print(json.dumps(network.predict(numpy.load(sys.argv[2]), verbose=0).argmax(1).tolist()))
"""


def release(*arguments):
    return runpy.run_path(str(PROGRAM))["main"](list(map(str, arguments)))


def lines_of(page):
    """The two columns of a card's first table, by the first."""
    return dict(re.findall(r"^\| ([^|`]+) \| ([^|]+) \|$", page, re.MULTILINE))


@pytest.fixture(scope="module")
def assets(mysteries, tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    with forked.probes():
        options = "--licence", "Apache-2.0", "--int8", "--output", folder
        assert release(mysteries / "out", RUN, *options) == 0
    return folder


def test_keras_alone_loads_the_network(assets, mysteries, tmp_path):
    file = assets / f"out-{RUN}.keras"
    assert file.stat().st_size < 1_000_000
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", ALONE, file, tmp_path / "images.npy"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    here = keras.saving.load_model(file)  # with tfdistill imported
    assert json.loads(done.stdout) == here.predict(images, verbose=0).argmax(1).tolist()
    record = records.read(records.run_folder(mysteries / "out", RUN))
    digits = data.load(DataConfig("digits", validation=100)).test
    right = here.predict(digits.images, verbose=0).argmax(1) == digits.labels
    assert right.mean() == pytest.approx(record.figures["test_accuracy"], abs=1e-6)


@pytest.mark.parametrize("kind", ["keras", "tflite"])
def test_predict_answers(kind, assets, tmp_path, capsys):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "black.png")
    file, image = assets / f"out-{RUN}.{kind}", tmp_path / "black.png"
    assert main(["predict", str(file), str(image), "--format", "json"]) == 0
    assert re.search(r'"class": "\d"', capsys.readouterr().out)


def test_the_card_says_what_the_records_say(assets, mysteries):
    page = (assets / f"out-{RUN}.md").read_text("utf-8")
    record = records.read(records.run_folder(mysteries / "out", RUN))
    said = lines_of(page)
    right, count = round(record.figures["test_accuracy"] * 797), 797
    assert said["test accuracy"].startswith(f"{100 * right / count:.2f} % of 797 images")
    # Wilson's interval, from its formula.
    z, p = 1.959964, right / count
    middle = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (p * (1 - p) / count + z**2 / (4 * count**2)) ** 0.5
    interval = f"{100 * (middle - half):.2f} % to {100 * (middle + half):.2f} %"
    assert interval in said["test accuracy"]
    assert said["licence of the weights"] == "Apache-2.0"
    assert said["licence of the data"].startswith("CC BY 4.0")
    assert said["data"] == "digits: 200 training, 100 validation, 797 test images"
    assert said["teachers"].startswith("2 of cnn2 (width 0.125), 666 weights, test accuracy ")
    for file in assets.glob("out-*.[kt]*"):
        sha = hashlib.sha256(file.read_bytes()).hexdigest()
        assert f"| `{file.name}` | {file.stat().st_size:,} | `{sha}` |" in page
    assert len(list(assets.iterdir())) == 3


def test_the_card_has_the_study_that_makes_it_again(assets, mysteries):
    page = (assets / f"out-{RUN}.md").read_text("utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert build(StudyConfig, yaml.safe_load(text)) == build(StudyConfig, MYSTERIES)
    assert len(text.splitlines()) < 25


@pytest.mark.parametrize(
    ("runs", "what"),
    [
        (["distilled-9"], "nothing to export"),
        ([RUN, "ensemble"], "left no file"),
    ],
)
def test_of_runs_that_cannot_be_released_nothing_is_left(runs, what, mysteries, tmp_path, capsys):
    folder = tmp_path / "assets"
    assert release(mysteries / "out", *runs, "--licence", "none", "--output", folder) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert what in line
    assert not folder.exists()


def test_a_file_that_is_not_the_measured_one_is_not_released(mysteries, tmp_path, capsys):
    study = tmp_path / "out"
    shutil.copytree(mysteries / "out", study, ignore=shutil.ignore_patterns("cache"))
    file = study / "runs" / RUN / "best.keras"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert release(study, RUN, "--licence", "none", "--output", tmp_path / "assets") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "best.keras" in line
    assert not (tmp_path / "assets").exists()


def test_what_is_there_is_kept(assets, mysteries, capsys):
    before = {file: file.read_bytes() for file in assets.iterdir()}
    assert release(mysteries / "out", RUN, "--licence", "none", "--output", assets) == 2
    assert "is there" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in assets.iterdir()} == before
