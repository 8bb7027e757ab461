"""A network that was trained on pixels of another range than 0..255 is noticed at every door."""

import keras
import numpy as np
import pytest
from keras import layers

from tfdistill import UsageError, data, distill, export_network, models
from tfdistill.cli.evaluate import table
from tfdistill.config import DataConfig, ModelConfig, StudyConfig, TrainingConfig
from tfdistill.models.pixel_range import affine, from_pixels
from tfdistill.training import evaluation
from tfdistill.training.heads import new_head
from tfdistill.training.range_check import check_range
from tfdistill.training.runner import run_study
from tfdistill.training.tasks.one_class import OneClass
from tfdistill.utils.pixels import FULL, MODES

ONE_CLASS = OneClass()
DIGITS = DataConfig("digits", validation=100)
WRONG = r"is right on \d+% of \d+ images where it sees pixels as 0..255, and on \d+% where as 0..1"


class Within(keras.Model):
    """A subclassed network around another."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def call(self, x):
        return self.network(x)


@pytest.fixture(scope="module")
def images():
    return data.load(DIGITS)


@pytest.fixture(scope="module")
def unit(images, tmp_path_factory):
    """A network of digits that was trained on pixels of 0..1, and its file."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    # Waves, so that pixels of another range are not just brighter ones.
    waves = keras.ops.sin(3.0 * layers.Flatten()(inputs))
    hidden = layers.Dense(32, activation="relu")(waves)
    network = keras.Model(inputs, layers.Dense(10)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.01), loss)
    network.fit(images.train.images / 255.0, images.train.labels, epochs=8, verbose=0)
    path = tmp_path_factory.mktemp("unit") / "unit.keras"
    network.save(path)
    return network, path


def expecting(network, pixel_range, channels):
    """Return a network that expects pixels in a range, and answers as another of 0..255."""
    matrix, shift = affine(pixel_range, channels)
    back = layers.Dense(channels)
    inputs = keras.Input((8, 8, channels))
    changed = keras.Model(inputs, network(back(inputs)))
    back.set_weights([np.linalg.inv(matrix), -shift @ np.linalg.inv(matrix)])
    return changed


@pytest.mark.parametrize("right", [FULL, (0.0, 1.0), (-1.0, 1.0), *MODES])
@pytest.mark.parametrize("seen", [FULL, (0.0, 1.0), "torch"])
def test_what_a_network_expects_is_named(images, unit, right, seen):
    # Of the three channels the network looks at the red one; the others are other ways up.
    grey = images.test.images[:150].astype("float32")
    x, y = np.concatenate([grey, grey[:, ::-1], grey[:, :, ::-1]], -1), images.test.labels[:150]
    inputs = keras.Input((8, 8, 3))
    known = keras.Model(inputs, from_pixels(unit[0], (0, 1))(inputs[..., :1]))
    expects = expecting(known, right, 3)

    def answers(network):
        return network.predict_on_batch(x).argmax(axis=-1) == y

    assert answers(from_pixels(expects, right)).mean() > 0.85
    built = from_pixels(expects, seen)
    if right == seen:
        check_range("teacher", built, answers, seen)
        return
    named = right if right in MODES else rf"\[{right[0]:g}, {right[1]:g}\]"
    with pytest.raises(UsageError, match=rf"Set pixel_range: {named} beside"):
        check_range("teacher", built, answers, seen)


@pytest.mark.parametrize(
    "mode, pixel_range", [("caffe", "caffe"), ("torch", "torch"), ("tf", (-1, 1))]
)
def test_pixels_are_prepared_as_keras_applications_do(mode, pixel_range, tmp_path):
    x = np.random.default_rng(0).uniform(0, 255, (2, 4, 5, 3)).astype("float32")
    expected = keras.applications.imagenet_utils.preprocess_input(x.copy(), mode=mode)
    inputs = keras.Input((4, 5, 3))
    same = from_pixels(keras.Model(inputs, layers.Activation("linear")(inputs)), pixel_range)
    np.testing.assert_allclose(same(x), expected, atol=2e-5)
    same.save(tmp_path / "same.keras")  # of nothing but Keras's own layers and operations
    np.testing.assert_allclose(
        keras.models.load_model(tmp_path / "same.keras")(x), expected, atol=2e-5
    )


def test_a_mode_is_one_of_three_channels(unit):
    with pytest.raises(
        UsageError, match="pixel_range: caffe is of images of red, green and blue.*1 c"
    ):
        from_pixels(unit[0], "caffe")


@pytest.mark.parametrize(
    "value", [[0, "1"], [1, 0], [0], "tf", 5, None, [0, np.inf], np.array([0, 1])]
)
def test_other_pixel_ranges_are_refused(value):
    with pytest.raises(
        UsageError, match=r"such as \[0, 1\], or caffe or torch. Received: model.pix"
    ):
        ModelConfig("saved", path="teacher.keras", pixel_range=value)


