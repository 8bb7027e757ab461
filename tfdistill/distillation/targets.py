"""What a batch holds beside its images: labels, the teacher's logits and weights of examples.

Arrays that are handed to `fit` are looked at as a whole, once, before anything is trained.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tfdistill.distillation.outputs import CLASSES, INDEPENDENT, Family
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor

LABEL, TEACHER_LOGITS, TEACHER_FEATURES = "label", "teacher_logits", "teacher_features"
# Fewer rows may lie in 0..1 by chance.
FEW = 8
_CHUNK = 65536


def targets(y: Any) -> dict[str, Any]:
    """Return targets as a dictionary with some of `label` and `teacher_logits`.

    Raises:
        UsageError: Another key, a list, or nothing but an empty dictionary.
    """
    if y is None:
        return {}
    if not isinstance(y, dict):
        if isinstance(y, (list, tuple)):
            raise checks.UsageError(
                f"Targets must be one array of labels, or a dictionary of {LABEL!r} and "
                f"{TEACHER_LOGITS!r}. Received: {len(y)} in a {type(y).__name__}."
            )
        return {LABEL: y}
    others = [key for key in y if key != TEACHER_FEATURES]
    checks.known_keys("targets", others, (LABEL, TEACHER_LOGITS))
    return dict(y)


def one_weight(sample_weight: Any) -> Tensor:
    """Return the `[batch]` weights of examples: Keras gives arrays one for each key of y."""
    if isinstance(sample_weight, dict):
        return sample_weight.get(LABEL, next(iter(sample_weight.values())))
    return sample_weight


def labelled(labels: Tensor, logits: Tensor) -> Tensor:
    """Return which examples have a label: those without one have -1, at every entry of a row.

    Args:
        labels: `[batch]` or `[batch, 1]` numbers of classes, or `[batch, num_classes]`; with more
            axes for an image with a class at each position.
        logits: `[batch, num_classes]`, with more axes likewise.

    Returns:
        `[batch]` bool, with more axes likewise.
    """
    known = ops.cast(labels, "float32") >= 0
    return ops.all(known, axis=-1) if len(labels.shape) == len(logits.shape) else known


class LabelledOnly(keras.layers.Layer):
    """Masks the examples without a label, which Keras's losses then leave out."""

    def call(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        return inputs[0] + 0.0  # a tensor of its own: the soft loss sees the other without a mask

    def compute_mask(self, inputs: tuple[Tensor, Tensor], previous_mask: Any = None) -> Tensor:
        return inputs[1]


def update_labelled(
    compiled: Any, labels: Tensor, outputs: Tensor, known: Tensor, sample_weight: Tensor
) -> None:
    """Update compiled metrics on the examples that have a label; the others weigh nothing.

    A mask would not do: of Keras's metrics only the means of a function heed it, not `AUC`.

    Args:
        compiled: Keras's `CompileMetrics`.
        labels: As the metrics take them.
        outputs: Of the student, `[batch, num_classes]`.
        known: As `labelled` returns it.
        sample_weight: `[batch]`, or None; only what was given as `weighted_metrics` counts it.
    """
    if not compiled.built:
        compiled.build(labels, outputs)
    weights = ops.cast(known, "float32")
    if sample_weight is not None:
        flat = len(known.shape) == 1
        weights = weights * (ops.reshape(sample_weight, (-1,)) if flat else sample_weight)
    for metric in _each(compiled._flat_metrics):
        if "sample_weight" in inspect.signature(metric.update_state).parameters:
            # Those that count in whole numbers, such as MeanIoU, warn of other weights.
            metric.update_state(labels, outputs, ops.cast(known, metric.dtype))
        else:
            metric.update_state(labels, outputs)
    for metric in _each(compiled._flat_weighted_metrics):
        metric.update_state(labels, outputs, weights)


def _each(lists: Any) -> list[Any]:
    return [metric for several in lists if several for metric in several.metrics]


def weights_of_classes(labels: Any, class_weight: Mapping[int, float]) -> Any:
    """Return `[batch]` weights of examples by their class; 1 where there is no label.

    Args:
        labels: `[batch]` or `[batch, 1]` numbers of classes, or `[batch, num_classes]` one-hot.
        class_weight: A weight for each class that has another than 1.
    """
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) > 1 and labels.shape[-1] != 1:
        known = ops.all(labels >= 0, axis=-1)
        labels = ops.where(known, ops.argmax(labels, axis=-1), -1)
    labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
    weights = ops.ones(ops.shape(labels), "float32")
    for number, weight in class_weight.items():
        weights = ops.where(labels == int(number), float(weight), weights)
    return weights


