"""LiteRT files (once TensorFlow Lite) for phones and small computers, in three precisions.

All take `image`, uint8 `[n, height, width, channels]`, for any n, and return `logits` and
`probabilities`, float32 `[n, classes]`, and `class_id`, int32 `[n]`, under the signature
`serving_default`. Integer quantisation is that of Jacob et al. (arXiv 1712.05877), with a scale for
each channel of the weights: with ranges that are measured on training images (`convert`), or those
that a network of `quantize_aware` was trained with (`convert_quantized`).
"""

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tfdistill.export.format import (
    DEFAULT,
    IMAGE,
    ExportFormat,
    Runtime,
    check_names,
    imported,
    muted,
)

PRECISIONS = ("float32", "float16", "int8")
REPRESENTATIVE = 500
# In 8 bits a softmax ends in steps of 1/256: small probabilities become 0, and the negative
# log-likelihood of a resnet8 on CIFAR-10 rose from 0.857 to 0.895; in float it stays at 0.858.
_IN_FLOAT = ["SOFTMAX"]
# What is to be in 8 bits, and what a file must not have: variables that nothing will set.
_KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_INTEGERS = (["INT8", "INT8"], ["INT8", "INT4"])
_VARIABLES = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")


def convert(
    numeric_folder: Path, path: Path, precision: str, representative: np.ndarray | None = None
) -> None:
    """Write a LiteRT file.

    `float16` stores the weights in half the bytes and computes in float32. `int8` stores weights
    and computes layers in 8 bits, all but the softmax: logits have 256 different values,
    probabilities sum to 1. Layers that compute in float16 or bfloat16, those of mixed precision,
    are not in LiteRT: such a network is converted from its float32 twin.

    Args:
        numeric_folder: A SavedModel of `saved_model.write_numeric`.
        path: The file to write.
        precision: `float32`, `float16` or `int8`.
        representative: `[k, height, width, channels]` uint8, for `int8`: training images, about
            `REPRESENTATIVE` of them, from which the range of each layer is measured.

    Raises:
        UsageError: An unknown precision, missing or wrong representative images, or a network that
            LiteRT has no operations for.

    Example:
        >>> convert(Path("numeric"), Path("model.int8.tflite"), "int8", data.train.images[:500])
    """
    from tfdistill.utils import checks, tensorflow

    checks.one_of("precision", precision, PRECISIONS)
    tensorflow.start()
    if precision == "int8":
        _check_representative(representative)
    images = () if representative is None else representative
    content = _content(numeric_folder, precision, lambda one: _converted(one, precision, images))
    Path(path).write_bytes(content)


def convert_quantized(
    network,
    path: Path,
    io: str | None = None,
    softmax: bool = False,
    multi_label: bool = False,
    pack: bool = False,
) -> None:
    """Write the int8 LiteRT file of a network of `quantize_aware`, with its trained ranges.

    Without `io` the file takes and returns what all files of this package do, and computes
    between them in 8 bits, softmax and class in float. With `io` all of it is in 8 bits, for
    microcontrollers: it takes one image, `[1, height, width, channels]` of `int8` (pixel - 128) or
    `uint8` (pixel), and returns `[1, classes]` of that type.

    Args:
        network: What `quantize_aware` returned, trained or calibrated.
        path: The file to write.
        io: `int8`, `uint8` or None.
        softmax: With `io`: return probabilities, in steps of 1/256 in which small ones tie, in the
            place of logits.
        multi_label: Whether an image has any number of labels, with a sigmoid each.
        pack: Store kernels of 4 bits and fewer, all but depthwise, in 4 bits, as
            `tfdistill.quantization.packing`.

    Raises:
        UsageError: A network that is none of `quantize_aware`, ranges that collapsed, one whose
            file would not compute in 8 bits, or nothing to pack.

    Example:
        >>> convert_quantized(distiller.student, Path("student.tflite"), io="int8")
    """
    from tfdistill.utils import checks, tensorflow

    checks.installed(("ai_edge_litert",), "litert", "A LiteRT file in 8 bits")
    if io is not None:
        checks.one_of("io", io, ("int8", "uint8"))
    tensorflow.needed("A LiteRT file")
    import keras

    from tfdistill.export import saved_model
    from tfdistill.models.logits import logits_network
    from tfdistill.quantization import packing
    from tfdistill.quantization.deployment import deploy

    deployed = deploy(logits_network(network))
    _check_activations(deployed)
    with tempfile.TemporaryDirectory() as folder:
        if io is None:
            # A converter puts a softmax behind 8 bits in 8 bits, too, but none behind float64.
            wide = keras.ops.cast(deployed.output, "float64")
            whole = keras.Model(deployed.input, keras.ops.cast(wide, "float32"))
            saved_model.write_numeric(whole, Path(folder), deployed.input_shape[1:], multi_label)
        else:
            inner = _behind_the_input(deployed, softmax, multi_label)
            image = keras.InputSpec(shape=(1, *deployed.input_shape[1:]), dtype="float32")
            inner.export(folder, verbose=False, input_signature=[image])
        content = _content(Path(folder), "int8-aware", lambda one: _with_ranges(one, io))
    if pack:
        content = packing.packed(content)
    _check_8_bits(content, whole=io is not None)
    Path(path).write_bytes(content)


