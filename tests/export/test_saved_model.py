"""SavedModels answer as their networks do, on pixels and on files, and refuse bad files cheaply."""

import io
import json
import struct
import subprocess
import sys
import textwrap
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from tests.warmup import read_warmup
from tfdistill import Distiller, Ensemble, models
from tfdistill.config import ModelConfig
from tfdistill.data import Examples, augment, decode, pipeline
from tfdistill.export import saved_model
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow

SHAPE, STORED, NAMES = (8, 8, 3), 12, ["cat", "dog", "Käfer"]


def _network(shape=SHAPE, channels=4, dtype=None):
    inputs = keras.Input(shape)
    x = layers.Rescaling(1 / 64, offset=-2, dtype=dtype)(inputs)
    x = layers.Conv2D(channels, 3, activation="relu", dtype=dtype)(x)
    x = layers.Flatten(dtype=dtype)(layers.BatchNormalization(dtype=dtype)(x))
    return keras.Model(inputs, layers.Dense(len(NAMES), dtype=dtype)(x))


def _pixels(count=5, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def _file(pixels, kind="png"):
    data = io.BytesIO()
    Image.fromarray(np.squeeze(pixels)).save(data, kind)
    return data.getvalue()


def _served(folder):
    """Return both signatures as functions of arrays, which give arrays."""
    loaded = tf.saved_model.load(str(folder))

    def call(name, **inputs):
        found = loaded.signatures[name](**{key: tf.constant(v) for key, v in inputs.items()})
        return {key: value.numpy() for key, value in found.items()}

    return call


def _stored(folder):
    """Return the shapes of the variables on disk, sorted."""
    listed = tf.train.list_variables(str(folder / "variables" / "variables"))
    return sorted(shape for name, shape in listed if "OBJECT_GRAPH" not in name)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network, and its export for images of any size, stored at 12x12 and seen at 8x8."""
    keras.utils.set_random_seed(0)
    network, folder = _network(), tmp_path_factory.mktemp("export") / "1"
    saved_model.write(network, folder, SHAPE, NAMES, image_size=STORED, resize=True)
    saved_model.write_warmup(folder, "pets", _pixels(3))
    return network, folder


@pytest.fixture(scope="module")
def served(exported):
    return _served(exported[1])


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """The export of a network that was compiled with XLA, for images of its own size alone."""
    network, folder = _network(), tmp_path_factory.mktemp("fixed") / "1"
    network.compile(jit_compile=True)
    saved_model.write(network, folder, SHAPE, NAMES)
    return folder


@pytest.fixture(scope="module")
def served_fixed(fixed):
    return _served(fixed)


def test_answers_are_the_networks(exported, served):
    pixels = _pixels()
    found, logits = served("serving_default", image=pixels), exported[0].predict(pixels, verbose=0)
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(found["class_id"], logits.argmax(axis=1))
    assert [name.decode() for name in found["class_name"]] == [NAMES[i] for i in found["class_id"]]
    assert {key: value.dtype.name for key, value in found.items()} == {
        "logits": "float32",
        "probabilities": "float32",
        "class_id": "int32",
        "class_name": "object",
    }


def test_files_of_the_networks_size_stay_untouched_where_images_are_stored_so(served_fixed):
    served, pixels = served_fixed, _pixels()
    from_pixels = served("serving_default", image=pixels)
    from_files = served("bytes", image_bytes=[_file(image) for image in pixels])
    np.testing.assert_array_equal(from_files["logits"], from_pixels["logits"])


def test_files_of_all_sizes_are_prepared_as_the_data_pipeline_does(exported, served):
    shapes = [(20, 30), (30, 20), (12, 12), (5, 9), (8, 40), (12, 8), (31, 31), (8, 8)]
    kinds = ["png", "jpeg"] * 4
    files = [_file(_pixels(1, (*s, 3))[0], kind) for s, kind in zip(shapes, kinds, strict=False)]
    decoded = decode.decode(files, str, 3, STORED)
    examples = Examples.numbered(decoded, np.zeros(len(files)))
    batches = pipeline.evaluation_batches(examples, 4, input_size=8).map(lambda x, y: x)
    expected = exported[0].predict(batches, verbose=0)
    found = served("bytes", image_bytes=files)["logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_pixels_of_another_size_are_prepared_as_files_are(served):
    pixels = _pixels(3, (20, 14, 3))
    from_pixels = served("serving_default", image=pixels)["logits"]
    from_files = served("bytes", image_bytes=[_file(image) for image in pixels])["logits"]
    np.testing.assert_array_equal(from_pixels, from_files)


def test_without_resize_only_the_networks_size_is_taken(served_fixed):
    served = served_fixed
    assert served("serving_default", image=_pixels(2))["logits"].shape == (2, 3)
    with pytest.raises((TypeError, ValueError, tf.errors.InvalidArgumentError)):
        served("serving_default", image=_pixels(2, (9, 9, 3)))
    assert served("bytes", image_bytes=[_file(_pixels(1, (9, 9, 3))[0])])["logits"].shape == (1, 3)


def test_colour_files_for_a_grey_network_and_the_reverse(served, tmp_path):
    grey = _pixels(1, (8, 8, 1))[0]
    colour = np.repeat(grey, 3, axis=-1)
    expected = served("bytes", image_bytes=[_file(colour)])["logits"]
    found = served("bytes", image_bytes=[_file(grey)])["logits"]
    np.testing.assert_array_equal(found, expected)

    network = _network((8, 8, 1))
    saved_model.write(network, tmp_path / "1", (8, 8, 1), NAMES)
    files = [_file(colour), _file(colour, "jpeg"), _file(grey, "jpeg")]
    logits = _served(tmp_path / "1")("bytes", image_bytes=files)["logits"]
    expected = network.predict(grey[None], verbose=0)
    # Grey of three equal parts is computed with rounding.
    np.testing.assert_allclose(logits[:1], expected, atol=0.2)
    np.testing.assert_allclose(logits[1], logits[2], atol=0.2)


def test_a_network_that_is_not_square(tmp_path):
    network = _network((6, 10, 3))
    saved_model.write(network, tmp_path / "1", (6, 10, 3), NAMES, resize=True)
    served = _served(tmp_path / "1")
    smooth = np.asarray(Image.fromarray(_pixels(1, (4, 5, 3))[0]).resize((31, 23), Image.BICUBIC))
    scaled = np.asarray(Image.fromarray(smooth).resize((10, 6), Image.BILINEAR))
    own = _pixels(1, (6, 10, 3))[0]
    expected = network.predict(np.stack([scaled, own]), verbose=0)
    found = served("bytes", image_bytes=[_file(smooth), _file(own)])["logits"]
    # Pillow rounds in between.
    np.testing.assert_allclose(found, expected, atol=0.05)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)
    from_pixels = served("serving_default", image=smooth[None])["logits"]
    np.testing.assert_array_equal(from_pixels, found[:1])


def _bytes_of(network):
    return sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in network.variables)


def test_a_distillers_student_is_exported_alone(tmp_path):
    student, teacher = _network(), _network(channels=64)
    distiller = Distiller(student, teacher)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss, run_eagerly=True)
    distiller.fit(_pixels(8), np.arange(8) % 3, verbose=0)
    saved_model.write(distiller, tmp_path / "1", SHAPE, NAMES)
    assert _stored(tmp_path / "1") == sorted(list(v.shape) for v in student.variables)
    (data,) = (tmp_path / "1" / "variables").glob("variables.data*")
    # Beside the variables there is the graph of their names.
    assert 0 <= data.stat().st_size - _bytes_of(student) < 4000 < _bytes_of(teacher)
    assert b"teacher" not in (tmp_path / "1" / "saved_model.pb").read_bytes()
    found = _served(tmp_path / "1")("serving_default", image=_pixels())["logits"]
    np.testing.assert_allclose(found, student.predict(_pixels(), verbose=0), atol=1e-5)


def test_an_ensemble(tmp_path):
    network = Ensemble([_network(), _network(channels=3)])
    saved_model.write(network, tmp_path / "1", SHAPE, NAMES)
    found = _served(tmp_path / "1")("serving_default", image=_pixels())["logits"]
    np.testing.assert_allclose(found, network.predict(_pixels(), verbose=0), atol=1e-5)
    assert _stored(tmp_path / "1") == sorted(list(v.shape) for v in network.variables)


def test_mixed_precision_gives_float32(tmp_path):
    network = _network(dtype="mixed_float16")
    saved_model.write(network, tmp_path / "1", SHAPE, NAMES)
    found = _served(tmp_path / "1")("serving_default", image=_pixels())
    assert found["logits"].dtype == found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["logits"], network.predict(_pixels(), verbose=0), atol=2e-2)


def test_a_users_saved_model_with_a_lookup_table(tmp_path):
    module = tf.Module()
    order = tf.lookup.KeyValueTensorInitializer(tf.range(3), tf.constant([2, 0, 1]))
    module.table, module.network = tf.lookup.StaticHashTable(order, -1), _network()

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.float32, "image")])
    def serve(image):
        return {
            "logits": tf.gather(module.network(image), module.table.lookup(tf.range(3)), axis=1)
        }

    tf.saved_model.save(module, str(tmp_path / "users"), signatures={"serving_default": serve})
    network = models.build(ModelConfig("saved", path=str(tmp_path / "users")), SHAPE, 3)
    saved_model.write(network, tmp_path / "1", SHAPE, NAMES)
    found = _served(tmp_path / "1")("serving_default", image=_pixels())["logits"]
    expected = module.network.predict(_pixels(), verbose=0)[:, [2, 0, 1]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_network_compiled_with_xla_is_exported_without(fixed):
    data = (fixed / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(data).meta_graphs
    functions = graph.graph_def.library.function
    nodes = [node for function in functions for node in function.node_def]
    places = [
        part.attr["_XlaMustCompile"].b for part in (*functions, *nodes, *graph.graph_def.node)
    ]
    assert len(places) > 100 and not any(places)


def test_numeric_exports_hold_no_strings(tmp_path):
    network = _network()
    saved_model.write_numeric(network, tmp_path / "1", SHAPE)
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    assert list(signatures) == ["serving_default"]
    found = signatures["serving_default"](image=tf.constant(_pixels()))
    assert sorted(found) == ["class_id", "logits", "probabilities"]
    np.testing.assert_allclose(found["logits"], network.predict(_pixels(), verbose=0), atol=1e-5)


def test_names_must_fit_the_network(tmp_path):
    with pytest.raises(UsageError, match="one name for each of its 3 classes. Received: 2 names"):
        saved_model.write(_network(), tmp_path / "1", SHAPE, ["a", "b"])


def _png_of_zeros(width, height):
    """A PNG of black and white pixels, one bit each, that takes little room."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(height * (1 + (width + 7) // 8)))
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


GOOD = {kind: _file(_pixels(1, (40, 30, 3))[0], kind) for kind in ("png", "jpeg")}
BAD_FILES = {
    "nothing": (b"", r"image_bytes\[1\] is empty \(0 bytes\); give whole JPEG or PNG files\."),
    "text": (b"hello", r"image_bytes\[1\] is neither JPEG nor PNG \(5 bytes\); give"),
    "gif": (_file(_pixels(1)[0], "gif"), r"image_bytes\[1\] is neither JPEG nor PNG"),
    "png start": (GOOD["png"][:20], r"image_bytes\[1\] is cut off \(20 bytes\); give"),
    "png half": (GOOD["png"][:1500], r"image_bytes\[1\] is cut off \(1500 bytes\); give"),
    "jpeg half": (GOOD["jpeg"][:700], r"image_bytes\[1\] is cut off \(700 bytes\); give"),
    "png hole": (GOOD["png"][:1500] + GOOD["png"][-12:], "Invalid PNG data, size 1512"),
    "jpeg hole": (GOOD["jpeg"][:250] + GOOD["jpeg"][-2:], r"\[1\] is a damaged JPEG; give whole"),
    "large": (_png_of_zeros(9000, 9000), r"\[1\] has 9000 x 9000 pixels; give images of 1 to 2500"),
    "long": (_png_of_zeros(2**20, 1), r"\[1\] has 1 x 1048576 pixels; give images at most 173611"),
    "flat": (_png_of_zeros(9, 0), r"\[1\] has 0 x 9 pixels; give images of 1 to 25000000 pixels"),
}  # fmt: skip


def test_a_bad_file_is_named_and_the_model_goes_on(served):
    good = _file(_pixels(1)[0])
    before = served("bytes", image_bytes=[good])["logits"]
    for data, message in BAD_FILES.values():
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            served("bytes", image_bytes=[good, data])
    np.testing.assert_array_equal(served("bytes", image_bytes=[good])["logits"], before)


def test_bad_pixels_are_refused(served):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image has 5001 x 5000 pixels; give"):
        served("serving_default", image=np.zeros((1, 5001, 5000, 3), np.uint8))
    for name, batch in (("image", _pixels(0)), ("image_bytes", np.zeros(0, object))):
        key = "serving_default" if name == "image" else "bytes"
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name} has no images; give at"):
            served(key, **{name: batch})


