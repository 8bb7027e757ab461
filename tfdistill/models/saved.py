"""A user's own trained model, from a .keras file or a SavedModel folder, made to return logits.

A softmax output taken for logits would be softened twice, which trains without an error and teaches
little; so such outputs are recognised and turned back into logits, up to a constant: log p.
"""

import functools
import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tfdistill.config import ModelConfig
from tfdistill.models import register_layers, saved_model_safety
from tfdistill.models.class_choice import pick_classes
from tfdistill.models.logits import (
    SIGMOID,
    SOFTMAX,
    TRIED_SIZE,
    features_network,
    final_activation,
    gives_probabilities,
    logits_network,
)
from tfdistill.models.pixel_range import from_pixels
from tfdistill.models.weights.notes import read_notes
from tfdistill.utils import checks, foreign
from tfdistill.utils.pixels import FULL, PixelRange

LOGGER = logging.getLogger("tfdistill")
ENDPOINT = "serving_default"
HEAD = "new_head"


def build(
    config: ModelConfig,
    input_shape: Sequence[int],
    num_classes: int,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    independent: bool = False,
) -> keras.Model:
    """Return the user's own model at `config.path`, which does its own preprocessing."""
    if config.fine_tune:
        return with_fresh_head(config, input_shape, num_classes)
    return load(
        str(config.path),
        input_shape,
        num_classes,
        config.outputs,
        config.classes,
        independent,
        config.pixel_range,
    )


def load(
    path: str | Path,
    input_shape: Sequence[int],
    num_classes: int,
    outputs: str = "auto",
    classes: Sequence[int | str] | None = None,
    independent: bool = False,
    pixel_range: PixelRange = FULL,
) -> keras.Model:
    """Return a saved model over images of `input_shape`, with logits as its output.

    Args:
        path: A `.keras` (or `.h5`) file of a whole model, or a SavedModel folder with a signature
            `serving_default`. The model does its own preprocessing of pixels.
        input_shape: `(height, width, channels)` of the images; a model of another size gets a
            resizing layer in front.
        num_classes: Number of classes that it must tell apart.
        outputs: `logits`, `probabilities`, or `auto`, which looks whether they are probabilities.
        classes: As of `pick_classes`; the names are those of `labels.txt` beside a
            SavedModel, or of an opened teacher's file.
        independent: Whether its outputs do not exclude each other, so that probabilities are those
            of a sigmoid each.
        pixel_range: What it expects for the pixels 0 and 255.

    Returns:
        A functional model from pixels 0..255, `[batch, height, width, channels]`, to logits
        `[batch, num_classes]` float32. A .keras model of the same size and of pixels 0..255 keeps
        its layers, for feature losses; a SavedModel is one layer that cannot be trained.

    Raises:
        UsageError: A path that cannot be read, or a model of other images or classes.

    Example:
        >>> teacher = load("teacher.keras", (32, 32, 3), num_classes=10)
        >>> teacher(images).shape
        (128, 10)
    """
    checks.one_of("model.outputs", outputs, ("auto", "logits", "probabilities"))
    read = _saved_model if Path(path).is_dir() else _keras_file
    model = from_pixels(read(str(path), tuple(input_shape)), pixel_range)
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise checks.UsageError(
            f"A saved model must have one output [batch, classes]. Received: {shape} from {path}."
        )
    logits = _logits(str(path), model, tuple(input_shape), outputs, independent)
    if classes is not None:
        logits = pick_classes(logits, classes, class_names(Path(path)))
    elif shape[-1] != num_classes:
        raise checks.UsageError(
            f"Teacher and student must have the same classes. Received: {shape[-1]} of the model "
            f"in {path}, {num_classes} of the images. Pick those of the images with classes: [...]"
        )
    checks.same_classes(logits.output_shape[-1], num_classes)
    z = ops.cast(logits.outputs[0], "float32")
    return keras.Model(model.inputs[0], z, name="saved")


def check_layers(path: Path) -> None:
    """Raise for a SavedModel, whose layers are not known, so that it can get no new head."""
    if path.is_dir():
        raise checks.UsageError(
            "A new head needs a .keras file, whose layers are known. Received: the SavedModel "
            f"{path}."
        )


def with_fresh_head(
    config: ModelConfig, input_shape: Sequence[int], num_classes: int
) -> keras.Model:
    """Return the network in a file with a head of random weights, ready to be fine-tuned.

    Args:
        config: Its `path`, and how many of the last layers are to be trained.
        input_shape: `(height, width, channels)` of the images.
        num_classes: Number of logits.

    Returns:
        A model from `[batch, height, width, channels]` to logits `[batch, num_classes]` float32.
        Batch norms and all but the last `config.trained_layers` layers are not trainable.

    Raises:
        UsageError: A SavedModel, whose layers are not known, or a file that cannot be read.
    """
    path = str(config.path)
    check_layers(Path(path))
    network = from_pixels(_keras_file(path, tuple(input_shape)), config.pixel_range)
    features = features_network(network)
    inner = [layer for layer in features._flatten_layers(include_self=False) if layer.weights]
    norms = [layer for layer in inner if isinstance(layer, layers.BatchNormalization)]
    own = [layer for layer in inner if layer not in norms and not getattr(layer, "layers", None)]
    kept = 0 if config.trained_layers is None else len(own) - config.trained_layers + 1
    for layer in norms + own[: max(kept, 0)]:
        layer.trainable = False
    logits = layers.Dense(num_classes, dtype="float32", name=HEAD)(features.outputs[0])
    return keras.Model(features.inputs[0], logits, name="saved")


def _logits(
    path: str, model: keras.Model, input_shape: tuple, outputs: str, independent: bool
) -> keras.Model:
    """Return a model to logits; what it does to find them is said."""
    ends = final_activation(model) if outputs == "auto" else None
    expected = SIGMOID if independent else SOFTMAX
    if ends in (SIGMOID, SOFTMAX) and ends != expected:
        meaning = "exclude each other" if independent else "do not exclude each other"
        raise checks.UsageError(
            f"The model in {path} ends in {ends}, so its classes {meaning}. "
            f"Give one that ends in {expected} or logits, or say model.outputs."
        )
    if ends == expected:
        _warn(
            f"{path} returns probabilities ({expected}); what stands before it is taken as its "
            "logits."
        )
        return logits_network(model)
    if independent:
        return _of_sigmoid(path, model, input_shape, outputs, ends)
    found = outputs == "auto" and ends is None and gives_probabilities(model, input_shape)
    if found:
        _warn(
            f"{path} returns probabilities (softmax); their logarithms are taken as its logits. "
            "Set model.outputs to say so, or to 'logits' if it does not."
        )
    if not found and outputs != "probabilities":
        return model
    z = ops.cast(model.outputs[0], "float32")
    return keras.Model(model.inputs[0], ops.log(ops.maximum(z, 1e-7)))


def _of_sigmoid(
    path: str, model: keras.Model, input_shape: tuple, outputs: str, ends: str | None
) -> keras.Model:
    """Return a model to logits whose probabilities are those of a sigmoid each."""
    if outputs == "auto" and ends is None:
        values = ops.convert_to_numpy(model(_some_images(input_shape), training=False))
        if ((values >= 0) & (values <= 1)).all():
            raise checks.UsageError(
                f"The outputs of the model in {path} lie in 0..1, which logits and probabilities "
                "may do. Say which they are with model.outputs: logits or probabilities."
            )
    if outputs != "probabilities":
        return model
    p = ops.clip(ops.cast(model.outputs[0], "float32"), 1e-7, 1 - 1e-7)
    return keras.Model(model.inputs[0], ops.log(p) - ops.log1p(-p))


def class_names(path: Path) -> list[str] | None:
    """Return the class names beside an export or within a .keras file, or None.

    Raises:
        UsageError: They cannot be read.
    """
    file = path / "labels.txt"
    if file.is_file():
        return file.read_text(encoding="utf-8").splitlines()
    return read_notes(path).get("class_names")


