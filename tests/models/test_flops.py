"""Operations counted by hand, and against a published figure."""

import keras
import pytest
from keras import layers

from tfdistill.distillation.ensembles import Ensemble
from tfdistill.models.flops import flops
from tfdistill.models.resnet import resnet


def _model(*parts, shape=(8, 8, 3)):
    inputs = x = keras.Input(shape)
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    ("part", "multiply_adds"),
    [
        (layers.Conv2D(4, 3), 6 * 6 * 3 * 3 * 3 * 4),
        (layers.Conv2D(4, 3, strides=2, padding="same"), 4 * 4 * 3 * 3 * 3 * 4),
        (layers.Conv2D(6, 3, groups=3, padding="same"), 8 * 8 * 3 * 3 * 1 * 6),
        (layers.DepthwiseConv2D(3, padding="same"), 8 * 8 * 3 * 3 * 3),
        (layers.SeparableConv2D(4, 3, padding="same"), 8 * 8 * (3 * 3 * 3 + 3 * 4)),
        (layers.Conv2DTranspose(4, 3, strides=2), 8 * 8 * 3 * 3 * 3 * 4),
        (layers.Dense(5), 8 * 8 * 3 * 5),
        (layers.MaxPooling2D(), 0),
    ],
)
def test_one_layer_by_hand(part, multiply_adds):
    assert flops(_model(part), (8, 8, 3)) == 2 * multiply_adds


def test_resnet18_on_cifar_is_the_published_056_gigamacs():
    model = resnet((32, 32, 3), 10)
    assert flops(model, (32, 32, 3)) == pytest.approx(1.11e9, rel=0.005)
    assert model.get_layer("features").output.shape == (None, 4, 4, 512)  # left as it was


def test_shared_nested_sequential_and_averaged_models_are_counted():
    shared = layers.Conv2D(3, 1)
    inner = keras.Sequential([keras.Input((None, None, 3)), shared, shared])
    once = 2 * 8 * 8 * 3 * 3
    assert flops(inner, (8, 8, 3)) == 2 * once
    outer = _model(inner, layers.GlobalAveragePooling2D())
    assert flops(outer, (8, 8, 3)) == 2 * once
    other = _model(layers.Conv2D(3, 1), layers.GlobalAveragePooling2D())
    ensemble = Ensemble([outer, other])
    assert flops(ensemble, (8, 8, 3)) == 3 * once
    assert flops(_model(ensemble), (8, 8, 3)) == 3 * once


def test_nothing_known_counts_nothing(tmp_path):
    _model(layers.Conv2D(4, 3)).export(tmp_path / "saved", verbose=False)
    layer = layers.TFSMLayer(str(tmp_path / "saved"), call_endpoint="serve")
    assert flops(_model(layer), (8, 8, 3)) == 0
    assert flops(keras.Model(), (8, 8, 3)) == 0


def test_operations_that_are_no_layers_count_nothing():
    inputs = keras.Input((8, 8, 3))
    x = keras.ops.stack([inputs[..., channel] / 127.5 for channel in (2, 1, 0)], axis=-1)
    model = keras.Model(inputs, layers.Conv2D(4, 3)(x))
    assert flops(model, (8, 8, 3)) == 2 * 6 * 6 * 3 * 3 * 3 * 4
