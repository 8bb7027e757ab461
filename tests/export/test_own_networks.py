"""A user's own network: one that expects other pixels, or does not end in logits."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfdistill import Ensemble, UsageError, data, export_network
from tfdistill.export.format import export_format
from tfdistill.utils.checks import Refused


@pytest.fixture(scope="module")
def images():
    """Digits, 300 of them to test with."""
    x, y = load_digits(return_X_y=True)
    x = np.round(x * 255 / 16).reshape(-1, 8, 8, 1).astype("uint8")
    return data.from_arrays(train=(x[:1200], y[:1200]), test=(x[-300:], y[-300:]))


@pytest.fixture(scope="module")
def network(images):
    """A network that ends in softmax, trained on pixels of 0..1, and its test accuracy."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    x = keras.layers.Flatten()(x)
    # So that pixels of another range give other classes.
    outputs = keras.layers.Dense(10, activation="softmax")(keras.ops.tanh(x))
    network = keras.Model(inputs, outputs)
    network.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    network.fit(images.train.images / 255.0, images.train.labels, epochs=5, verbose=0)
    test = images.test
    return network, network.evaluate(test.images / 255.0, test.labels, verbose=0)[1]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_probes")
def test_the_range_that_a_network_expects_goes_into_its_export(tmp_path, images, network):
    trained, accuracy = network
    with pytest.warns(UserWarning, match="network ends in softmax"):
        done = export_network(
            trained,
            "digits",
            images,
            pixel_range=[0, 1],
            accuracy=accuracy,
            folder=str(tmp_path),
            check_images=None,
        )
    format = export_format("savedmodel")
    answers = format.runtime(done.file("savedmodel"), None)(images.test.images[:20])
    expected = trained.predict(images.test.images[:20] / 255.0, verbose=0)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    assert done.card["settings"]["pixel_range"] == [0, 1]


def test_another_accuracy_than_the_one_that_was_measured_is_refused(tmp_path, images, network):
    trained, accuracy = network
    for measured, settings in ((accuracy, {}), (accuracy - 0.1, {"pixel_range": [0, 1]})):
        with pytest.warns(UserWarning), pytest.raises(Refused, match="Does it expect pixels of"):
            export_network(
                trained,
                "digits",
                images,
                accuracy=measured,
                folder=str(tmp_path / "saved"),
                check_images=None,
                **settings,
            )
    assert not (tmp_path / "saved").exists() or not list((tmp_path / "saved").rglob("*.pb"))


def test_networks_that_give_no_logits_are_refused(tmp_path, images):
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    dense = keras.layers.Dense(10)(flat)
    hidden = keras.Model(inputs, keras.layers.Lambda(keras.ops.softmax)(dense))
    yes_or_no = keras.Model(inputs, keras.layers.Dense(10, activation="sigmoid")(flat))
    several = keras.Model(inputs, [dense, flat])
    for one, match in (
        (hidden, "outputs are probabilities"),
        (yes_or_no, "ends in sigmoid"),
        (Ensemble([keras.Model(inputs, dense)], "sigmoid"), "ends in sigmoid"),
        (several, "one output"),
        ("network.keras", "must be a Keras model"),
    ):
        with pytest.raises(UsageError, match=match):
            export_network(one, "digits", images, folder=str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("range_", [[1, 0], [0], [0, 1, 2], [0, 0]])
def test_ranges_that_are_none(tmp_path, images, network, range_):
    with pytest.warns(UserWarning), pytest.raises(UsageError, match="pixel_range"):
        export_network(network[0], "digits", images, folder=str(tmp_path), pixel_range=range_)
