"""Exports a network: written beside, checked in fresh processes, described, put in place at once.

`saved_models/NAME/VERSION/` holds a SavedModel as TensorFlow Serving loads it, the other formats
that were asked for, and a model card. Nothing appears there that did not pass its check.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import keras
import numpy as np

from tfdistill import data
from tfdistill.config import ONNX, SAVED_MODEL, ExportConfig, to_dict
from tfdistill.data import pipeline
from tfdistill.distillation.ensembles import Ensemble
from tfdistill.export import (
    benchmark,
    litert,
    model_card,
    onnx,
    saved_model,
    targets,
    verify,
    versions,
)
from tfdistill.export.card_facts import Facts, Figures, File
from tfdistill.export.targets import Subject
from tfdistill.export.verify import Check, TestImages
from tfdistill.models.flops import flops
from tfdistill.training import metrics
from tfdistill.utils import checks, machine, storage
from tfdistill.utils.progress import Silent

FILES = {f"litert-{kind}": f"model.{kind}.tflite" for kind in ("float32", "float16", "int8")}
FILES[ONNX] = "model.onnx"
LABELS = "labels.txt"
BATCH_SIZE = 64
WARM_UP = 32
# An export needs its weights about so many times: SavedModel, what is converted, the formats.
ROOM = 8


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
        return [SAVED_MODEL, *(format for format in FILES if self.file(format).exists())]

    def file(self, format: str) -> Path:
        """Return the path of one format: of a SavedModel, its folder."""
        return self.folder / FILES[format] if format in FILES else self.folder


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
        UsageError: A missing package, no room on the disk, a network that cannot be converted.
        Refused: A format that answers too differently; nothing is put in place.
    """
    progress = progress or Silent()
    config.check_packages()
    network = in_float32(subject.network())
    model = Path(config.folder) / name
    _check_room(network, model)
    test = test_images(subject.images, config.check_images)
    logits = _logits(network, test.images)
    with versions.new_version(model) as new:
        progress.say(f"Exporting {subject.name} as {model}")
        _write(network, new.folder, name, subject, config)
        done = _compare(new.folder, config, test, logits, progress)
        figures = _figures(subject, test, logits)
        card = _describe(subject, network, new, config, done, figures)
    progress.say(f"{new.placed} is in place")
    return Exported(new.placed, done, card)


