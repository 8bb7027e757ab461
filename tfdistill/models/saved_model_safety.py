"""What a SavedModel from elsewhere may do: its operations are read before it is loaded.

A SavedModel is a program. TensorFlow runs parts of it on loading and the rest on every call, with
the rights of the process. So only operations that compute pass: those without state, less the ones
that reach files, the network or Python, and named ones with state. Unknown ones do not.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from tfdistill.utils import checks

GRAPH, OTHER_FORMS = "saved_model.pb", ("saved_model.pbtxt", "saved_model.cpb")
_SAVE = frozenset({"SaveV2", "MergeV2Checkpoints", "ShardedFilename"})
_RESTORE = frozenset({"RestoreV2"})
_STREAMS = {b"stderr", b"stdout", b"log(info)", b"log(warning)", b"log(error)"}

# Of the operations without state, those that do more than compute from their inputs.
_REFUSED = re.compile(
    r"""_.* | .*(Dataset|File|PyFunc|Summary|Snapshot|Debug|Remote|Rpc|Send|Recv|Checkpoint).*
    | (DTensor|Infeed|Mlir|Prelinearize|Queue|Reader|Relayout|Xla).* | .*(ToMesh|TPU|Tpu).*
    | Abort | Copy(Host)? | CustomAggregator | (De|En)code(ProtoV2|Proto) | GenerateVocabRemapping
    | ImmutableConst""",
    re.VERBOSE,
)
# Of those with state: variables, calls, branches, lookup tables, random numbers, lists, checks.
_WITH_STATE = re.compile(
    r"""(VarHandle|ReadVariable|Assign(Add|Sub)?Variable|VarIsInitialized|DestroyResource)Op
    | VariableShape | DisableCopyOnRead | Resource(Gather|GatherNd|Scatter\w+|StridedSliceAssign)
    | StatefulPartitionedCall | Case | If | While | DeviceIndex | GuaranteeConst | Empty
    | (Anonymous)?(Mutable)?(Dense)?HashTable(OfTensors)?(V2)? | InitializeTableV2
    | LookupTable(Export|Find|Import|Insert|Remove|Size)V2
    | Random(Crop|Gamma|PoissonV2|Shuffle|StandardNormal|Uniform|UniformInt) | TruncatedNormal
    | Multinomial | ParameterizedTruncatedNormal | NonDeterministicInts | Rng(ReadAndSkip|Skip)
    | Stateful(RandomBinomial|StandardNormalV2|TruncatedNormal|Uniform(FullInt|Int)?)
    | StatelessRandomGetAlg | SampleDistortedBoundingBox(V2)?
    | TensorArray(V3|(Close|Concat|Gather|Read|Scatter|Size|Split|Write)V3)
    | CudnnRNN(V2|V3)? | Assert | CheckNumerics(V2)? | Print""",
    re.VERBOSE,
)


_trusting: ContextVar[bool] = ContextVar("trusting", default=False)


@contextlib.contextmanager
def trust_ends() -> Iterator[None]:
    """Let what `trust` allows within end with it: one command of a process, not all later ones."""
    token = _trusting.set(_trusting.get())
    try:
        yield
    finally:
        _trusting.reset(token)


def trust() -> None:
    """Take every model file from now on, of makers whom you trust; until `trust_ends` is left."""
    _trusting.set(True)


def trusting() -> bool:
    """Return whether `trust` was called."""
    return _trusting.get()


def check_saved_model(path, allow_unsafe: bool = False) -> None:
    """Refuse a SavedModel that is damaged, or whose operations do more than compute.

    The graph is read, not loaded: nothing of the model runs. Refused are operations that read or
    write files (but for the saver's own), print to files, reach other machines or call Python, and
    those that this TensorFlow does not know. It says nothing about the model's answers, nor of how
    long or how much memory it takes, and trusts TensorFlow's own operations to be free of errors.

    Args:
        path: Folder of the SavedModel.
        allow_unsafe: Take every operation, of a model whose maker you trust.

    Raises:
        UsageError: A file is missing or damaged, or an operation is refused.

    Example:
        >>> check_saved_model("saved_models/quickstart-student/1")
    """
    folder = Path(path)
    data = _graph_data(folder)
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        graphs = saved_model_pb2.SavedModel.FromString(data).meta_graphs
    except DecodeError:
        graphs = ()
    if not graphs:
        raise _damaged(folder, f"{GRAPH} cannot be read; it is cut off or no SavedModel")
    _check_variables(folder)
    if not (allow_unsafe or trusting()):
        for graph in graphs:
            _check_operations(folder, graph)


def _graph_data(folder: Path) -> bytes:
    if not folder.is_dir():
        raise _damaged(folder, "there is no such folder")
    other = [name for name in OTHER_FORMS if (folder / name).exists()]
    if other:
        raise _damaged(folder, f"it holds {other[0]}, which another reader may take in its place")
    try:
        data = (folder / GRAPH).read_bytes()
    except OSError:
        raise _damaged(folder, f"it holds no {GRAPH} that can be read") from None
    if not data:
        raise _damaged(folder, f"{GRAPH} is empty")
    return data


def _check_variables(folder: Path) -> None:
    """Read all variables, each of which has a checksum."""
    import tensorflow as tf

    if not (folder / "variables" / "variables.index").is_file():
        raise _damaged(folder, "variables/variables.index is missing")
    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception as error:  # TensorFlow's reader raises many kinds
        said = checks.first_line(error).rstrip(".")
        raise _damaged(folder, f"its variables cannot be read ({said})") from None


def _damaged(folder: Path, problem: str) -> checks.UsageError:
    return checks.UsageError(
        f"{folder} is no whole SavedModel: {problem}. Give a folder with {GRAPH} and variables/, "
        "or export the model again."
    )


def _check_operations(folder: Path, graph) -> None:
    library = graph.graph_def.library.function
    known = {function.signature.name for function in library}
    savers = _saver_functions(graph)
    for function in library:
        name = function.signature.name
        prefix = function.signature.input_arg[0].name if function.signature.input_arg else None
        for node in function.node_def:
            if not (node.op in savers.get(name, ()) and _of_own_prefix(node, prefix)):
                _check_node(folder, node, known, f"function {_shown(name)}")
    for node in graph.graph_def.node:
        _check_node(folder, node, known, "main graph")


def _check_node(folder: Path, node, known: set[str], place: str) -> None:
    problem = _problem(node, known)
    if problem:
        raise checks.UsageError(
            f"The SavedModel {folder} holds the operation {_shown(node.op)} in its {place}: "
            f"{problem}. Classifying images needs no such operation. If you trust the model's "
            "maker, take it with --allow-unsafe (allow_unsafe=True)."
        )


def _problem(node, known: set[str]) -> str | None:
    from tensorflow.python.framework import op_def_registry

    absent = next((name for name in _called(node) if name not in known), None)
    if absent is not None:
        return f"it calls {_shown(absent)}, which the file does not hold"
    operation = op_def_registry.get(node.op)
    if operation is None:
        return None if node.op in known else "this TensorFlow does not know it"
    if node.op == "PrintV2":
        # A stream that the caller fills in is no known one either.
        fine = "output_stream" not in node.attr or node.attr["output_stream"].s in _STREAMS
    elif operation.is_stateful:
        fine = _WITH_STATE.fullmatch(node.op) is not None
    else:
        fine = not _REFUSED.fullmatch(node.op)
    return None if fine else "it may reach files, other machines or code outside the model"


def _saver_functions(graph) -> dict[str, frozenset[str]]:
    """Return what the saver's own functions may do: one writes the variables, one reads them.

    Only those count that the saver alone can call, with the file that TensorFlow names on loading.
    """
    saver = graph.saver_def
    filename = _node_of(saver.filename_tensor_name)
    nodes = {node.name: node for node in graph.graph_def.node}
    if filename not in nodes or nodes[filename].op != "Placeholder":
        return {}
    calls, used, allowed = _calls(graph), _used_tensors(graph), {}
    for tensor, operations in ((saver.save_tensor_name, _SAVE), (saver.restore_op_name, _RESTORE)):
        node = nodes.get(_node_of(tensor))
        if node is None or not node.input or _node_of(node.input[0]) != filename:
            continue
        called = list(_called(node))
        if len(called) == 1 and calls[called[0]] == 1 and node.name not in used:
            allowed[called[0]] = operations
    return allowed


def _of_own_prefix(node, prefix: str | None) -> bool:
    # The file's name is an argument: a constant could name any other file.
    return node.op != "RestoreV2" or node.input[0] == prefix


def _calls(graph) -> Counter[str]:
    """Count by how many places each function can be called."""
    library = graph.graph_def.library
    calls = Counter(gradient.gradient_func for gradient in library.gradient)
    for nodes in (graph.graph_def.node, *(function.node_def for function in library.function)):
        for node in nodes:
            calls.update([node.op, *_called(node)])
    for node in graph.object_graph_def.nodes:
        calls.update(node.function.concrete_functions)
        calls.update([node.bare_concrete_function.concrete_function_name])
    return calls


def _used_tensors(graph) -> set[str]:
    """Return the main graph's nodes that another node, a signature or an initialiser asks for."""
    used = {_node_of(name) for node in graph.graph_def.node for name in node.input}
    for signature in graph.signature_def.values():
        for tensors in (signature.inputs, signature.outputs):
            used |= {_node_of(tensor.name) for tensor in tensors.values()}
    for collection in graph.collection_def.values():
        used |= {_node_of(name) for name in collection.node_list.value}
    return used


def _called(part) -> Iterator[str]:
    """Yield the functions that a node names in its attributes."""
    for value in part.attr.values():
        for function in (value.func, *value.list.func):
            if function.name:
                yield function.name
            yield from _called(function)


def _shown(name: str) -> str:
    # A name from a file may hold line breaks and control characters.
    return repr(name[:100])


def _node_of(tensor: str) -> str:
    """Return the node of a tensor or of a control input."""
    return tensor.removeprefix("^").partition(":")[0]
