"""Exports a network: written beside, checked in fresh processes, described, put in place at once.

`saved_models/NAME/VERSION/` holds a SavedModel as TensorFlow Serving loads it, the other formats
that were asked for, and a model card. Nothing appears there that did not pass its check.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfdistill import data
from tfdistill.config import ExportConfig, to_dict
from tfdistill.config.registry import EXPORT_FORMATS
from tfdistill.distillation.ensembles import Ensemble
from tfdistill.export import model_card, saved_model, targets, verify, versions
from tfdistill.export.format import ExportFormat, export_format
from tfdistill.export.model_card import Facts
from tfdistill.export.saved_model import SAVED_MODEL
from tfdistill.export.targets import Subject
from tfdistill.export.verify import Check, Figures, TestImages
from tfdistill.models.flops import flops
from tfdistill.models.logits import LINEAR, final_activation
from tfdistill.models.pixel_range import from_pixels
from tfdistill.quantization.layers import count_params, is_quantized
from tfdistill.training import evaluation, range_check, tasks
from tfdistill.utils import checks, foreign, machine, pixels, storage, tensorflow
from tfdistill.utils.pixels import PixelRange
from tfdistill.utils.progress import Silent
from tfdistill.utils.text import printable

LABELS = "labels.txt"
BATCH_SIZE = 64
# An export needs its weights about so many times: SavedModel, what is converted, the formats.
ROOM = 8
# Test images that tell whether the network is the one that was measured, and by how much it may be
# off: what another rounding costs is less.
ENOUGH, ACCURACY_LOSS = 200, 0.02


@dataclass(frozen=True)
class Exported:
    """A model in its place.

    Args:
        folder: `FOLDER/NAME/VERSION`.
        checks: How every format compares with the network; none of what was in place already.
        card: The model card, as in `model_card.json`.
    """

    folder: Path
    checks: list[Check]
    card: dict

    @property
    def formats(self) -> list[str]:
        """The formats that are there, a SavedModel first."""
        return [one.name for one in EXPORT_FORMATS.values() if one.opens(one.place(self.folder))]

    def file(self, format: str) -> Path:
        """Return the path of one format: of a SavedModel, its folder."""
        return export_format(format).place(self.folder)


class Source:
    """What a format is written from.

    Args:
        network: From raw pixels `[n, height, width, channels]` 0..255 to logits, in float32.
        name: Name of the model.
        images: The data set that it was trained on.
        resize: Let a model that can take images of any size.
        scratch: An empty folder, for what is only converted further.
    """

    def __init__(
        self, network: keras.Model, name: str, images: data.Dataset, resize: bool, scratch: Path
    ):
        self.network = network
        self.name = name
        self.images = images
        self.resize = resize
        self._scratch = scratch

    @cached_property
    def numeric(self) -> Path:
        """A SavedModel without strings and image files, as converters take it."""
        shape, several = self.images.input_shape, self.images.multi_label
        saved_model.write_numeric(self.network, self._scratch, shape, several)
        return self._scratch

    def training_images(self, count: int) -> np.ndarray:
        """Return evenly chosen ones as the network sees them, `[count, h, w, channels]` uint8."""
        return evaluation.as_seen(self.images.train.evenly(count), self.images)

    def test_images(self, count: int) -> np.ndarray:
        """Return evenly chosen ones, `[count, h, w, channels]` uint8, as `training_images` does."""
        return evaluation.as_seen(self.images.test.evenly(count), self.images)


def export(
    subject: Subject, name: str, config: ExportConfig, progress: Silent | None = None
) -> Exported:
    """Export a network as the next version of `name`.

    Args:
        subject: The network and what is known about it.
        name: Name of the model.
        config: Formats, folder and checks.
        progress: Where to say what is being done; None says nothing.

    Returns:
        The export in its place.

    Raises:
        UsageError: A missing package, no room on the disk, a network that cannot be converted, or
            one of your own that is right far more often on pixels of another range.
        Refused: A format that answers too differently; nothing is put in place.
    """
    progress = progress or Silent()
    config.check_packages()
    network = in_float32(subject.network())
    rounded = is_quantized(network)
    if rounded and not pixels.is_full(config.pixel_range):
        raise checks.UsageError(
            "A quantised network takes pixels 0..255. Received: export.pixel_range="
            f"{config.pixel_range}. Put keras.layers.Rescaling before the float network."
        )
    shape = subject.images.input_shape
    network = from_pixels(network, config.pixel_range, input_shape=shape)
    model = Path(config.folder) / name
    _check_room(network, model)
    test = test_images(subject.images, config.check_images)
    logits = _logits(network, test.images)
    if not np.isfinite(logits).all():
        raise checks.UsageError(
            f"{subject.name} gives NaN or infinite logits for test images, and is not exported. "
            "Train it at a lower learning rate."
        )
    if final_activation(network) != LINEAR:
        _check_logits(subject, logits)
    _check_accuracy(subject, logits, test, len(subject.images.test))
    own = subject.record is None and not rounded
    if own and logits.shape[-1] == subject.images.num_classes:  # another number is refused below
        _check_range(subject, network, test, config.pixel_range)
    with versions.new_version(model) as new:
        progress.say(f"Exporting {subject.name} as {model}")
        _write(network, new.folder, name, subject.images, config)
        with verify.refused():
            done = _compare(new.folder, config, test, logits, rounded, progress)
        figures = _figures(subject, test, logits)
        card = _describe(subject, network, new, config, done, figures)
    exported = Exported(new.target, done, card)
    for format in exported.formats:
        foreign.know(foreign.sum_of(exported.file(format)))
    progress.say(f"{new.target} is in place")
    return exported


def export_network(
    network: keras.Model,
    name: str,
    images: data.Dataset,
    formats: Sequence[str] = (),
    accuracy: float | None = None,
    **settings: Any,
) -> Exported:
    """Export a network from Python, as the next version of `name`.

    Args:
        network: A Keras model from raw pixels, `[batch, height, width, channels]` 0..255, to logits
            `[batch, num_classes]` or their softmax (of several labels, their sigmoid); an
            `Ensemble`; or a `Distiller`, of which only the student is written. One that expects
            pixels of another range needs `pixel_range`.
        name: Name of the model.
        images: The data set that it was trained on, as `data.load` or `data.from_arrays` returns
            it: test images to compare with, training images for int8, class names.
        formats: Names of `EXPORT_FORMATS`, such as `litert-int8`; a SavedModel there always is.
        accuracy: What you measured on all test images, 0..1: an export that is over two points
            from it is refused, such as one that is given pixels of another range than in training.
        **settings: Others of `ExportConfig`: folder, resize, check_images, licence, pixel_range.

    Returns:
        The export in its place.

    Raises:
        UsageError: As `export`.
        Refused: As `export`.

    Example:
        >>> images = data.load(DataConfig(source="digits"))
        >>> export_network(distiller, "digits", images, ["litert-int8"]).folder
        PosixPath('saved_models/digits/1')
    """
    tensorflow.needed("An export")
    subject = targets.of_network(network, name, images, accuracy)
    return export(subject, name, ExportConfig(list(formats), name=name, **settings))


def ensure(subject: Subject, name: str, config: ExportConfig, progress: Silent) -> Exported:
    """Return the newest version of `name` if it is whole and of this network, else export it."""
    there = versions.latest(Path(config.folder) / name)
    card = versions.intact(there) if there else None
    if (
        there
        and card
        and card["key"] == subject.key
        # A card of an earlier version lacks settings that came later.
        and _settings(ExportConfig()) | card["settings"] == _settings(config)
    ):
        progress.say(f"{there} is in place already")
        return Exported(there, [], card)
    return export(subject, name, config, progress)


def test_images(images: data.Dataset, count: int | None) -> TestImages:
    """Return evenly chosen test images; `count` None takes all."""
    examples = images.test.evenly(count or len(images.test))
    return TestImages(evaluation.as_seen(examples, images), examples.images, examples.labels)


def in_float32(network: keras.Model) -> keras.Model:
    """Return the network computing in float32, with the same weights.

    Mixed precision is for training on a GPU; a CPU that serves is many times slower with it.
    """
    if isinstance(network, Ensemble):
        members = [in_float32(member) for member in network.members]
        return Ensemble(members, network.average, network.weights_of_members)
    if all(_is_float32(layer) for layer in network._flatten_layers(include_self=False)):
        return network
    whole = keras.models.clone_model(network, clone_function=_layer_in_float32)
    whole.set_weights(network.get_weights())
    return whole


def _check_logits(subject: Subject, logits: np.ndarray) -> None:
    if tasks.of(subject.images).look_like_probabilities(logits):
        raise checks.UsageError(
            f"An export takes a network that gives logits. Received: {subject.name}, whose outputs "
            "are probabilities. Leave out what makes them so at its end."
        )


def _check_accuracy(subject: Subject, logits: np.ndarray, test: TestImages, total: int) -> None:
    """Raise if a network is right on other test images than when it was trained.

    It may differ by two points; and by three standard errors where it is measured here on a part
    of the test images only.
    """
    known = subject.measured
    if subject.record:
        known = Figures.of(subject.record, total, subject.part).values.get("accuracy")
    count = len(test.labels)
    if known is None or count < ENOUGH:
        return
    found = tasks.of_labels(test.labels).accuracy(logits, test.labels)
    chance = 3 * np.sqrt(known * (1 - known) * (1 / count - 1 / total)) if count < total else 0.0
    if abs(found - known) > ACCURACY_LOSS + chance:
        raise checks.Refused(
            f"{subject.name} is not exported: it is right on {found:.1%} of {count} test images, "
            f"and {known:.1%} was measured. Does it expect pixels of another range than 0..255? "
            "Say so with pixel_range, as [0, 1]."
        )


def _check_range(
    subject: Subject, network: keras.Model, test: TestImages, seen: PixelRange
) -> None:
    """Raise if a network of one's own knows test images much better in another range of pixels."""
    some = slice(None, None, max(1, len(test.labels) // range_check.ENOUGH))
    images, labels = test.images[some], test.labels[some]
    task = tasks.of_labels(labels)

    def right(each: keras.Model) -> np.ndarray:
        return task.right(_logits(each, images), labels)

    shape = subject.images.input_shape
    range_check.check_range(subject.name, network, right, seen, shape)


def _logits(network: keras.Model, images: np.ndarray) -> np.ndarray:
    network.compile(jit_compile=False)
    return network.predict(images, batch_size=BATCH_SIZE, verbose=0)


def _is_float32(layer: keras.Layer) -> bool:
    return layer.compute_dtype not in ("float16", "bfloat16")


def _layer_in_float32(layer: keras.Layer) -> keras.Layer:
    if isinstance(layer, keras.Model):
        return in_float32(layer)
    config = layer.get_config()
    return layer.__class__.from_config(
        config if _is_float32(layer) else {**config, "dtype": "float32"}
    )


def _check_room(network: keras.Model, model: Path) -> None:
    """Raise early where a disk cannot hold the export; what is known only at the end is later."""
    there = next(folder for folder in (model, *model.parents) if folder.exists())
    needed = ROOM * sum(weight.nbytes for weight in map(np.asarray, network.get_weights()))
    free = shutil.disk_usage(there).free
    if free < needed:
        raise checks.UsageError(
            f"There is no room for the export in {there}. Received: {free / 1e6:.0f} MB free, "
            f"about {needed / 1e6:.0f} MB needed. Make room, or name another folder with --folder."
        )


def _write(
    network: keras.Model, folder: Path, name: str, images: data.Dataset, config: ExportConfig
) -> None:
    """Write the SavedModel and every other format into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Source(network, name, images, config.resize, Path(scratch))
        for format in _formats(config):
            format.write(source, format.place(folder))
    # A name with a line break is one line, too.
    lines = [printable(" ".join(label.split())) for label in images.class_names]
    (folder / LABELS).write_text("\n".join([*lines, ""]), encoding="utf-8")


def _formats(config: ExportConfig) -> list[ExportFormat]:
    """Return the SavedModel's format, and those that were asked for beside it."""
    others = [name for name in EXPORT_FORMATS if name in config.formats]
    return [SAVED_MODEL, *(EXPORT_FORMATS[name] for name in others if name != SAVED_MODEL.name)]


def _compare(
    folder: Path,
    config: ExportConfig,
    test: TestImages,
    logits: np.ndarray,
    rounded: bool,
    progress: Silent,
) -> list[Check]:
    """Return how every format answers, asked in processes of their own."""
    found = []
    for format in _formats(config):
        for one in verify.compare(format, format.place(folder), test, logits, rounded):
            progress.say(one.text())
            found.append(one)
    return found


def _settings(config: ExportConfig) -> dict:
    """Return the settings that an export's files follow from."""
    settings = to_dict(config)
    del settings["folder"], settings["name"]
    return settings


def _describe(
    subject: Subject, network: keras.Model, new: Any, config: ExportConfig, done: Any, figures: Any
) -> dict:
    """Write the model card into a new version and return it."""
    facts = Facts(
        name=new.folder.parent.name,
        version=new.number,
        key=subject.key,
        kind=subject.kind,
        created=datetime.now(UTC),
        versions=machine.versions(),
        licence=config.licence,
        images=subject.images,
        resize=config.resize,
        files={format.name: _files(new.folder, format) for format in _formats(config)},
        checks=done,
        parameters=count_params(network),
        flops=flops(network, subject.images.input_shape),
        figures=figures,
        record=subject.record,
        teachers=subject.teachers,
        members=subject.member_records,
        average=subject.average,
    )
    more = {"settings": _settings(config), "files": versions.files_of(new.folder)}
    card = model_card.card(facts) | more
    page = new.folder / model_card.PAGE_FILE
    page.write_text(model_card.markdown(card), encoding="utf-8")
    card["page"] = versions.sha256(page)
    storage.write_checked(new.folder / model_card.JSON_FILE, card)
    return card


def _files(folder: Path, format: ExportFormat) -> list[dict]:
    return [
        {"path": file.relative_to(folder).as_posix(), **versions.facts_of(file)}
        for file in format.shipped(format.place(folder))
    ]


def _figures(subject: Subject, test: TestImages, logits: np.ndarray) -> Figures:
    """Return the figures of the run on all its test images, or else those measured here."""
    if subject.record:
        return Figures.of(subject.record, len(subject.images.test), subject.part)
    return Figures(tasks.of_labels(test.labels).summary(logits, test.labels), len(logits))