def export_network(
    network: keras.Model, name: str, images: data.Dataset, formats: Sequence[str] = (), **settings
) -> Exported:
    """Export a network from Python, as the next version of `name`.

    Args:
        network: A Keras model from raw pixels, `[batch, height, width, channels]` 0..255, to logits
            `[batch, num_classes]`; an `Ensemble`; or a `Distiller`, of which only the student is
            written.
        name: Name of the model.
        images: The data set that it was trained on, as `data.load` or `data.from_arrays` returns
            it: test images to compare with, training images for int8, class names.
        formats: Beside a SavedModel: `litert-float32`, `litert-float16`, `litert-int8`, `onnx`.
        **settings: Others of `ExportConfig`: folder, resize, check_images, licence.

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
    subject = targets.of_network(network, name, images)
    return export(subject, name, ExportConfig(list(formats), name=name, **settings))


def ensure(subject: Subject, name: str, config: ExportConfig, progress: Silent) -> Exported:
    """Return the newest version of `name` if it is whole and of this network, else export it."""
    there = versions.latest(Path(config.folder) / name)
    card = there and versions.intact(there)
    if card and card["key"] == subject.key and card["settings"] == _settings(config):
        progress.say(f"{there} is in place already")
        return Exported(there, [], card)
    return export(subject, name, config, progress)


def test_images(images: data.Dataset, count: int | None) -> TestImages:
    """Return evenly chosen test images; `count` None takes all."""
    examples = _evenly(images.test, count or len(images.test))
    return TestImages(_as_seen(examples, images), examples.images, examples.labels)


def in_float32(network):
    """Return the network computing in float32, with the same weights.

    Mixed precision is for training on a GPU; a CPU that serves is many times slower with it.
    """
    if isinstance(network, Ensemble):
        return Ensemble([in_float32(member) for member in network.members], network.average)
    if all(_is_float32(layer) for layer in network._flatten_layers(include_self=False)):
        return network
    whole = keras.models.clone_model(network, clone_function=_layer_in_float32)
    whole.set_weights(network.get_weights())
    return whole


def _logits(network, images: np.ndarray) -> np.ndarray:
    network.compile(jit_compile=False)
    return network.predict(images, batch_size=BATCH_SIZE, verbose=0)


def _is_float32(layer) -> bool:
    return layer.compute_dtype not in ("float16", "bfloat16")


def _layer_in_float32(layer):
    if isinstance(layer, keras.Model):
        return in_float32(layer)
    config = layer.get_config()
    return layer.__class__.from_config(
        config if _is_float32(layer) else {**config, "dtype": "float32"}
    )


def _check_room(network, model: Path) -> None:
    """Raise early where a disk cannot hold the export; what is known only at the end is later."""
    there = next(folder for folder in (model, *model.parents) if folder.exists())
    needed = ROOM * sum(weight.nbytes for weight in map(np.asarray, network.get_weights()))
    free = shutil.disk_usage(there).free
    if free < needed:
        raise checks.UsageError(
            f"There is no room for the export in {there}. Received: {free / 1e6:.0f} MB free, "
            f"about {needed / 1e6:.0f} MB needed. Make room, or name another folder with --folder."
        )


def _write(network, folder: Path, name: str, subject: Subject, config: ExportConfig) -> None:
    """Write the SavedModel and every other format into a folder."""
    images = subject.images
    shape, classes = images.input_shape, images.class_names
    size = images.train.images.shape[1]
    saved_model.write(network, folder, shape, classes, image_size=size, resize=config.resize)
    saved_model.write_warmup(folder, name, _as_seen(_evenly(images.test, WARM_UP), images))
    lines = [" ".join(label.split()) for label in classes]  # a name with a line break is one line
    (folder / LABELS).write_text("\n".join([*lines, ""]), encoding="utf-8")
    others = _others(config)
    if not others:
        return
    with tempfile.TemporaryDirectory() as numeric:
        saved_model.write_numeric(network, Path(numeric), shape)
        for format in others:
            path = folder / FILES[format]
            if format == ONNX:
                onnx.convert(Path(numeric), path, classes)
            else:
                shown = _as_seen(_evenly(images.train, litert.REPRESENTATIVE), images)
                litert.convert(Path(numeric), path, format.removeprefix("litert-"), shown)


def _others(config: ExportConfig) -> list[str]:
    """Return the formats beside the SavedModel."""
    return [format for format in FILES if format in config.formats]


def _evenly(examples: data.Examples, count: int) -> data.Examples:
    """Return `count` examples, or all, at even distances: files may be sorted by class."""
    count = min(count, len(examples))
    return examples.take(np.arange(count) * len(examples) // count)


def _as_seen(examples: data.Examples, images: data.Dataset) -> np.ndarray:
    """Return images at the size of the network, `[n, height, width, channels]` uint8."""
    batches = pipeline.evaluation_batches(examples, BATCH_SIZE, images.input_size)
    return np.concatenate([batch for batch, _ in batches.as_numpy_iterator()])


def _compare(folder: Path, config: ExportConfig, test: TestImages, logits, progress) -> list[Check]:
    """Return how every format answers, asked in processes of their own."""
    found = []
    for format in (SAVED_MODEL, *_others(config)):
        path = folder / FILES[format] if format in FILES else folder
        for one in verify.compare(format, path, test, logits):
            progress.say(one.text())
            found.append(one)
    return found


def _settings(config: ExportConfig) -> dict:
    """Return the settings that an export's files follow from."""
    settings = to_dict(config)
    del settings["folder"], settings["name"]
    return settings


def _describe(subject: Subject, network, new, config: ExportConfig, done, figures) -> dict:
    """Write the model card into a new version and return it."""
    facts = Facts(
        name=new.folder.parent.name,
        version=new.number,
        key=subject.key,
        kind=subject.kind,
        created=datetime.now(timezone.utc),
        versions=machine.versions(),
        licence=config.licence,
        images=subject.images,
        resize=config.resize,
        files={format: _files(new.folder, format) for format in (SAVED_MODEL, *_others(config))},
        checks=done,
        parameters=network.count_params(),
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


def _files(folder: Path, format: str) -> list[File]:
    path = folder / FILES[format] if format in FILES else folder
    return [
        File(file.relative_to(folder).as_posix(), file.stat().st_size, versions.sha256(file))
        for file in benchmark.shipped(format, path)
    ]


def _figures(subject: Subject, test: TestImages, logits: np.ndarray) -> Figures:
    """Return the figures of the run on all its test images, or else those measured here."""
    if subject.record:
        return Figures.of(subject.record, len(subject.images.test), subject.part)
    return Figures(metrics.summary(logits, test.labels, None), len(logits))
