"""`tfdistill distill` with a teacher of KerasHub or keras.applications, from files."""

import keras
import keras_hub
import numpy as np
import pytest
from PIL import Image

from tfdistill import records
from tfdistill.cli.main import main


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 30 images of 24 pixels, dark or bright."""
    folder = tmp_path_factory.mktemp("published") / "photos"
    random = np.random.default_rng(0)
    for name, least in (("bright", 120), ("dark", 0)):
        (folder / name).mkdir(parents=True)
        for number in range(15):
            pixels = random.integers(least, least + 130, (24, 24, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def distill(photos, teacher, output, *more):
    given = ["--student", "cnn2", "--epochs", "1", "--seeds", "1", "--output", str(output)]
    return main(["distill", str(photos), "--teacher", teacher, *given, *more])


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_preset_of_keras_hub_gets_a_new_head_and_teaches(photos, tmp_path, capsys):
    converter = keras_hub.layers.ResNetImageConverter(image_size=(24, 24), scale=1 / 64)
    backbone = keras_hub.models.ResNetBackbone([64], [3], [64], [1], [1], block_type="basic_block")
    preprocessor = keras_hub.models.ResNetImageClassifierPreprocessor(converter)
    task = keras_hub.models.ResNetImageClassifier(backbone, 5, preprocessor=preprocessor)
    task.save_to_preset(tmp_path / "preset")
    for printed in ("with a new head, fitted to", "All 3 runs were finished before"):
        assert distill(photos, f"hub:{tmp_path / 'preset'}", tmp_path / "out") == 0
        assert printed in capsys.readouterr().out
    found = {record.name: record for record in records.read_all(tmp_path / "out")}
    assert sorted(found) == ["alone-0", "distilled-0", "teacher"]
    assert found["teacher"].figures["test_accuracy"] == 1.0
    assert (tmp_path / "out" / "hub-preset.keras").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_network_of_keras_applications_gets_a_new_head(photos, tmp_path, capsys):
    file = tmp_path / "random.weights.h5"
    keras.applications.MobileNet(weights=None).save_weights(file)
    teacher = f"keras:MobileNet={file}"
    assert distill(photos, teacher, tmp_path / "out", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "keras-MobileNet.keras with a new head" in printed
    assert "the teacher sees 224 pixels" in printed


@pytest.mark.parametrize(
    "teacher, line",
    [
        ("hub:absent", "absent"),
        ("keras:MobileNetV22", "Did you mean 'MobileNetV2'?"),
        pytest.param("keras:MobileNetV2=absent.h5", "is not a file", marks=pytest.mark.slow),
        ("absent.keras", "keras:NAME, hub:PRESET or train:NAME"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_one_line(photos, tmp_path, capsys, teacher, line):
    assert distill(photos, teacher, tmp_path / "out") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("tfdistill: error:") and line in error
    assert not (tmp_path / "out").exists()
