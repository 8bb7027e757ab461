"""Names, weights files and the messages for what does not fit."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.config.networks import APPLICATIONS
from tfdistill.config.training import known_networks
from tfdistill.utils.checks import UsageError


def _build(config, shape=(16, 16, 3), classes=5, **scale):
    return models.build(config, shape, classes, **scale)


def test_a_name_is_checked_without_keras():
    code = (
        "import sys; from tfdistill.config import ModelConfig; ModelConfig('wrn-28-10');"
        "ModelConfig('keras:VGG16'); print('keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet21", r"model.name must be one of: cnn2, .*Received: model.name='resnet21'"),
        ("resnet20x", "Did you mean 'resnet20'"),
        ("wrn-27-10", r"wrn-D-K \(D = 6n \+ 4"),
        ("wrn-28-0", "must be one of"),
        ("keras:MobilNetV2", "Did you mean 'keras:MobileNetV2'"),
        ("keras:resnet50", "keras:ResNet50V2"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(name, message):
    with pytest.raises(UsageError, match=message):
        ModelConfig(name)


def test_known_names_are_checked_names():
    names = [name for name in known_networks() if " " not in name]
    assert "resnet110" in names
    assert [
        ModelConfig(name, path="x.keras" if name == "saved" else None).name for name in names
    ] == names


def test_the_table_of_applications_is_complete():
    offered = {name for name, value in vars(keras.applications).items() if callable(value)}
    assert set(APPLICATIONS) == offered
    for name in APPLICATIONS:
        assert callable(sys.modules[vars(keras.applications)[name].__module__].preprocess_input)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "wrn-10-1", "width": 2.0},
            "model.width=2.0 needs a network of: cnn, ",
        ),
        ({"name": "resnet8", "dropout": 0.1}, "model.dropout=0.1 needs a network of: cnn, wrn"),
        ({"name": "resnet8", "weights": "imagenet"}, "needs a network of: keras"),
        ({"name": "keras:MobileNetV2", "width": 0.5}, r"model.width=0.5"),
        ({"name": "resnet8", "weights": "absent.weights.h5"}, "which is not a file"),
        ({"name": "keras:MobileNetV2", "weights": "absent.h5"}, "which is not a file"),
    ],
)
def test_a_setting_that_the_network_does_not_have(settings, message):
    with pytest.raises(UsageError, match=message) as caught:
        _build(ModelConfig(**settings), (32, 32, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "scale", "message"),
    [
        ("resnet8", (16, 16), {}, r"\(height, width, channels\). Received: \(16, 16\)"),
        ("resnet8", (16, 16, 3), {"mean": [1, 2]}, "mean must be one number or one for each of"),
        ("resnet8", (16, 16, 3), {"std": 0.0}, "std must be a finite number > 0"),
        ("cnn2", (3, 8, 1), {}, "cnn2 needs images of at least 4 x 4 pixels. Received: 3 x 8"),
        ("keras:VGG16", (16, 16, 3), {}, "keras:VGG16 cannot take images of 16 x 16 pixels"),
        ("keras:VGG16", (32, 32, 2), {}, r"3 or 1 channels\). Received: \(32, 32, 2\)"),
    ],
)
def test_images_that_a_network_cannot_take(name, shape, scale, message):
    with pytest.raises(UsageError, match=message) as caught:
        _build(ModelConfig(name), shape, **scale)
    assert "\n" not in str(caught.value)


def test_depths_outside_the_families():
    from tfdistill.models.resnet import cifar_resnet, resnet
    from tfdistill.models.wide_resnet import wide_resnet

    with pytest.raises(UsageError, match="6n \\+ 2 layers.*depth=21"):
        cifar_resnet((16, 16, 3), 5, depth=21)
    with pytest.raises(UsageError, match="6n \\+ 4 layers.*depth=20"):
        wide_resnet((16, 16, 3), 5, depth=20)
    with pytest.raises(UsageError, match="depth must be one of: 18, 34, 50"):
        resnet((16, 16, 3), 5, depth=101)
    with pytest.raises(UsageError, match="stem must be one of: cifar, imagenet"):
        resnet((16, 16, 3), 5, stem="other")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_come_from_a_file(tmp_path, suffix):
    path = tmp_path / f"network{suffix}"
    first = _build(ModelConfig("resnet8"))
    first.save_weights(path) if suffix == ".weights.h5" else first.save(path)
    second = _build(ModelConfig("resnet8", weights=str(path)))
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.slow
def test_weights_of_another_network_do_not_fit(tmp_path):
    path = tmp_path / "network.weights.h5"
    _build(ModelConfig("resnet8"), classes=4).save_weights(path)
    for name in ("resnet8", "resnet14"):
        with pytest.raises(UsageError, match=f"do not fit {name}") as caught:
            _build(ModelConfig(name, weights=str(path)))
        assert "\n" not in str(caught.value)


def test_a_file_that_holds_no_weights(tmp_path):
    path = tmp_path / "network.weights.h5"
    path.write_text("nothing")
    with pytest.raises(UsageError, match="do not fit resnet8"):
        _build(ModelConfig("resnet8", weights=str(path)))
