"""A new head on a network that was trained for other classes."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

from tfdistill import UsageError, data, new_head
from tfdistill.config import DataConfig
from tfdistill.models.logits import features_network

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return np.round(x * 255 / 16).reshape(-1, 8, 8, 1).astype("uint8"), y


@pytest.fixture(scope="module")
def teacher(digits):
    """A network that tells the digits 0 to 5 apart, and ends in softmax."""
    x, y = digits
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    h = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
    h = layers.Dense(32, activation="relu")(h)
    network = keras.Model(inputs, layers.Dense(6, activation="softmax")(h))
    network.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    network.fit(x[y < 6], y[y < 6], epochs=5, verbose=0)
    return network


def four_new_classes(digits, per_class=15):
    x, y = digits
    x, y = x[y >= 6], y[y >= 6] - 6
    random = np.random.default_rng(0)  # neighbours are of one writer
    places = [random.permutation(np.flatnonzero(y == k)) for k in range(4)]
    train = np.concatenate([each[:per_class] for each in places])
    rest = np.setdiff1d(np.arange(len(y)), train)
    return data.from_arrays((x[train], y[train]), (x[rest], y[rest]), class_names=tuple("6789"))


def test_it_learns_classes_that_the_network_never_had(digits, teacher):
    images = four_new_classes(digits)
    before = [weight.copy() for weight in teacher.get_weights()]
    head = new_head(teacher, images)
    logits = head.network.predict(images.test.images, verbose=0)
    assert logits.shape == (len(images.test), 4)
    assert np.mean(logits.argmax(-1) == images.test.labels) > 0.7
    assert head.training_accuracy >= 0.9
    # Six validation images say too little: each training image is judged by a head of others.
    assert head.judged == len(images.train) == 54
    measured = np.mean(logits.argmax(-1) == images.test.labels)
    assert abs(head.validation_accuracy - measured) < 0.15
    for one, other in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_its_figures_are_those_of_the_saved_network(digits, teacher, tmp_path):
    images = four_new_classes(digits, per_class=80)
    # 32 validation images and 288 to train on, the other way round.
    images = dataclasses.replace(images, train=images.validation, validation=images.train)
    head = new_head(teacher, images)
    assert head.judged == len(images.validation) >= 200
    head.network.save(tmp_path / "teacher.keras")
    again = keras.models.load_model(tmp_path / "teacher.keras")
    found = again.predict(images.validation.images, verbose=0).argmax(-1)
    assert np.mean(found == images.validation.labels) == pytest.approx(head.validation_accuracy)


def test_two_classes_have_two_logits(digits, teacher):
    x, y = digits
    two = np.flatnonzero(y >= 8)
    images = data.from_arrays((x[two[:100]], y[two[:100]] - 8), (x[two[100:]], y[two[100:]] - 8))
    head = new_head(teacher, images)
    logits = head.network.predict(images.test.images, verbose=0)
    assert logits.shape[1] == 2 and np.mean(logits.argmax(-1) == images.test.labels) > 0.7


def test_what_stands_before_the_last_dense_layer(teacher):
    x = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype("float32")
    hidden = keras.Model(teacher.inputs, teacher.layers[-2].output)(x)
    np.testing.assert_array_equal(features_network(teacher)(x), hidden)
    nested = keras.Sequential([keras.Input((8, 8, 1)), teacher])
    np.testing.assert_array_equal(features_network(nested)(x), hidden)
    inputs = keras.Input((8, 8, 1))
    maps = keras.Model(inputs, layers.ReLU()(layers.Conv2D(5, 3)(inputs)))
    np.testing.assert_allclose(features_network(maps)(x), np.mean(maps(x), axis=(1, 2)), rtol=1e-5)


def test_what_has_no_head(digits, teacher):
    images = four_new_classes(digits, per_class=2)
    with pytest.raises(UsageError, match="at least 2 training images of each class"):
        new_head(teacher, images)
    larger = keras.Sequential([keras.Input((16, 16, 1)), layers.Flatten(), layers.Dense(3)])
    with pytest.raises(UsageError, match="same images"):
        new_head(larger, four_new_classes(digits))

    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UsageError, match="layers are known"):
        new_head(Own(), four_new_classes(digits))


def test_a_network_of_nan_gets_no_head(digits, teacher):
    broken = keras.models.clone_model(teacher)
    broken.set_weights([np.full_like(each, np.nan) for each in teacher.get_weights()])
    with pytest.raises(UsageError, match="NaN or infinite numbers before its last layer"):
        new_head(broken, four_new_classes(digits))


def test_as_many_classes_as_images_are_fitted_in_silence(digits, teacher, recwarn):
    x = digits[0][:200]
    labels = np.arange(200) % 60
    images = data.from_arrays((x, labels), (x, labels), DataConfig("arrays", validation=60))
    assert new_head(teacher, images).judged == 140
    assert not [each for each in recwarn if "classes" in str(each.message)]
