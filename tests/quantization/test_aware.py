"""Which activations are rounded, what is refused, and how ranges are measured."""

import keras
import numpy as np
import pytest
from keras import layers

from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.models.logits import LINEAR, SOFTMAX, final_activation, logits_network
from tfdistill.quantization import calibrate, deploy, quantize_aware
from tfdistill.quantization.layers import FakeQuantize
from tfdistill.utils.checks import UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
INPUTS = (8, 8, 3)


def points(network):
    return [layer.name for layer in network.layers if isinstance(layer, FakeQuantize)]


def network(*stack, shape=INPUTS):
    """Return a network of an input, layers, and a last dense layer `logits`."""
    inputs = x = keras.Input(shape, name="image")
    for layer in (*stack, layers.GlobalAveragePooling2D(), layers.Dense(3, name="logits")):
        x = layer(x)
    return keras.Model(inputs, x)


def conv(name="conv", **settings):
    return layers.Conv2D(4, 3, name=name, **settings)


class TestPoints:
    def test_of_a_residual_network_they_are_where_litert_rounds(self):
        model = models.build(ModelConfig("resnet8", width=0.25), (8, 8, 3), 3, 127.5, 127.5)
        found = points(quantize_aware(model))
        # The image and the stem; of each block its inner ReLU, its second batch norm and the ReLU
        # that its sum goes into, of two of them the shortcut's batch norm; the average, the logits.
        assert len(found) == 2 + 3 * 3 + 2 + 2
        assert found[0] == "normalize_range" and found[-1] == "logits_range"
        assert "layer1.0.bn2_range" in found and "features_range" in found
        assert not any(name.startswith(("add", "conv1", "bn1")) for name in found)

    @pytest.mark.parametrize(
        ("stack", "expected"),
        [
            ([conv(), layers.BatchNormalization(), layers.ReLU(name="r")], ["r"]),
            ([conv(), layers.BatchNormalization(name="b"), layers.MaxPooling2D(2)], ["b"]),
            ([conv(activation="relu"), layers.BatchNormalization(name="b")], ["conv", "b"]),
            ([conv(), layers.Dropout(0.1), layers.ReLU(name="r")], ["conv", "r"]),
            ([conv(), layers.MaxPooling2D(2), layers.ReLU(6.0, name="r")], ["conv", "r"]),
            ([conv(), layers.Activation("linear"), layers.ReLU(name="r")], ["conv", "r"]),
            ([layers.DepthwiseConv2D(3, name="d"), layers.Activation("relu6", name="r")], ["r"]),
            ([layers.ZeroPadding2D(1), conv()], ["conv"]),
        ],
    )
    def test_an_operation_that_takes_the_next_one_in_is_rounded_once(self, stack, expected):
        found = points(quantize_aware(network(*stack)))
        assert found[0] == "image_range" and found[-1] == "logits_range"
        assert found[1:-2] == [f"{name}_range" for name in expected]

    def test_first_and_last_kernel_and_depthwise_keep_8_bits(self):
        stack = [conv("a"), conv("b"), layers.DepthwiseConv2D(1, name="d"), conv("c")]
        qmodel = quantize_aware(network(*stack), weight_bits=4, activation_bits=5)
        bits = {name: qmodel.get_layer(name).weight_bits for name in "abcd"}
        assert bits == {"a": 8, "b": 4, "c": 4, "d": 8}
        assert qmodel.get_layer("logits").weight_bits == 8
        assert [qmodel.get_layer(name).bits for name in points(qmodel)] == [8, 5, 5, 5, 5, 5, 8]

    def test_layers_keep_their_names_and_weights_and_the_model_is_left_alone(self):
        model = models.build(ModelConfig("cnn4", width=0.25), (8, 8, 3), 3, 127.5, 127.5)
        before = model.get_weights()
        qmodel = quantize_aware(model)
        assert {layer.name for layer in model.layers} < {layer.name for layer in qmodel.layers}
        for layer in model.layers:
            if layer.name != "normalize":
                for one, other in zip(
                    layer.get_weights(), qmodel.get_layer(layer.name).get_weights(), strict=True
                ):
                    np.testing.assert_array_equal(one, other)
        qmodel.get_layer("logits").kernel.assign(np.zeros(qmodel.get_layer("logits").kernel.shape))
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_before_any_image_it_computes_what_the_model_does_but_for_its_weights(self):
        model = network(conv(), layers.BatchNormalization(), layers.ReLU())
        found, expected = (np.asarray(one(PIXELS)) for one in (quantize_aware(model), model))
        np.testing.assert_allclose(found, expected, atol=0.02 * abs(expected).max())
        assert abs(found - expected).max() > 0

    def test_a_sequential_network_is_taken(self):
        model = keras.Sequential([keras.Input(INPUTS), conv(), layers.Flatten(), layers.Dense(2)])
        qmodel = calibrate(quantize_aware(model), PIXELS)
        assert qmodel.output_shape == (None, 2) and len(points(qmodel)) == 3

    @pytest.mark.parametrize(
        "end",
        [[layers.Dense(3, activation="softmax", name="end")], [layers.Dense(3), layers.Softmax()]],
    )
    def test_a_softmax_at_the_end_stays_in_float(self, end):
        inputs = x = keras.Input(INPUTS)
        for layer in (conv(), layers.Flatten(), *end):
            x = layer(x)
        qmodel = calibrate(quantize_aware(keras.Model(inputs, x)), PIXELS)
        assert final_activation(qmodel) == SOFTMAX
        found = np.asarray(qmodel(PIXELS))
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
        logits = logits_network(qmodel)
        assert final_activation(logits) == LINEAR
        np.testing.assert_allclose(keras.ops.softmax(logits(PIXELS)), found, rtol=1e-5)
        np.testing.assert_allclose(deploy(qmodel)(PIXELS), found, atol=0.02)