def whole(path: Path) -> keras.Model:
    """Return the model in a .keras file as it is.

    Raises:
        UsageError: It cannot be read.
    """
    return _loaded(str(path))


def input_size(path: Path) -> int | None:
    """Return the side of the square images that a model takes; None where it takes any.

    Raises:
        UsageError: It cannot be read.
    """
    shape = _shapes(path)[0]
    sides = shape[1:3] if shape and len(shape) == 4 else (None, None)
    return sides[0] if sides[0] == sides[1] else None


def count_outputs(path: Path) -> int:
    """Return how many outputs a model has.

    Raises:
        UsageError: It cannot be read, or has more than one output.
    """
    shape = _shapes(path)[1]
    if not shape or len(shape) != 2 or shape[-1] is None:
        raise checks.UsageError(
            f"A saved model must have one output [batch, classes]. Received: {shape} from {path}."
        )
    return int(shape[-1])


def _shapes(path: Path) -> tuple[Any, Any]:
    """Return the shapes of a model's images and of its output."""
    if path.is_file():
        model = _loaded(str(path))
        shapes = [getattr(model, name, None) for name in ("input_shape", "output_shape")]
        return shapes[0], shapes[1] if isinstance(shapes[1], tuple) else None
    import tensorflow as tf

    check(str(path))
    try:
        signature = tf.saved_model.load(str(path)).signatures[ENDPOINT]
        (spec,) = signature.structured_input_signature[1].values()
        outputs = signature.structured_outputs
        output = outputs if not isinstance(outputs, dict) else _pick(str(path), outputs)
        return tuple(spec.shape), tuple(output.shape)
    except checks.UsageError:
        raise
    except Exception as error:  # TensorFlow and its file readers each raise their own kinds
        raise _unreadable(str(path), error) from error


def _keras_file(path: str, input_shape: tuple) -> keras.Model:
    model = _loaded(path)
    expected = tuple(getattr(model, "input_shape", None) or (None,) * 4)[1:]
    if len(getattr(model, "inputs", None) or ()) == 1 and _fits(expected, input_shape):
        return model
    return _wrap(path, model, expected, input_shape, "float32")


def _loaded(path: str) -> keras.Model:
    if not Path(path).is_file():
        raise checks.UsageError(
            f"model.path must be a .keras file or a SavedModel folder. Received: {path!r}, "
            "which does not exist. Set teacher.path or student.path to one that does."
        )
    check(path)
    return _opened(path)


def _opened(path: str) -> keras.Model:
    register_layers(Path(path))
    try:
        if Path(path).suffix == ".keras" and not zipfile.is_zipfile(path):
            raise ValueError("It is no .keras file, or one that is cut off.")  # Keras: not found
        return keras.models.load_model(
            path, compile=False, safe_mode=not saved_model_safety.trusting()
        )
    except Exception as error:  # zipfile, h5py and unknown classes each raise their own kinds
        raise _unreadable(path, error) from error


def check(path: str, allow_unsafe: bool = False) -> None:
    """Refuse a model that does more than compute, or takes too much memory or time.

    Args:
        path: A .keras or .h5 file, or a SavedModel's folder.
        allow_unsafe: Take it as it is, of a maker whom you trust.

    Raises:
        UsageError: One line that names it.
    """
    if Path(path).is_dir():
        saved_model_safety.check_saved_model(path, allow_unsafe)
    if not (allow_unsafe or saved_model_safety.trusting()):
        foreign.try_out(path, open_once)