def operators(content: bytes) -> list[tuple[str, list[str], list[str]]]:
    """Return a LiteRT file's operators as (name, types of its inputs, types of its outputs).

    Example:
        >>> operators(Path("model.tflite").read_bytes())[0]
        ('QUANTIZE', ['UINT8'], ['INT8'])
    """
    from ai_edge_litert import schema_py_generated as schema

    names, types = (
        {number: name for name, number in vars(each).items() if isinstance(number, int)}
        for each in (schema.BuiltinOperator, schema.TensorType)
    )
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return [
        (
            codes[one.opcodeIndex],
            *(
                [types[graph.tensors[place].type] for place in places if place >= 0]
                for places in (one.inputs, one.outputs)
            ),
        )
        for graph in model.subgraphs
        for one in graph.operators or ()
    ]


def _check_activations(deployed) -> None:
    from tfdistill.quantization.layers import FakeQuantize
    from tfdistill.utils import checks

    for layer in deployed.layers:
        if isinstance(layer, FakeQuantize) and layer.bits < 8:
            raise checks.UsageError(
                f"LiteRT has no activations of fewer than 8 bits. Received: {layer.bits} bits at "
                f"{layer.name}. Train quantize_aware(network, activation_bits=8)."
            )


def _behind_the_input(deployed, softmax: bool, multi_label: bool):
    """Return a deployed network from the levels of its input, behind the normalisation."""
    import keras

    from tfdistill.quantization.layers import FakeQuantize

    first = next(layer for layer in deployed.layers if isinstance(layer, FakeQuantize))
    answer = deployed.output
    if softmax:
        answer = keras.ops.sigmoid(answer) if multi_label else keras.ops.softmax(answer)
    return keras.Model(first.input, answer)


def _check_8_bits(content: bytes, whole: bool) -> None:
    """Raise unless a file has its weights, and computes with them, or `whole`, in 8 bits."""
    from tfdistill.utils import checks

    found = operators(content)
    wrong = [
        f"{name} in {'/'.join(sorted({*inputs, *outputs}))}"
        for name, inputs, outputs in found
        if name in _VARIABLES
        or (whole and "FLOAT32" in inputs + outputs)
        or (name in _KERNELS and not (inputs[:2] in _INTEGERS and outputs == ["INT8"]))
    ]
    if not whole and sum(name == "DEQUANTIZE" for name, _, _ in found) > 1:
        wrong.append("several parts in FLOAT32")
    if wrong or not any(name in _KERNELS for name, _, _ in found):
        raise checks.UsageError(
            "The LiteRT file would not compute in 8 bits. Received: "
            f"{', '.join(wrong) or 'no layer with weights'}. Export another network."
        )


def _content(folder: Path, precision: str, converted: Callable) -> bytes:
    """Return what a converter makes of a SavedModel, and of its errors one line."""
    import tensorflow as tf

    from tfdistill.utils import checks
    from tfdistill.utils.tensorflow import quiet

    try:
        with quiet():
            return converted(
                tf.lite.TFLiteConverter.from_saved_model(
                    str(folder), signature_keys=["serving_default"]
                )
            )
    except Exception as error:  # the converter's, TensorFlow's or the calibrator's own
        raise checks.UsageError(
            f"The network cannot be converted to LiteRT ({precision}): {_cause(error)} "
            f"Leave the format litert-{precision} out, or export another network."
        ) from None


def _with_ranges(converter, io: str | None) -> bytes:
    """Convert a deployed network, whose ranges are in its graph."""
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if io is not None:
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io)
    return converter.convert()


def _converted(converter, precision: str, representative: Iterable[np.ndarray]) -> bytes:
    import tensorflow as tf

    if precision == "float32":
        return converter.convert()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
        return converter.convert()

    def images() -> Iterator[list[np.ndarray]]:
        return ([image[None]] for image in representative)

    converter.representative_dataset = images
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    # The debugger is where the converter lets operations be left in float.
    debug = tf.lite.experimental
    options = debug.QuantizationDebugOptions(denylisted_ops=_IN_FLOAT)
    debugger = debug.QuantizationDebugger(
        converter=converter, debug_dataset=images, debug_options=options
    )
    return debugger.get_nondebug_quantized_model()


