"""LiteRT files: the same answers as the Keras network, in three precisions, for every network."""

import keras
import numpy as np
import pytest

from tests import forked
from tfdistill import Ensemble, data, export_network, models
from tfdistill.config import DataConfig, ModelConfig
from tfdistill.data.sources import digits
from tfdistill.export import litert
from tfdistill.export.format import open_model
from tfdistill.export.saved_model import write_numeric
from tfdistill.utils.checks import Refused, UsageError

pytestmark = pytest.mark.slow

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)


def build(name, shape=(16, 16, 3), classes=4):
    return models.build(ModelConfig(name), shape, classes, 127.5, 127.5)


def numeric(network, folder, images=PIXELS):
    write_numeric(network, folder / "numeric", images.shape[1:])
    return folder / "numeric"


def opened(numeric_folder, precision, images=PIXELS):
    path = numeric_folder.parent / f"model.{precision}.tflite"
    litert.convert(numeric_folder, path, precision, images)
    return open_model(path)


def predicted(network, images=PIXELS):
    return network.predict(images.astype("float32"), verbose=0)


def largest_error(network, numeric_folder, precision, images=PIXELS):
    """Return the largest error of a logit, as a share of the largest logit."""
    logits = predicted(network, images)
    found = opened(numeric_folder, precision, images)(images)["logits"]
    return np.abs(found - logits).max() / np.abs(logits).max()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A cnn2 that has learned the digits, its numeric SavedModel, and training and test images."""
    keras.utils.set_random_seed(0)
    source = digits.read(DataConfig("digits"))
    train, test = source.train, source.test
    network = models.build(ModelConfig("cnn2", width=0.5), (8, 8, 1), 10, 127.5, 127.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.01), loss)
    network.fit(train.images, train.labels, batch_size=32, epochs=6, verbose=0)
    folder = tmp_path_factory.mktemp("trained") / "numeric"
    write_numeric(network, folder, (8, 8, 1))
    return network, folder, train, test


@pytest.mark.parametrize(
    ("precision", "largest"), [("float32", 1e-4), ("float16", 0.05), ("int8", 1.5)]
)
def test_a_trained_network_keeps_its_answers(trained, precision, largest):
    network, folder, train, test = trained
    found = opened(folder, precision, train.images[: litert.REPRESENTATIVE])(test.images)
    logits = predicted(network, test.images)
    correct = np.mean(logits.argmax(1) == test.labels)
    assert correct > 0.9
    assert np.mean(found["class_id"] == test.labels) == pytest.approx(correct, abs=0.01)
    assert np.abs(found["logits"] - logits).mean() < largest / 10
    assert np.abs(found["logits"] - logits).max() < largest
    dtypes = {name: value.dtype for name, value in found.items()}
    assert dtypes == {"logits": "float32", "probabilities": "float32", "class_id": "int32"}
    np.testing.assert_array_equal(found["class_id"], found["logits"].argmax(1))


def test_in_8_bits_the_softmax_of_the_logits_is_not_rounded(trained):
    _, folder, train, test = trained
    found = opened(folder, "int8", train.images[: litert.REPRESENTATIVE])(test.images)
    assert len(np.unique(found["logits"])) <= 256
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=1e-5)
    assert found["probabilities"].min() > 0
    expected = keras.ops.softmax(found["logits"])
    np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-4)


def test_networks_convert_and_lower_precision_is_smaller(tmp_path):
    for name in ("resnet8", "wrn-10-1", "cnn4"):
        network = build(name)
        folder = numeric(network, tmp_path / name)
        assert largest_error(network, folder, "int8") < 0.2
    assert largest_error(network, folder, "float32") < 1e-4
    assert largest_error(network, folder, "float16") < 1e-2
    paths = [folder.parent / f"model.{each}.tflite" for each in litert.PRECISIONS]
    whole, half, quarter = (path.stat().st_size for path in paths)
    assert half < 0.6 * whole
    assert quarter < 0.4 * whole


def test_ensembles_convert(tmp_path):
    ensemble = Ensemble([build("cnn2"), build("cnn2")])
    folder = numeric(ensemble, tmp_path)
    assert largest_error(ensemble, folder, "float32") < 1e-4
    assert largest_error(ensemble, folder, "int8") < 0.2


def test_a_network_of_keras_applications_converts(tmp_path):
    network = build("keras:MobileNet", (32, 32, 3))
    # at the start, its outputs are too small to tell a right answer from none
    network.get_layer("logits").set_weights([np.ones((1024, 4)), np.arange(4.0)])
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    folder = numeric(network, tmp_path, images)
    assert largest_error(network, folder, "int8", images) < 0.02


def test_batches_of_any_size_agree(trained):
    _, folder, train, test = trained
    model = opened(folder, "int8", train.images[:9])
    whole = model(test.images[:9])["logits"]
    parts = [model(part)["logits"] for part in np.split(test.images[:9], [1, 2, 6])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_it_prints_nothing(trained, tmp_path, capfd):
    _, folder, train, _ = trained
    capfd.readouterr()
    litert.convert(folder, tmp_path / "model.tflite", "int8", train.images[:9])
    assert capfd.readouterr() == ("", "")


def test_mixed_precision_is_refused_in_one_line(tmp_path):
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        network = build("cnn2")
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    folder = numeric(network, tmp_path)
    with pytest.raises(UsageError, match=r"mixed precision, which LiteRT cannot\. Leave") as caught:
        litert.convert(folder, tmp_path / "model.tflite", "float32")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model.tflite").exists()


def test_operations_that_litert_lacks_are_named(tmp_path):
    inputs = keras.Input((16, 16, 3))
    determinants = keras.ops.det(keras.ops.transpose(inputs, (0, 3, 1, 2)))
    folder = numeric(keras.Model(inputs, determinants), tmp_path)
    with pytest.raises(UsageError, match="LiteRT lacks the operations MatrixDeterminant"):
        litert.convert(folder, tmp_path / "model.tflite", "float32")


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (None, "none"),
        (PIXELS[:0], r"uint8 \[0, 16, 16, 3\]"),
        (PIXELS.astype("float32"), r"float32 \[9, 16, 16, 3\]"),
    ],
)
def test_int8_needs_representative_images(tmp_path, images, received):
    with pytest.raises(UsageError, match=f"needs representative images.*Received: {received}"):
        litert.convert(tmp_path, tmp_path / "model.tflite", "int8", images)


def test_errors(tmp_path):
    with pytest.raises(UsageError, match="precision must be one of: float32, float16, int8"):
        litert.convert(tmp_path, tmp_path / "model.tflite", "int4")
    with pytest.raises(UsageError, match=r"cannot be converted to LiteRT \(float32\)"):
        litert.convert(tmp_path / "nothing", tmp_path / "model.tflite", "float32")


def extreme(where):
    """Return a cnn4 that 8 bits cannot hold, and images."""
    network = build("cnn4")
    if where == "statistics":  # every channel far from where batch norm takes it to be
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_mean.assign(keras.ops.full(layer.moving_mean.shape, 1e6))
    else:  # an output for each image, however large: it is opened, and fails when it is asked
        kernel = network.layers[-1].kernel
        kernel.assign(keras.ops.full(kernel.shape, np.inf))
    return network


@pytest.mark.parametrize("where, problem", [("statistics", "read"), ("kernel", "compute")])
def test_a_file_that_does_not_run_is_told_in_one_line(where, problem, tmp_path):
    path = tmp_path / "model.int8.tflite"
    litert.convert(numeric(extreme(where), tmp_path), path, "int8", PIXELS)
    with pytest.raises(ValueError, match=f"(?i)cannot {problem}.*XNNPACK") as error:
        open_model(path)(PIXELS)
    assert "\n" not in str(error.value)


def test_a_network_that_8_bits_cannot_hold_is_not_exported(tmp_path):
    pair = PIXELS, np.arange(9) % 4
    images = data.from_arrays(pair, pair, DataConfig("arrays", validation=4))
    given = "extreme", images, ["litert-int8"]
    with forked.probes(), pytest.raises(Refused) as error:
        export_network(extreme("statistics"), *given, folder=str(tmp_path / "saved"))
    line = str(error.value)
    assert line.startswith("litert-int8 does not run: ") and "leave this format out" in line
    with pytest.raises(UsageError, match="NaN or infinite logits"):
        export_network(extreme("kernel"), *given, folder=str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()
