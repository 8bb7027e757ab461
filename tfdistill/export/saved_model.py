"""SavedModels for TensorFlow Serving: raw pixels or image files in, classes out.

What an image goes through is part of the graph: `image_graph`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdistill.export.format import (
    BYTES,
    DEFAULT,
    IMAGE,
    ExportFormat,
    Runtime,
    check_names,
    imported,
)

WARMUP = "assets.extra/tf_serving_warmup_requests"
WARMUP_BATCHES = (1, 32)


def write(
    network,
    folder: Path,
    input_shape: tuple[int, int, int],
    class_names: Sequence[str],
    *,
    image_size: int | None = None,
    resize: bool = False,
    multi_label: bool = False,
) -> None:
    """Write a network as a SavedModel with two signatures.

    `serving_default` takes `image`, uint8 `[n, height, width, channels]`, pixels 0..255; `bytes`
    takes `image_bytes`, string `[n]`, whole JPEG or PNG files, which it turns as their Exif note
    says: of at most 25 megapixels, a JPEG that is made smaller of 250, 64 if progressive. Both
    return `logits` and `probabilities`, float32 `[n, classes]`, `class_id`, int32 `[n]`, and
    `class_name`, string `[n]`; of several labels, `present`, int32 `[n, labels]`, 1 where a
    probability is above 0.5, and `labels`, string `[n]`, as `cat|dog`. An image that cannot be
    taken is an `InvalidArgumentError` that names it, and costs no memory.

    Args:
        network: A Keras model or `Ensemble` from pixels to logits `[n, classes]`; of a `Distiller`,
            its student. Only the variables that it uses are written.
        folder: Where to write; made if need be.
        input_shape: `(height, width, channels)` of the images that the network sees.
        class_names: One name for each class.
        image_size: Side of the data set's stored images, where files were brought to that size
            first; None means the network's own.
        resize: Let `serving_default` take images of any one size, and bring them to the network's.
        multi_label: Whether an image has any number of the classes, with a sigmoid each.

    Raises:
        UsageError: Names and logits differ in number.

    Example:
        >>> write(student, Path("saved_models/digits/1"), (8, 8, 1), list("0123456789"))
        >>> served = tf.saved_model.load("saved_models/digits/1").signatures["serving_default"]
        >>> served(image=images)["class_name"]
    """
    import tensorflow as tf

    from tfdistill.export import image_graph

    network = _alone(network)
    height, width, channels = input_shape
    frame = image_graph.Frame((height, width, channels), image_size)

    def serve(image):
        image = image_graph.some(image, "image")
        return answer(image_graph.fitted(image, frame) if resize else image)

    def serve_bytes(image_bytes):
        files = image_graph.some(image_bytes, "image_bytes")
        return answer(image_graph.decoded(files, frame))

    def answer(pixels):
        found = _answer(network, pixels, multi_label)
        _check_number(class_names, found["logits"].shape[-1])
        names = tf.constant(list(class_names), tf.string)
        if multi_label:
            there = tf.ragged.boolean_mask(
                tf.broadcast_to(names, tf.shape(found["present"])), found["present"] > 0
            )
            return {**found, "labels": tf.strings.reduce_join(there, axis=-1, separator="|")}
        return {**found, "class_name": tf.gather(names, found["class_id"])}

    height, width, channels = input_shape
    sizes = (None, None) if resize else (height, width)
    archive = _archive(network)
    pixels = tf.TensorSpec((None, *sizes, channels), tf.uint8, "image")
    archive.add_endpoint(DEFAULT, serve, [pixels])
    archive.add_endpoint(BYTES, serve_bytes, [tf.TensorSpec((None,), tf.string, "image_bytes")])
    archive.write_out(str(folder), verbose=False)


def write_numeric(
    network, folder: Path, input_shape: tuple[int, int, int], multi_label: bool = False
) -> None:
    """Write a SavedModel with `serving_default` alone and no strings, to be converted further.

    Args:
        network: As for `write`.
        folder: Where to write.
        input_shape: `(height, width, channels)`.
        multi_label: As for `write`.

    Example:
        >>> write_numeric(student, Path("numeric"), (8, 8, 1))
    """
    import tensorflow as tf

    network = _alone(network)
    archive = _archive(network)
    pixels = tf.TensorSpec((None, *input_shape), tf.uint8, "image")
    archive.add_endpoint(DEFAULT, lambda image: _answer(network, image, multi_label), [pixels])
    archive.write_out(str(folder), verbose=False)


def write_warmup(folder: Path, name: str, images: np.ndarray) -> None:
    """Write the requests that TensorFlow Serving sends itself, before it takes those of others.

    Args:
        folder: A SavedModel that `write` has made.
        name: Name under which it is served.
        images: `[k, height, width, channels]` uint8, repeated to fill a batch.

    Example:
        >>> write_warmup(Path("saved_models/digits/1"), "digits", data.test.images[:32])
    """
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    batches = [np.resize(images, (size, *images.shape[1:])) for size in WARMUP_BATCHES]
    requests: list[tuple[str, str, Any]] = [(DEFAULT, "image", batch) for batch in batches]
    requests.append((BYTES, "image_bytes", [tf.io.encode_png(images[0]).numpy()]))
    path = Path(folder) / WARMUP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, key, values in requests:
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = name, signature
            request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString(deterministic=True))


def _alone(network):
    from tfdistill.distillation.distiller import Distiller

    return network.student if isinstance(network, Distiller) else network


def _check_number(class_names: Sequence[str], classes: int) -> None:
    if len(class_names) != classes:
        from tfdistill.utils import checks

        raise checks.UsageError(
            f"A network needs one name for each of its {classes} classes. Received: "
            f"{len(class_names)} names. Give the class names of the images it was trained on."
        )


def _archive(network):
    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    # Endpoints bring their variables; a network that is tracked itself has them written twice.
    # A module that holds it brings what is no variable: lookup tables of a user's SavedModel.
    holder = tf.Module()
    holder.network = network
    archive.track(holder)
    return archive


def _answer(network, pixels, multi_label: bool) -> dict:
    import tensorflow as tf

    logits = tf.cast(network(tf.cast(pixels, tf.float32), training=False), tf.float32)
    if multi_label:
        return {
            "logits": logits,
            "probabilities": tf.nn.sigmoid(logits),
            "present": tf.cast(logits > 0, tf.int32),
        }
    return {
        "logits": logits,
        "probabilities": tf.nn.softmax(logits),
        "class_id": tf.argmax(logits, axis=-1, output_type=tf.int32),
    }


class SavedModel(Runtime):
    """A SavedModel, run by TensorFlow."""

    title = "SavedModel"
    without = ()
    takes_bytes = True

    def __init__(self, path: Path, threads: int | None):
        self._tf = tf = imported("tensorflow", "tensorflow", path)
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        self._model = tf.saved_model.load(str(path))  # its signatures do not keep it alive
        signatures = self._model.signatures
        if DEFAULT not in signatures:
            raise ValueError(f"it has no signature `{DEFAULT}`.")
        self._pixels, self._files = signatures[DEFAULT], signatures.get(BYTES)
        self.takes_bytes = self._files is not None
        inputs = self._pixels.structured_input_signature[1]
        check_names(inputs, self._pixels.structured_outputs)
        self.input_shape = tuple(inputs[IMAGE].shape[1:])

    def run(self, images):
        return self._answers(self._pixels, image=images)

    def answer_bytes(self, files):
        if not self.takes_bytes:
            raise ValueError("The SavedModel takes no image files: it has no signature `bytes`.")
        if not len(files):
            raise ValueError("The model takes one or more image files. Received: none.")
        return self._answers(self._files, image_bytes=np.array(files, dtype=object))

    def _answers(self, signature: Callable, **inputs) -> dict[str, np.ndarray]:
        tensors = {name: self._tf.constant(value) for name, value in inputs.items()}
        try:
            found = {name: value.numpy() for name, value in signature(**tensors).items()}
        except self._tf.errors.InvalidArgumentError as error:
            raise ValueError(_refusal(error)) from None
        for name in {"class_name", "labels"} & set(found):
            found[name] = np.array([text.decode() for text in found[name]])
        return found


def _refusal(error: Exception) -> str:
    """Return what an operation of a SavedModel says of its input."""
    before_node = str(error).split("[[{{node")[0].strip().splitlines() or [""]
    text = before_node[-1].strip().removeprefix("assertion failed: [").removesuffix("]")
    return f"The SavedModel refuses its input: {text[:300]}"


def _write(source, folder: Path) -> None:
    images = source.images
    write(
        source.network,
        folder,
        images.input_shape,
        images.class_names,
        image_size=images.stored_side,
        resize=source.resize,
        multi_label=images.multi_label,
    )
    from tfdistill.utils import checks

    if not checks.missing(["tensorflow_serving"]):  # the extra `serving`
        write_warmup(folder, source.name, source.test_images(max(WARMUP_BATCHES)))


USAGE = """TensorFlow Serving, image files over REST:

