"""What a SavedModel may hold: models of images pass, programs that reach files or code do not."""

import keras
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.export import saved_model
from tfdistill.models.saved_model_safety import check_saved_model, trust, trust_ends, trusting
from tfdistill.studies.learning_speed.published import AlwaysDropout
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow

SHAPE, NAMES = (8, 8, 3), ["a", "b", "c"]


def _network():
    inputs = keras.Input(SHAPE)
    x = layers.BatchNormalization()(layers.Conv2D(2, 3)(layers.Rescaling(1 / 255)(inputs)))
    x = layers.Dropout(0.5)(layers.Flatten()(layers.ReLU()(x)))
    return keras.Model(inputs, layers.Dense(len(NAMES))(x))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "1"
    saved_model.write(_network(), folder, SHAPE, NAMES, resize=True)
    return folder


@pytest.fixture
def copy(good, tmp_path):
    """A copy of a good SavedModel, to be damaged."""
    folder = tmp_path / "copy"
    tf.io.gfile.makedirs(str(folder / "variables"))
    for path in good.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(good)).write_bytes(path.read_bytes())
    return folder


def _changed(folder, change):
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(model.meta_graphs[0])
    path.write_bytes(model.SerializeToString())


def test_own_exports_pass(good, tmp_path):
    check_saved_model(good)
    saved_model.write(_network(), tmp_path / "fixed", SHAPE, NAMES)
    check_saved_model(tmp_path / "fixed")


