"""`tfdistill.distill` in Python: arrays, data sets, networks in memory, images without labels."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image
from sklearn.datasets import load_digits

import tfdistill
from tfdistill import data
from tfdistill.config import DataConfig
from tfdistill.models import saved
from tfdistill.recipes import inputs
from tfdistill.recipes.plan import Wish, prepare
from tfdistill.training import study_folder
from tfdistill.utils.checks import UsageError
from tfdistill.utils.progress import Silent

QUICK = {"student": "cnn2", "epochs": 1, "seeds": 1, "verbose": False}


@pytest.fixture(scope="module")
def digits():
    """Images `[n, 8, 8, 1]` uint8 and labels of the digits 0 to 2."""
    x, y = load_digits(n_class=3, return_X_y=True)
    return np.round(x * 255 / 16).reshape(-1, 8, 8, 1).astype("uint8"), y


@pytest.fixture(scope="module")
def teacher(digits):
    """A network to probabilities of the digits, better than chance by far."""
    keras.utils.set_random_seed(0)
    inputs_ = keras.Input((8, 8, 1))
    h = layers.Dense(32, activation="relu")(layers.Flatten()(layers.Rescaling(1 / 255)(inputs_)))
    network = keras.Model(inputs_, layers.Dense(3, activation="softmax")(h))
    network.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    network.fit(*digits, epochs=5, verbose=0)
    return network


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")  # docs/distilling_photos.md does it in a graph
def test_arrays_and_a_network_give_a_student_and_the_call_resumes(digits, teacher, tmp_path):
    digits = tuple(part[:180] for part in digits)
    more = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    given = {"output": tmp_path / "out", "unlabelled": more, **QUICK}
    found = tfdistill.distill(digits, teacher, **given)
    assert sorted(found.accuracy) == ["student", "student alone", "teacher"]
    assert found.accuracy["teacher"] > 0.9 and found.report.is_file()
    student = found.student()
    assert student.input_shape == (None, 8, 8, 1) and student.output_shape == (None, 3)
    weights = found.best.weights
    assert tfdistill.distill(digits, teacher, **given).best.weights == weights


def test_a_teacher_that_numbers_the_classes_otherwise_is_refused_where_few_images_validate(
    digits, teacher, tmp_path
):
    """Sixty images, of which six validate: those with labels tell."""
    x, y = digits
    with pytest.raises(UsageError, match=r"another order.*Set classes: \[1, 2, 0\]"):
        tfdistill.distill((x[:60], (y[:60] + 2) % 3), teacher, output=tmp_path / "out", **QUICK)


def test_fewer_labelled_images_than_a_usual_batch_make_a_smaller_one(digits, teacher, tmp_path):
    x, y = digits
    wish = Wish((x[:60], y[:60]), teacher, tmp_path / "out", "cnn2", unlabelled=x[60:], epochs=3)
    training = prepare(wish, Silent()).training
    # 43 of the 60 train: the others validate or test; a pass over them and 477 more is 13 steps.
    assert (training.batch_size, training.steps) == (43, 39)


def test_a_data_set_is_read_as_its_arrays_are(digits, tmp_path):
    x, y = digits
    for name, dataset in {
        "single": tf.data.Dataset.from_tensor_slices((x, y)),
        "batched": tf.data.Dataset.from_tensor_slices((x, y)).batch(32),
        "columns": tf.data.Dataset.from_tensor_slices((x, y[:, None])),
        "batched columns": tf.data.Dataset.from_tensor_slices((x, y[:, None])).batch(32),
    }.items():
        source = inputs.source_of(dataset, tmp_path / name)
        images = data.load(DataConfig(source))
        known = data.load(DataConfig(inputs.source_of(digits, tmp_path / "arrays")))
        assert images.hashes == known.hashes
        assert len(images.test) == round(0.2 * len(x))


@pytest.mark.parametrize(
    "images, line",
    [
        (np.zeros((4, 8, 8, 1), "uint8"), "a pair of arrays"),
        (([[1]], [0]), "uint8"),
        (tf.data.Dataset.from_tensor_slices(np.zeros((4, 8, 8, 1))), "pairs"),
        (tf.data.Dataset.from_tensors((np.zeros((8, 8, 1)), 0)).repeat(), "must end"),
        (
            tf.data.Dataset.from_tensors((np.zeros((8, 8, 1)), np.eye(10)[3])),
            r"number of each one's class, batched or not. Received: \(8, 8, 1\) and \(10,\)",
        ),
        (tf.data.Dataset.from_tensors(({"image": np.zeros((8, 8, 1))}, 3)), "pairs"),
        (
            tf.data.Dataset.range(2, 4).map(lambda side: (tf.zeros([side, 2, 1], tf.uint8), 0)),
            r"of one size. Received: \(2, 2, 1\) and \(3, 2, 1\)",
        ),
        ("", "must be a folder"),
        ("no/such/folder", "must be a folder"),
    ],
)
def test_what_is_no_image_is_refused(images, line, teacher, tmp_path):
    with pytest.raises(UsageError, match=line):
        tfdistill.distill(images, teacher, output=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


def unlabelled(more, folder):
    """Return the images that what is given as such stands for."""
    return np.load(inputs.unlabelled_of(more, folder))["x"]


def test_images_without_labels_are_an_array_or_a_data_set_batched_or_not(digits, tmp_path):
    x = digits[0][:7]
    dataset = tf.data.Dataset.from_tensor_slices(x)
    for more in (x, list(x), dataset, dataset.batch(3)):
        np.testing.assert_array_equal(unlabelled(more, tmp_path), x)
    for wrong in ((x, [0] * 7), "", tf.data.Dataset.from_tensor_slices((x, x)), dataset.repeat()):
        with pytest.raises(UsageError, match="unlabelled must be|must end"):
            unlabelled(wrong, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"teacher": lambda images: images}, "must be a keras.Model.*Received: function"),
        ({"student": layers.Dense(3)}, "must be a keras.Model.*Received: Dense"),
        ({"student": keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten()])}, "64 of .*out"),
        ({"teacher": ""}, "The teacher must be a .keras file.*''"),
        ({"classes": [0, 1, 3]}, "0..2. Received: classes=3"),
        ({"classes": ["a", "b", "c"]}, "names are not known"),
        ({"student_size": 0}, "student_size must be a whole number, at least 1"),
        ({"image_size": -8}, "image_size must be a whole number, at least 1"),
        ({"unlabelled": np.zeros((0, 8, 8, 1), "uint8")}, "must hold images"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_trained(
    digits, teacher, changes, line, tmp_path
):
    given = {"photos": digits, "teacher": teacher, "student": "cnn2", **changes}
    with pytest.raises(UsageError, match=line):
        prepare(Wish(output=tmp_path / "out", **given), Silent())
    assert not (tmp_path / "out").exists()


def test_results_go_where_they_can_be_written_and_not_among_the_images(loose, teacher, tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "deep" / "out"):
        with pytest.raises(
            UsageError, match=f"Cannot write to {output}: {tmp_path}/file is a file"
        ):
            prepare(Wish(loose, teacher, output, "cnn2"), Silent())
    for output in (loose, loose / "out"):
        with pytest.raises(UsageError, match="must lie outside the images' folder"):
            prepare(Wish(loose, teacher, output, "cnn2"), Silent())
    assert {path.suffix for path in loose.iterdir()} == {".png"}


def test_what_a_study_was_begun_with_is_not_written_over(digits, teacher, tmp_path):
    out = tmp_path / "out"
    wish = Wish(digits, teacher, out, "cnn2", unlabelled=digits[0][:9])
    begun = prepare(wish, Silent())
    study_folder.write_config(begun, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = keras.models.clone_model(teacher)
    for changes in (
        {"teacher": other},
        {"photos": (digits[0][::-1], digits[1][::-1])},
        {"unlabelled": digits[0][:8]},
        {"head": "new"},
        {"epochs": 2},
    ):
        with pytest.raises(UsageError, match=r"begun with another|results of another config"):
            prepare(dataclasses.replace(wish, **changes), Silent())
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert prepare(wish, Silent()) == begun


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_new_head_is_found_again_and_made_again_where_it_is_cut(digits, teacher, tmp_path):
    few = tuple(part[:120] for part in digits)
    wish = Wish(few, teacher, tmp_path / "out", "cnn2", head="new")
    first = prepare(wish, Silent())
    made = (tmp_path / "out" / "teacher.keras").read_bytes()
    assert prepare(wish, Silent()) == first
    assert (tmp_path / "out" / "teacher.keras").read_bytes() == made
    weights = saved.whole(tmp_path / "out" / "teacher.keras").get_weights()
    for name in ("teacher.keras", "teacher.json"):
        path = tmp_path / "out" / name
        path.write_bytes(path.read_bytes()[:99])
        assert prepare(wish, Silent()) == first
        again = saved.whole(tmp_path / "out" / "teacher.keras").get_weights()
        for one, other in zip(weights, again, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("more", ["x_train", "y_train"])
def test_a_file_of_arrays_says_what_it_lacks(more, tmp_path):
    np.savez(tmp_path / "some.npz", **{more: np.zeros((4, 8, 8), "uint8")})
    lacking = {"x_train": "y_train", "y_train": "x_train"}[more]
    with pytest.raises(UsageError, match=f"Received: {more}. Add {lacking}"):
        data.load(DataConfig(f"npz:{tmp_path / 'some.npz'}"))
    (tmp_path / "junk.npz").write_bytes(b"PK junk")
    with pytest.raises(UsageError, match="cannot be read"):
        data.load(DataConfig(f"npz:{tmp_path / 'junk.npz'}"))


@pytest.fixture(scope="module")
def loose(digits, tmp_path_factory):
    """A folder of images without classes, and a teacher's file of images as they are."""
    folder = tmp_path_factory.mktemp("loose")
    for number, image in enumerate(digits[0][:90]):
        Image.fromarray(np.repeat(image, 3, axis=-1)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def colour_teacher(teacher, tmp_path_factory):
    shown = keras.Input((8, 8, 3))
    network = keras.Model(shown, teacher(shown[..., :1]))
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    network.save(path)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_images_without_any_label_are_judged_by_agreement(loose, colour_teacher, digits, tmp_path):
    found = tfdistill.distill(loose, colour_teacher, output=tmp_path / "out", **QUICK)
    assert found.accuracy["teacher"] == 1.0  # its answers are the labels
    page = found.report.read_text()
    assert "No image has a label" in page and "Its answers: " in page
    rows = (tmp_path / "out" / "answers.csv").read_text().splitlines()
    answers = [int(row.split(",")[-1].strip('"')) for row in rows[1:]]
    assert np.mean(np.array(answers) == digits[1][:90]) > 0.9
    assert found.best.config["distillation"]["alpha"] == 1.0


def test_without_labels_a_teacher_of_other_classes_is_refused(loose, tmp_path):
    inputs_ = keras.Input((8, 8, 3))
    h = layers.Dense(2, bias_initializer=keras.initializers.Constant([0.0, 1e4]))
    network = keras.Model(inputs_, h(layers.Flatten()(layers.Rescaling(0.0)(inputs_))))
    path = tmp_path / "one.keras"
    network.save(path)
    with pytest.raises(UsageError, match="must name two classes or more.* It named: 1 90"):
        prepare(Wish(loose, path, tmp_path / "out", "cnn2"), Silent())
    assert not (tmp_path / "out").exists()


def test_a_finished_run_is_a_teacher(tmp_path):
    (tmp_path / "run").mkdir()
    assert inputs.finished_run(tmp_path / "run") == tmp_path / "run"
    with pytest.raises(UsageError, match="a finished run, keras:NAME.*which does not exist"):
        prepare(Wish("digits", tmp_path / "absent", tmp_path / "out"), Silent())


def test_what_is_no_teacher_says_where_one_is(tmp_path):
    for place in ("export/9/saved_model.pb", "study/runs/alone-0/record.json", "weights.pt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    for name, problem in {
        "export": f"a folder of SavedModels: give one, such as {tmp_path}/export/9",
        "study": f"a folder of runs: give one, such as {tmp_path}/study/runs/alone-0",
        "weights.pt": "another kind of file",
    }.items():
        with pytest.raises(UsageError, match=f"The teacher must be .*{problem}"):
            prepare(Wish("digits", tmp_path / name, tmp_path / "out"), Silent())


def test_images_smaller_than_the_teacher_sees_are_told(loose):
    assert inputs.smaller(loose, 8) == ""
    said = inputs.smaller(loose, 16)
    assert said.startswith("90 of 90 images that were looked at are smaller than the 16 pixels")
    assert inputs.smaller("tfds:cifar10", 224) == ""