def test_warm_up_requests(exported):
    path = exported[1] / saved_model.WARMUP
    requests = read_warmup(path)
    assert [r.model_spec.name for r in requests] == ["pets"] * 3
    signatures = [request.model_spec.signature_name for request in requests]
    assert signatures == ["serving_default", "serving_default", "bytes"]
    first, second = (tf.make_ndarray(request.inputs["image"]) for request in requests[:2])
    np.testing.assert_array_equal(first, _pixels(3)[:1])
    np.testing.assert_array_equal(second[3:6], _pixels(3))
    assert len(second) == 32
    (file,) = tf.make_ndarray(requests[2].inputs["image_bytes"])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), _pixels(1)[0])
    assert path.stat().st_size < 10_000


FRESH = """
    import json, resource, sys
    import numpy as np
    import tensorflow as tf

    folder, pixels, bomb = sys.argv[1:]
    signatures = tf.saved_model.load(folder).signatures
    answers = [signatures["serving_default"](image=tf.constant(np.load(pixels)))]

    from tensorflow_serving.apis import prediction_log_pb2
    path = folder + "/assets.extra/tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        answers.append(signatures[request.model_spec.signature_name](**inputs))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        signatures["bytes"](image_bytes=tf.constant([open(bomb, "rb").read()]))
        error = ""
    except tf.errors.InvalidArgumentError as caught:
        error = str(caught)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    answers.append(signatures["serving_default"](image=tf.constant(np.load(pixels))))
    print(json.dumps({
        "logits": [answer["logits"].numpy().tolist() for answer in answers],
        "error": error,
        "grown_kb": grown,
        "modules": [name for name in sys.modules if name.startswith("tfdistill")],
    }))
"""


