"""Grad-CAM against a map worked by hand, its invariances, and networks that see one place only."""

import keras
import numpy as np
import pytest
from keras import layers

from tfdistill import Ensemble
from tfdistill.studies.saliency.grad_cam import (
    channels,
    coverage,
    enlarge,
    grad_cam,
    map_layers,
    mean_map,
    normalize,
)
from tfdistill.utils.checks import UsageError


def by_hand(scale=1.0, shift=0.0):
    """Two channels, +x and -x of a 2x2 image, summed by place with weights that are set here."""
    inputs = keras.Input((2, 2, 1))
    x = layers.Conv2D(2, 1, use_bias=False, name="features")(inputs)
    x = layers.Flatten()(x)  # channels of place 00, of 01, of 10, of 11
    network = keras.Model(inputs, layers.Dense(2, name="logits")(x))
    network.get_layer("features").set_weights([scale * np.array([[[[1.0, -1.0]]]])])
    first = np.array([4.0, 2.0, 0.0, 2.0, 4.0, 0.0, 0.0, 0.0]) / scale
    network.get_layer("logits").set_weights(
        [np.stack([first, -first], axis=1), np.array([shift, 0.0])]
    )
    return network


IMAGE = np.array([[[[3.0], [1.0]], [[-2.0], [0.5]]]])


def test_by_hand():
    # alpha = (4 + 0 + 4 + 0, 2 + 2 + 0 + 0) / 4 = (2, 1), so the map is ReLU(2 x - x) = ReLU(x).
    np.testing.assert_allclose(grad_cam(by_hand(), IMAGE, 0), [[[3, 1], [0, 0.5]]], rtol=1e-6)
    # Of the other class alpha = (-2, -1), and the map ReLU(-x).
    np.testing.assert_allclose(grad_cam(by_hand(), IMAGE, 1), [[[0, 0], [2, 0]]], rtol=1e-6)


def test_without_classes_it_is_the_predicted_one():
    # y^0 = 4*3 - 2*3 - 2*1 + 4*(-2) = -4, so class 1 is predicted, and for -x class 0.
    found = grad_cam(by_hand(), np.concatenate([IMAGE, -IMAGE]))
    np.testing.assert_allclose(found, [[[0, 0], [2, 0]], [[0, 0], [2, 0]]], rtol=1e-6)


def test_neither_a_shift_of_the_logits_nor_the_scale_of_the_channels_changes_a_map():
    expected = grad_cam(by_hand(), IMAGE, 0)
    np.testing.assert_allclose(grad_cam(by_hand(shift=7.0), IMAGE, 0), expected, rtol=1e-6)
    np.testing.assert_allclose(grad_cam(by_hand(scale=10.0), IMAGE, 0), expected, rtol=1e-5)


