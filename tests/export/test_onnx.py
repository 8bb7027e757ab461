"""ONNX files: the same answers as the Keras network, and what stands in the file."""

import json
import subprocess
import sys

import keras
import numpy as np
import onnx as onnx_package
import pytest

from tfdistill import Ensemble, models
from tfdistill.config import ModelConfig
from tfdistill.export import onnx
from tfdistill.export.format import OUTPUTS, open_model
from tfdistill.export.saved_model import write_numeric
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
NAMES = ("cat", "dog", "Käfer", "tree")


def build(name, shape=(16, 16, 3)):
    return models.build(ModelConfig(name), shape, 4, 127.5, 127.5)


def converted(network, folder, shape=PIXELS.shape[1:]):
    write_numeric(network, folder / "numeric", shape)
    path = folder / "model.onnx"
    onnx.convert(folder / "numeric", path, NAMES)
    return path


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return build("resnet8")


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    return converted(network, tmp_path_factory.mktemp("onnx"))


def test_it_answers_as_the_network_in_batches_of_any_size(network, path):
    model = open_model(path)
    logits = network.predict(PIXELS.astype("float32"), verbose=0)
    for part, expected in ((PIXELS, logits), (PIXELS[:1], logits[:1]), (PIXELS[2:5], logits[2:5])):
        found = model(part)
        np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
        softmax = keras.ops.softmax(expected)
        np.testing.assert_allclose(found["probabilities"], softmax, atol=1e-5)
        np.testing.assert_array_equal(found["class_id"], expected.argmax(1))
    assert found["class_id"].dtype == np.int32


def test_the_file_is_sound_and_says_what_it_is(path):
    model = onnx_package.load(path)
    onnx_package.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["class_names"]) == list(NAMES)
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == onnx.OPSET
    [image] = model.graph.input
    dimensions = image.type.tensor_type.shape.dim
    assert (image.name, dimensions[0].dim_param) == ("image", "batch")
    assert [dimension.dim_value for dimension in dimensions[1:]] == [16, 16, 3]
    assert image.type.tensor_type.elem_type == onnx_package.TensorProto.UINT8
    assert {value.name for value in model.graph.output} == set(OUTPUTS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: build("wrn-10-1"),
        lambda: build("cnn4"),
        lambda: Ensemble([build("cnn2"), build("cnn2")]),
        lambda: Ensemble([build("cnn2"), build("cnn2")], "logits"),
    ],
)
def test_networks_convert(tmp_path, make):
    network = make()
    found = open_model(converted(network, tmp_path))(PIXELS)
    logits = network.predict(PIXELS.astype("float32"), verbose=0)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-5)


def test_a_network_of_keras_applications_converts_and_prints_nothing(tmp_path, capfd):
    network = build("keras:MobileNetV3Small", (32, 32, 3))
    network.get_layer("logits").set_weights([np.ones((576, 4)), np.arange(4.0)])
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    path = converted(network, tmp_path, (32, 32, 3))
    assert capfd.readouterr() == ("", "")
    logits = network.predict(images.astype("float32"), verbose=0)
    np.testing.assert_allclose(open_model(path)(images)["logits"], logits, atol=1e-4)


def test_what_no_runtime_takes_is_refused_in_one_line(tmp_path):
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        network = build("cnn2")
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    with pytest.raises(UsageError, match="cannot be converted to ONNX: .*Leave the format") as it:
        converted(network, tmp_path)
    assert "\n" not in str(it.value)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("package", ["tf2onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, package):
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from pathlib import Path\n"
        "from tfdistill.export import onnx\n"
        "try: onnx.convert(Path('numeric'), Path('model.onnx'), ['a'])\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=tmp_path)
    command = 'Run: pip install "tfdistill[onnx]"'
    expected = f"The format onnx needs {package}, which is not installed. {command}\n"
    assert done.stdout.decode() == expected
