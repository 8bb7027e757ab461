"""Weights of PyTorch's networks: ours answer as those do; what does not fit changes nothing."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import tfdistill
from tests.models import earlier, published
from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow

MEAN, STD = [120.0, 100.0, 110.0], [60.0, 70.0, 65.0]
NARROW, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)
QUARTER = (16, 16, 32, 64, 128)  # the ImageNet family's channels at width 0.25


def imagenet(depth, stem=3):
    return published.resnet(QUARTER, published.LENGTHS[depth], depth == 50, stem)


NETWORKS = {  # name, width: state dict, image sizes (even, odd)
    ("resnet8", 1.0): (lambda: published.resnet(NARROW, [1] * 3), [(32, 32), (17, 15), (16, 17)]),
    ("resnet20", 1.0): (lambda: published.resnet(NARROW, [3] * 3), [(32, 32)]),
    ("resnet8x4", 1.0): (lambda: published.resnet(WIDE, [1] * 3), [(32, 32)]),
    ("resnet18", 0.25): (lambda: imagenet(18), [(32, 32), (31, 32)]),
    ("wrn-10-1", 1.0): (lambda: published.wide_resnet(10, 1), [(32, 32), (31, 33)]),
    ("wrn-16-2", 1.0): (lambda: published.wide_resnet(16, 2), [(32, 32)]),
    ("resnet50", 0.25): (lambda: imagenet(50), [(32, 32)]),
    ("resnet18-imagenet", 0.25): (lambda: imagenet(18, 7), [(64, 64), (63, 65), (66, 70)]),
    ("resnet50-imagenet", 0.25): (lambda: imagenet(50, 7), [(64, 64)]),
    ("resnet110", 1.0): (lambda: published.resnet(NARROW, [18] * 3), [(16, 16)]),
    ("resnet34-imagenet", 0.25): (lambda: imagenet(34, 7), [(64, 64)]),
}


def built(name, width=1.0, size=(16, 16), channels=3):
    mean, std = (MEAN, STD) if channels == 3 else (MEAN[0], STD[0])
    return models.build(ModelConfig(name, width=width), (*size, channels), 5, mean, std)


def pixels(size=(16, 16)):
    return np.random.default_rng(1).integers(0, 256, (3, *size, 3)).astype("uint8")


def difference(network, weights, images, given=None):
    """Return the largest difference from the published network's logits, over their largest."""
    expected = published.logits(weights, (images - np.array(MEAN)) / np.array(STD))
    given = images if given is None else given
    found = keras.ops.convert_to_numpy(network(given, training=False))
    return abs(found - expected).max() / abs(expected).max()


@pytest.mark.parametrize(
    ("name", "width"),
    NETWORKS,
)
def test_logits_are_those_of_the_published_network(name, width):
    state_dict, sizes = NETWORKS[name, width]
    weights = state_dict()
    for size in sizes:
        network = built(name, width, size)
        models.from_torch(network, weights)
        assert difference(network, weights, pixels(size)) < 1e-5


def test_padding_on_the_far_side_alone_is_what_this_finds():
    weights = published.resnet((4, 4, 8, 16), [1] * 3)
    network = built("resnet8", 0.25)
    models.from_torch(network, weights)
    before = earlier.resnet8((16, 16, 3), 5, 4, MEAN, STD)
    before.set_weights(network.get_weights())
    assert difference(before, weights, pixels()) > 0.01
    assert difference(network, weights, pixels()) < 1e-5


def test_a_loaded_network_takes_them_too(tmp_path):
    built("resnet8", 0.25).save(tmp_path / "network.keras")
    network = keras.models.load_model(tmp_path / "network.keras")
    weights = published.resnet((4, 4, 8, 16), [1] * 3)
    models.from_torch(network, weights)
    assert difference(network, weights, pixels()) < 1e-5


def test_the_example_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = published.resnet(NARROW, [3] * 3, classes=10)
    np.savez("resnet20.npz", **weights)
    text = (Path(tfdistill.__file__).parents[1] / "docs/coming_from_pytorch.md").read_text()
    of_pytorch, example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "resnet20.npz" in of_pytorch
    exec(example, names := {})
    teacher, images = keras.models.load_model("teacher.keras"), pixels((32, 32))
    normalised = (images - np.array(names["mean"])) / np.array(names["std"])
    found = keras.ops.convert_to_numpy(teacher(images, training=False))
    expected = published.logits(weights, normalised)
    assert abs(found - expected).max() < 1e-5 * abs(expected).max()


# Names


SMALL = published.resnet((4, 4, 8, 16), [1] * 3)


def renamed(weights, *rules):
    found = {}
    for name, value in weights.items():
        for pattern, other in rules:
            name = re.sub(pattern, other, name)
        found[name] = value
    return found


KNOWN = {
    "data parallel": [("^", "module.")],
    "pytorch-cifar": [("downsample", "shortcut"), ("^fc", "linear")],
    "both": [("downsample", "shortcut"), ("^fc", "linear"), ("^", "module.")],
}


@pytest.mark.parametrize("rules", KNOWN.values(), ids=KNOWN)
def test_other_known_names(rules, caplog):
    network = built("resnet8", 0.25)
    shuffled = dict(sorted(renamed(SMALL, *rules).items()))  # by names, their order is of no matter
    models.from_torch(network, shuffled)
    assert difference(network, SMALL, pixels()) < 1e-5
    assert not caplog.records


