"""Images and a trained network to a student, by one command."""

import json
import re
import shutil

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from sklearn.datasets import load_digits

from tfdistill import records
from tfdistill.cli.main import main

QUICK = ["--student", "cnn2", "--epochs", "1", "--seeds", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos of three digits, and a teacher that was trained on five others."""
    folder = tmp_path_factory.mktemp("distill")
    x, y = load_digits(return_X_y=True)
    x = np.round(x * 255 / 16).reshape(-1, 8, 8, 1).astype("uint8")
    x = np.repeat(np.kron(x, np.ones((1, 2, 2, 1), "uint8")), 3, axis=-1)  # 16 x 16, RGB
    for digit, name in ((7, "seven"), (8, "eight"), (9, "nine")):
        (folder / "photos" / name).mkdir(parents=True)
        for number, image in enumerate(x[y == digit][:40]):
            Image.fromarray(image).save(folder / "photos" / name / f"{number}.png")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    h = layers.Flatten()(layers.AveragePooling2D(2)(layers.Rescaling(1 / 255)(inputs)))
    h = layers.Dense(32, activation="relu")(h)
    network = keras.Model(inputs, layers.Dense(5, activation="softmax")(h))
    network.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    network.fit(x[y < 5], y[y < 5], epochs=5, verbose=0)
    network.save(folder / "teacher.keras")
    return folder


def distill(place, output, *more):
    teacher = str(place / "teacher.keras")
    given = [str(place / "photos"), "--teacher", teacher, "--output", str(output)]
    return main(["distill", *given, *QUICK, *more])


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_teacher_without_the_classes_gets_a_new_head_and_teaches(place, tmp_path, capsys):
    assert distill(place, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "with a new head, fitted to 86 labelled images" in printed
    assert "3 classes; 86 training, 10 validation, 24 test images" in printed
    found = {record.name: record for record in records.read_all(tmp_path / "out")}
    assert sorted(found) == ["alone-0", "distilled-0", "teacher"]
    assert found["teacher"].figures["test_accuracy"] > 0.6
    assert (tmp_path / "out" / "report.html").exists()
    before = (tmp_path / "out" / "teacher.keras").read_bytes()

    assert distill(place, tmp_path / "out") == 0  # the same command goes on
    assert "All 3 runs were finished before" in capsys.readouterr().out
    assert (tmp_path / "out" / "teacher.keras").read_bytes() == before

    (place / "photos" / "nine" / "39.png").rename(tmp_path / "39.png")
    try:
        assert distill(place, tmp_path / "out") == 2
        assert "teacher of other images" in capsys.readouterr().err
    finally:
        (tmp_path / "39.png").rename(place / "photos" / "nine" / "39.png")


def test_no_workers_are_refused_before_anything_is_read(place, tmp_path, capsys):
    assert distill(place, tmp_path / "out", "--workers", "0") == 2
    assert "workers must be a whole number, at least 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_outputs_are_picked_or_kept_where_they_are_asked_for(place, tmp_path, capsys):
    assert distill(place, tmp_path / "out", "--classes", "4,2,0", "--dry-run") == 0
    assert "3 of its 5 outputs" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert distill(place, tmp_path / "results" / "out", "--head", "new", "--dry-run") == 0
    assert "with a new head, fitted to" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_images_without_labels_are_taught_and_the_control_makes_as_many_steps(
    place, tmp_path, capsys
):
    (tmp_path / "more" / "deep").mkdir(parents=True)
    for number, path in enumerate(sorted((place / "photos").rglob("*.png"))[:60]):
        image = np.asarray(Image.open(path)).copy()
        image[0, 0] = 255 - number  # not the labelled images again
        Image.fromarray(image).save(tmp_path / "more" / "deep" / f"{number}.png")
    given = ["--unlabelled", str(tmp_path / "more"), "--epochs", "2"]
    assert distill(place, tmp_path / "out", *given) == 0
    printed = capsys.readouterr().out
    assert re.search(r"training \(60 without labels\)", printed), printed
    found = {record.name: record for record in records.read_all(tmp_path / "out")}
    steps = {name: record.config["training"]["steps"] for name, record in found.items()}
    assert steps["distilled-0"] == steps["alone-0"] == 6  # of 50 of 146 images, twice
    assert found["alone-0"].config["data"]["unlabelled"] is None


@pytest.mark.parametrize(
    "more, line",
    [
        (["--head", "keep"], "5 outputs for 3 classes. Name its outputs with --classes"),
        (["--classes", "1,2"], "for each of 3 classes. Received: 2"),
        (["--image_size", "32"], "same images"),
        (["--student", "cnn22"], "cnn22"),
        (["--seeds", "0"], "seeds must be"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(place, tmp_path, capsys, more, line):
    assert distill(place, tmp_path / "out", *more) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("tfdistill: error:") and line in error
    assert not (tmp_path / "out").exists()


def test_photos_or_a_teacher_that_are_not_there(place, tmp_path, capsys):
    given = ["--teacher", str(place / "teacher.keras")]
    assert main(["distill", str(tmp_path / "absent"), *given]) == 2
    assert "Images must be a folder" in capsys.readouterr().err
    assert main(["distill", str(place / "photos"), "--teacher", "absent.keras"]) == 2
    assert "does not exist" in capsys.readouterr().err
    one = tmp_path / "one"
    shutil.copytree(place / "photos" / "nine", one / "nine")
    assert main(["distill", str(one), *given]) == 2
    assert "at least 2 classes" in capsys.readouterr().err
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == '["one"]'