class TestDeployed:
    def test_it_computes_the_same_without_batch_norm(self):
        stack = [conv(use_bias=False), layers.BatchNormalization(name="b"), layers.ReLU()]
        model = network(*stack, layers.MaxPooling2D(2), layers.BatchNormalization(name="alone"))
        random = np.random.default_rng(0)
        for name in ("b", "alone"):
            gamma, beta, mean = random.normal(size=(3, 4))
            model.get_layer(name).set_weights([gamma, beta, mean, random.uniform(0.5, 2, 4)])
        qmodel = calibrate(quantize_aware(model), PIXELS)
        deployed = deploy(qmodel)
        kinds = [type(layer) for layer in deployed.layers]
        assert layers.BatchNormalization not in kinds and layers.DepthwiseConv2D in kinds
        step = np.diff(qmodel.get_layer("logits_range").range) / 255
        found, expected = (np.asarray(one(PIXELS)) for one in (deployed, qmodel))
        assert abs(found - expected).mean() < 0.05 * step
        assert deployed.name == qmodel.name

    def test_what_is_folded_is_worked_out_by_hand(self):
        model = network(
            layers.Conv2D(1, 1, name="conv", bias_initializer="ones"),
            layers.BatchNormalization(name="b", epsilon=0.0),
            shape=(2, 2, 1),
        )
        model.get_layer("conv").set_weights([np.full((1, 1, 1, 1), 3.0), np.float32([1.0])])
        model.get_layer("b").set_weights([np.float32([v]) for v in (-2.0, 0.5, 5.0, 16.0)])
        qmodel = calibrate(quantize_aware(model), np.arange(1, 5).reshape(1, 2, 2, 1))
        kernel, bias = deploy(qmodel).get_layer("conv").get_weights()
        # gamma / sigma = -2 / 4; 0.5 + (1 - 5) * -0.5
        assert kernel.item() == pytest.approx(-1.5) and bias.item() == pytest.approx(2.5)

    def test_it_is_saved_and_loaded(self, tmp_path):
        qmodel = quantize_aware(network(conv("a"), conv("b")), weight_bits=4)
        deployed = deploy(calibrate(qmodel, PIXELS))
        deployed.save(tmp_path / "deployed.keras")
        loaded = keras.models.load_model(tmp_path / "deployed.keras")
        np.testing.assert_array_equal(loaded(PIXELS), deployed(PIXELS))


