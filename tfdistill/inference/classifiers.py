"""Models that are ready to classify images: any export, or the network of a study's run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tfdistill import records
from tfdistill.config import DataConfig, build
from tfdistill.data import image_files
from tfdistill.export import versions
from tfdistill.export.format import Runtime, formats_of, open_model, suffixes
from tfdistill.utils import checks, foreign, pixels, tensorflow
from tfdistill.utils.pixels import FULL, PixelRange

LABELS, CARD = "labels.txt", "model_card.json"
KERAS = ".keras"
# Side of the image that a model of any size is tried with.
TRIED_SIZE = 64


@dataclass(frozen=True)
class Guess:
    """A class that an image may be of: its name, its number and its probability in 0..1."""

    name: str
    number: int
    probability: float


@dataclass(frozen=True, eq=False)
class Model:
    """A model that is ready to classify.

    Args:
        path: Folder of the SavedModel, or the file.
        runtime: What runs it: from images uint8 `[n, height, width, channels]` to named arrays,
            `probabilities` `[n, classes]` among them; `runtime.title` says what it is.
        shape: `(height, width, channels)` of its images; height and width None take any.
        image_size: Side of the square that images are brought to first; None means the model's.
        class_names: One for each class: names, or numbers where no names are known.
        multi_label: Whether an image may have any number of the classes, which are then labels.
        assumed: What is taken for granted of a network of which nothing is known, in a sentence.
    """

    path: Path
    runtime: "Runtime | _KerasRuntime"
    shape: tuple[int | None, int | None, int]
    image_size: int | None
    class_names: tuple[str, ...]
    multi_label: bool = False
    assumed: str = ""

    @property
    def name(self) -> str:
        """E.g. `quickstart-student/1` or `model.int8.tflite`."""
        if self.path.is_file():
            return self.path.name
        return "/".join(self.path.resolve().parts[-2:])

    def read(self, path: Path) -> np.ndarray:
        """Return an image file as the model takes it, `[height, width, channels]` uint8.

        Raises:
            ImageError: What is wrong with the file.
        """
        return image_files.read(Path(path), self.shape, self.image_size)

    def classify(self, images: np.ndarray, top: int = 3) -> list[tuple[Guess, ...]]:
        """Return the most probable classes of each image, the first one first.

        Args:
            images: `[n, height, width, channels]` uint8.
            top: How many classes; no more than there are. Of several labels all are returned.

        Returns:
            For each image its classes, none of them where the model gives no number.

        Raises:
            UsageError: The model cannot answer.
        """
        answer = _ask(self.runtime, images, self.path)
        top = len(self.class_names) if self.multi_label else top
        # A SavedModel names the first class itself, also where no names lie beside it.
        own = answer.get("class_name", [None] * len(images))
        return [
            self._guesses(row, name, top)
            for row, name in zip(answer["probabilities"], own, strict=True)
        ]

    def _guesses(self, probabilities: np.ndarray, own: str | None, top: int) -> tuple[Guess, ...]:
        if not np.isfinite(probabilities).all():
            return ()
        best = np.argsort(-probabilities, kind="stable")[:top]
        names = [self.class_names[number] for number in best]
        names[0] = names[0] if own is None else str(own)
        return tuple(
            Guess(name, int(number), float(probabilities[number]))
            for name, number in zip(names, best, strict=True)
        )


def open_export(
    model: str | Path, allow_unsafe: bool = False, pixel_range: PixelRange = FULL
) -> Model:
    """Open a model and let it answer once.

    Args:
        model: `saved_models/NAME/VERSION`, `saved_models/NAME` (its highest version), or a
            .tflite, .onnx or .keras file.
        allow_unsafe: Also load a model that could run code or reach files.
        pixel_range: What a network of one's own, in a .keras file, expects for the pixels 0 and
            255, such as `[0, 1]`; or `caffe` or `torch`, how `keras.applications` prepared them.

    Raises:
        UsageError: No model, an unfit or a damaged one, or a missing package; or a pixel range for
            one that tfdistill made, which takes 0..255.

    Example:
        >>> model = open_export("saved_models/quickstart-student/1/model.int8.tflite")
        >>> model.classify(model.read(Path("three.png"))[None])[0][0].name
        '3'
    """
    pixels.check("pixel_range", pixel_range)
    path = place_of(Path(model))
    if not pixels.is_full(pixel_range) and _made_here(path):
        raise checks.UsageError(
            f"{path} was made by tfdistill and takes pixels 0..255. Received: pixel_range="
            f"{checks.shown(pixel_range)}. Remove it."
        )
    tensorflow.start()
    if path.suffix == KERAS:
        return _of_keras_file(path, allow_unsafe, pixel_range)
    folder = path if path.is_dir() else path.parent
    versions.check(path)
    runtime, sizes, image_size, names = _runtime(path, allow_unsafe), *_card(folder)
    shape = _shape(path, runtime.input_shape, sizes)
    return _tried(Model(path, runtime, shape, image_size, tuple(_lines(folder / LABELS) or names)))


def place_of(model: Path) -> Path:
    """Return the folder or file that a model's path stands for.

    Raises:
        UsageError: There is no model.
    """
    if model.is_file() and model.suffix == KERAS:
        return model
    for place in (model, versions.latest(model)):
        if place and formats_of(place):
            return place
    what = "which is of another kind" if model.exists() else "which does not exist"
    raise checks.UsageError(
        f"A model must be a folder saved_models/NAME or saved_models/NAME/VERSION, or a "
        f"{', '.join(suffixes())} or {KERAS} file. Received: {str(model)!r}, {what}."
    )


def _runtime(path: Path, allow_unsafe: bool):
    """Return what runs an export."""
    from tfdistill.models import saved, saved_model_safety

    if path.is_dir():
        saved.check(str(path), allow_unsafe)
    elif not (allow_unsafe or saved_model_safety.trusting()):
        foreign.try_out(path, open_once)
    try:
        return open_model(path)
    except (ValueError, ImportError) as error:
        raise checks.UsageError(str(error)) from error


def _made_here(path: Path) -> bool:
    """Return whether a model is an export, or a .keras file that a run or its record knows."""
    from tfdistill.models.weights.notes import read_notes

    return path.suffix != KERAS or bool(read_notes(path)) or records.read(path.parent) is not None


def _of_keras_file(path: Path, allow_unsafe: bool, pixel_range: PixelRange) -> Model:
    """Return the network in a .keras file, with what its run's record knows about images.

    Where it was copied from its run, what stands in the file says what its outputs are.
    """
    from tfdistill.models.weights.notes import read_notes

    records.check_beside(path)
    notes = read_notes(path)
    image_size: int | None = None
    names: Sequence[str] = notes.get("class_names", ())
    try:
        record = records.read(path.parent)
        config = build(DataConfig, record.config["data"]) if record else None
        several = record.multi_label if record else notes.get("multi_label", False)
    except (KeyError, TypeError, ValueError) as error:
        raise _unfit(path, f"The record beside it cannot be read: {error}.") from error
    runtime = _KerasRuntime(path, allow_unsafe, several, pixel_range)
    if config:
        from tfdistill import data

        image_size = config.image_size
        try:
            images = data.load(config, tell=lambda note: None)  # as its training told
        except checks.UsageError:
            pass  # the images lie elsewhere; classes then go by their numbers
        else:
            image_size, names = images.stored_side, images.class_names
    shape = _shape(path, runtime.input_shape, (None, None))
    assumed = ""
    known = record or notes or not pixels.is_full(pixel_range)
    if not known and not runtime.scales_pixels:
        assumed = (
            "Nothing in the network says which pixels it expects, so it was shown 0..255. Trained "
            "on others, it answers wrongly: give pixel_range, such as 0,1, here or in an export."
        )
    return _tried(Model(path, runtime, shape, image_size, tuple(names), assumed=assumed))


def open_once(path: str) -> None:
    """Open a .keras, .tflite or .onnx file and ask it about one black image."""
    if Path(path).suffix == KERAS:
        from tfdistill.distillation import distiller, ensembles  # noqa: F401, a file may hold one
        from tfdistill.models import saved

        return saved.open_once(path)
    model = open_model(path)
    model(np.zeros((1, *(size or TRIED_SIZE for size in model.input_shape)), np.uint8))
    return None


class _KerasRuntime:
    """Runs the network in a .keras file, as a `Runtime` runs an export."""

    title = "Keras"

    def __init__(self, path: Path, allow_unsafe: bool, multi_label: bool, pixel_range: PixelRange):
        import keras
        import tensorflow as tf

        from tfdistill.models import logits
        from tfdistill.models.pixel_range import from_pixels

        network = _load(path, allow_unsafe)
        shape = getattr(network, "input_shape", None)
        if not isinstance(shape, tuple) or len(shape) != 4:
            raise _unfit(path, f"It takes inputs of {shape}.")
        self.input_shape = tuple(shape[1:])
        tried = tuple(size or TRIED_SIZE for size in self.input_shape)
        ends = logits.final_activation(network)
        self._multi_label = multi_label or ends == logits.SIGMOID
        if self._multi_label:
            done, activation = ends == logits.SIGMOID, tf.nn.sigmoid
        elif network.output_shape[-1] == 1:
            raise _unfit(path, "It has one output, which is no class of several.")
        else:
            done, activation = logits.gives_probabilities(network, tried), tf.nn.softmax
        self.scales_pixels = any(
            isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization))
            for layer in network._flatten_layers()
        )
        network = from_pixels(network, pixel_range)

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)])
        def answer(images):
            found = tf.cast(network(tf.cast(images, tf.float32), training=False), tf.float32)
            return found if done else activation(found)

        self._answer = answer

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        found = self._answer(images).numpy()
        present = {"present": (found > 0.5).astype(np.int32)} if self._multi_label else {}
        return {"probabilities": found, **present}


def _load(path: Path, allow_unsafe: bool):
    import keras

    from tfdistill.distillation import distiller, ensembles  # noqa: F401, a file may hold one
    from tfdistill.models import register_layers, saved_model_safety

    trusted = allow_unsafe or saved_model_safety.trusting()
    if not trusted:
        foreign.try_out(path, open_once)
    register_layers(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=not trusted)
    except Exception as error:  # zipfile, h5py and unknown classes each raise their own kinds
        if "safe_mode" in str(error):
            raise checks.UsageError(
                f"The model in {path} holds code of its own, a Lambda layer. Use it only if you "
                "trust its maker: give --allow-unsafe (allow_unsafe=True)."
            ) from error
        raise _unfit(path, checks.first_line(error)) from error


def _shape(path: Path, shape: tuple, known: tuple) -> tuple[int | None, int | None, int]:
    """Return height, width and channels; what a model leaves open is taken from what is known."""
    *sizes, channels = shape
    if not all(isinstance(size, int) for size in sizes):
        sizes = list(known) if None not in known else [None, None]
    if channels not in (1, 3):
        raise _unfit(path, f"It takes images of {channels} channels, and files have 1 or 3.")
    height, width = sizes
    return height, width, channels


def _tried(model: Model) -> Model:
    """Return a model that has answered, with a name for each of its classes."""
    shape = tuple(size or TRIED_SIZE for size in model.shape)
    answer = _ask(model.runtime, np.zeros((1, *shape), np.uint8), model.path)
    classes = answer["probabilities"].shape[1]
    names = model.class_names or tuple(map(str, range(classes)))
    if len(names) != classes:
        raise _unfit(model.path, f"It tells {classes} classes apart and has {len(names)} names.")
    several = "present" in answer
    return replace(model, class_names=names, multi_label=several)


def _ask(runtime, images: np.ndarray, path: Path) -> dict[str, np.ndarray]:
    try:
        answer = runtime(images)
    except Exception as error:  # each runtime raises its own kinds
        raise _unfit(path, checks.first_line(error)) from error
    shape = np.shape(answer["probabilities"])
    if len(shape) != 2 or len(images) != shape[0] or not shape[1]:
        raise _unfit(path, f"Its probabilities are {list(shape)}, not [{len(images)}, classes].")
    return answer


def _unfit(path: Path, problem: str) -> checks.UsageError:
    return checks.UsageError(
        f"Cannot use the model {path}: {problem} Give one that tfdistill export has written, or "
        "the .keras file of a study's run."
    )


def _card(folder: Path) -> tuple[tuple[int | None, int | None], int | None, list[str]]:
    """Return height and width, image size and class names of a folder's model card, if it knows."""
    path = folder / CARD
    if not path.exists():
        return (None, None), None, []
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        seen = card.get("preprocessing", {})
        sizes = [seen.get(name) for name in ("height", "width", "image_size")]
        height, width, image_size = (
            None if size is None else checks.count("size", size) for size in sizes
        )
        names = card.get("data", {}).get("classes", [])
        return (height, width), image_size, [str(name) for name in names]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unfit(folder, f"{CARD} cannot be read: {checks.first_line(error)}") from error


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unfit(path.parent, f"{path.name} cannot be read: {error}.") from error
    return text.removesuffix("\n").split("\n")
