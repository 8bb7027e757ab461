"""Formats by name: what the registry holds, and a new one from its line to the deployment table."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from tests import forked
from tfdistill.cli.main import main
from tfdistill.config import ExportConfig
from tfdistill.config.registry import EXPORT_FORMATS
from tfdistill.data.image_files import read
from tfdistill.export import study_exports, versions
from tfdistill.export.format import export_format, format_of, open_model
from tfdistill.export.isolated import Probe, ProbeError
from tfdistill.inference import predictions
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow

PLACE = "tests.export.zip_format:ZIP"


@pytest.fixture(scope="module")
def study(learning_speed, tmp_path_factory):
    """A finished study that has exported its student as a SavedModel and in the new format."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copytree(learning_speed, folder / "out")
    config = yaml.safe_load((folder / "out/config.yaml").read_text())
    export = {"formats": ["zip"], "name": "tiny", "check_images": 50}
    config |= {"output": str(folder / "out"), "export": export | {"folder": str(folder / "saved")}}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch, forked.probes():
        patch.setitem(EXPORT_FORMATS, "zip", PLACE)
        assert main(["run", str(path)]) == 0
    return folder


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(EXPORT_FORMATS, "zip", PLACE)


@pytest.fixture
def version(study):
    return study / "saved/tiny-student/1"


class TestANewFormat:
    def test_it_is_checked_against_the_network(self, version):
        [check] = versions.intact(version)["formats"]["zip"]["checks"]
        assert check["difference"] < check["tolerance"] == 1e-4
        assert (check["signature"], check["agreement"]) == ("serving_default", 1.0)

    def test_the_card_tells_of_it(self, version):
        card, page = versions.card_of(version), (version / "model_card.md").read_text()
        assert [file["path"] for file in card["formats"]["zip"]["files"]] == ["model.zip"]
        assert list(card["signatures"]["zip"]) == ["serving_default"]
        assert "| Zip | model.zip | " in page
        assert "Unpack `model.zip`, 8, 8, 1 pixels." in page
        assert "- It is larger once it is unpacked." in page

    def test_the_deployment_table_has_it(self, study):
        [table] = study_exports.tables(study / "out")
        assert [row[0] for row in table.rows] == ["teacher", "student", "student, Zip"]
        assert "student, Zip" in (study / "out/report.html").read_text()

    @pytest.mark.usefixtures("forked_probes")
    def test_images_are_classified_with_it(self, registered, study, version, tmp_path):
        from PIL import Image

        path = tmp_path / "image.png"
        Image.fromarray(np.full((8, 8), 99, np.uint8)).save(path)
        found = predictions.classify(version / "model.zip", [path], top=1)
        [answer] = list(found)
        with Probe(version) as probe:
            served = probe.answer(read(path, (8, 8, 1), None)[None])
        assert answer.top[0].name == served["class_name"][0]
        assert found.model.name == "model.zip" and found.model.runtime.title == "Zip"

    @pytest.mark.usefixtures("forked_probes")
    def test_a_file_that_is_none_is_refused_in_one_line(self, registered, tmp_path):
        path = tmp_path / "model.zip"
        path.write_bytes(b"no zip file")
        with pytest.raises(ProbeError, match=f"^Cannot read the model {path}: .+$"), Probe(path):
            pass


class TestUnregistered:
    def test_a_configuration_names_what_there_is(self):
        with pytest.raises(UsageError, match="one of: savedmodel, .*, onnx. Received: .*='zip'"):
            ExportConfig(["zip"])

    def test_a_name_is_refused(self):
        with pytest.raises(UsageError, match="^format must be one of: savedmodel, litert-float32"):
            export_format("zip")

    def test_a_file_is_refused(self, version):
        with pytest.raises(UsageError, match=r"^There is no model .*file \*.tflite or \*.onnx.$"):
            open_model(version / "model.zip")
        with pytest.raises(UsageError, match="or a .tflite, .onnx or .keras file. .*another kind"):
            predictions.classify(version / "model.zip", [version])


def test_names_are_those_of_the_registry():
    assert [one.name for one in EXPORT_FORMATS.values()] == list(EXPORT_FORMATS)


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.int8.tflite", "litert-int8"), ("a.onnx", "onnx"), ("a.tflite", None), ("a.txt", None)],
)
def test_a_files_name_tells_its_format(tmp_path, file, name):
    (tmp_path / file).touch()
    found = format_of(tmp_path / file)
    assert found is None if name is None else found.name == name


def test_names_are_checked_without_a_format_and_packages_without_tensorflow():
    program = (
        "import sys; from tfdistill.config import ExportConfig\n"
        "from tfdistill.config.registry import EXPORT_FORMATS\n"
        "config = ExportConfig(list(EXPORT_FORMATS))\n"
        "print([name for name in sys.modules if name.startswith('tfdistill.export')])\n"
        "config.check_packages()\n"
        "print([name for name in ('tensorflow', 'keras', 'onnx') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr
