"""LiteRT files (once TensorFlow Lite) for phones and small computers, in three precisions.

All take `image`, uint8 `[n, height, width, channels]`, for any n, and return `logits` and
`probabilities`, float32 `[n, classes]`, and `class_id`, int32 `[n]`, under the signature
`serving_default`. Integer quantisation is that of Jacob et al. (arXiv 1712.05877), with a scale for
each channel of the weights.
"""

from collections.abc import Iterable, Iterator
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
    from tfdistill.utils.tensorflow import quiet

    checks.one_of("precision", precision, PRECISIONS)
    tensorflow.start()
    import tensorflow as tf

    if precision == "int8":
        _check_representative(representative)
    try:
        with quiet():
            converter = tf.lite.TFLiteConverter.from_saved_model(
                str(numeric_folder), signature_keys=["serving_default"]
            )
            content = _converted(
                converter, precision, () if representative is None else representative
            )
    except Exception as error:  # the converter's, TensorFlow's or the calibrator's own
        raise checks.UsageError(
            f"The network cannot be converted to LiteRT ({precision}): {_cause(error)} "
            f"Leave the format litert-{precision} out, or export another network."
        ) from None
    Path(path).write_bytes(content)


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


def _format(precision: str, tolerance: float | None, limit: str = "") -> ExportFormat:
    def write(source, path: Path) -> None:
        shown = source.training_images(REPRESENTATIVE) if precision == "int8" else None
        convert(source.numeric, path, precision, shown)

    return ExportFormat(
        name=f"litert-{precision}",
        title=f"LiteRT {precision}",
        file=f"model.{precision}.tflite",
        write=write,
        runtime=LiteRT,
        tolerance=tolerance,
        packages=("ai_edge_litert",),
        extra="litert",
        usage=USAGE,
        limit=limit,
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