def open_once(path: str) -> None:
    """Open a model and ask it about one black image, where its shape is known.

    Raises:
        UsageError: It cannot be opened. One that can't be asked so may still be asked otherwise.
    """
    import tensorflow as tf

    if Path(path).is_dir():
        try:
            loaded = tf.saved_model.load(path)  # its signatures do not keep it alive
            ask = loaded.signatures[ENDPOINT]
            ((name, spec),) = ask.structured_input_signature[1].items()
            shape, dtype = spec.shape, spec.dtype
        except Exception as error:  # TensorFlow and its file readers each raise their own kinds
            raise _unreadable(path, error) from error
    else:
        ask, name, dtype = _opened(path), None, tf.float32
        shape = tf.TensorShape(getattr(ask, "input_shape", None))
    if shape.rank != 4:
        return
    _, *sides, channels = shape
    image = tf.zeros([1, *(side or TRIED_SIZE for side in sides), channels or 3], dtype)
    try:
        ask(image) if name is None else ask(**{name: image})
    except Exception as error:
        if foreign.out_of_memory(error):
            raise


def _saved_model(path: str, input_shape: tuple) -> keras.Model:
    import tensorflow as tf

    check(path)
    try:
        signature = tf.saved_model.load(path).signatures[ENDPOINT]
        layer = layers.TFSMLayer(path, call_endpoint=ENDPOINT, trainable=False)
        (spec,) = signature.structured_input_signature[1].values()
    except Exception as error:  # TensorFlow and its file readers each raise their own kinds
        raise _unreadable(path, error) from error
    expected = tuple(spec.shape)[1:] if spec.shape.rank == 4 else (None,) * 3
    if spec.shape.rank == 4 and spec.shape[0] is not None:
        raise checks.UsageError(
            f"The model in {path} takes {spec.shape[0]} image(s) at a time. Export it with a batch "
            "of any size (None)."
        )
    model = _wrap(path, layer, expected, input_shape, spec.dtype.name)
    if not isinstance(model.output, dict):
        return model
    return keras.Model(model.inputs[0], _pick(path, model.output))


def _pick(path: str, outputs: dict) -> Any:
    for name in ("logits", "probabilities"):
        if name in outputs:
            return outputs[name]
    if len(outputs) > 1:
        raise checks.UsageError(
            f"A SavedModel must have one output, or one named logits or probabilities. "
            f"Received: {', '.join(sorted(outputs))} from {path}."
        )
    return next(iter(outputs.values()))


def _wrap(
    path: str, model: keras.Model, expected: tuple, input_shape: tuple, dtype: str
) -> keras.Model:
    if len(expected) != 3 or expected[2] not in (None, input_shape[2]):
        raise checks.UsageError(
            f"The model in {path} takes inputs of {expected}. Received: images of {input_shape}. "
            "Give it images with as many channels as it was trained on."
        )
    inputs = keras.Input(input_shape, dtype="float32", name="image")
    x = inputs
    if None not in expected[:2] and expected[:2] != input_shape[:2]:
        x = layers.Resizing(*expected[:2], dtype="float32", name="resize")(x)
    if np.issubdtype(np.dtype(dtype), np.integer):
        x = ops.round(x)
    try:
        return keras.Model(inputs, model(ops.cast(x, dtype)))
    except Exception as error:  # whatever the user's model does at these images
        raise _unreadable(path, error) from error


def _fits(expected: tuple, input_shape: tuple) -> bool:
    return len(expected) == len(input_shape) and all(
        size in (None, given) for size, given in zip(expected, input_shape, strict=True)
    )


def _some_images(input_shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, *input_shape)).astype("float32")


@functools.lru_cache(maxsize=64)
def _warn(text: str) -> None:
    """Warn once: a study opens its teacher again and again."""
    LOGGER.warning("%s", text)


def _unreadable(path: str, error: Exception) -> checks.UsageError:
    if "safe_mode" in str(error):
        return checks.UsageError(
            f"The model in {path} holds a layer that runs code from the file, such as Lambda. If "
            "you trust its maker, take it with --allow-unsafe."
        )
    return checks.UsageError(
        f"Cannot use the model in {path}: {checks.first_line(error)} Give a .keras file of a whole "
        f"model, or a SavedModel folder with one image input in its signature {ENDPOINT!r}."
    )