class TestCalibration:
    def test_ranges_are_the_smallest_and_the_largest_of_all_images(self):
        model = network(conv("conv", use_bias=False), layers.ReLU(name="relu"))
        qmodel = quantize_aware(model)
        assert calibrate(qmodel, PIXELS, batch_size=5) is qmodel
        rounded = deploy(qmodel).get_layer("conv").get_weights()[0]
        seen = keras.ops.conv(PIXELS.astype("float32"), rounded, padding="valid")
        low, high = qmodel.get_layer("relu_range").range
        assert low == 0 and high == pytest.approx(float(keras.ops.max(seen)), rel=1e-5)
        again = calibrate(qmodel, PIXELS)  # what was rounded before does not count
        assert again.get_layer("relu_range").range == pytest.approx((low, high), rel=1e-6)

    def test_the_range_of_a_single_layer_is_that_of_all_images(self):
        inputs = keras.Input((2, 2, 1))
        model = keras.Model(inputs, layers.Conv2D(1, 1, use_bias=False, name="one")(inputs))
        model.get_layer("one").set_weights([np.full((1, 1, 1, 1), -2.0)])
        pixels = np.arange(5 * 4).reshape(5, 2, 2, 1)
        qmodel = calibrate(quantize_aware(model), pixels, batch_size=2)
        assert qmodel.get_layer("one_range").range == (-38.0, 0.0)

    @pytest.mark.parametrize(
        ("images", "received"),
        [
            (PIXELS / 255.0, "pixels from 0 to 1"),
            (PIXELS / 127.5 - 1, "pixels from -1 to 1"),
            (PIXELS[:0], r"uint8 \[0, 8, 8, 3\]"),
            (PIXELS[..., :1], r"uint8 \[16, 8, 8, 1\]"),
            (PIXELS[0], r"uint8 \[8, 8, 3\]"),
            (["a"], "<U1"),
        ],
    )
    def test_other_images_are_refused(self, images, received):
        qmodel = quantize_aware(network(conv()))
        with pytest.raises(UsageError, match=f"calibrate takes images.*Received: {received}"):
            calibrate(qmodel, images)

    def test_a_layer_that_gives_zeros_is_named_and_ranges_stay(self):
        model = network(conv("conv"), layers.ReLU(name="relu"))
        qmodel = calibrate(quantize_aware(model), PIXELS)
        before = [qmodel.get_layer(name).range for name in points(qmodel)]
        kernel = qmodel.get_layer("conv").kernel
        kernel.assign(-abs(kernel.numpy()))
        with pytest.raises(UsageError, match="range of relu has collapsed.*Received: 0 to 0"):
            calibrate(qmodel, PIXELS)
        assert [qmodel.get_layer(name).range for name in points(qmodel)] == before

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_numbers_that_are_none_are_named(self, value):
        qmodel = quantize_aware(network(conv("conv")))
        kernel = qmodel.get_layer("logits").kernel
        kernel.assign(np.full(kernel.shape, value))
        with pytest.raises(UsageError, match="range of logits has collapsed"):
            calibrate(qmodel, PIXELS)

    def test_it_needs_a_network_of_quantize_aware(self):
        for needs in (lambda model: calibrate(model, PIXELS), deploy):
            with pytest.raises(UsageError, match="A network of quantize_aware is needed"):
                needs(network(conv()))

    def test_what_has_seen_no_image_is_not_deployed(self):
        with pytest.raises(UsageError, match="range of conv has collapsed, or no image was seen"):
            deploy(quantize_aware(network(conv())))


def doubled():
    inputs = keras.Input(INPUTS)
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    return keras.Model(inputs, shared(shared(inputs)))


def nested():
    inputs = keras.Input(INPUTS)
    inner = network(conv())
    inner.name = "inner"
    return keras.Model(inputs, inner(inputs))


def added_by_an_operation():
    inputs = keras.Input(INPUTS)
    x = layers.Conv2D(3, 3, padding="same")(inputs)
    return keras.Model(inputs, x + inputs)


def of_two_inputs():
    one, other = keras.Input(INPUTS), keras.Input(INPUTS)
    return keras.Model([one, other], layers.Add()([one, other]))


def added_three():
    inputs = keras.Input(INPUTS)
    convs = [layers.Conv2D(3, 1)(inputs) for _ in range(3)]
    return keras.Model(inputs, layers.Add(name="three")(convs))


