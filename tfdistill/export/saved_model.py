"""Networks as SavedModels for TensorFlow Serving: raw pixels or image files in, classes out.

What an image goes through is part of the graph and equals what the data pipeline does to images
from files. Files come from anyone, so their headers are checked before anything is decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfdistill.data import augment
from tfdistill.data.decode import PARALLEL, squared
from tfdistill.data.headers import MAX_PIXELS
from tfdistill.distillation.distiller import Distiller
from tfdistill.utils import checks

DEFAULT, BYTES = "serving_default", "bytes"
WARMUP = "assets.extra/tf_serving_warmup_requests"
WARMUP_BATCHES = (1, 32)
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# A PNG's first chunk is IHDR, 13 bytes that begin with width and height.
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"IEND"


def write(
    network,
    folder: Path,
    input_shape: tuple[int, int, int],
    class_names: Sequence[str],
    *,
    image_size: int | None = None,
    resize: bool = False,
) -> None:
    """Write a network as a SavedModel with two signatures.

    `serving_default` takes `image`, uint8 `[n, height, width, channels]`, pixels 0..255; `bytes`
    takes `image_bytes`, string `[n]`, whole JPEG or PNG files of any size, of at most `MAX_PIXELS`.
    Both return `logits` and `probabilities`, float32 `[n, classes]`, `class_id`, int32 `[n]`, and
    `class_name`, string `[n]`. An image that cannot be taken is an `InvalidArgumentError` that
    names it, and costs no memory.

    Args:
        network: A Keras model or `Ensemble` from pixels to logits `[n, classes]`; of a `Distiller`,
            its student. Only the variables that it uses are written.
        folder: Where to write; made if need be.
        input_shape: `(height, width, channels)` of the images that the network sees.
        class_names: One name for each class.
        image_size: Side of the data set's stored images, where files were brought to that size
            first; None means the network's own.
        resize: Let `serving_default` take images of any one size, and bring them to the network's.

    Raises:
        UsageError: Names and logits differ in number.

    Example:
        >>> write(student, Path("saved_models/digits/1"), (8, 8, 1), list("0123456789"))
        >>> served = tf.saved_model.load("saved_models/digits/1").signatures["serving_default"]
        >>> served(image=images)["class_name"]
    """
    network = _alone(network)
    frame = _Frame(tuple(input_shape), image_size)

    def serve(image):
        image = _some(image, "image")
        return answer(_fitted(image, frame) if resize else image)

    def serve_bytes(image_bytes):
        return answer(_decoded(_some(image_bytes, "image_bytes"), frame))

    def answer(pixels):
        found = _answer(network, pixels)
        _same_number(class_names, found["logits"].shape[-1])
        names = tf.constant(list(class_names), tf.string)
        return {**found, "class_name": tf.gather(names, found["class_id"])}

    height, width, channels = input_shape
    sizes = (None, None) if resize else (height, width)
    archive = _archive(network)
    pixels = tf.TensorSpec((None, *sizes, channels), tf.uint8, "image")
    archive.add_endpoint(DEFAULT, serve, [pixels])
    archive.add_endpoint(BYTES, serve_bytes, [tf.TensorSpec((None,), tf.string, "image_bytes")])
    archive.write_out(str(folder), verbose=False)


def write_numeric(network, folder: Path, input_shape: tuple[int, int, int]) -> None:
    """Write a SavedModel with `serving_default` alone and no strings, to be converted further.

    Args:
        network: As for `write`.
        folder: Where to write.
        input_shape: `(height, width, channels)`.

    Example:
        >>> write_numeric(student, Path("numeric"), (8, 8, 1))
    """
    network = _alone(network)
    archive = _archive(network)
    pixels = tf.TensorSpec((None, *input_shape), tf.uint8, "image")
    archive.add_endpoint(DEFAULT, lambda image: _answer(network, image), [pixels])
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
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    batches = [np.resize(images, (size, *images.shape[1:])) for size in WARMUP_BATCHES]
    requests = [(DEFAULT, "image", batch) for batch in batches]
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


def read_warmup(path: Path) -> list:
    """Return the warm-up requests in the file `path`, as `PredictRequest`s.

    Example:
        >>> [first, *others] = read_warmup(folder / WARMUP)
        >>> tf.make_ndarray(first.inputs["image"]).shape
        (1, 8, 8, 1)
    """
    from tensorflow_serving.apis import prediction_log_pb2

    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    return [log.predict_log.request for log in logs]


def _alone(network):
    return network.student if isinstance(network, Distiller) else network


def _same_number(class_names: Sequence[str], classes: int) -> None:
    if len(class_names) != classes:
        raise checks.UsageError(
            f"A network needs one name for each of its {classes} classes. Received: "
            f"{len(class_names)} names. Give the class names of the images it was trained on."
        )


def _archive(network) -> keras.export.ExportArchive:
    archive = keras.export.ExportArchive()
    # Endpoints bring their variables; a network that is tracked itself has them written twice.
    # A module that holds it brings what is no variable: lookup tables of a user's SavedModel.
    holder = tf.Module()
    holder.network = network
    archive.track(holder)
    return archive


def _answer(network, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
    logits = tf.cast(network(tf.cast(pixels, tf.float32), training=False), tf.float32)
    return {
        "logits": logits,
        "probabilities": tf.nn.softmax(logits),
        "class_id": tf.argmax(logits, axis=-1, output_type=tf.int32),
    }


@dataclass(frozen=True)
class _Frame:
    """What brings images of other sizes to the network's, and which it refuses.

    Args:
        input_shape: `(height, width, channels)` of the network.
        image_size: Side of the data set's stored images; None means the network's own.
    """

    input_shape: tuple[int, int, int]
    image_size: int | None

    @property
    def side(self) -> int:
        """Side that an image's shorter side is scaled to."""
        return self.image_size or max(self.input_shape[:2])

    def fit(self, pixels: tf.Tensor, done: bool = True) -> tf.Tensor:
        """Bring `[n, h, w, c]` uint8 to the network's size; what has it stays untouched.

        Args:
            pixels: The images.
            done: Whether images of the network's size have been brought to it before; a file of
                that size goes through the stored images' size first, as in training.
        """
        if not done and self.side != max(self.input_shape[:2]):
            return self._scaled(pixels)
        same = tf.reduce_all(tf.shape(pixels)[1:3] == self.input_shape[:2])
        return tf.ensure_shape(
            tf.cond(same, lambda: pixels, lambda: self._scaled(pixels)), (None, *self.input_shape)
        )

    def fault(self, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """Return what is wrong with a size (scalars, int32), or an empty string."""
        height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
        shorter, longer = tf.minimum(height, width), tf.maximum(height, width)
        # A long, narrow image is small until its shorter side is scaled up.
        ratio = max(1, MAX_PIXELS // self.side**2)
        size = tf.strings.format(" has {} x {} pixels; ", (height, width))
        # A quotient, as the product of two sides from a header may be too large for an integer.
        few = (shorter > 0) & (longer <= MAX_PIXELS // tf.maximum(shorter, 1))
        narrow = f"give images at most {ratio} times as long as wide."
        many = f"give images of 1 to {MAX_PIXELS} pixels."
        text = tf.strings.join([size, tf.where(few, narrow, many)])
        return tf.where(few & (longer <= ratio * shorter), "", text)

    def _scaled(self, pixels: tf.Tensor) -> tf.Tensor:
        height, width, channels = self.input_shape
        if height != width:
            return augment.to_uint8(tf.image.resize(pixels, (height, width), antialias=True))
        square = squared(pixels, self.side)
        return augment.resize(
            tf.ensure_shape(square, (None, self.side, self.side, channels)), height
        )


def _some(batch: tf.Tensor, name: str) -> tf.Tensor:
    """Return a batch that is not empty: TensorFlow answers an empty one with internal errors."""
    fault = tf.where(tf.shape(batch)[0] == 0, " has no images; give at least one.", "")
    return _checked(batch, name, fault)


def _fitted(pixels: tf.Tensor, frame: _Frame) -> tf.Tensor:
    shape = tf.shape(pixels)
    return frame.fit(_checked(pixels, "image", frame.fault(shape[1], shape[2])))


def _decoded(files: tf.Tensor, frame: _Frame) -> tf.Tensor:
    """Decode JPEG and PNG files, string `[n]`, into the network's images."""

    def one(item):
        place, data = item
        subject = tf.strings.format("image_bytes[{}]", place)
        data = _checked(data, subject, _file_fault(data))
        data = _checked(data, subject, frame.fault(*_header_size(data)))
        image = tf.io.decode_image(data, channels=frame.input_shape[2], expand_animations=False)
        return frame.fit(image[None], done=False)[0]

    return tf.map_fn(
        one,
        (tf.range(tf.size(files)), files),
        fn_output_signature=tf.TensorSpec(frame.input_shape, tf.uint8),
        parallel_iterations=PARALLEL,
    )


def _checked(value: tf.Tensor, subject, fault: tf.Tensor) -> tf.Tensor:
    """Return `value`, which can be had only after the check that there is no fault."""
    check = tf.debugging.Assert(tf.equal(fault, ""), [tf.strings.join([subject, fault])])
    with tf.control_dependencies([check]):
        return tf.identity(value)


def _file_fault(data: tf.Tensor) -> tf.Tensor:
    """Return what is wrong with a file (scalar string) at first sight, or an empty string."""
    is_jpeg, is_png = _starts(data, _JPEG_START), _starts(data, _PNG_START)
    whole = (is_jpeg & _holds(data, _JPEG_END)) | (is_png & _holds(data, _PNG_END))
    size = tf.strings.length(data)
    problem = tf.where(is_jpeg | is_png, " is cut off", " is neither JPEG nor PNG")
    problem = tf.where(size == 0, " is empty", problem)
    advice = tf.strings.format(" ({} bytes); give whole JPEG or PNG files.", size)
    return tf.where(whole, "", tf.strings.join([problem, advice]))


def _starts(data: tf.Tensor, with_bytes: bytes) -> tf.Tensor:
    return tf.equal(tf.strings.substr(data, 0, len(with_bytes)), with_bytes)


def _holds(data: tf.Tensor, part: bytes) -> tf.Tensor:
    values = tf.io.decode_raw(data, tf.uint8)
    places = tf.maximum(tf.size(values) - len(part) + 1, 0)
    found = [values[at : at + places] == value for at, value in enumerate(part)]
    return tf.reduce_any(tf.reduce_all(tf.stack(found), axis=0))


def _header_size(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the height and width that a file's header tells."""

    def png():
        at = len(_PNG_START)
        width_height = tf.io.decode_raw(
            tf.strings.substr(data, at, 8), tf.int32, little_endian=False
        )
        return width_height[1], width_height[0]

    def jpeg():
        shape = tf.image.extract_jpeg_shape(data)
        return shape[0], shape[1]

    return tf.cond(_starts(data, _PNG_START), png, jpeg)
