"""Each kind of layer: what the int8 file computes is what the quantised network computes."""

import keras
import numpy as np
import pytest
from keras import layers

from tfdistill.export.litert import convert_quantized, operators
from tfdistill.quantization import calibrate, deploy, quantize_aware

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
MEAN = {"mean": [127.5] * 3, "variance": [64.0**2] * 3}


def residual(x):
    return layers.ReLU()(layers.Add()([x, layers.Conv2D(4, 1)(x)]))


def normalised(x):
    return layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(x))


KINDS = {
    "conv": layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
    "conv of 2 positions apart": layers.Conv2D(4, 3, dilation_rate=2),
    "conv and batch norm": normalised,
    "conv, batch norm, relu6": lambda x: layers.ReLU(6.0)(normalised(x)),
    "depthwise": layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
    "depthwise and batch norm": lambda x: layers.BatchNormalization()(
        layers.DepthwiseConv2D(3, strides=2)(x)
    ),
    "batch norm alone": lambda x: layers.BatchNormalization()(layers.MaxPooling2D(2)(x)),
    "batch norm alone, relu": lambda x: layers.Activation("relu")(
        layers.BatchNormalization()(layers.Activation("relu")(x))
    ),
    "add and relu": residual,
    "max pooling": layers.MaxPooling2D(3, 2, padding="same"),
    "average pooling": layers.AveragePooling2D(2),
    "global average pooling": layers.GlobalAveragePooling2D(),
    "zero padding": lambda x: layers.Conv2D(4, 3, strides=2)(layers.ZeroPadding2D(1)(x)),
    "dropout and reshape": lambda x: layers.Reshape((4, 16, 4))(layers.Dropout(0.5)(x)),
    "dense": lambda x: layers.Dense(6)(layers.Flatten()(x)),
    "two dense": lambda x: layers.Dense(6)(layers.Dense(9, activation="relu")(layers.Flatten()(x))),
}


def scrambled(model):
    """Return a model with batch norms of any scale, also negative and 0, and biases."""
    for layer in model.layers:
        values = layer.get_weights()
        if isinstance(layer, layers.BatchNormalization):
            size = values[0].size
            gamma = RANDOM.normal(size=size)
            gamma[0] = 0.0
            values = [gamma, *RANDOM.normal(size=(2, size)), RANDOM.uniform(0.3, 2, size)]
        elif len(values) == 2 and not isinstance(layer, layers.Normalization):
            values[1] = RANDOM.normal(size=values[1].shape)
        if values and not isinstance(layer, layers.Normalization):
            layer.set_weights(values)
    return model


def network(kind, normalize=None):
    inputs = keras.Input((8, 8, 3), name="image")
    x = (normalize or layers.Normalization(**MEAN))(inputs)
    # Its own name: layers of `KINDS` were named before earlier tests began to count anew.
    x = layers.Conv2D(4, 3, padding="same", name="first")(x)
    return scrambled(keras.Model(inputs, kind(x)))


def answers(path, images, shift):
    """Return what a file of one image a time says, with the step of its scale."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        pixels = (image.astype("int32") - shift).astype(given["dtype"])
        interpreter.set_tensor(given["index"], pixels[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(taken["index"])[0])
    scale, zero = taken["quantization"]
    return (np.array(found, "float32") - zero) * scale, scale


def in_file(qmodel, path, io="int8"):
    """Return what the file says of 16 images, what its network says, and the step of its scale."""
    convert_quantized(qmodel, path, io=io)
    found, step = answers(path, PIXELS[:16], 128 if io == "int8" else 0)
    return found, np.asarray(qmodel(PIXELS[:16], training=False)), step


@pytest.mark.parametrize("name", KINDS)
def test_a_file_differs_by_one_step_at_most(tmp_path, name):
    qmodel = calibrate(quantize_aware(network(KINDS[name])), PIXELS)
    found, expected, step = in_file(qmodel, tmp_path / "model.tflite")
    # Each of the two that are added may be a step off.
    assert abs(found - expected).max() < (2.01 if name == "add and relu" else 1.01) * step
    assert len(np.unique(expected)) > 40
    low, high = [layer.range for layer in qmodel.layers if layer.name.endswith("_range")][-1]
    assert step == pytest.approx((high - low) / 255, rel=1e-4)


def test_weights_of_4_bits_are_in_the_file_as_they_are(tmp_path):
    qmodel = calibrate(quantize_aware(network(normalised_twice), weight_bits=4), PIXELS)
    found, expected, step = in_file(qmodel, tmp_path / "model.tflite")
    assert abs(found - expected).max() < 1.01 * step
    kernel = deploy(qmodel).get_layer("middle").get_weights()[0]
    assert max(len(np.unique(kernel[..., place].round(6))) for place in range(4)) <= 15


def normalised_twice(x):
    middle = layers.Conv2D(4, 3, use_bias=False, name="middle")(x)
    return layers.Conv2D(4, 3)(layers.ReLU()(layers.BatchNormalization()(middle)))


@pytest.mark.parametrize(
    ("normalize", "levels"),
    [
        (layers.Rescaling(1 / 255), (0, 255)),
        (layers.Rescaling(1 / 127.5, -1.0), (-128, 127)),
        (layers.Normalization(mean=[100.0] * 3, variance=[900.0] * 3), (-100, 155)),
        (layers.Activation("linear"), (0, 255)),
    ],
)
def test_every_pixel_is_a_level_of_the_input(tmp_path, normalize, levels):
    qmodel = calibrate(quantize_aware(network(KINDS["conv"], normalize)), PIXELS)
    first = next(layer for layer in qmodel.layers if layer.name.endswith("_range"))
    seen = keras.Model(qmodel.input, first.output)
    pixels = np.arange(256).reshape(4, 8, 8, 1).repeat(3, -1)
    low, high = first.range
    values = np.unique(np.asarray(seen(pixels)))
    steps = values / ((high - low) / 255)
    np.testing.assert_allclose(steps, np.arange(levels[0], levels[1] + 1), atol=1e-3)
    found, expected, step = in_file(qmodel, tmp_path / "model.tflite", io="uint8")
    assert abs(found - expected).max() < 1.01 * step


def test_a_file_of_8_bits_alone_has_no_float(tmp_path):
    qmodel = calibrate(quantize_aware(network(KINDS["dense"])), PIXELS)
    convert_quantized(qmodel, tmp_path / "model.tflite", io="int8", softmax=True)
    found = operators((tmp_path / "model.tflite").read_bytes())
    assert [name for name, _, _ in found] == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]
    assert {each for _, inputs, _ in found for each in inputs} == {"INT8", "INT32"}
    probabilities, step = answers(tmp_path / "model.tflite", PIXELS[:16], 128)
    assert step == 1 / 256
    expected = keras.ops.softmax(qmodel(PIXELS[:16], training=False))
    np.testing.assert_allclose(probabilities, expected, atol=0.02)