```sh
curl -d @- http://localhost:8501/v1/models/{{ card.name }}:predict <<END
{"signature_name": "bytes", "instances": [{"image_bytes": {"b64": {# -#}
"$(base64 < image.png | tr -d '\\n')"}}]}
END
```

Over gRPC:

```python
import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

request = predict_pb2.PredictRequest()
request.model_spec.name, request.model_spec.signature_name = "{{ card.name }}", "bytes"
image = open("image.png", "rb").read()
request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image]))
channel = grpc.insecure_channel("localhost:8500")
answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=10)
{% set name = "labels" if card.data.get("multi_label") else "class_name" %}
print(tf.make_ndarray(answer.outputs["{{ name }}"]))
```

Pixels go to the signature `serving_default` as `image`, uint8 {% if shape.any_size -%}
`[n, height, width, {{ shape.channels }}]` of any size
{%- else -%}
`[n, {{ sizes }}]`
{%- endif %}.
"""
SAVED_MODEL = ExportFormat(
    name="savedmodel",
    title="SavedModel",
    file="saved_model.pb",
    write=_write,
    runtime=SavedModel,
    tolerance=1e-4,
    # What TensorFlow reads of the folder, in which other formats and the card lie, too.
    parts=("saved_model.*", "fingerprint.pb", "variables/*", "assets/*"),
    usage=USAGE,
)