def with_class_weights(x: Any, y: Any, sample_weight: Any, class_weight: Any) -> tuple[Any, Any]:
    """Return images, or a dataset, and weights of examples with those of their classes.

    Args:
        x: Images, or a `tf.data.Dataset` of (images, targets) or (images, targets, weights).
        y: Targets; None beside a dataset.
        sample_weight: `[n]` weights of the examples, or None.
        class_weight: A weight for each class that has another than 1.

    Raises:
        UsageError: Targets without labels, or images of another kind.
    """
    if y is not None:
        labels = targets(y).get(LABEL)
        if labels is None:
            raise checks.UsageError("class_weight needs labels. Received: none. Leave it out.")
        weights = ops.convert_to_numpy(weights_of_classes(labels, class_weight))
        return x, weights if sample_weight is None else weights * one_weight(sample_weight)
    if not hasattr(x, "map") or not hasattr(x, "element_spec"):
        raise checks.UsageError(
            "class_weight needs arrays or a tf.data.Dataset. Received: "
            f"{type(x).__name__}. Give weights as the third part of its batches."
        )

    def weighted(images: Any, given: Any, weights: Any = None) -> Any:
        of_classes = weights_of_classes(targets(given)[LABEL], class_weight)
        return images, given, of_classes if weights is None else of_classes * one_weight(weights)

    return x.map(weighted), sample_weight


def class_numbers(labels: Tensor, logits: Tensor) -> Tensor:
    """Return labels as `[batch]` numbers of classes."""
    if len(labels.shape) == len(logits.shape) and labels.shape[-1] != 1:
        return ops.argmax(labels, axis=-1)
    return ops.reshape(labels, ops.shape(logits)[:-1])


def spread(sample_weight: Tensor, logits: Tensor) -> Tensor:
    """Return weights `[batch]` in the shape `[batch, 1, ...]` that a loss at each position has."""
    more = len(logits.shape) - 2
    if sample_weight is None or more < 1 or len(sample_weight.shape) != 1:
        return sample_weight
    return ops.reshape(sample_weight, (-1, *[1] * more))


def look_like_probabilities(outputs: Tensor, family: Family | None) -> Tensor:
    """Return which rows `[batch, num_classes]` may be probabilities: `[batch]` bool."""
    values = ops.cast(outputs, "float32")
    in_range = ops.all((values >= 0.0) & (values <= 1.0), axis=-1)
    if family is INDEPENDENT:
        return in_range
    return in_range & (ops.abs(ops.sum(values, axis=-1) - 1.0) < 1e-2)


def check_arrays(y: Any, family: Family | None, outputs: int | None, numbers: bool) -> None:
    """Look at targets that are arrays, of which a wrong one would train to a wrong result.

    Args:
        y: As it is given to `fit`; what is no array is not looked at.
        family: What the student's outputs are.
        outputs: How many there are, or None if that is not known yet.
        numbers: Whether labels are numbers of classes, not one entry for each output.

    Raises:
        UsageError: Labels that are no classes, teacher logits that are NaN, plus infinity or
            probabilities, each with the first row where it is so.
    """
    given = targets(y) if y is None or isinstance(y, (dict, np.ndarray)) else {}
    if isinstance(given.get(LABEL), np.ndarray) and family in (CLASSES, INDEPENDENT):
        _check_labels(given[LABEL], numbers, outputs)
    if isinstance(given.get(TEACHER_LOGITS), np.ndarray):
        _check_logits(given[TEACHER_LOGITS], family)


