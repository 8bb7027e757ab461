"""Exports from a finished study to files in place: real networks, real processes that check."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from tests import forked
from tests.conftest import MYSTERIES
from tfdistill import Distiller, Ensemble, data, export_network
from tfdistill.cli.main import main
from tfdistill.config import DataConfig, ExportConfig
from tfdistill.data.decode import fit
from tfdistill.export import exporter, study_exports, targets, versions
from tfdistill.export.isolated import Probe
from tfdistill.utils import checks

pytestmark = pytest.mark.slow

EXPORT = {"formats": ["litert-int8"], "name": "tiny", "check_images": 50}
DIGITS = DataConfig(source="digits", validation=100)


@pytest.fixture(scope="module")
def study(mysteries, tmp_path_factory):
    """A finished study that has exported its student, its teacher and their ensemble."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copytree(mysteries / "out", folder / "out")
    export = {**EXPORT, "folder": str(folder / "saved")}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**MYSTERIES, "output": str(folder / "out"), "export": export}))
    with forked.probes():
        assert main(["run", str(path)]) == 0
    return folder


def saved(study, name):
    return study / "saved" / name


class TestStudy:
    def test_student_teacher_and_ensemble_are_in_place_and_whole(self, study):
        for name in ("tiny-student", "tiny-teacher", "tiny-ensemble"):
            assert versions.versions(saved(study, name)) == [1]
            card = versions.intact(saved(study, name) / "1")
            assert card["name"] == name and f"tiny-{card['kind']}" == name

    def test_the_report_is_there_before_an_export_that_fails(self, study, tmp_path, capsys):
        shutil.copytree(study / "out", tmp_path / "out")
        (tmp_path / "out" / "report.html").unlink()
        (tmp_path / "file").touch()
        elsewhere = ["--output", tmp_path / "out", "--export.folder", tmp_path / "file"]
        assert main(["run", *map(str, [study / "tiny.yaml", *elsewhere])]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert (tmp_path / "out" / "report.html").exists()

    def test_only_the_student_has_the_other_formats(self, study):
        there = {path.parents[1].name: path.name for path in study.rglob("*.tflite")}
        assert there == {"tiny-student": "model.int8.tflite"}

    def test_the_best_student_by_validation_is_exported(self, study):
        found = [json.loads(path.read_text()) for path in study.glob("out/runs/*/record.json")]
        taught = [one for one in found if one["config"]["teachers"]]
        best = max(taught, key=lambda one: one["last"]["validation_accuracy"])
        card = versions.card_of(saved(study, "tiny-student") / "1")
        assert card["training"]["run"] == best["name"]
        assert card["figures"]["values"]["accuracy"] == best["last"]["test_accuracy"]

    def test_the_report_shows_the_deployment_table(self, study, capsys):
        assert main(["report", str(study / "out")]) == 0
        printed = capsys.readouterr().out
        page = (study / "out/report.html").read_text()
        for form in ("teacher", "ensemble", "student", "LiteRT int8"):
            assert form in page
        assert "Deployment" in printed and "LiteRT int8" in printed

    def test_the_same_command_exports_nothing_again(self, study):
        before = (study / "out/deployment.json").read_bytes()
        assert main(["run", str(study / "tiny.yaml")]) == 0
        assert versions.versions(saved(study, "tiny-student")) == [1]
        assert (study / "out/deployment.json").read_bytes() == before

    def test_a_finished_study_does_not_wait_for_tensorflow(self, study):
        script = (
            "import sys; from tfdistill.cli.main import main; status = main(sys.argv[1:])\n"
            "sys.exit(status or 10 * ('tensorflow' in sys.modules))"
        )
        command = [sys.executable, "-c", script, "run", study / "tiny.yaml"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def test_the_export_holds_no_variable_of_a_teacher(self, study):
        student = tf.train.list_variables(
            str(saved(study, "tiny-student") / "1/variables/variables")
        )
        record = json.loads(next(study.glob("out/runs/distilled-0/record.json")).read_text())
        values = sum(
            np.prod(shape, dtype=int) for name, shape in student if "VARIABLE_VALUE" in name
        )
        assert values == record["parameters"]

    @pytest.mark.usefixtures("forked_probes")
    def test_the_ensemble_answers_with_the_mean_of_its_members(self, study):
        found = targets.of_study(study / "out")
        ensemble = next(subject for subject in found if subject.kind == "ensemble")
        images = ensemble.images.test.images[:20]
        expected = np.mean(
            [
                keras.ops.softmax(
                    keras.models.load_model(study / f"out/runs/single-{seed}/last.keras")(images)
                )
                for seed in (0, 1)
            ],
            axis=0,
        )
        with Probe(saved(study, "tiny-ensemble") / "1") as probe:
            found = probe.answer(images)["probabilities"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.usefixtures("forked_probes")
def test_a_damaged_export_is_noticed_and_only_it_is_made_again(study, tmp_path):
    for name in ("out", "saved"):
        subprocess.run(["cp", "-r", study / name, tmp_path / name], check=True)
    broken = tmp_path / "saved/tiny-teacher/1/saved_model.pb"
    broken.write_bytes(broken.read_bytes()[:-1])
    config = ExportConfig(**EXPORT, folder=str(tmp_path / "saved"))
    study_exports.export_study(tmp_path / "out", config)
    found = {name: versions.versions(tmp_path / "saved" / name) for name in NAMES}
    assert found == {"tiny-student": [1], "tiny-teacher": [1, 2], "tiny-ensemble": [1]}
    assert versions.intact(tmp_path / "saved/tiny-teacher/2")


NAMES = ("tiny-student", "tiny-teacher", "tiny-ensemble")


@pytest.mark.parametrize("name", ["model_card.md", "labels.txt", "variables/variables.index"])
@pytest.mark.parametrize(
    "fault", [lambda path: path.write_bytes(path.read_bytes()[:-1]), Path.unlink]
)
def test_an_export_with_a_damaged_or_lost_file_is_not_whole(study, tmp_path, name, fault):
    shutil.copytree(study / "saved/tiny-student/1", tmp_path / "1")
    assert versions.intact(tmp_path / "1")
    fault(tmp_path / "1" / name)
    assert not versions.intact(tmp_path / "1")


class TestOneNetwork:
    @pytest.mark.usefixtures("forked_probes")
    def test_a_run_is_exported_under_the_names_of_study_and_run_for_images_of_any_size(
        self, study, tmp_path, capsys
    ):
        run = study / "out/runs/single-1"
        arguments = ["--folder", str(tmp_path / "saved"), "--check_images", "50", "--resize"]
        assert main(["export", str(run), *arguments]) == 0
        folder = tmp_path / "saved/out-single-1/1"
        assert versions.card_of(folder)["kind"] == "teacher"
        assert "savedmodel, bytes" in capsys.readouterr().out
        large = data.load(DIGITS).test.images[:3].repeat(5, axis=1).repeat(4, axis=2)
        with Probe(folder) as probe:
            answers = probe.answer(large)["logits"]
            expected = probe.answer(fit(large, 8))["logits"]
        np.testing.assert_allclose(answers, expected, atol=1e-5)

    @pytest.mark.usefixtures("forked_probes")
    def test_a_network_of_ones_own_needs_its_images(self, tmp_path, own_network, capsys):
        own_network.save(tmp_path / "own.keras")
        arguments = ["export", str(tmp_path / "own.keras"), "--folder", str(tmp_path / "saved")]
        assert main(arguments) == 2
        assert "its images are not known" in capsys.readouterr().err
        more = ["--data.source", "digits", "--data.validation", "100", "--check_images", "50"]
        assert main([*arguments, *more]) == 0
        card = versions.card_of(tmp_path / "saved/own/1")
        assert (card["kind"], card["figures"]["images"]) == ("network", 50)

    @pytest.mark.usefixtures("forked_probes")
    def test_a_distiller_is_exported_as_its_student_alone(self, tmp_path, own_network):
        teacher = keras.models.clone_model(own_network)
        distiller = Distiller(own_network, teacher, alpha=0.5, temperature=2.0)
        images = data.load(DIGITS)
        done = export_network(distiller, "mine", images, folder=str(tmp_path), check_images=50)
        assert done.folder == tmp_path / "mine/1"
        assert done.card["kind"] == "student"
        assert done.card["parameters"] == own_network.count_params()
        assert [check.agreement for check in done.checks] == [1.0, 1.0]


class TestRefusals:
    @pytest.mark.usefixtures("forked_probes")
    def test_a_format_that_differs_is_not_put_in_place(self, tmp_path, own_network):
        # Beyond the largest float16, 65504, weights become infinite.
        first, last = own_network.layers[-2:]
        first.set_weights([weight * 1e-7 for weight in first.get_weights()])
        last.set_weights([weight * 1e7 for weight in last.get_weights()])
        own_network.save(tmp_path / "own.keras")
        subject = targets.of_path(tmp_path / "own.keras", DIGITS)
        config = ExportConfig(["litert-float16"], folder=str(tmp_path / "saved"), check_images=50)
        with pytest.raises(checks.Refused, match="litert-float16 .* differs from the network by"):
            exporter.export(subject, "own", config)
        assert not (tmp_path / "saved").exists()

    def test_a_disk_without_room_is_one_line(self, tmp_path, own_network, disk):
        own_network.save(tmp_path / "own.keras")
        subject = targets.of_path(tmp_path / "own.keras", DIGITS)
        for size in ("4k", "64k"):  # seen before anything is written, and while it is written
            folder = disk(size)
            config = ExportConfig(folder=str(folder / "saved"), check_images=50)
            with pytest.raises(checks.UsageError, match="There is no room for the export in"):
                exporter.export(subject, "own", config)
            assert list(folder.iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--formats", "tflite"], "formats must be one of: savedmodel, litert-float32"),
            (["--name", "a/b"], "name must be one folder's name"),
            (["--check_images", "0"], "check_images must be a whole number, at least 1"),
            (["--colour", "red"], "unknown key 'colour'"),
        ],
    )
    def test_a_wrong_option_is_one_line(self, study, capsys, arguments, said):
        assert main(["export", str(study / "out"), *arguments]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1

    def test_a_missing_package_is_named_before_anything_is_done(self, study, tmp_path):
        script = (
            "import sys; sys.modules['tf2onnx'] = None\n"
            "from tfdistill.cli.main import main; sys.exit(main(sys.argv[1:]))"
        )
        export = ["export", study / "out", "--formats", "onnx", "--folder", tmp_path / "saved"]
        done = subprocess.run(
            [sys.executable, "-c", script, *export], capture_output=True, text=True
        )
        assert done.returncode == 2
        assert 'pip install "tfdistill[onnx]"' in done.stderr
        assert not (tmp_path / "saved").exists()

    def test_a_path_without_a_network_is_one_line(self, tmp_path):
        with pytest.raises(checks.UsageError, match="nothing to export"):
            targets.of_path(tmp_path / "no.keras", DIGITS)

    def test_a_study_without_a_student_is_one_line(self, tmp_path):
        with pytest.raises(checks.UsageError, match="no finished student"):
            targets.of_study(tmp_path)


class TestFloat32:
    def test_a_network_of_mixed_precision_keeps_its_weights(self, mixed_network):
        whole = exporter.in_float32(mixed_network)
        kinds = {layer.compute_dtype for layer in whole.layers}
        assert kinds == {"float32"}
        for one, other in zip(whole.get_weights(), mixed_network.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
        half = keras.ops.convert_to_numpy(mixed_network(images))
        np.testing.assert_allclose(whole(images), half, atol=0.05)

    def test_members_of_an_ensemble_are_changed_too(self, mixed_network):
        whole = exporter.in_float32(Ensemble([mixed_network, mixed_network]))
        assert {layer.compute_dtype for layer in whole.members[0].layers} == {"float32"}

    def test_a_network_in_float32_is_left_as_it_is(self, own_network):
        assert exporter.in_float32(own_network) is own_network


@pytest.fixture
def own_network():
    return network("float32")


@pytest.fixture
def mixed_network():
    return network("mixed_float16")


def network(dtype):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255, dtype=dtype),
            layers.Conv2D(4, 3, dtype=dtype),
            layers.BatchNormalization(dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(16, activation="relu", dtype=dtype),
            layers.Dense(10, dtype=dtype),
        ]
    )
