"""Images to try in the demo: those of the test set that an export carries as warm-up requests."""

import math
from pathlib import Path

import numpy as np

from tfdistill.data import image_files

COUNT = 6


def write(model: Path, folder: Path) -> list[Path]:
    """Write a few test images of an export as PNG files, none where it carries none.

    Args:
        model: A version's folder, or a file in it.
        folder: Where to write.

    Returns:
        The files, in the order of the test set.
    """
    from PIL import Image

    found = []
    for number, pixels in enumerate(_images(model if model.is_dir() else model.parent)):
        path = folder / f"test-image-{number + 1}.png"
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
        found.append(path)
    return found


def _images(version: Path) -> np.ndarray:
    """Return up to `COUNT` different images, `[n, height, width, 1 or 3]` uint8."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    from tfdistill.export.saved_model import WARMUP

    none = np.zeros((0, 1, 1, 1), np.uint8)
    path = version / WARMUP
    if not path.is_file() or path.stat().st_size > image_files.MAX_BYTES:
        return none
    most = none
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            pixels = _pixels(request.inputs["image"])
            most = max(most, pixels, key=len)
    except (DecodeError, tf.errors.OpError):  # a file from elsewhere may hold anything
        return none
    # A batch of warm-up is filled up with the same images again.
    first = np.unique(most, axis=0, return_index=True)[1]
    return most[np.sort(first)[:COUNT]]


def _pixels(tensor) -> np.ndarray:
    """Return the images of a tensor, none where it is no batch of them or shorter than it says."""
    from tensorflow.core.framework import types_pb2

    shape = tuple(part.size for part in tensor.tensor_shape.dim)
    fits = len(shape) == 4 and shape[-1] in (1, 3) and min(shape) > 0
    content = tensor.tensor_content
    if not fits or tensor.dtype != types_pb2.DT_UINT8 or len(content) != math.prod(shape):
        return np.zeros((0, 1, 1, 1), np.uint8)
    return np.frombuffer(content, np.uint8).reshape(shape)
