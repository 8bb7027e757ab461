"""A new head on a trained network: a linear classifier of classes that it never had, in seconds."""

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import scipy.special
from keras import layers

from tfdistill import data
from tfdistill.data import pipeline, splits
from tfdistill.models.logits import features_network
from tfdistill.models.pixel_range import from_pixels
from tfdistill.models.saved import HEAD
from tfdistill.training import range_check
from tfdistill.utils import checks
from tfdistill.utils.pixels import FULL, PixelRange
from tfdistill.utils.progress import Silent

# Inverse strengths of the penalty that are tried, weakest last.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Fewer validation images than this say too little; folds of the cross-validation in their place.
FEW, FOLDS = 200, 5
FEWEST = 2
# Images that a head is fitted to before a network is fine-tuned.
ENOUGH = 5000
# Images of so many classes say in which range a network expects pixels.
MOST_CLASSES = 30
BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class NewHead:
    """A network with a new head, and how well it does.

    Args:
        network: From raw pixels `[batch, height, width, channels]` to logits
            `[batch, num_classes]` float32.
        strength: Inverse strength of the penalty that did best on images not fitted to.
        validation_accuracy: On them, 0..1: the validation images, or where they are few, each
            training image by a head that was fitted to other ones (cross-validation).
        training_accuracy: Of the network on the images that the head was fitted to, 0..1; by how
            much it is higher says how much too sure the teacher is of them.
        judged: Number of images that `validation_accuracy` is of.
    """

    network: keras.Model
    strength: float
    validation_accuracy: float
    training_accuracy: float
    judged: int


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear classifier of features.

    Args:
        kernel: `[features, classes]` float64.
        bias: `[classes]` float64.
        strength: Inverse strength of the penalty that did best on features not fitted to.
        unseen: Logits of those, `[m, classes]`.
        labels: Theirs, `[m]`.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    unseen: np.ndarray
    labels: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return logits `[n, classes]` of features `[n, features]`."""
        return features @ self.kernel + self.bias


def new_head(
    network: keras.Model,
    images: data.Dataset,
    pixel_range: PixelRange = FULL,
    name: str | None = None,
) -> NewHead:
    """Fit a linear classifier to what a network computes before its last layer.

    Multinomial logistic regression on standardised features with an L2 penalty, whose strength is
    chosen by the likelihood of images that it was not fitted to: the validation images, or where
    they are fewer than 200, by cross-validation. Everything before it stays as it is. A
    network without a last dense layer is taken as features itself, averaged over positions.

    Args:
        network: A trained functional or sequential model that takes images of their size.
        images: With labels, as `data.load` or `data.from_arrays` returns it.
        pixel_range: What the network expects for the pixels 0 and 255.
        name: Of the network in messages; None takes its own.

    Returns:
        The network with its head, from pixels 0..255; save it with
        `head.network.save("teacher.keras")` and give a study its path.

    Raises:
        UsageError: Fewer than two training images of a class, images that do not fit the network,
            a network whose last layers are not known, or one that says much more of images whose
            pixels are in another range.

    Example:
        >>> images = data.load(DataConfig(source="folder:photos", image_size=128))
        >>> head = new_head(keras.models.load_model("imagenet.keras"), images)
        >>> head.validation_accuracy
        0.89
    """
    _check_images(images)
    features = features_network(network)
    checks.same_input(features.input_shape, (None, *images.input_shape))
    features = from_pixels(features, pixel_range)
    check_pixels(name or network.name, features, images, pixel_range)
    last = layers.Dense(images.num_classes, dtype="float32", name=HEAD)
    whole = keras.Model(features.inputs[0], last(features.outputs[0]), name=network.name)
    return _fitted(whole, features, images)


def fit_head(network: keras.Model, images: data.Dataset, progress: Silent | None = None) -> None:
    """Give the last layer of a network the weights of a linear classifier on what comes before.

    Args:
        network: Its last layer is a dense one of as many logits as the images have classes.
        images: Of many, `ENOUGH` are fitted to.
        progress: Is told how well it does; None shows nothing.
    """
    _check_images(images)
    if len(images.train) > ENOUGH:
        chosen = splits.stratified(images.train.labels, ENOUGH, seed=0, stream=splits.SUBSET)
        images = dataclasses.replace(images, train=images.train.take(chosen))
    found = _fitted(network, keras.Model(network.inputs[0], network.layers[-1].input), images)
    if progress:
        progress.say(
            f"A head fitted to {len(images.train)} images is right on "
            f"{found.validation_accuracy:.1%} of {found.judged} others"
        )


def check_pixels(
    name: str, features: keras.Model, images: data.Dataset, seen: PixelRange = FULL
) -> None:
    """Raise if heads are right on many more images where features are of another range of pixels.

    Args:
        name: Of the network, for messages.
        features: From pixels 0..255 of the images' size to `[batch, features]`.
        images: With labels; some training images are looked at.
        seen: The range that `features` brings pixels to.

    Raises:
        UsageError: As of `range_check.check_range`.
    """
    if images.multi_label:
        return
    known = images.train.labelled
    known = known[images.train.labels[known] < MOST_CLASSES]
    part = images.train.take(known)
    if len(part) > range_check.ENOUGH:
        part = part.take(splits.stratified(part.labels, range_check.ENOUGH, 0, splits.SUBSET))
    counts = np.bincount(part.labels, minlength=1)
    if counts.min() < FEWEST:
        return

    def right(features: keras.Model) -> np.ndarray:
        found = _features(features, part, images)
        fitted = linear(found, part.labels, found[:0], part.labels[:0], STRENGTHS[2:3])
        return (fitted.unseen.argmax(axis=-1) == fitted.labels).astype(float)

    range_check.check_range(name, features, right, seen)


def _check_images(images: data.Dataset) -> None:
    """Raise unless a head can be fitted to images."""
    if images.multi_label:
        raise checks.UsageError(
            f"A new head tells classes apart. Received: {images.name}, whose images have several "
            "labels. Give a teacher that has them."
        )
    counts = np.bincount(images.train.labels, minlength=images.num_classes)
    if counts.min() < FEWEST:
        name = images.class_names[int(counts.argmin())]
        raise checks.UsageError(
            f"A new head needs at least {FEWEST} training images of each class. Received: "
            f"{counts.min()} of {name}. Add images, or leave out the class."
        )


def _fitted(network: keras.Model, features: keras.Model, images: data.Dataset) -> NewHead:
    """Fit the last layer of a network to what its features are of the images."""
    known, held = (_features(features, part, images) for part in (images.train, images.validation))
    labels = images.train.labels
    found = linear(known, labels, held, images.validation.labels)
    network.layers[-1].set_weights([found.kernel.astype("float32"), found.bias.astype("float32")])
    return NewHead(
        network,
        found.strength,
        _accuracy(found.unseen, found.labels),
        _accuracy(found.logits(known), labels),
        len(found.labels),
    )


def linear(
    known: np.ndarray,
    labels: np.ndarray,
    held: np.ndarray,
    others: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> Linear:
    """Fit a linear classifier, and choose the strength of its penalty.

    Args:
        known: Features to fit to, `[n, features]`.
        labels: Theirs, `[n]`.
        held: Features to judge by where there are enough of them, `[m, features]`.
        others: Theirs, `[m]`.
        strengths: Inverse ones, of which it is one.
    """
    mean, std = known.mean(axis=0), known.std(axis=0)
    std = np.where(std > 0, std, 1.0)
    known, held = (known - mean) / std, (held - mean) / std
    # Features and labels to fit to, and others to judge by.
    parts = [(known, labels, held, others)]
    if len(others) < FEW:
        parts = [
            (known[fit], labels[fit], known[test], labels[test]) for fit, test in folds(labels)
        ]
    # Logits of images that a head was not fitted to, by strength.
    unseen = {
        strength: np.concatenate(
            [x @ w + b for z, y, x, _ in parts for w, b in [_fit(z, y, strength)]]
        )
        for strength in strengths
    }
    right = np.concatenate([y for *_, y in parts])
    best = min(strengths, key=lambda strength: _nll(unseen[strength], right))
    kernel, bias = _fit(known, labels, best)
    kernel = kernel / std[:, None]
    return Linear(kernel, bias - mean @ kernel, best, unseen[best], right)


def folds(labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return places to fit to and others, so that each image is once among the others."""
    from sklearn.model_selection import StratifiedKFold

    count = int(min(FOLDS, np.bincount(labels).min()))
    return list(StratifiedKFold(count, shuffle=True, random_state=0).split(labels, labels))


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(logits.argmax(axis=-1) == labels))


