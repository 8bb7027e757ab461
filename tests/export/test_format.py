"""Exported networks behind one face: answers, refused input, damaged files, missing packages."""

import sys

import keras
import numpy as np
import onnx as onnx_package
import pytest
import tensorflow as tf

from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.export import litert, onnx, saved_model
from tfdistill.export.format import MissingPackage, open_model

pytestmark = pytest.mark.slow

NAMES = ("cat", "Käfer", "tree")
KINDS = {"savedmodel": "served", "litert": "model.tflite", "onnx": "model.onnx"}
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return models.build(ModelConfig("cnn2"), (8, 6, 3), 3, 127.5, 127.5)


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    saved_model.write(network, folder / KINDS["savedmodel"], (8, 6, 3), NAMES)
    saved_model.write_numeric(network, folder / "numeric", (8, 6, 3))
    litert.convert(folder / "numeric", folder / KINDS["litert"], "float32")
    onnx.convert(folder / "numeric", folder / KINDS["onnx"], NAMES)
    return folder


@pytest.fixture(params=KINDS)
def model(folder, request):
    return open_model(folder / KINDS[request.param])


def test_it_answers_as_the_network_in_batches_of_any_size(network, model):
    assert model.input_shape == (8, 6, 3)
    logits = network.predict(PIXELS.astype("float32"), verbose=0)
    for start, end in ((0, 5), (0, 1), (1, 2), (2, 5)):
        found = model(PIXELS[start:end])
        np.testing.assert_allclose(found["logits"], logits[start:end], atol=1e-5)
        softmax = keras.ops.softmax(logits[start:end])
        np.testing.assert_allclose(found["probabilities"], softmax, atol=1e-5)
        np.testing.assert_array_equal(found["class_id"], logits[start:end].argmax(1))
        dtypes = [found[name].dtype for name in ("logits", "probabilities", "class_id")]
        assert dtypes == ["float32", "float32", "int32"]


def test_kinds_are_told_apart_by_their_paths(folder):
    titles = [open_model(folder / name).title for name in KINDS.values()]
    assert titles == ["SavedModel", "LiteRT", "ONNX"]


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (PIXELS.astype("float32"), r"float32 \[5, 8, 6, 3\]"),
        (PIXELS[0], r"uint8 \[8, 6, 3\]"),
        (PIXELS[:, :, :5], r"uint8 \[5, 8, 5, 3\]"),
        (PIXELS[..., :1], r"uint8 \[5, 8, 6, 1\]"),
        (PIXELS[:0], r"uint8 \[0, 8, 6, 3\]"),
        (PIXELS.tolist(), r"list \[5, 8, 6, 3\]"),
    ],
)
def test_other_input_is_refused(model, images, received):
    with pytest.raises(ValueError, match=rf"images uint8 \[n, 8, 6, 3\].*Received: {received}"):
        model(images)


def test_a_saved_model_takes_files_and_names_classes(folder):
    model = open_model(folder / KINDS["savedmodel"])
    assert model.takes_bytes
    files = [tf.io.encode_png(image).numpy() for image in PIXELS]
    found, expected = model.answer_bytes(files), model(PIXELS)
    assert found["class_name"].tolist() == [NAMES[number] for number in expected["class_id"]]
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-5)


def test_files_that_cannot_be_taken_are_refused_in_one_line(folder):
    model = open_model(folder / KINDS["savedmodel"])
    good = tf.io.encode_png(PIXELS[0]).numpy()
    with pytest.raises(ValueError, match=r"^The SavedModel refuses.*: image_bytes\[1\].+\.$"):
        model.answer_bytes([good, b"no image"])
    broken = good[:60] + bytes(9) + good[69:]
    with pytest.raises(ValueError, match=r"^The SavedModel refuses its input: .+$"):
        model.answer_bytes([broken])
    with pytest.raises(ValueError, match="one or more image files"):
        model.answer_bytes([])
    for other in ("numeric", KINDS["litert"], KINDS["onnx"]):
        model = open_model(folder / other)
        assert not model.takes_bytes
        with pytest.raises(ValueError, match="image files"):
            model.answer_bytes([b"no image"])


def test_a_saved_model_that_resizes_takes_every_size(network, tmp_path):
    saved_model.write(network, tmp_path / "any", (8, 6, 3), NAMES, resize=True)
    model = open_model(tmp_path / "any")
    assert model.input_shape == (None, None, 3)
    assert model(np.zeros((2, 20, 30, 3), np.uint8))["logits"].shape == (2, 3)
    with pytest.raises(ValueError, match=r"\[n, any, any, 3\].*Received: uint8 \[2, 20, 30, 1\]"):
        model(np.zeros((2, 20, 30, 1), np.uint8))


@pytest.mark.parametrize("kind", ["litert", "onnx"])
@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_damaged_files_are_refused_in_one_line(folder, tmp_path, kind, kept):
    whole = (folder / KINDS[kind]).read_bytes()
    path = tmp_path / KINDS[kind]
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(ValueError, match=f"^Cannot read the model {path}: .+\\.$"):
        open_model(path)


def test_a_damaged_saved_model_is_refused_in_one_line(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=f"^Cannot read the model {tmp_path}: .+\\.$"):
        open_model(tmp_path)


def test_a_model_that_is_no_exported_network_is_refused(folder, tmp_path):
    model = onnx_package.load(folder / KINDS["onnx"])
    renamed = onnx_package.compose.add_prefix(model, "other_")
    onnx_package.save(renamed, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="must take `image` and return .*a model from other_image"):
        open_model(tmp_path / "model.onnx")
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="no signature `serving_default`"):
        open_model(tmp_path / "empty")


@pytest.mark.parametrize("name", ["nothing", "nothing.tflite", "notes.txt"])
def test_what_is_no_model_is_refused(tmp_path, name):
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(ValueError, match=f"There is no model .*{name}. Give a folder with"):
        open_model(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "module", "command"),
    [
        ("litert", "ai_edge_litert", 'pip install "tfdistill[litert]"'),
        ("onnx", "onnxruntime", 'pip install "tfdistill[onnx]"'),
        ("savedmodel", "tensorflow", "pip install tensorflow"),
    ],
)
def test_a_missing_runtime_is_named_with_the_command_that_installs_it(
    folder, monkeypatch, kind, module, command
):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage) as caught:
        open_model(folder / KINDS[kind])
    assert str(caught.value).endswith(f"which is not installed. Run: {command}")