def _check_representative(images: np.ndarray | None) -> None:
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        from tfdistill.utils import checks

        received = "none" if images is None else f"{images.dtype} {list(images.shape)}"
        raise checks.UsageError(
            "int8 needs representative images, uint8 [k, height, width, channels]. "
            f"Received: {received}. Give some hundreds of the training images."
        )


def _cause(error: Exception) -> str:
    from tfdistill.utils import checks

    text = str(error)
    if "xf16>" in text or "xbf16>" in text:
        return "It computes in mixed precision, which LiteRT cannot."
    _, marked, operations = text.partition("TF Select ops:")
    if marked:
        return f"LiteRT lacks the operations {operations.splitlines()[0].strip()}."
    return checks.first_line(error)


class LiteRT(Runtime):
    """A LiteRT file, run by the package `ai-edge-litert`."""

    title = "LiteRT"

    def __init__(self, path: Path, threads: int | None):
        package = imported("ai_edge_litert.interpreter", "ai-edge-litert", path, "litert")
        self._interpreter = package.Interpreter(str(path), num_threads=threads)
        inputs, outputs = self._details()
        check_names(inputs, outputs)
        self._input = inputs[IMAGE]["index"]
        self._outputs = {name: detail["index"] for name, detail in outputs.items()}
        height, width, channels = (int(side) for side in inputs[IMAGE]["shape"][1:])
        self.input_shape = height, width, channels
        self._batch: int | None = None
        self._allocate(1)

    def run(self, images):
        self._allocate(len(images))
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        tensors = self._outputs.items()
        return {name: self._interpreter.get_tensor(index) for name, index in tensors}

    def _details(self) -> tuple[dict, dict]:
        # While a signature runner lives, nothing can be allocated.
        runner = self._interpreter.get_signature_runner(DEFAULT)
        return runner.get_input_details(), runner.get_output_details()

    def _allocate(self, batch: int) -> None:
        if batch == self._batch:
            return
        with muted():  # LiteRT says here how it computes
            self._interpreter.resize_tensor_input(self._input, (batch, *self.input_shape))
            self._interpreter.allocate_tensors()
        self._batch = batch


def _write_quantized(source, path: Path, pack: bool = False) -> None:
    convert_quantized(source.network, path, multi_label=source.images.multi_label, pack=pack)


def _writer(precision: str) -> Callable:
    def write(source, path: Path) -> None:
        shown = source.training_images(REPRESENTATIVE) if precision == "int8" else None
        convert(source.numeric, path, precision, shown)

    return write


def _format(
    precision: str,
    tolerance: float | None,
    limit: str = "",
    title: str = "",
    write: Callable | None = None,
    weight_bits: int | None = None,
    agreement: float = ExportFormat.agreement,
) -> ExportFormat:
    return ExportFormat(
        name=f"litert-{precision}",
        title=title or f"LiteRT {precision}",
        file=f"model.{precision}.tflite",
        write=write or _writer(precision),
        runtime=LiteRT,
        tolerance=tolerance,
        packages=("ai_edge_litert",),
        extra="litert",
        usage=USAGE,
        limit=limit,
        weight_bits=weight_bits,
        agreement=agreement,
    )


USAGE = """LiteRT, in the version's folder:

```python
import numpy as np
from ai_edge_litert.interpreter import Interpreter

images = np.zeros((1, {{ sizes }}), np.uint8)  # yours
classify = Interpreter("{{ format.files[0].path }}").get_signature_runner("serving_default")
names = open("labels.txt", encoding="utf-8").read().splitlines()
{% if card.data.get("multi_label") %}
present = classify(image=images)["present"][0]
print([name for name, there in zip(names, present) if there])
{% else %}
print(names[classify(image=images)["class_id"][0]])
{% endif %}
```
"""
FLOAT32 = _format("float32", tolerance=1e-4)
FLOAT16 = _format("float16", tolerance=1e-2)
INT8 = _format(
    "int8", None, "In int8 the answers differ a little; its own accuracy is in the table."
)
AWARE = _format(
    "int8-aware",
    None,
    "It was trained to be rounded to 8 bits, and answers as it did then, but for single steps.",
    title="LiteRT int8, trained ranges",
    write=_write_quantized,
    weight_bits=8,
)
PACKED = _format(
    "int4-aware",
    None,
    "It was trained to be rounded, its kernels to 4 bits or fewer, which the file stores in 4; it "
    "answers as it did then, but for single steps.",
    title="LiteRT int4 kernels, trained ranges",
    write=functools.partial(_write_quantized, pack=True),
    weight_bits=4,
    # Biases are rounded to the larger steps of the weights: in files of two networks of about 50 %
    # accuracy 1.2 and 1.9 % of the classes were others, in their int8 files 0.6 and 1.2 %.
    agreement=0.96,
)
