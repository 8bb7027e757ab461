"""Networks of quantize_aware as files: in 8 bits, with their own ranges, or refused."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.export.test_verify import EQUAL
from tfdistill import data, export_network
from tfdistill.cli.main import main
from tfdistill.config import DataConfig
from tfdistill.export import litert, targets
from tfdistill.export.format import open_model
from tfdistill.quantization import calibrate, deploy, quantize_aware
from tfdistill.quantization.layers import FakeQuantize
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images():
    return data.load(DataConfig(source="digits", validation=100))


@pytest.fixture(scope="module")
def network(images):
    """A float network that has learned the digits."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Normalization(mean=[127.5], variance=[64.0**2], name="normalize")(inputs)
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, use_bias=False)(x))
    x = layers.Conv2D(12, 3, name="middle")(layers.ReLU()(x))
    x = layers.Dropout(0.1)(layers.BatchNormalization()(x))
    network = keras.Model(inputs, layers.Dense(10, name="logits")(layers.Flatten()(x)), name="own")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.01), loss)
    network.fit(images.train.images, images.train.labels, batch_size=32, epochs=3, verbose=0)
    return network


@pytest.fixture(scope="module")
def quantized(network, images):
    return calibrate(quantize_aware(network, weight_bits=4), images.train.images[:300])


@pytest.mark.usefixtures("forked_probes")
def test_the_file_answers_as_the_quantised_network_and_has_its_ranges(tmp_path, quantized, images):
    given = {"folder": str(tmp_path), "check_images": 200}
    done = export_network(quantized, "low", images, ["litert-int8-aware"], **given)
    assert [check.format for check in done.checks] == [*["savedmodel"] * 2, "litert-int8-aware"]
    assert all(check.rounded and check.tolerance is None for check in done.checks)
    assert done.checks[-1].agreement >= 0.98
    path = done.file("litert-int8-aware")
    assert path.name == "model.int8-aware.tflite"
    test = images.test.images
    found, expected = open_model(path)(test), np.asarray(quantized(test))
    low, high = quantized.get_layer("logits_range").range
    step = (high - low) / 255
    steps = np.unique((found["logits"] / step).round(2) % 1)
    assert set(steps) <= {0.0, 0.01, 0.99}
    assert abs(found["logits"] - expected).max() < 2.01 * step
    assert abs(found["logits"] - expected).mean() < 0.2 * step
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=1e-5)
    assert found["probabilities"].min() > 0  # not in steps of 1/256
    np.testing.assert_array_equal(found["class_id"], found["logits"].argmax(1))
    page = (done.folder / "model_card.md").read_text()
    assert "LiteRT int8, trained ranges" in page and "rounded to 8 bits" in page


def test_the_file_computes_in_8_bits_alone_between_its_ends(tmp_path, quantized):
    litert.convert_quantized(quantized, tmp_path / "model.tflite")
    found = litert.operators((tmp_path / "model.tflite").read_bytes())
    names = [name for name, _, _ in found]
    inner = found[names.index("QUANTIZE") + 1 : names.index("DEQUANTIZE")]
    assert {"CONV_2D", "FULLY_CONNECTED"} <= {name for name, _, _ in inner}
    assert "FLOAT32" not in {each for _, *types in inner for sides in types for each in sides}


def test_a_sigmoid_for_each_label_stays_in_float(tmp_path, quantized, images):
    litert.convert_quantized(quantized, tmp_path / "model.tflite", multi_label=True)
    found = open_model(tmp_path / "model.tflite")(images.test.images[:9])
    expected = 1 / (1 + np.exp(-found["logits"].astype("float64")))
    np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-4)


def test_a_saved_network_is_converted_by_its_path(tmp_path, quantized, images):
    quantized.save(tmp_path / "low.keras")
    subject = targets.of_path(tmp_path / "low.keras", DataConfig(source="digits", validation=100))
    litert.convert_quantized(subject.network(), tmp_path / "model.tflite")
    found = open_model(tmp_path / "model.tflite")(images.test.images[:100])["class_id"]
    expected = np.asarray(quantized(images.test.images[:100])).argmax(1)
    assert np.mean(found == expected) >= 0.98