def _features(network: keras.Model, examples: data.Examples, images: data.Dataset) -> Any:
    """Return what a network computes of examples, `[n, features]` float64."""
    batches = pipeline.evaluation_batches(examples, BATCH_SIZE, images.input_size)
    found = np.concatenate([np.asarray(network(x, training=False), "float64") for x, _ in batches])
    if not np.isfinite(found).all():
        raise checks.UsageError(
            f"{network.name} computes NaN or infinite numbers before its last layer, for images of "
            f"{images.name}: a new head cannot be fitted. Give another network."
        )
    return found


def _fit(features: np.ndarray, labels: np.ndarray, strength: float) -> tuple[Any, Any]:
    """Return kernel `[features, classes]` and bias `[classes]`."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():  # of many classes, or steps: how good it is is measured
        warnings.simplefilter("ignore")
        fitted = LogisticRegression(C=strength, max_iter=1000).fit(features, labels)
    kernel, bias = fitted.coef_.T, fitted.intercept_
    if kernel.shape[1] == 1:  # of two classes, scikit-learn gives one logit
        return np.hstack([-kernel / 2, kernel / 2]), np.concatenate([-bias / 2, bias / 2])
    return kernel, bias


def _nll(logits: np.ndarray, labels: np.ndarray) -> float:
    return -float(scipy.special.log_softmax(logits, axis=-1)[np.arange(len(labels)), labels].mean())
