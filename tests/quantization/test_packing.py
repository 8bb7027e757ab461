"""Kernels of few bits in a LiteRT file: in 4 bits, with the answers of the int8 file."""

import keras
import numpy as np
import pytest

from tfdistill.cli.main import main
from tfdistill.export import litert
from tfdistill.export.format import open_model
from tfdistill.quantization import calibrate, quantize_aware
from tfdistill.quantization.packing import on_grid
from tfdistill.utils.checks import UsageError


@pytest.mark.parametrize(
    "values, whole, step",
    [
        ([36, -126, 18, 0], [2, -7, 1, 0], 18),  # 4 bits, as a convolution has them
        ([127, 54, -18], [7, 3, -1], 127 / 7),  # 4 bits to half a step: 54.43, 18.14
        ([42, -126], [1, -3], 42),  # 3 bits
        ([-127, 0, 127], [-7, 0, 7], 127 / 7),
        ([0, 0], [0, 0], 18),
    ],
)
def test_a_grid_is_found_with_its_step(values, whole, step):
    found, size = on_grid(np.array(values, "int8"))
    assert found.tolist() == whole and size == pytest.approx(step)


@pytest.mark.parametrize("values", [[127, 1], [126, 17], [64, -127], list(range(-127, 128))])
def test_values_of_8_bits_are_on_no_grid(values):
    assert on_grid(np.array(values, "int8")) is None


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), "uint8")


@pytest.fixture(scope="module")
def network(images):
    """A network of 4 bits between its first and its last layer, with odd numbers of weights."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    x = layers.Normalization(mean=[127.5], variance=[64.0**2])(inputs)
    x = layers.ReLU()(layers.Conv2D(5, 3)(x))
    x = layers.ReLU()(layers.DepthwiseConv2D(3)(x))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(3, 3, use_bias=False)(x)))
    x = layers.ReLU()(layers.Dense(7)(layers.Flatten()(x)))
    float_network = keras.Model(inputs, layers.Dense(4, name="logits")(x))
    generator = np.random.default_rng(1)
    for each in float_network.trainable_weights:
        if each.name in ("bias", "beta"):
            each.assign(generator.normal(scale=0.5, size=each.shape))
    return calibrate(quantize_aware(float_network, weight_bits=4), images)


@pytest.mark.slow
def test_a_packed_file_answers_as_the_whole_one(tmp_path, network, images):
    whole, small = tmp_path / "whole.tflite", tmp_path / "small.tflite"
    litert.convert_quantized(network, whole)
    litert.convert_quantized(network, small, pack=True)
    kernels = [
        (name, inputs[1], outputs)
        for name, inputs, outputs in litert.operators(small.read_bytes())
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    ]
    assert kernels == [
        ("CONV_2D", "INT8", ["INT8"]),
        ("DEPTHWISE_CONV_2D", "INT8", ["INT8"]),
        ("CONV_2D", "INT4", ["INT8"]),
        ("FULLY_CONNECTED", "INT4", ["INT8"]),
        ("FULLY_CONNECTED", "INT8", ["INT8"]),
    ]
    low, high = network.get_layer("logits_range").range
    step = (high - low) / 255
    expected, found = (open_model(path)(images)["logits"] for path in (whole, small))
    in_keras = np.asarray(network(images))
    assert len(np.unique(expected.round(4))) > 20  # it says something
    assert abs(found - expected).max() < 2.01 * step
    assert abs(found - in_keras).max() < 3.01 * step
    assert abs(found - in_keras).mean() < 0.5 * step


@pytest.mark.slow
def test_a_file_in_8_bits_alone_is_packed_too(tmp_path, network, images):
    litert.convert_quantized(network, tmp_path / "mcu.tflite", io="uint8", pack=True)
    found = litert.operators((tmp_path / "mcu.tflite").read_bytes())
    assert sum("INT4" in inputs for _, inputs, _ in found) == 2
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(tmp_path / "mcu.tflite"))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[:1])
    interpreter.invoke()
    (output,) = interpreter.get_output_details()
    scale, zero = output["quantization"]
    logits = (interpreter.get_tensor(output["index"]).astype("float32") - zero) * scale
    assert abs(logits - np.asarray(network(images[:1]))).max() < 3.01 * scale


@pytest.mark.slow
def test_what_has_no_kernel_of_few_bits_is_refused(tmp_path, network, images):
    path = tmp_path / "model.tflite"
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(inputs))
    whole = calibrate(quantize_aware(keras.Model(inputs, keras.layers.Dense(3)(x))), images)
    with pytest.raises(UsageError, match="a network without such a kernel"):
        litert.convert_quantized(whole, path, pack=True)
    assert not path.exists()


def test_a_study_of_more_bits_is_refused_before_it_begins(tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text(
        "study: low_bits\nteacher: {name: cnn2}\ndata: {normalize: [0.5, 0.25]}\n"
        "settings: {weight_bits: [8, 6]}\nexport: {formats: [litert-int4-aware]}\n"
    )
    assert main(["run", str(path), "--output", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert "at most 4 bits. Received: litert-int4-aware for a study of 6 bits" in printed
    assert printed.count("\n") == 1 and not (tmp_path / "out").exists()