def corner_network(row, column, size=8):
    """A network whose only score is the brightness of one quadrant of 8x8 images."""
    inputs = keras.Input((size, size, 1))
    x = layers.Conv2D(2, 3, padding="same", activation="relu", name="features")(inputs)
    mask = np.zeros((size, size, 1))
    mask[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = 1
    x = layers.Multiply()([x, keras.ops.convert_to_tensor(mask, "float32")[None]])
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("row, column", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_network_that_looks_at_one_quadrant_has_a_map_there_only(row, column):
    network = corner_network(row, column)
    kernel = np.zeros((3, 3, 1, 2))
    kernel[1, 1, 0] = (1, 0.5)
    network.get_layer("features").set_weights([kernel, np.zeros(2)])
    network.layers[-1].set_weights([np.ones((2, 2)), np.zeros(2)])
    # Only the masked output is a map of the quadrant; of the layer before it Grad-CAM, whose
    # weights are means over all places, says where the channel is active.
    masked = map_layers(network, np.ones((1, 8, 8, 1)))[-1]
    found = grad_cam(network, np.ones((3, 8, 8, 1)), 0, layer=masked)
    inside = found[:, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
    assert (inside > 0).all()
    assert inside.sum() == pytest.approx(found.sum())


def test_with_pooling_and_one_dense_layer_the_map_is_the_part_of_each_place_in_the_score(
    small_network, images
):
    # y = mean_ij sum_k w_k A^k_ij + b, so alpha_k = w_k / Z; without ReLU the map adds up to y - b.
    network, x = small_network(), images[0]
    features = keras.Model(network.input, network.get_layer("features").output)(x)
    weights = network.layers[-1].get_weights()[0]
    expected = np.maximum(np.einsum("bhwk,kc->cbhw", features, weights) / 36, 0)
    for number in range(3):
        np.testing.assert_allclose(
            grad_cam(network, x, number), expected[number], rtol=1e-4, atol=1e-7
        )


def test_what_the_channels_speak_for_a_class_adds_up_to_the_score():
    # Average pooling and a dense layer: y^c = sum_k w_kc mean(A^k) + b_c, so that the mean of
    # alpha_k A^k over the 64 places is 1/64 of channel k's part in it.
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="features")(inputs)
    network = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    pixels = np.random.default_rng(0).normal(size=(7, 8, 8, 1)).astype("float32")
    classes = np.array([0, 1, 2, 0, 1, 2, 2])
    active, spoken = channels(network, pixels, classes, batch_size=3)
    score = np.take_along_axis(network(pixels).numpy(), classes[:, None], axis=1)[:, 0]
    bias = network.layers[-1].bias.numpy()[classes]
    assert active.shape == (7, 8, 8, 5) and spoken.shape == (7, 5)
    np.testing.assert_allclose(64 * spoken.sum(axis=1) + bias, score, rtol=1e-4, atol=1e-6)
    with pytest.raises(UsageError, match="Channels are those of one network"):
        channels(Ensemble([network, network]), pixels, 0)


def test_batches_change_nothing(small_network, images):
    network, (x, y) = small_network(batch_norm=True), images
    whole = grad_cam(network, x, y)
    assert whole.shape == (24, 6, 6) and whole.dtype == np.float32 and whole.min() >= 0
    np.testing.assert_allclose(grad_cam(network, x, y, batch_size=7), whole, rtol=1e-4, atol=1e-7)


def test_the_network_is_left_as_it_was(small_network, images):
    network, (x, _) = small_network(dtype="mixed_float16"), images
    weights, before = network.get_weights(), network.predict(x, verbose=0)
    grad_cam(network, x)
    assert all(layer.compute_dtype == "float16" for layer in network.layers[1:-1])
    assert not any("call" in vars(layer) for layer in network.layers)
    np.testing.assert_array_equal(network.predict(x, verbose=0), before)
    for one, other in zip(network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_network_of_mixed_precision_has_the_gradients_of_float32(small_network, images):
    x, y = images
    half, whole = small_network(dtype="mixed_float16"), small_network()
    # So small that a float16 gradient, of the order of 1e-9, would be zero.
    weights = [*half.get_weights()[:2], half.get_weights()[2] * 1e-8, half.get_weights()[3]]
    half.set_weights(weights)
    whole.set_weights(weights)
    found = grad_cam(half, x, y)
    assert found.max() > 0
    np.testing.assert_allclose(found, grad_cam(whole, x, y), rtol=1e-4, atol=1e-12)


def nested(dtype=None):
    """A backbone of keras.applications, which does not know its input's size, inside a model."""
    backbone = keras.applications.MobileNetV2(
        input_shape=(None, None, 3), alpha=0.35, include_top=False, weights=None
    )
    inputs = keras.Input((64, 64, 3))
    x = layers.GlobalAveragePooling2D()(backbone(inputs))
    return keras.Model(inputs, layers.Dense(3)(x)), backbone


@pytest.mark.slow
def test_a_backbone_inside_a_model_is_seen_through():
    model, backbone = nested()
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
    inner, outer = (grad_cam(model, x, 1, layer=name) for name in ("out_relu", backbone.name))
    assert inner.shape == (2, 2, 2)
    np.testing.assert_array_equal(inner, outer)
    np.testing.assert_array_equal(grad_cam(model, x, 1), inner)  # the last layer with a map
    assert grad_cam(model, x, 1, layer="block_1_expand_relu").shape == (2, 32, 32)


class Subclassed(keras.Model):
    """Convolutions inside a model without a graph, and without an input shape."""

    def __init__(self):
        super().__init__()
        self.body = keras.Sequential([layers.Conv2D(3, 3, name="inner"), layers.ReLU()])
        self.head = layers.Dense(3)

    def call(self, x):
        return self.head(keras.ops.mean(self.body(x), axis=(1, 2)))


def test_a_sequential_and_a_subclassed_model(images):
    x, y = images
    sequential = keras.Sequential(
        [layers.Conv2D(3, 3), layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Dense(3)]
    )
    subclassed = Subclassed()
    sequential(x), subclassed(x)
    subclassed.set_weights(sequential.get_weights())
    found = grad_cam(sequential, x, y)
    assert found.shape == (24, 6, 6) and found.max() > 0
    np.testing.assert_allclose(grad_cam(subclassed, x, y), found, rtol=1e-5)


def test_a_layer_that_is_called_twice_counts_twice():
    shared = layers.Conv2D(2, 1, use_bias=False)
    inputs = keras.Input((2, 2, 1))
    x = layers.Concatenate()([shared(inputs), shared(inputs[:, ::-1])])
    network = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    shared.set_weights([np.array([[[[1.0, 1.0]]]])])
    network.layers[-1].set_weights([np.ones((16, 2)), np.zeros(2)])
    image = np.array([[[[1.0], [2.0]], [[3.0], [4.0]]]])
    # Both maps are proportional to what the layer was shown: the image, and it upside down.
    expected = (image[..., 0] + image[:, ::-1, :, 0]) / 20
    np.testing.assert_allclose(grad_cam(network, image, 0, shared.name), expected, rtol=1e-6)


def test_the_map_of_an_ensemble_is_the_mean_of_its_members_views(small_network, images):
    x, y = images
    members = [small_network(4), small_network(6, batch_norm=True)]
    views = [grad_cam(member, x, y) for member in members]
    found = grad_cam(Ensemble(members, "logits"), x, y)
    np.testing.assert_allclose(found, mean_map(views), rtol=1e-4, atol=1e-7)
    seen = sum(view.sum(axis=(1, 2)) > 0 for view in views) > 0
    np.testing.assert_allclose(found.sum(axis=(1, 2)), seen, rtol=1e-5)


def test_a_member_with_larger_logits_has_no_larger_vote(small_network, images):
    x, y = images
    first, second, loud = (small_network() for _ in range(3))
    loud.set_weights([*second.get_weights()[:2], 50 * second.get_weights()[2], np.zeros(3)])
    np.testing.assert_allclose(
        grad_cam(Ensemble([first, loud], "logits"), x, y),
        grad_cam(Ensemble([first, second], "logits"), x, y),
        rtol=1e-3,
        atol=1e-6,
    )


def test_an_ensemble_of_probabilities_looks_for_what_raises_its_own_output(small_network, images):
    # log p_c of the ensemble takes the other classes into account, so its map is another one.
    x, y = images
    members = [small_network(), small_network()]
    probabilities = grad_cam(Ensemble(members), x, y)
    assert not np.allclose(probabilities, grad_cam(Ensemble(members, "logits"), x, y), atol=1e-3)


def test_members_of_different_resolution_meet_at_the_largest(small_network, images):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(2, 3, strides=2, activation="relu", name="features")(inputs)
    coarse = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    assert grad_cam(coarse, images[0]).shape == (24, 3, 3)
    assert grad_cam(Ensemble([coarse, small_network()]), images[0]).shape == (24, 6, 6)


def test_enlarged_maps_keep_their_range_and_place():
    found = enlarge(np.array([[[0.0, 0.0], [0.0, 2.0]]]), (8, 6))
    assert found.shape == (1, 8, 6) and found.dtype == np.float32
    assert found.min() == 0 and found.max() == found[0, -1, -1] == 2


def test_coverage_by_hand():
    # Of the halves (1/2, 1/2, 0) and (0, 1/4, 3/4) the smaller ones add up to 1/4.
    view, other = np.array([[[2.0, 2.0, 0.0]]]), np.array([[[0.0, 1.0, 3.0]]])
    np.testing.assert_allclose(coverage(view, other), [0.25])
    np.testing.assert_allclose(coverage(view, 5 * view), [1.0])
    np.testing.assert_array_equal(coverage(view, 0 * other), [0.0])


def test_a_blank_map_stays_blank():
    maps = np.stack([np.zeros((2, 2)), np.ones((2, 2))])
    np.testing.assert_allclose(normalize(maps), [np.zeros((2, 2)), np.full((2, 2), 0.25)])


def test_errors(small_network, images):
    network, (x, _) = small_network(), images
    with pytest.raises(UsageError, match="layer must be one of: .*features.*'conv9'"):
        grad_cam(network, x, layer="conv9")
    with pytest.raises(UsageError, match=r"as the network takes them: \(None, 8, 8, 1\).*\(24, 8"):
        grad_cam(network, x[:, :, :7])
    with pytest.raises(UsageError, match="with n > 0"):
        grad_cam(network, x[:0])
    with pytest.raises(UsageError, match=r"Labels must lie in 0..2 .*from 3 to 3"):
        grad_cam(network, x, 3)
    with pytest.raises(UsageError, match=r"classes must be one whole number or \[24\].*\[5\]"):
        grad_cam(network, x, np.zeros(5, int))
    flat = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)])
    with pytest.raises(UsageError, match="Grad-CAM needs a convolutional layer"):
        grad_cam(flat, x)
    with pytest.raises(UsageError, match="Grad-CAM needs a convolutional layer"):
        grad_cam(Ensemble([network, flat]), x)
    with pytest.raises(UsageError, match=r"one output \[batch, classes\]"):
        grad_cam(keras.Model(network.input, network.get_layer("features").output), x)


def test_layers_before_the_first_convolution_and_of_one_place_have_no_map():
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 1, name="seen")(layers.Rescaling(2.0)(inputs))
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    network = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    assert map_layers(network, np.zeros((1, 4, 4, 1))) == ["seen"]
