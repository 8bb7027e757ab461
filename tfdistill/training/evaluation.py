"""Networks of finished runs, and what is measured of them: figures and logits."""

import functools
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfdistill import data, models, records
from tfdistill.config import ModelConfig, QuantizeConfig
from tfdistill.data import pipeline
from tfdistill.models.fingerprint import weights_hash
from tfdistill.models.flops import flops
from tfdistill.models.weights.files import paddings
from tfdistill.quantization import calibrate, quantize_aware
from tfdistill.training import tasks
from tfdistill.utils import checks, storage

BATCH_SIZE = 64  # of images that are only looked at
_FORWARDS = "_compiled_forward"  # the attribute of a network that keeps them


def load_network(
    study_folder: Path, name: str, images: data.Dataset, part: str | None = None
) -> keras.Model:
    """Return the network of a finished run.

    Args:
        study_folder: Folder of the study.
        name: Name of the run.
        images: The run's images.
        part: `best` or `last` weights; None means what the run's configuration selects.

    Raises:
        DamagedError: The network's file is missing, damaged or not that of the record.
    """
    folder = records.run_folder(study_folder, name)
    record = known_record(study_folder, name)
    part = part or record.select
    images = images.at(record.config["data"]["input_size"])
    derived = record.config.get("quantize") or record.config.get("prune")
    if not record.config["trained"] and not derived:
        # The user's own file stays where it is; a SavedModel could not be written as .keras.
        network = build(ModelConfig(**record.config["model"]), images)
        _check_weights(network, record, part, Path(record.config["model"]["path"] or folder))
        return network
    path = folder / f"{part}.keras"
    if path.name in record.files:
        storage.check_file(path, record.files[path.name])
    models.register_layers(path)
    try:
        network = keras.saving.load_model(path, compile=False)
    except Exception as error:  # zipfile, h5py and unknown layers each raise their own kinds
        line = checks.first_line(error).rstrip(".")
        raise storage.DamagedError(path, f"cannot be loaded ({line})") from error
    _check_weights(network, record, part, path)
    return network


def known_record(study_folder: Path, name: str) -> records.Record:
    """Return the record of a run that should be finished.

    Raises:
        DamagedError: It is missing or damaged.
    """
    folder = records.run_folder(study_folder, name)
    record = records.read(folder)
    if record is None:
        raise storage.DamagedError(folder / records.RECORD_FILE, "is missing")
    return record


def _check_weights(network: keras.Model, record: records.Record, part: str, path: Path) -> None:
    expected = record.weights.get(part)
    if expected is not None and weights_hash(network) != expected:
        raise storage.DamagedError(path, "holds other weights than those that were measured")


def build(config: ModelConfig, images: data.Dataset) -> keras.Model:
    """Return a new network that fits the images."""
    shape, classes = images.input_shape, images.num_classes
    return models.build(config, shape, classes, images.mean, images.std, images.multi_label)


def start_from(network: keras.Model, study_folder: Path, name: str, images: data.Dataset) -> None:
    """Give a network the weights of a finished run.

    Raises:
        UsageError: The run's network has weights of other shapes, or pads otherwise.
    """
    other = load_network(study_folder, name, images)
    shapes = [[tuple(weight.shape) for weight in model.weights] for model in (network, other)]
    if shapes[0] != shapes[1] or paddings(network) != paddings(other):
        what = "shapes" if shapes[0] != shapes[1] else "padding, from before this version"
        raise checks.UsageError(
            f"A network can only start from the weights of its own kind. Received: {network.name} "
            f"from the run {name}, a {other.name} of other {what}. Start it from another run."
        )
    network.set_weights(other.get_weights())


@functools.cache
def flops_of(config: ModelConfig, input_shape: tuple[int, int, int], num_classes: int) -> int:
    """Return the operations of a network's forward pass of one image."""
    return flops(models.build(config, input_shape, num_classes), input_shape)


def quantized(network: keras.Model, settings: QuantizeConfig, images: data.Dataset) -> keras.Model:
    """Return a network with the same weights that rounds, with ranges of some training images.

    Raises:
        UsageError: What `quantize_aware` and `calibrate` raise.
    """
    bits = settings.weight_bits, settings.activation_bits
    rounding = quantize_aware(network, *bits, settings.ranges)
    return calibrate(rounding, as_seen(images.train.evenly(settings.calibration), images))


def as_seen(examples: data.Examples, images: data.Dataset) -> np.ndarray:
    """Return examples as the network of `images` sees them, `[n, height, width, channels]` uint8.

    Args:
        examples: Of these images.
        images: At the size of the network.
    """
    batches = pipeline.evaluation_batches(examples, BATCH_SIZE, images.input_size)
    return np.concatenate([batch for batch, _ in batches.as_numpy_iterator()])


def predict(network, examples: data.Examples, settings: pipeline.BatchSettings) -> np.ndarray:
    """Return the logits of examples without augmentation, in order, `[n, classes]` float32."""
    batches = pipeline.evaluation_batches(examples, settings.batch_size, settings.input_size)
    if network.distribute_strategy.num_replicas_in_sync > 1:
        return network.predict(batches, verbose=0)  # which leaves the labels alone
    forward = _forward(network, batches.element_spec[0])
    return np.concatenate([forward(shown).numpy() for shown, _ in batches])


def _forward(network: keras.Model, images: tf.TensorSpec) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return what a network's `predict` computes of a batch, compiled once for all batch sizes.

    `predict` traces the last batch again, and `steps_per_execution` batches as so many networks.
    """
    known: dict[tf.TensorSpec, Callable] = network.__dict__.setdefault(_FORWARDS, {})
    if images not in known:

        def forward(batch: tf.Tensor) -> tf.Tensor:
            return network.predict_step((batch,))

        compiled = tf.function(forward, input_signature=[images], jit_compile=network.jit_compile)
        known[images] = compiled
    return known[images]


def figures(
    network, images: data.Dataset, settings: pipeline.BatchSettings, taught: np.ndarray | None
) -> tuple[dict[str, float], dict[str, list[float]], records.Predictions | None]:
    """Return a network's figures, its reliability diagram, and its answers to the test images.

    Args:
        network: A Keras model whose `predict` gives logits.
        images: Validation and test images.
        settings: Batch and input size.
        taught: Its teachers' logits on the test images, `[n, classes]`; None without teachers.
    """
    task, labels = tasks.of(images), images.test.labels
    on_validation = predict(network, images.validation, settings)
    on_test = predict(network, images.test, settings)
    found = {"validation_accuracy": task.accuracy(on_validation, images.validation.labels)}
    summary = task.summary(on_test, labels, taught)
    found |= {f"test_{name}": value for name, value in summary.items()}
    return found, task.reliability(on_test, labels), task.answers(on_test, labels)
