"""Image classifiers of KerasHub (https://keras.io/keras_hub), with their preprocessing inside.

A task of KerasHub preprocesses in its `predict`, not when it is called; here its converter is the
first layer, so that whoever calls the network gives raw pixels.
"""

import importlib
import zipfile
from pathlib import Path
from typing import Any

import keras

from tfdistill.models.applications import CLASSES
from tfdistill.models.logits import logits_network
from tfdistill.utils import checks

EXTRA, PACKAGE = "hub", "keras_hub"
# What names end in whose classes are ImageNet's 1,000 in their order; others end in imagenet_21k.
_OF_IMAGENET = "_imagenet"


def classifier(preset: str, image_size: int | None = None) -> keras.Model:
    """Return an image classifier of KerasHub, from raw pixels to logits.

    Args:
        preset: A name such as `resnet_50_imagenet`, an address such as `hf://timm/resnet18.a1_in1k`
            (both are downloaded), or a folder that `save_to_preset` has written.
        image_size: Side of its images, which its converter brings to its own size.

    Returns:
        A functional model from `[batch, size, size, 3]` float32, 0..255, to logits
        `[batch, num_classes]` float32. Without `image_size` of its own size, `None` where it takes
        any. Its layers are the task's.

    Raises:
        UsageError: KerasHub is not installed, or the preset cannot be had or is no whole image
            classifier.

    Example:
        >>> classifier("resnet_50_imagenet").input_shape
        (None, 224, 224, 3)
    """
    checks.installed((PACKAGE,), EXTRA, "A teacher hub:PRESET")
    import keras_hub

    _check_place(preset, keras_hub.models.ImageClassifier.presets)
    task = _task(preset, keras_hub.models)
    preprocessor = _preprocessor(preset, task, keras_hub.models)
    converter = preprocessor.image_converter
    shape = _input_shape(task, converter, image_size)
    if converter and converter.image_size == shape[:2]:
        # XLA cannot compile what would bring them, bicubic or antialiased, to the size they have.
        config = converter.get_config() | {"image_size": None}
        converter = type(converter).from_config(config)
    inputs = keras.Input(shape, dtype="float32", name="image")
    x = converter(inputs) if converter else inputs
    # `call` runs the layers one by one; called as a whole, the task would be one layer, and would
    # be saved with the preprocessor that its predict runs.
    network = logits_network(keras.Model(inputs, task.call(x), name=task.name))
    if len(network.output_shape) != 2:
        raise _no_classifier(preset, f"its output is {network.output_shape}")
    return network


def class_names(preset: str, classes: int) -> list[str] | None:
    """Return the names of a preset's classes; None where they are not known."""
    if classes != CLASSES or Path(preset).exists() or not preset.endswith(_OF_IMAGENET):
        return None
    return imagenet_names()


def imagenet_names() -> list[str] | None:
    """Return the names of ImageNet's 1,000 classes in their usual order; None without KerasHub.

    Of two classes of one name, as the crane that flies and the one that lifts, both are unknown.
    """
    try:
        import keras_hub
    except ImportError:
        return None
    names = [keras_hub.utils.imagenet_id_to_name(number) for number in range(CLASSES)]
    return [
        name if names.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(names)
    ]


def register_layers(path: Path) -> None:
    """Make KerasHub's layers known to Keras, if a .keras file has any.

    Raises:
        UsageError: It has, and KerasHub is not installed.
    """
    try:
        with zipfile.ZipFile(path) as file:
            config = file.read("config.json")
    except (OSError, KeyError, zipfile.BadZipFile):  # whoever loads the file says what is wrong
        return
    if PACKAGE.encode() in config:
        checks.installed((PACKAGE,), EXTRA, f"The network in {path}")
        importlib.import_module(PACKAGE)


def _check_place(preset: str, known: Any) -> None:
    """Raise where KerasHub would search long for a preset, or give it random weights."""
    folder = Path(preset)
    if folder.is_dir():
        for name in ("config.json", "task.json", "task.weights.h5"):
            # Without the task's files KerasHub knows no classes, or takes a random last layer.
            if not (folder / name).is_file():
                raise _no_classifier(preset, f"the folder has no {name}")
    elif "://" not in preset and preset not in known:
        raise checks.UsageError(
            "hub:PRESET must be the name of an image classifier of KerasHub, such as "
            "resnet_50_imagenet, or a folder that save_to_preset has written. Received: "
            f"{checks.shown(preset)}, which is neither.{checks.nearest(preset, list(known))}"
        )


def _task(preset: str, models: Any) -> Any:
    try:
        task = models.ImageClassifier.from_preset(preset, dtype="float32")
    except OSError as error:  # no network, no right to read
        raise checks.UsageError(
            f"The preset hub:{preset} could not be had: {checks.first_line(error)} Try again with "
            "a connection, or give a folder that save_to_preset has written."
        ) from error
    except Exception as error:  # other kinds of model, damaged files: each raises its own
        raise _no_classifier(preset, checks.first_line(error).rstrip(".")) from error
    return task


def _preprocessor(preset: str, task: Any, models: Any) -> Any:
    preprocessor = task.preprocessor
    plain = models.ImageClassifierPreprocessor
    if preprocessor is None:
        raise checks.UsageError(
            f"The preset hub:{preset} does not say how it prepares images: it has no preprocessor. "
            "Save it again with one, or give a .keras file that takes pixels 0..255."
        )
    if getattr(type(preprocessor), "call", None) is not plain.call:
        raise checks.UsageError(
            f"The preset hub:{preset} prepares images by more than a converter. Received: "
            f"{type(preprocessor).__name__}. Give a .keras file that takes pixels 0..255."
        )
    return preprocessor


def _input_shape(
    task: Any, converter: Any, image_size: int | None
) -> tuple[int | None, int | None, int]:
    height, width, channels = task.backbone.input_shape[1:]
    if image_size is not None:
        return image_size, image_size, channels
    if converter is not None and converter.image_size is not None:
        height, width = converter.image_size
    if None in (height, width):
        return None, None, channels
    return max(height, width), max(height, width), channels


def _no_classifier(preset: str, why: str) -> checks.UsageError:
    return checks.UsageError(
        f"The preset hub:{preset} is no whole image classifier of KerasHub: {why}. Give one that "
        "ImageClassifier.from_preset reads, with its last layer."
    )
