"""A user's own model: softmax recognised, other sizes resized, both formats, clear failures."""

import logging

import keras
import numpy as np
import pytest
from keras import layers

from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.models import saved
from tfdistill.utils.checks import UsageError

SHAPE, CLASSES = (8, 8, 3), 4


@pytest.fixture
def pixels():
    """Return uint8 [5, 8, 8, 3]."""
    return np.random.default_rng(0).integers(0, 256, (5, *SHAPE)).astype("uint8")


def _users_model(activation=None, shape=SHAPE, separate=False):
    inputs = keras.Input(shape)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(layers.Rescaling(1 / 255)(inputs)))
    x = layers.Dense(CLASSES, activation=None if separate else activation)(x)
    return keras.Model(inputs, layers.Activation(activation)(x) if separate else x)


def _load(path, outputs="auto", shape=SHAPE, classes=CLASSES):
    return models.build(ModelConfig("saved", path=str(path), outputs=outputs), shape, classes)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "users.keras"


@pytest.mark.parametrize("separate", [False, True])
def test_softmax_outputs_become_log_probabilities_and_it_says_so(file, pixels, caplog, separate):
    users = _users_model("softmax", separate=separate)
    users.save(file)
    with caplog.at_level(logging.WARNING, "tfdistill"):
        logits = _load(file).predict(pixels, verbose=0)
        _load(file)  # as a study does again and again: once is enough
    probabilities = keras.ops.softmax(logits)
    np.testing.assert_allclose(probabilities, users.predict(pixels, verbose=0), rtol=1e-5)
    (record,) = [record for record in caplog.records if record.name == "tfdistill"]
    assert "returns probabilities" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_probabilities_without_a_softmax_layer_are_found_by_trying(file, pixels, caplog):
    inputs = keras.Input(SHAPE)
    users = keras.Model(inputs, keras.ops.softmax(layers.Dense(CLASSES)(layers.Flatten()(inputs))))
    users.save(file)
    logits = _load(file).predict(pixels, verbose=0)
    np.testing.assert_allclose(
        keras.ops.softmax(logits), users.predict(pixels, verbose=0), atol=1e-6
    )
    assert "returns probabilities" in caplog.text


def test_logits_stay_and_nothing_is_said(file, pixels, caplog):
    users = _users_model()
    users.save(file)
    np.testing.assert_array_equal(
        _load(file).predict(pixels, verbose=0), users.predict(pixels, verbose=0)
    )
    assert not [record for record in caplog.records if record.name == "tfdistill"]


def test_a_softmax_followed_by_a_logarithm_is_left_alone(file, tmp_path, pixels, caplog):
    _users_model("softmax").save(file)
    first = _load(file)
    first.save(tmp_path / "again.keras")
    caplog.clear()
    again = _load(tmp_path / "again.keras")
    np.testing.assert_array_equal(
        again.predict(pixels, verbose=0), first.predict(pixels, verbose=0)
    )
    assert not [record for record in caplog.records if record.name == "tfdistill"]


def test_a_stated_kind_of_output_is_believed(file, pixels, caplog):
    users = _users_model("softmax")
    users.save(file)
    expected = users.predict(pixels, verbose=0)
    as_logits = _load(file, "logits").predict(pixels, verbose=0)
    as_probabilities = _load(file, "probabilities").predict(pixels, verbose=0)
    np.testing.assert_array_equal(as_logits, expected)
    np.testing.assert_allclose(as_probabilities, np.log(expected), rtol=1e-4, atol=1e-6)
    assert not [record for record in caplog.records if record.name == "tfdistill"]


def test_impossible_probabilities_give_finite_logits(file):
    users = _users_model("softmax")
    users.layers[-1].bias.assign([1000.0, 0, 0, 0])
    users.save(file)
    logits = _load(file, "probabilities").predict(np.zeros((1, *SHAPE), "uint8"), verbose=0)
    np.testing.assert_allclose(logits[0, 1:], np.log(1e-7), rtol=1e-5)
    exact = _load(file).predict(np.zeros((1, *SHAPE), "uint8"), verbose=0)
    np.testing.assert_allclose(exact[0], [1000, 0, 0, 0], atol=1e-3)


@pytest.mark.slow
def test_outputs_picked_by_number_and_by_name(file, tmp_path, pixels):
    users = _users_model("softmax")
    users.save(file)
    logits = saved.load(file, SHAPE, 2, classes=[3, 1])(pixels)
    expected = users.predict(pixels, verbose=0)[:, [3, 1]]
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(keras.ops.softmax(logits), expected, rtol=1e-5)
    users.export(tmp_path / "users", verbose=False)
    (tmp_path / "users" / "labels.txt").write_text("ant\nbee\ncat\ndog\n")
    by_name = saved.load(tmp_path / "users", SHAPE, 2, classes=["dog", "bee"])(pixels)
    np.testing.assert_allclose(keras.ops.softmax(by_name), expected, rtol=1e-5)
    # ImageNet has two classes called crane, the bird and the machine.
    (tmp_path / "users" / "labels.txt").write_text("crane\nbee\ncrane\ndog\n")
    with pytest.raises(UsageError, match="2 outputs called 'crane': 0, 2. Give classes the number"):
        saved.load(tmp_path / "users", SHAPE, 2, classes=["dog", "crane"])