class TestRefusals:
    def test_a_float_network_is_named(self, tmp_path, network):
        with pytest.raises(UsageError, match="Received: own, which has no trained ranges"):
            litert.convert_quantized(network, tmp_path / "model.tflite")
        assert not (tmp_path / "model.tflite").exists()

    def test_a_study_is_refused_before_it_begins(self, tmp_path, capsys):
        path = tmp_path / "study.yaml"
        path.write_text("study: single\nexport: {formats: [litert-int8-aware]}\n")
        assert main(["run", str(path), "--output", str(tmp_path / "out")]) == 2
        printed = capsys.readouterr().err
        assert "for a study whose networks are float" in printed and printed.count("\n") == 1
        assert not (tmp_path / "out").exists()

    def test_ranges_that_are_not_known_are_named(self, tmp_path, network):
        with pytest.raises(UsageError, match="range of re_lu.* no image was seen"):
            litert.convert_quantized(quantize_aware(network), tmp_path / "model.tflite")

    def test_activations_of_fewer_bits_are_named(self, tmp_path, network, images):
        low = calibrate(quantize_aware(network, activation_bits=4), images.train.images[:50])
        with pytest.raises(UsageError, match="fewer than 8 bits. Received: 4 bits at re_lu"):
            litert.convert_quantized(low, tmp_path / "model.tflite")
        assert not (tmp_path / "model.tflite").exists()

    def test_pixels_of_another_range(self, tmp_path, quantized, images):
        with pytest.raises(UsageError, match=r"takes pixels 0..255. Received: .*\[0, 1\]"):
            export_network(quantized, "low", images, folder=str(tmp_path), pixel_range=[0, 1])

    def test_another_type_of_images(self, tmp_path, quantized):
        with pytest.raises(UsageError, match="io must be one of: int8, uint8"):
            litert.convert_quantized(quantized, tmp_path / "model.tflite", io="float32")

    def test_a_file_in_float_is_not_written(self, tmp_path, quantized, monkeypatch):
        monkeypatch.setattr(litert, "_with_ranges", lambda converter, io: converter.convert())
        with pytest.raises(
            UsageError, match="not compute in 8 bits. Received: .*CONV_2D in FLOAT32"
        ):
            litert.convert_quantized(quantized, tmp_path / "model.tflite")
        assert not (tmp_path / "model.tflite").exists()

    def test_a_file_that_lost_its_weights_is_not_written(self, tmp_path, quantized, monkeypatch):
        import tensorflow as tf

        module = tf.Module()
        module.state = tf.Variable(tf.zeros((1, 4)))
        program = tf.function(
            lambda x: x + module.state.assign_add(x), input_signature=[tf.TensorSpec((1, 4))]
        )

        def other(converter, io):
            functions = [program.get_concrete_function()]
            made = tf.lite.TFLiteConverter.from_concrete_functions(functions, module)
            made.experimental_enable_resource_variables = True
            return made.convert()

        monkeypatch.setattr(litert, "_with_ranges", other)
        with pytest.raises(UsageError, match="Received: .*VAR_HANDLE"):
            litert.convert_quantized(quantized, tmp_path / "model.tflite")


ROUNDED = dataclasses.replace(EQUAL, format="litert-int8-aware", rounded=True, difference=9.0)


@pytest.mark.parametrize(
    ("values", "good"),
    [
        ({}, True),
        ({"agreement": 0.98}, True),  # 4 of 200 images
        ({"agreement": 0.975}, False),
        ({"class_agreement": 0.8}, True),
        ({"class_agreement": 0.75}, False),
        ({"accuracy": 0.5}, True),  # alike, so it is the network that is wrong
        ({"format": "savedmodel", "agreement": 0.97}, False),
        ({"format": "litert-int4-aware", "agreement": 0.96}, True),
        ({"format": "litert-int4-aware", "agreement": 0.955}, False),
    ],
)
def test_a_network_that_rounds_is_held_by_its_classes(values, good):
    assert dataclasses.replace(ROUNDED, **values).good == good


def test_agreement_is_counted_class_by_class():
    from tfdistill.export.verify import _class_agreement

    expected = np.repeat([0, 1, 2], [60, 40, 3])
    found = expected.copy()
    found[:6], found[60:80], found[100:] = 1, 2, 0  # 6 of 60, 20 of 40, and of 3 images too few
    assert _class_agreement(found == expected, expected) == 0.5
    labels = np.zeros((4, 2), int)
    assert _class_agreement(np.array([[1, 1], [1, 0], [1, 1], [1, 1]], bool), labels) == 0.75


def test_deployed_ranges_are_those_of_the_network(quantized):
    deployed = deploy(quantized)
    for layer in quantized.layers:
        if isinstance(layer, FakeQuantize):
            assert deployed.get_layer(layer.name).range == layer.range
