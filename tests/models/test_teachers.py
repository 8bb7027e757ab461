"""Teachers that others publish: KerasHub's and those of keras.applications, from files."""

import shutil
import sys

import keras
import keras_hub
import numpy as np
import pytest

from tfdistill import data
from tfdistill.models import saved
from tfdistill.models.logits import features_network
from tfdistill.models.teachers.opening import open_teacher, teacher_file
from tfdistill.training.heads import new_head
from tfdistill.utils.checks import UsageError

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (4, 24, 24, 3)).astype("uint8")
SCALE, OFFSET = [0.01, 0.02, 0.03], [-1.0, 0.5, 2.0]


def task(converter=None, activation=None, classes=5):
    """Return KerasHub's smallest image classifier, with random weights."""
    backbone = keras_hub.models.ResNetBackbone(
        [64], [3], [64], [1], [1], block_type="basic_block", name="backbone"
    )
    preprocessor = converter and keras_hub.models.ResNetImageClassifierPreprocessor(converter)
    return keras_hub.models.ResNetImageClassifier(
        backbone, classes, preprocessor=preprocessor, activation=activation
    )


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """The folder of a preset with a converter to 24 pixels, and its task."""
    keras.utils.set_random_seed(0)
    converter = keras_hub.layers.ResNetImageConverter(
        image_size=(24, 24), scale=SCALE, offset=OFFSET, interpolation="bicubic"
    )
    made = task(converter, activation="softmax")
    folder = tmp_path_factory.mktemp("hub") / "preset"
    made.save_to_preset(folder)
    return folder, made


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.slow
def test_a_preset_is_a_network_from_raw_pixels_to_logits(preset):
    folder, made = preset
    teacher = open_teacher(f"hub:{folder}")
    assert (teacher.image_size, teacher.class_names) == (24, None)
    logits = teacher.network.predict(IMAGES, verbose=0)
    # By hand what its converter does with images of its own size, then the task's own call.
    prepared = IMAGES * np.array(SCALE, "float32") + np.array(OFFSET, "float32")
    expected = np.asarray(made(prepared, training=False))
    np.testing.assert_allclose(softmax(logits), expected, atol=1e-5)
    np.testing.assert_allclose(softmax(logits), made.predict(IMAGES, verbose=0), atol=1e-5)
    kernel, bias = made.output_dense.get_weights()
    pooled = made.pooler(made.backbone(prepared, training=False))
    np.testing.assert_allclose(logits, np.asarray(pooled) @ kernel + bias, atol=1e-4)


def test_its_converter_brings_images_of_another_size_to_its_own(preset):
    folder, made = preset
    large = GENERATOR.integers(0, 256, (2, 40, 40, 3)).astype("uint8")
    network = open_teacher(f"hub:{folder}", image_size=40).network
    found = softmax(network.predict(large, verbose=0))
    with pytest.raises(UsageError, match="image_size must be a whole number"):
        open_teacher(f"hub:{folder}", image_size=0)
    np.testing.assert_allclose(found, made.predict(large, verbose=0), atol=1e-5)


@pytest.mark.slow
def test_its_file_is_kept_loads_again_and_knows_what_it_was_made_of(preset, tmp_path):
    folder, made = preset
    path = teacher_file(f"hub:{folder}", tmp_path)
    assert path == tmp_path / "hub-preset.keras"
    assert (saved.input_size(path), saved.count_outputs(path)) == (24, 5)
    loaded = saved.load(path, (24, 24, 3), 5)
    found = loaded.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(softmax(found), made.predict(IMAGES, verbose=0), atol=1e-5)

    before = path.stat().st_mtime_ns
    assert teacher_file(f"hub:{folder}", tmp_path) == path and path.stat().st_mtime_ns == before
    other = tmp_path / "other" / "preset"
    shutil.copytree(folder, other)
    with pytest.raises(UsageError, match="as it was then.*Name another folder"):
        teacher_file(f"hub:{other}", tmp_path)
    assert teacher_file("some/teacher.keras", tmp_path).as_posix() == "some/teacher.keras"


@pytest.mark.slow
def test_a_new_head_stands_on_what_comes_before_the_last_layer(preset):
    folder, made = preset
    network = open_teacher(f"hub:{folder}").network
    x = GENERATOR.integers(0, 100, (60, 24, 24, 3)).astype("uint8")
    y = np.arange(60) % 3
    x[y == 1] += 60
    x[y == 2, :, :, 0] += 150
    images = data.from_arrays((x[:40], y[:40]), (x[40:], y[40:]), class_names=tuple("abc"))
    head = new_head(network, images)
    assert features_network(network).output_shape == (None, 64)
    assert head.validation_accuracy == 1.0
    assert (head.network.predict(x[40:], verbose=0).argmax(-1) == y[40:]).all()