def normalised_later():
    return network(conv(), layers.Rescaling(2.0, name="later"))


def of_mixed_precision():
    return network(conv(dtype="mixed_bfloat16"))


class Own(layers.Conv2D):
    pass


PER_CHANNEL = {"mean": [1.0, 2.0, 3.0], "variance": [1.0, 1.0, 1.0], "name": "norm"}
REFUSED = [
    (lambda: network(layers.Conv2DTranspose(4, 3, name="up")), r"up \(Conv2DTranspose\), which it"),
    (lambda: network(Own(4, 3, name="own")), r"own \(Own\), which it does not know"),
    (nested, r"inner \(Functional\), a network within"),
    (added_by_an_operation, r"add\w* \(Add\), an operation that is no layer. Use"),
    (doubled, "to be used once. Received: shared, used twice"),
    (added_three, r"three \(Add\), of 3 inputs. Add two"),
    (of_two_inputs, "one input and one output"),
    (of_mixed_precision, r"conv \(Conv2D\), which computes in bfloat16"),
    (lambda: network(conv(activation="gelu")), "conv .*with the activation gelu"),
    (lambda: network(conv(), layers.ReLU(3.0, name="r")), r"r \(ReLU\), a ReLU other than"),
    (lambda: network(conv(), layers.ReLU(negative_slope=0.1, name="r")), "a ReLU other than"),
    (lambda: network(conv(), layers.Softmax(name="s")), r"s \(Softmax\), which is not the last"),
    (lambda: network(layers.Conv2D(3, 3, groups=3, name="g")), "g .*a convolution of groups"),
    (lambda: network(layers.Dense(4, name="d")), r"d \(Dense\), between positions"),
    (lambda: network(layers.BatchNormalization(axis=1, name="b"), conv()), "another axis than"),
    (lambda: network(layers.Normalization(**PER_CHANNEL), conv()), "norm .*cannot be folded into"),
    (lambda: network(layers.Rescaling([1, 2, 1], name="norm"), conv()), "norm .*cannot be folded"),
    (lambda: network(layers.Rescaling(1.0, 9.0, name="norm"), conv()), "norm .*cannot be folded"),
    (lambda: network(layers.Rescaling(-1.0, 99.0, name="norm"), conv()), "norm .*cannot be folded"),
    (normalised_later, r"later \(Rescaling\), which is not at the input"),
    (lambda: quantize_aware(network(conv())), "quantised already"),
    (lambda: keras.Sequential([conv()]), "Sequential with a keras.Input"),
    (lambda: "model.keras", "Received: str"),
    (lambda: keras.Model(*[keras.Input((4,))] * 2), "needs a convolution or a dense layer"),
]


@pytest.mark.parametrize(("build", "message"), REFUSED)
def test_what_cannot_be_quantised_is_named_in_one_line(build, message):
    with pytest.raises(UsageError, match=message) as caught:
        quantize_aware(build())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"weight_bits": 1}, {"activation_bits": 16}, {"ranges": "fixed"}, {"momentum": 1.5}],
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError, match=f"{next(iter(settings))} must be"):
        quantize_aware(network(conv()), **settings)


def test_a_batch_norm_of_flat_features_is_refused_where_it_is_not_folded():
    inputs = keras.Input(INPUTS)
    flat = layers.GlobalAveragePooling2D()(conv()(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.BatchNormalization(name="flat")(flat)))
    with pytest.raises(UsageError, match=r"flat \(BatchNormalization\), which follows no"):
        quantize_aware(model)


def test_layers_that_another_network_uses_are_taken():
    model = network(conv(), layers.BatchNormalization(), layers.ReLU())
    model.call(keras.Input(INPUTS))
    assert len(points(quantize_aware(model))) == 4


def test_whole_numbers_at_the_input_are_taken():
    inputs = keras.Input(INPUTS, dtype="uint8")
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Conv2D(4, 3)(inputs))))
    qmodel = calibrate(quantize_aware(model), PIXELS)
    assert qmodel(PIXELS).dtype == "float32"
    assert qmodel.layers[1].range == (0.0, 255.0)
