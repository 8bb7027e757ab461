"""What a student's outputs mean: one class of several, yes or no for each, or numbers.

The loss that a student is compiled with says so, and with it which soft loss fits and whether both
losses take logits.
"""

from collections import ChainMap
from dataclasses import dataclass
from typing import Any

import keras

from tfdistill.config.registry import LOGIT_LOSSES
from tfdistill.distillation.feature_losses import as_loss, of_keras
from tfdistill.losses import BinarySoftTargets, SoftTargets
from tfdistill.models import logits
from tfdistill.utils import checks

_LOSSES = keras.losses


@dataclass(frozen=True)
class Family:
    """A kind of outputs.

    Args:
        shown: In words, for messages.
        activation: What turns the network's logits into its outputs.
        soft_loss: The soft loss that fits: a class, made with or without a temperature.
        losses: Keras's losses of such outputs.
    """

    shown: str
    activation: str
    soft_loss: type[keras.losses.Loss]
    losses: tuple[type[keras.losses.Loss], ...]


CLASSES = Family(
    "one of several classes",
    logits.SOFTMAX,
    SoftTargets,
    (
        _LOSSES.SparseCategoricalCrossentropy,
        _LOSSES.CategoricalCrossentropy,
        _LOSSES.CategoricalFocalCrossentropy,
    ),
)
INDEPENDENT = Family(
    "yes or no at each output",
    logits.SIGMOID,
    BinarySoftTargets,
    (_LOSSES.BinaryCrossentropy, _LOSSES.BinaryFocalCrossentropy),
)
NUMBERS = Family(
    "numbers",
    logits.LINEAR,
    _LOSSES.MeanSquaredError,
    (
        _LOSSES.MeanSquaredError,
        _LOSSES.MeanAbsoluteError,
        _LOSSES.MeanSquaredLogarithmicError,
        _LOSSES.MeanAbsolutePercentageError,
        _LOSSES.Huber,
        _LOSSES.LogCosh,
    ),
)
FAMILIES = (CLASSES, INDEPENDENT, NUMBERS)
SOFT_LOSSES: dict[str, Any] = {"binary_soft_targets": BinarySoftTargets}


_OF_PROBABILITIES = (
    _LOSSES.KLDivergence,
    _LOSSES.Poisson,
    *CLASSES.losses,
    *INDEPENDENT.losses,
)


def soft_loss(loss: Any) -> keras.losses.Loss:
    """Return a soft loss that was given as an object or by its name.

    Args:
        loss: A Keras loss between teacher and student logits, or `soft_targets`, `decoupled`,
            `dist`, `binary_soft_targets`, or the name of a loss of Keras.

    Raises:
        UsageError: An unknown name, an object that is no Keras loss, or one of probabilities.
    """
    made = as_loss("soft_loss", loss, ChainMap(SOFT_LOSSES, LOGIT_LOSSES))
    if isinstance(made, _OF_PROBABILITIES):
        raise checks.UsageError(
            f"The soft loss is given logits, and {type(made).__name__} takes probabilities. Give "
            "temperature=..., for the divergence of softened logits, or another soft_loss."
        )
    return made


def family_of(loss: Any) -> Family | None:
    """Return the family of a compiled loss: an object, name or function; None for any other."""
    loss = _object(loss)
    return next((family for family in FAMILIES if isinstance(loss, family.losses)), None)


def on_logits(loss: Any) -> tuple[Any, bool]:
    """Return a loss that takes logits where it can, and whether it took probabilities before.

    Args:
        loss: As it is given to `compile`.

    Example:
        >>> on_logits("sparse_categorical_crossentropy")[0].from_logits
        True
    """
    made = _object(loss)
    if family_of(made) in (None, NUMBERS) or "from_logits" not in made.get_config():
        return loss, False
    if made.get_config()["from_logits"]:
        return made, False
    return type(made).from_config({**made.get_config(), "from_logits": True}), True


def _object(loss: Any) -> Any:
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    return of_keras(loss)


def check_activation(network: keras.Model, who: str, family: Family | None) -> None:
    """Raise if a network ends in another function than outputs of its family.

    Args:
        network: The teacher or the student.
        who: `teacher` or `student`, for messages.
        family: Of the compiled loss.

    Raises:
        UsageError: Such as a teacher that ends in softmax beside a binary cross-entropy.
    """
    found = logits.final_activation(network)
    if family not in (CLASSES, INDEPENDENT) or found in (None, logits.LINEAR, family.activation):
        return
    raise checks.UsageError(
        f"The {who} ends in {found}, but the compiled loss is one for {family.shown}, which need "
        f"{family.activation}. Give a loss or a network that fits the other."
    )


def check_outputs(network: keras.Model, who: str) -> None:
    """Raise unless a network has one output.

    Raises:
        UsageError: A list or a dictionary of outputs.
    """
    given = _outputs(network)
    if not isinstance(given, (dict, list, tuple)):
        return
    names = list(given) if isinstance(given, dict) else range(len(given))
    kind = "dictionary" if isinstance(given, dict) else "list"
    raise checks.UsageError(
        f"The {who} must have one output, the logits. Received: a {kind} of "
        f"{', '.join(map(repr, names))}. Give keras.Model({who}.input, {who}.output[...])."
    )


def _outputs(network: keras.Model) -> Any:
    try:
        return network.output
    except (AttributeError, ValueError):  # not known before the first batch
        return None


def check_count(family: Family | None, outputs: int | None, given: bool) -> None:
    """Raise where the number of outputs contradicts what they mean, or nothing tells it.

    Args:
        family: Of the compiled loss, or None.
        outputs: Size of the last axis, or None if it is not known yet.
        given: Whether the user has named the soft loss.

    Raises:
        UsageError: One output for several classes, or outputs that nothing tells the meaning of.
    """
    if family is CLASSES and outputs == 1:
        raise checks.UsageError(
            "A categorical loss needs two or more outputs. Received: a student with one. Compile "
            "it with BinaryCrossentropy(from_logits=True), or with MeanSquaredError for a number."
        )
    if family is None and not given:
        raise checks.UsageError(
            "The compiled loss does not tell what the outputs mean, so the soft loss must be "
            "named. Give the Distiller soft_loss='soft_targets' for one of several classes, "
            "'binary_soft_targets' for yes or no, 'mean_squared_error' for numbers."
        )


def takes_numbers(loss: Any) -> bool:
    """Return whether a compiled loss takes the numbers of classes as labels."""
    return isinstance(_object(loss), _LOSSES.SparseCategoricalCrossentropy)


def family_of_network(network: keras.Model | None) -> Family | None:
    """Return the family of outputs that a network's last activation belongs to, or None."""
    found = logits.final_activation(network) if network is not None else None
    return next((family for family in (CLASSES, INDEPENDENT) if family.activation == found), None)


def at_logits(metrics: Any) -> Any:
    """Return metrics of which the accuracy by name tells logits apart at 0, not at 0.5."""
    names = ("accuracy", "acc", "binary_accuracy")
    if not isinstance(metrics, (list, tuple)):
        return metrics
    return [
        keras.metrics.BinaryAccuracy(metric, threshold=0.0) if metric in names else metric
        for metric in metrics
    ]