def _mobile_network():
    """A block of MobileNetV2 and what stands around it."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, 2, "same", use_bias=False)(layers.Rescaling(1 / 127.5, -1)(inputs))
    x = start = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, use_bias=False)(layers.ZeroPadding2D(1)(x))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Add()([start, layers.Conv2D(4, 1, use_bias=False)(x)])
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(len(NAMES), "softmax")(x))


@pytest.mark.parametrize("network", [_network, _mobile_network])
def test_exports_by_keras_pass(network, tmp_path):
    network().export(tmp_path / "users", verbose=False)
    check_saved_model(tmp_path / "users")


def test_a_random_layer_and_a_loaded_model_pass_when_written_again(good, tmp_path):
    inputs = keras.Input(SHAPE)
    network = models.build(ModelConfig("saved", path=str(good)), SHAPE, 3)
    x = AlwaysDropout(0.5)(network(inputs))
    saved_model.write(keras.Model(inputs, x), tmp_path / "again", SHAPE, NAMES)
    check_saved_model(tmp_path / "again")


def test_lookup_tables_of_tensors_pass_and_of_files_do_not(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("a\nb\n")

    def table(of):
        module = tf.Module()
        module.table = tf.lookup.StaticHashTable(of, "?")
        return module, lambda x: module.table.lookup(tf.argmax(x, axis=-1))

    keys = tf.constant([0, 1], tf.int64)
    _save(
        *table(tf.lookup.KeyValueTensorInitializer(keys, tf.constant(["a", "b"]))), tmp_path / "t"
    )
    check_saved_model(tmp_path / "t")
    number, line = tf.lookup.TextFileIndex.LINE_NUMBER, tf.lookup.TextFileIndex.WHOLE_LINE
    from_file = tf.lookup.TextFileInitializer(str(words), tf.int64, number, tf.string, line)
    _save(*table(from_file), tmp_path / "f")
    with pytest.raises(UsageError, match="holds the operation 'InitializeTableFromTextFileV2' in"):
        check_saved_model(tmp_path / "f")


def _save(module, function, folder):
    spec = tf.TensorSpec((None, 3), tf.float32, "x")
    module.serve = tf.function(function, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def _then(x, operation):
    with tf.control_dependencies([operation]):
        return tf.identity(x)


def _restored(x):
    (value,) = tf.raw_ops.RestoreV2(
        prefix="/elsewhere", tensor_names=["v"], shape_and_slices=[""], dtypes=[tf.float32]
    )
    return x + tf.reshape(value, (1, 3))


def _stored(x):
    saving = tf.raw_ops.SaveV2(
        prefix="/elsewhere", tensor_names=["v"], shape_and_slices=[""], tensors=[x]
    )
    return _then(x, saving)


def _in_a_loop(x):
    body = lambda row: row + tf.cast(tf.strings.length(tf.io.read_file("/secret")), tf.float32)  # noqa: E731
    return tf.map_fn(body, x)


PROGRAMS = {
    "WriteFile": lambda x: _then(x, tf.io.write_file("/elsewhere", "text")),
    "ReadFile": _in_a_loop,
    "MatchingFiles": lambda x: x + tf.cast(tf.size(tf.io.matching_files("/*")), tf.float32),
    "PyFunc": lambda x: tf.numpy_function(lambda v: v, [x], tf.float32),
    "EagerPyFunc": lambda x: tf.py_function(lambda v: v, [x], tf.float32),
    "PrintV2": lambda x: _then(x, tf.print(x, output_stream="file:///elsewhere")),
    "RestoreV2": _restored,
    "SaveV2": _stored,
    "ImmutableConst": lambda x: x + tf.raw_ops.ImmutableConst(
        dtype=tf.float32, shape=(3,), memory_region_name="/secret"
    ),
    r"\w+Dataset": lambda x: x + tf.data.TextLineDataset("/secret").reduce(
        0.0, lambda total, line: total + 1.0
    ),
    "DebugIdentity": lambda x: tf.raw_ops.DebugIdentity(input=x, debug_urls=["file:///elsewhere"]),
}  # fmt: skip


@pytest.mark.parametrize("operation", PROGRAMS)
def test_programs_that_reach_files_or_code_are_refused(operation, tmp_path):
    module = tf.Module()
    module.variable = tf.Variable(1.0)
    program = PROGRAMS[operation]
    _save(module, lambda x: program(x) * module.variable, tmp_path / "users")
    expected = rf"holds the operation '{operation}' in its function .*--allow-unsafe"
    with pytest.raises(UsageError, match=expected) as caught:
        check_saved_model(tmp_path / "users")
    assert "\n" not in str(caught.value)
    check_saved_model(tmp_path / "users", allow_unsafe=True)


def test_printing_to_the_terminal_passes(tmp_path):
    _save(tf.Module(), lambda x: _then(x, tf.print(x)), tmp_path / "users")
    check_saved_model(tmp_path / "users")


def _saver_call(graph, tensor):
    name = tensor.partition(":")[0]
    return next(node for node in graph.graph_def.node if node.name == name)


def _function(graph, node):
    name = node.attr["f"].func.name
    return next(f for f in graph.graph_def.library.function if f.signature.name == name)


def _signature_restores(graph):
    graph.signature_def["serving_default"].outputs["logits"].name = graph.saver_def.restore_op_name


def _initialiser_saves(graph):
    collection = graph.collection_def["saved_model_main_op"].node_list
    collection.value[:] = [graph.saver_def.save_tensor_name]


def _another_node_restores(graph):
    other = graph.graph_def.node.add()
    other.CopyFrom(_saver_call(graph, graph.saver_def.restore_op_name))
    other.name = "another"


def _restores_a_constant_file(graph):
    function = _function(graph, _saver_call(graph, graph.saver_def.restore_op_name))
    node = next(node for node in function.node_def if node.op == "RestoreV2")
    node.input[0] = "RestoreV2/tensor_names:output:0"


def _restoring_saves(graph):
    graph.saver_def.restore_op_name = graph.saver_def.save_tensor_name.partition(":")[0]


def _object_restores(graph):
    called = _saver_call(graph, graph.saver_def.restore_op_name).attr["f"].func.name
    node = next(n for n in graph.object_graph_def.nodes if n.HasField("function"))
    node.function.concrete_functions.append(called)


def _file_of_another_node(graph):
    node = _saver_call(graph, graph.saver_def.restore_op_name)
    node.input[0] = "another"


HIDDEN = [
    _signature_restores,
    _initialiser_saves,
    _another_node_restores,
    _restores_a_constant_file,
    _restoring_saves,
    _object_restores,
    _file_of_another_node,
]


@pytest.mark.parametrize("change", HIDDEN)
def test_the_savers_functions_serve_the_saver_alone(copy, change):
    check_saved_model(copy)
    _changed(copy, change)
    with pytest.raises(UsageError, match="operation '(RestoreV2|SaveV2|ShardedFilename)' in its"):
        check_saved_model(copy)


def test_an_unknown_operation_is_refused(copy):
    def custom(graph):
        nodes = [n for f in graph.graph_def.library.function for n in f.node_def]
        next(node for node in nodes if node.op == "Conv2D").op = "UsersOwn\n"

    _changed(copy, custom)
    with pytest.raises(
        UsageError, match="operation .UsersOwn..' in .*TensorFlow does not know it"
    ) as caught:
        check_saved_model(copy)
    assert "\n" not in str(caught.value)


def test_a_call_of_a_function_from_elsewhere_is_refused(copy):
    def lost(graph):
        node = next(n for n in graph.graph_def.node if n.op == "StatefulPartitionedCall")
        node.attr["f"].func.name = "absent"

    _changed(copy, lost)
    with pytest.raises(UsageError, match="main graph: it calls 'absent', which the file does not"):
        check_saved_model(copy)


def test_a_function_with_an_operations_name_hides_nothing(copy):
    def disguised(graph):
        library = graph.graph_def.library
        function = library.function.add()
        function.signature.name = "ReadFile"
        library.function[0].node_def.add(name="read", op="ReadFile")

    _changed(copy, disguised)
    with pytest.raises(UsageError, match="holds the operation 'ReadFile' in its function"):
        check_saved_model(copy)


def _cut(path, keep):
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


DAMAGES = {
    "saved_model.pb is empty": lambda f: (f / "saved_model.pb").write_bytes(b""),
    "saved_model.pb cannot be read": lambda f: _cut(f / "saved_model.pb", 0.7),
    "cut off or no SavedModel": lambda f: (f / "saved_model.pb").write_bytes(b"garbage" * 99),
    "it holds no saved_model.pb": lambda f: (f / "saved_model.pb").unlink(),
    "holds saved_model.cpb": lambda f: (f / "saved_model.cpb").write_bytes(b"x"),
    "variables.index is missing": lambda f: (f / "variables" / "variables.index").unlink(),
    "its variables cannot be read": lambda f: _cut(next(f.rglob("variables.data*")), 0.5),
    "variables cannot be read .*": lambda f: _cut(f / "variables" / "variables.index", 0.5),
    "cannot be read .* Give a": lambda f: next(f.rglob("variables.data*")).unlink(),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damage_is_told_in_one_line_whatever_is_allowed(copy, message):
    DAMAGES[message](copy)
    for allow_unsafe in (False, True):
        with pytest.raises(UsageError, match=message) as caught:
            check_saved_model(copy, allow_unsafe)
        assert "\n" not in str(caught.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(UsageError, match="there is no such folder. Give a folder with"):
        check_saved_model(tmp_path / "absent")


def test_variables_may_be_none(tmp_path):
    _save(tf.Module(), lambda x: 2 * x, tmp_path / "users")
    check_saved_model(tmp_path / "users")


def test_trust_ends_with_the_command_that_asked_for_it():
    with trust_ends():
        trust()
        assert trusting()
    assert not trusting()
