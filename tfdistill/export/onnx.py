"""ONNX files, for runtimes other than TensorFlow's."""

import json
from collections.abc import Sequence
from pathlib import Path

from tfdistill.export.format import IMAGE, ExportFormat, Runtime, check_names, imported

OPSET = 15  # of ONNX 1.10, 2021: every runtime of today reads it
PACKAGES = ("tf2onnx", "onnx", "onnxruntime")


def convert(numeric_folder: Path, path: Path, class_names: Sequence[str]) -> None:
    """Write an ONNX file.

    It takes `image`, uint8 `[batch, height, width, channels]`, and returns `logits` and
    `probabilities`, float32 `[batch, classes]`, and `class_id`, int32 `[batch]`, or of several
    labels `present`, int32 `[batch, labels]`, as its SavedModel does. Its metadata has
    the class names, a JSON list under `class_names`.

    Args:
        numeric_folder: A SavedModel of `saved_model.write_numeric`.
        path: The file to write.
        class_names: One name for each class.

    Raises:
        UsageError: The packages of the extra `onnx` are not installed, or ONNX has no operations
            for the network.

    Example:
        >>> convert(Path("numeric"), Path("model.onnx"), data.class_names)
    """
    from tfdistill.utils import checks, tensorflow
    from tfdistill.utils.tensorflow import quiet

    checks.installed(PACKAGES, "onnx", "The format onnx")
    tensorflow.start()
    try:
        with quiet():
            import onnx
            import onnxruntime

            model = _converted(numeric_folder)
            _name_batches(model)
            names = json.dumps(list(class_names), ensure_ascii=False)
            onnx.helper.set_model_props(model, {"class_names": names})
            # The converter also writes what no runtime takes, such as bfloat16 convolutions.
            content = model.SerializeToString()
            onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # the converter's, TensorFlow's or the runtime's own
        raise checks.UsageError(
            f"The network cannot be converted to ONNX: {checks.first_line(error)} "
            "Leave the format onnx out, or export another network."
        ) from None
    Path(path).write_bytes(content)


def _converted(numeric_folder: Path):
    import logging

    import tf2onnx
    from tf2onnx import tf_loader

    # It reports steps of its optimiser that it leaves out, with their tracebacks.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    # The short way, `from_function`, makes inputs of the constants of a Normalization layer.
    graph, inputs, outputs, names = tf_loader.from_saved_model(
        str(numeric_folder),
        None,
        None,
        tag=["serve"],
        signatures=["serving_default"],
        return_tensors_to_rename=True,
    )
    model, _ = tf2onnx.convert.from_graph_def(
        graph,
        input_names=inputs,
        output_names=outputs,
        tensors_to_rename=names,
        opset=OPSET,
    )
    return model


def _name_batches(model) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


class Onnx(Runtime):
    """An ONNX file, run by ONNX Runtime."""

    title = "ONNX"

    def __init__(self, path: Path, threads: int | None):
        package = imported("onnxruntime", "onnxruntime", path, "onnx")
        options = package.SessionOptions()
        options.log_severity_level = 4  # what is wrong is raised as well
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        self._session = package.InferenceSession(str(path), options, providers=providers)
        inputs = {value.name: value for value in self._session.get_inputs()}
        self._names = [value.name for value in self._session.get_outputs()]
        check_names(inputs, self._names)
        self.input_shape = tuple(inputs[IMAGE].shape[1:])

    def run(self, images):
        found = self._session.run(self._names, {IMAGE: images})
        return dict(zip(self._names, found, strict=True))


def _write(source, path: Path) -> None:
    convert(source.numeric, path, source.images.class_names)


USAGE = """ONNX, in the version's folder:

```python
import numpy as np
import onnxruntime

images = np.zeros((1, {{ sizes }}), np.uint8)  # yours
session = onnxruntime.InferenceSession("{{ format.files[0].path }}")
names = open("labels.txt", encoding="utf-8").read().splitlines()
{% if card.data.get("multi_label") %}
(present,) = session.run(["present"], {"image": images})
print([name for name, there in zip(names, present[0]) if there])
{% else %}
(class_ids,) = session.run(["class_id"], {"image": images})
print(names[class_ids[0]])
{% endif %}
```
"""
ONNX = ExportFormat(
    name="onnx",
    title="ONNX",
    file="model.onnx",
    write=_write,
    runtime=Onnx,
    tolerance=1e-4,
    packages=PACKAGES,
    extra="onnx",
    usage=USAGE,
)