def test_a_weak_network_is_not_taken_for_one_of_another_range(images):
    for seed in range(5):
        keras.utils.set_random_seed(seed)
        network = models.build(ModelConfig("cnn2", width=0.125), (8, 8, 1), 10, 127.5, 64.0)
        x, y = images.test.images[:150].astype("float32"), images.test.labels[:150]
        check_range("weak", network, lambda each: each.predict_on_batch(x).argmax(-1) == y)  # noqa: B023


@pytest.mark.parametrize(
    "networks, named",
    [
        ({"teacher": {}}, "teacher "),
        ({"student": {}, "teacher": None}, "alone-0 "),
        ({"student": {"fine_tune": True}, "teacher": None}, ""),
    ],
    ids=["teacher", "student", "fine-tuned"],
)
def test_a_study_is_refused_before_it_begins(unit, tmp_path, networks, named):
    given = {
        role: settings if settings is None else ModelConfig("saved", path=str(unit[1]), **settings)
        for role, settings in networks.items()
    }
    config = StudyConfig(
        study="single", seeds=[0], data=DIGITS, training=TrainingConfig(epochs=1), **given
    )
    with pytest.raises(UsageError, match=rf"{named}\(?/.*unit.keras\)? {WRONG}"):
        run_study(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_teacher_of_one_command_is_refused_and_taken_with_its_range(images, unit, tmp_path):
    given = {"epochs": 1, "seeds": 1, "student": "cnn2", "verbose": False}
    shown = images.train.images[:200], images.train.labels[:200]
    for head in ("keep", "new"):
        with pytest.raises(UsageError, match=f"given_teacher.keras.? {WRONG}"):
            distill(shown, unit[0], output=tmp_path / "out", head=head, **given)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="beside keras:MobileNetV2, which takes pixels 0..255"):
        distill(shown, "keras:MobileNetV2", output=tmp_path / "out", pixel_range=(0, 1), **given)
    with pytest.raises(UsageError, match=r"must be two numbers.*Received: pixel_range=\[1, 0\]"):
        distill(shown, unit[0], output=tmp_path / "out", pixel_range=[1, 0], **given)
    found = distill(shown, unit[0], output=tmp_path / "out", pixel_range=(0, 1), **given)
    assert found.accuracy["teacher"] > 0.85


def test_a_new_head_on_features_of_the_wrong_range(images, unit):
    with pytest.raises(UsageError, match=WRONG):
        new_head(unit[0], images)
    head = new_head(unit[0], images, pixel_range=(0, 1))
    assert head.validation_accuracy > 0.85
    found = head.network.predict(images.test.images, verbose=0).argmax(-1)  # of 0..255
    assert np.mean(found == images.test.labels) > 0.85


def test_measuring_and_exporting_a_file_of_ones_own(images, unit, tmp_path):
    with pytest.raises(UsageError, match=WRONG):
        table(str(unit[1]), DIGITS)
    measured = table(str(unit[1]), DIGITS, pixel_range=(0, 1)).rows[0]
    expected = unit[0].predict(images.test.images / 255.0, verbose=0).argmax(-1)
    assert measured == ("accuracy", f"{100 * np.mean(expected == images.test.labels):.2f} %")
    with pytest.raises(UsageError, match=WRONG):
        export_network(unit[0], "digits", images, folder=str(tmp_path / "saved"))
    with pytest.raises(UsageError, match=WRONG):  # whose layers and input are not known
        export_network(Within(unit[0]), "digits", images, folder=str(tmp_path / "saved"))
    assert not list(tmp_path.rglob("*.pb"))


def test_a_network_in_a_file_keeps_its_numbers(images, unit):
    config = ModelConfig("saved", path=str(unit[1]), pixel_range=[0, 1])
    network = models.build(config, (8, 8, 1), 10)
    x = images.test.images[:20]
    np.testing.assert_allclose(network(x), unit[0](x / np.float32(255.0)), atol=1e-5)
    # Its operations are looked up by configuration, whatever lists are in that.
    assert evaluation.flops_of(config, (8, 8, 1), 10) > 0
    assert len({config, ModelConfig("saved", path=str(unit[1]), pixel_range=[0.0, 1.0])}) == 1


def test_the_order_of_the_classes_is_another_matter(images, unit):
    x, y = images.test.images[:150].astype("float32"), images.test.labels[:150]
    known, moved = from_pixels(unit[0], (0, 1)), (y + 1) % 10

    def right(network):
        return ONE_CLASS.right(network.predict_on_batch(x), moved)

    check_range("teacher", known, right)
    with pytest.raises(UsageError, match=WRONG):
        check_range("teacher", unit[0], right)


def test_other_networks_take_pixels_as_they_are():
    with pytest.raises(UsageError, match="others take pixels 0..255. Received: name='cnn2'"):
        ModelConfig("cnn2", pixel_range=[0, 1])