@pytest.mark.parametrize(
    "classes, match",
    [
        ([0, 4], r"0\.\.3"),
        ([1, 1], "different"),
        (["dog", "bee"], "names are not known"),
        ([0, 1, 2], "same classes"),
        ([], "one or more"),
    ],
)
def test_outputs_that_cannot_be_picked(file, classes, match):
    _users_model().save(file)
    with pytest.raises(UsageError, match=match):
        saved.load(file, SHAPE, 2, classes=classes)


def test_a_sigmoid_at_the_end_of_a_saved_model_is_refused(file):
    _users_model("sigmoid").save(file)
    with pytest.raises(UsageError, match="ends in sigmoid"):
        _load(file)


def test_a_saved_model_of_one_image_at_a_time_is_refused(tmp_path):
    import tensorflow as tf

    users = _users_model()
    archive = keras.export.ExportArchive()
    archive.track(users)
    spec = tf.TensorSpec((1, *SHAPE), "float32", name="image")
    archive.add_endpoint("serving_default", users, input_signature=[spec])
    archive.write_out(tmp_path / "one", verbose=False)
    with pytest.raises(UsageError, match=r"takes 1 image\(s\) at a time"):
        _load(tmp_path / "one")


def test_a_model_of_another_size_gets_a_resizing_layer(file):
    users = _users_model(shape=(16, 16, 3))
    users.save(file)
    network = _load(file)
    assert network.input_shape == (None, 8, 8, 3)
    flat = np.full((1, 8, 8, 3), 90, "uint8")
    expected = users.predict(np.full((1, 16, 16, 3), 90, "uint8"), verbose=0)
    np.testing.assert_allclose(network.predict(flat, verbose=0), expected, rtol=1e-5)


def test_a_sequential_model_of_any_size(file, pixels):
    parts = [keras.Input((None, None, 3)), layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)]
    users = keras.Sequential(parts)
    users.save(file)
    np.testing.assert_array_equal(
        _load(file).predict(pixels, verbose=0), users.predict(pixels, verbose=0)
    )


def test_layers_of_a_keras_file_can_be_tapped(file, pixels):
    from tfdistill.distillation.feature_extractor import tap

    users = _users_model("softmax")
    users.save(file)
    name = users.layers[2].name
    _, (maps,) = tap(_load(file), [name])(pixels)
    assert maps.shape == (5, 6, 6, 3)


def test_saved_model_folder(tmp_path, pixels, caplog):
    users = _users_model("softmax")
    users.export(tmp_path / "users", verbose=False)
    network = _load(tmp_path / "users")
    logits = network.predict(pixels, verbose=0)
    np.testing.assert_allclose(np.exp(logits), users.predict(pixels, verbose=0), rtol=1e-5)
    assert "returns probabilities" in caplog.text
    assert network.trainable_weights == []


def _export(users, folder, outputs):
    import tensorflow as tf

    def serve(image):
        z = users(tf.cast(image, "float32"))
        return {name: z + index for index, name in enumerate(outputs)}

    archive = keras.export.ExportArchive()
    archive.track(users)
    spec = tf.TensorSpec((None, *users.input_shape[1:]), "uint8", name="image")
    archive.add_endpoint("serving_default", serve, input_signature=[spec])
    archive.write_out(folder, verbose=False)


def test_saved_model_of_bytes_with_named_outputs_and_another_size(tmp_path):
    users = _users_model(shape=(16, 16, 3))
    _export(users, tmp_path / "users", ["logits", "probabilities"])
    flat = np.full((2, 8, 8, 3), 90, "uint8")
    expected = users.predict(np.full((2, 16, 16, 3), 90, "uint8"), verbose=0)
    logits = _load(tmp_path / "users").predict(flat, verbose=0)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_saved_model_with_outputs_of_unknown_meaning(tmp_path):
    _export(_users_model(), tmp_path / "users", ["first", "second"])
    with pytest.raises(UsageError, match="one named logits or probabilities. Received: first, sec"):
        _load(tmp_path / "users")


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="which does not exist"):
        _load(tmp_path / "absent.keras")
    (tmp_path / "broken.keras").write_text("nothing")
    (tmp_path / "empty").mkdir()
    for name in ("broken.keras", "empty"):
        with pytest.raises(
            UsageError, match="(Cannot use the model in|is no whole SavedModel).*Give a"
        ) as caught:
            _load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_models_of_other_classes_channels_or_outputs(file):
    _users_model().save(file)
    with pytest.raises(UsageError, match="must have the same classes"):
        _load(file, classes=7)
    with pytest.raises(UsageError, match=r"takes inputs of \(8, 8, 3\). Received: .*\(8, 8, 1\)"):
        _load(file, shape=(8, 8, 1))
    inputs = keras.Input(SHAPE)
    keras.Model(inputs, layers.Conv2D(CLASSES, 1)(inputs)).save(file)
    with pytest.raises(UsageError, match="must have one output"):
        _load(file)