def refused(text, *words):
    with pytest.raises(UsageError) as caught:
        open_teacher(text)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("missing", ["config.json", "task.json", "task.weights.h5"])
def test_a_preset_without_its_last_layer_is_refused(preset, tmp_path, missing):
    # KerasHub gives the last one a random layer in silence.
    shutil.copytree(preset[0], tmp_path / "preset")
    (tmp_path / "preset" / missing).unlink()
    refused(f"hub:{tmp_path / 'preset'}", f"has no {missing}", "with its last layer")


def test_presets_of_other_kinds_are_refused(preset, tmp_path):
    task().save_to_preset(tmp_path / "bare")
    refused(f"hub:{tmp_path / 'bare'}", "no preprocessor", "pixels 0..255")
    shutil.copytree(preset[0], tmp_path / "text")
    for name in ("config.json", "task.json"):
        path = tmp_path / "text" / name
        path.write_text(path.read_text().replace("keras_hub>ResNet", "keras_hub>Bert"))
    refused(f"hub:{tmp_path / 'text'}", "no whole image classifier")
    (tmp_path / "text" / "config.json").write_text("{")
    refused(f"hub:{tmp_path / 'text'}", "no whole image classifier")
    refused("hub:bert_base_en", "which is neither", "resnet_50_imagenet")
    refused("hub:resnet_50_imagnet", "Did you mean 'resnet_50_imagenet'?")
    refused("hub:", "hub:PRESET")
    refused("keras:", "keras:NAME")
    refused("torch:resnet18", "keras:NAME=FILE")


def test_a_preset_that_cannot_be_downloaded_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    refused("hub:resnet_18_imagenet", "could not be had", "with a connection")


def test_without_keras_hub_one_line_says_what_to_install(preset, tmp_path, monkeypatch):
    path = teacher_file(f"hub:{preset[0]}", tmp_path)
    monkeypatch.setattr(sys, "meta_path", [])  # nothing is found that was not imported
    for name in [name for name in sys.modules if name.partition(".")[0] == "keras_hub"]:
        monkeypatch.delitem(sys.modules, name)
    refused(f"hub:{preset[0]}", "keras_hub", 'pip install "tfdistill[hub]"')
    with pytest.raises(UsageError, match=r"tfdistill\[hub\]"):
        saved.load(path, (24, 24, 3), 5)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """MobileNetV2 with random weights, and files of them with the last layer and without."""
    folder = tmp_path_factory.mktemp("mobilenet")
    network = keras.applications.MobileNetV2(weights=None)
    network.save_weights(folder / "whole.weights.h5")
    network.save(folder / "published.h5")
    keras.Model(network.input, network.layers[-2].output).save(folder / "no_top.h5")
    return folder, network


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole.weights.h5", "published.h5"])
def test_a_network_of_keras_applications_prepares_raw_pixels(mobilenet, name):
    folder, network = mobilenet
    images = GENERATOR.integers(0, 256, (1, 224, 224, 3)).astype("uint8")
    teacher = open_teacher(f"keras:MobileNetV2={folder / name}")
    assert teacher.image_size == 224 and len(teacher.class_names) == 1000
    assert teacher.class_names[1] == "goldfish" and len(set(teacher.class_names)) == 1000
    found = np.asarray(teacher.network(images, training=False))
    expected = network(images / np.float32(127.5) - 1, training=False)
    np.testing.assert_allclose(softmax(found), expected, atol=1e-6)
    assert features_network(teacher.network).output_shape == (None, 1280)


@pytest.mark.slow
def test_weights_without_the_last_layer_end_before_it(mobilenet):
    folder, network = mobilenet
    teacher = open_teacher(f"keras:MobileNetV2={folder / 'no_top.h5'}")
    assert teacher.network.output_shape == (None, 1280) and teacher.class_names is None
    for one, other in zip(teacher.network.weights, network.weights[:-2], strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.slow
def test_what_cannot_be_of_keras_applications_is_one_line(mobilenet, tmp_path):
    refused("keras:MobileNetV4", "Did you mean")
    refused(f"keras:MobileNetV3Small={mobilenet[0] / 'published.h5'}", "do not fit")
    refused(f"keras:MobileNetV3Small={tmp_path / 'absent.h5'}", "is not a file")
    refused(f"keras:EfficientNetB0={mobilenet[0] / 'published.h5'}", "Keras adds a layer")