@pytest.fixture(scope="module")
def fresh(exported, tmp_path_factory):
    """What a process with TensorFlow alone answers."""
    folder = tmp_path_factory.mktemp("fresh")
    np.save(folder / "pixels.npy", _pixels())
    (folder / "bomb.png").write_bytes(_png_of_zeros(10_000, 10_000))
    paths = [exported[1], folder / "pixels.npy", folder / "bomb.png"]
    command = [sys.executable, "-I", "-c", textwrap.dedent(FRESH), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_fresh_process_with_tensorflow_alone_answers_alike(exported, fresh):
    expected = exported[0].predict(_pixels(), verbose=0)
    assert fresh["modules"] == []
    np.testing.assert_allclose(fresh["logits"][0], expected, atol=1e-5)
    one, batch, file = (np.array(logits) for logits in fresh["logits"][1:4])
    assert batch.shape == (32, 3)
    warm = exported[0].predict(_pixels(3), verbose=0)
    np.testing.assert_allclose(one, warm[:1], atol=1e-5)
    np.testing.assert_allclose(batch[29:], warm[[2, 0, 1]], atol=1e-5)
    as_file = augment.resize(decode.squared(_pixels(1), STORED), 8)
    np.testing.assert_allclose(file, exported[0].predict(as_file, verbose=0), atol=1e-5)


def test_a_decompression_bomb_costs_no_memory(fresh):
    assert "image_bytes[0] has 10000 x 10000 pixels" in fresh["error"]
    # Decoded, it would take 300 MB.
    assert fresh["grown_kb"] < 20_000
    assert fresh["logits"][-1] == fresh["logits"][0]