UNKNOWN = [  # as in github.com/weiaicunzai/pytorch-cifar100
    (r"^conv1", "conv1.0"),
    (r"^bn1", "conv1.1"),
    (r"^layer(\d)\.(\d)\.conv1", r"conv\1_x.\2.residual_function.0"),
    (r"^layer(\d)\.(\d)\.bn1", r"conv\1_x.\2.residual_function.1"),
    (r"^layer(\d)\.(\d)\.conv2", r"conv\1_x.\2.residual_function.3"),
    (r"^layer(\d)\.(\d)\.bn2", r"conv\1_x.\2.residual_function.4"),
    (r"^layer(\d)\.(\d)\.downsample", r"conv\1_x.\2.shortcut"),
]


def test_unknown_names_are_taken_in_their_order_and_that_is_said(caplog):
    deep = published.resnet(QUARTER, [3, 4, 6, 3], bottleneck=True)
    unknown = {f"part{place}.{name.split('.')[-1]}": deep[name] for place, name in enumerate(deep)}
    for width, name, weights, given in (
        (0.25, "resnet8", SMALL, renamed(SMALL, *UNKNOWN)),
        (0.25, "resnet50", deep, unknown),
    ):
        caplog.clear()
        network = built(name, width)
        models.from_torch(network, given)
        assert difference(network, weights, pixels()) < 1e-5
        assert f"weights for {name} have names of no known network" in caplog.text


# What does not fit


def without(name):
    return {key: value for key, value in SMALL.items() if key != name}


def swapped():
    """Names of no known network, whose modules were registered in another order."""
    unknown = renamed(SMALL, *UNKNOWN)
    names = list(unknown)
    first = next(i for i, name in enumerate(names) if "residual_function.1" in name)
    names.insert(first - 1, names.pop(first))
    return {name: unknown[name] for name in names}


def pre_activation():
    """The names of a pre-activation ResNet: its first norm of a block has the channels before."""
    return SMALL | {f"layer2.0.bn1.{part}": np.ones(4, "float32") for part in ("weight", "bias")}


REFUSED = {
    "missing": (lambda: without("layer3.0.bn2.bias"), r"layer3\.0\.bn2\.bias is missing"),
    "no shortcuts": (
        lambda: {name: SMALL[name] for name in SMALL if "downsample" not in name},
        r"layer2\.0\.downsample\.0\.weight is missing",
    ),
    "too much": (lambda: SMALL | {"conv1.bias": np.zeros(4, "f")}, "conv1.bias is no part of it"),
    "another depth": (
        lambda: published.resnet((4, 4, 8, 16), [2] * 3),
        r"layer1\.1\.conv1\.weight is no part of it",
    ),
    "classes": (
        lambda: published.resnet((4, 4, 8, 16), [1] * 3, classes=7),
        r"fc\.weight has the shape \(7, 16\), expected \(5, 16\)",
    ),
    "channels": (
        lambda: published.resnet((4, 4, 8, 16), [1] * 3, channels=1),
        r"conv1\.weight has the shape \(4, 1, 3, 3\), expected \(4, 3, 3, 3\)",
    ),
    "pre-activation": (
        pre_activation,
        r"layer2\.0\.bn1\.weight has the shape \(4,\), expected \(8,\)",
    ),
    "NaN": (
        lambda: SMALL | {"fc.bias": np.full(5, np.nan, "float32")},
        r"fc\.bias \(float32\) is not of finite",
    ),
    "infinite": (
        lambda: SMALL | {"fc.bias": np.full(5, np.inf)},
        r"fc\.bias \(float64\) is not of finite",
    ),
    "quantised": (
        lambda: SMALL | {"conv1.weight": SMALL["conv1.weight"].astype("int8")},
        r"conv1\.weight \(int8\) is not of finite floating-point",
    ),
    "twice": (
        lambda: SMALL | {"module.fc.bias": SMALL["fc.bias"]},
        r"module\.fc\.bias is there twice",
    ),
    "a checkpoint": (
        lambda: {"epoch": np.array(3), "state_dict": SMALL},
        r"expected \(4, 3, 3, 3\)",
    ),
    "nothing": (dict, r"conv1\.weight is missing"),
    "another order": (swapped, r"in the place of conv1|in the place of layer1\.0"),
    "unknown and short": (
        lambda: dict(list(renamed(SMALL, *UNKNOWN).items())[:-1]),
        r"fc\.bias is missing",
    ),
    "no dictionary": (lambda: [1, 2], "state_dict must be a dictionary of arrays"),
}


@pytest.fixture(scope="module")
def small():
    return built("resnet8", 0.25)


@pytest.mark.parametrize(("state_dict", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_one_line_and_changes_nothing(small, state_dict, message):
    before = small.get_weights()
    with pytest.raises(UsageError, match=message) as refusal:
        models.from_torch(small, state_dict())
    assert "\n" not in str(refusal.value)
    for one, other in zip(before, small.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_wide_resnets_of_other_names_are_not_taken_in_their_order():
    # That of github.com/meliketoy/wide-resnet.pytorch, without its biases, has the same shapes in
    # the same order, but strides in its second convolutions.
    weights = published.wide_resnet(10, 1)
    rules = [(r"block(\d)\.layer", r"layer\1"), ("convShortcut", "shortcut.0"), ("^fc", "linear")]
    with pytest.raises(UsageError, match=r"block1\.layer\.0\.\w+\.weight is missing"):
        models.from_torch(built("wrn-10-1"), renamed(weights, *rules))


@pytest.mark.parametrize("kind", ["cnn2", "earlier", "other", "none"])
def test_other_networks_are_refused(kind):
    network = {
        "cnn2": lambda: built("cnn2"),
        "earlier": lambda: earlier.resnet8((16, 16, 3), 5),
        "other": lambda: keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(5, name="logits")]
        ),
        "none": lambda: None,
    }[kind]()
    with pytest.raises(UsageError, match="from_torch fills ResNets and Wide ResNets") as refusal:
        models.from_torch(network, SMALL)
    assert "\n" not in str(refusal.value)