def check_taught(taught: Tensor, logits: Tensor) -> None:
    """Raise if a teacher's logits are not of the student's shape, `[batch, num_classes]`."""
    checks.same_classes(taught.shape[-1], logits.shape[-1])
    pairs = zip(taught.shape, logits.shape, strict=False)
    if len(taught.shape) != len(logits.shape) or any(
        one is not None and other is not None and one != other for one, other in pairs
    ):
        raise checks.UsageError(
            "The teacher's logits must have the shape of the student's. Received: "
            f"{tuple(taught.shape)} and {tuple(logits.shape)}."
        )


def _check_labels(labels: np.ndarray, numbers: bool, classes: int | None) -> None:
    if labels.dtype.kind not in "iufb":
        raise checks.UsageError(
            f"Labels must be numbers of classes. Received: labels of {labels.dtype}. Number the "
            "names, such as with np.unique(labels, return_inverse=True)."
        )
    if numbers and classes and labels.ndim == 2 and labels.shape[1] == classes > 1:
        raise checks.UsageError(
            f"A sparse loss takes the numbers of classes. Received: labels {list(labels.shape)}. "
            "Compile with CategoricalCrossentropy, or give labels.argmax(axis=-1)."
        )
    if not numbers and classes and labels.ndim == 1 and classes > 1:
        raise checks.UsageError(
            f"This loss takes one entry for each of {classes} outputs. Received: labels "
            f"{list(labels.shape)}. Compile with SparseCategoricalCrossentropy, or give "
            "keras.utils.to_categorical(labels)."
        )
    values = labels.reshape(len(labels), -1).astype("float64")
    if not numbers and set(np.unique(values)) == {-1.0, 1.0}:
        raise checks.UsageError(
            "Labels must be 0 and 1; -1 means unlabelled. Received: -1 and 1 alone. Give "
            "(labels + 1) / 2."
        )
    wrong = ~np.isfinite(values) | ((values < 0) & (values != -1))
    if numbers:
        wrong |= values != np.round(values)
        wrong |= values >= (classes or np.inf)
        known = f"in 0..{classes - 1}" if classes else ">= 0"
        allowed = f"-1 (unlabelled) or a whole number {known}"
    else:
        wrong |= values > 1
        wrong |= (values < 0) & (values >= 0).any(axis=1, keepdims=True)
        allowed = "in 0..1, or -1 in a whole row (unlabelled)"
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise checks.UsageError(
            f"Labels must be {allowed}. Received: {values[row, column]:g} in row {row}."
        )


def _check_logits(logits: np.ndarray, family: Family | None) -> None:
    alike = len(logits) >= FEW
    for start, part in _chunks(logits):
        bad = np.isnan(part) | np.isposinf(part)
        if bad.any():
            place = np.argwhere(bad)[0]
            raise checks.UsageError(
                "teacher_logits must be finite, or minus infinity for a class that cannot be. "
                f"Received: {part[tuple(place)]} in row {start + place[0]}. Compute them in "
                "float32: float16 ends at 65504."
            )
        alike = alike and bool(np.all(ops.convert_to_numpy(look_like_probabilities(part, family))))
    if alike and family in (CLASSES, INDEPENDENT):
        raise checks.UsageError(probabilities("teacher_logits are"))


def probabilities(who: str) -> str:
    """Return what is said of outputs that should be logits."""
    return (
        f"{who} probabilities in every row; logits are expected, before softmax or sigmoid. Give "
        "those, or of a softmax the logarithm: np.log(p)."
    )


def _chunks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(array), _CHUNK):
        yield start, array[start : start + _CHUNK].astype("float32", copy=False)
