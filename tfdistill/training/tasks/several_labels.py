"""Each image has any number of labels: a sigmoid each, and a yes or no at 0.5.

Both losses are means over the labels: binary cross-entropy, and the divergence of the softened
Bernoulli distributions (`losses.binary`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import scipy.optimize
import scipy.special
from keras import ops

from tfdistill.config import DistillationConfig, RunConfig
from tfdistill.losses import BinarySoftTargets, TemperedLoss
from tfdistill.training.tasks import label_metrics
from tfdistill.training.tasks.task import Task
from tfdistill.training.teacher_check import FEWEST, SURE, in_order
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor


class SeveralLabels(Task):
    """Labels are `[n, labels]` of 0 and 1."""

    like_probabilities = True  # a weak teacher's may all lie in 0..1

    def check(self, config: RunConfig) -> None:
        taught = config.distillation
        if taught is not None:
            _check_distillation(taught)
        if config.cache is not None and config.cache.largest is not None and config.teachers:
            raise checks.UsageError(
                "cache.top_k keeps the largest classes of several, and the images have any number "
                f"of labels. Received: cache.top_k={config.cache.top_k}. Leave it out."
            )

    def average(self, average: str) -> str:
        return "sigmoid" if average == "probabilities" else average

    def hard_loss(self, soft_labels: bool, label_smoothing: float) -> keras.losses.Loss:
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=label_smoothing)

    def soft_loss(self, settings: DistillationConfig) -> TemperedLoss:
        _check_distillation(settings)
        return BinarySoftTargets(settings.temperature, settings.scale_by_t2)

    def accuracy_metric(self, soft_labels: bool) -> keras.metrics.Metric:
        # Keras's own where it will do: it is saved with the network, to be loaded anywhere.
        kind = MixedAccuracy if soft_labels else keras.metrics.BinaryAccuracy
        return kind("accuracy", threshold=0.0)

    def accuracy(self, logits: np.ndarray, labels: np.ndarray) -> float:
        return label_metrics.accuracy(logits, labels)

    def right(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return ((logits > 0) == labels.astype(bool)).mean(axis=-1)

    def summary(
        self, logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None = None
    ) -> dict[str, float]:
        return label_metrics.summary(logits, labels, teacher_logits)

    def reliability(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
        return {}

    def check_teacher(
        self, name: str, logits: np.ndarray, labels: np.ndarray, outputs: Sequence[int | str] = ()
    ) -> str:
        return _check_teacher(name, logits, labels.astype(bool), outputs)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return scipy.special.expit(logits)

    def choice(self, logits: np.ndarray) -> np.ndarray:
        return logits > 0

    def chosen(self, answers: Mapping[str, np.ndarray]) -> np.ndarray:
        return answers["present"]

    def look_like_probabilities(self, outputs: np.ndarray) -> bool:
        return bool(((outputs >= 0) & (outputs <= 1)).all())


@keras.saving.register_keras_serializable("tfdistill")
class MixedAccuracy(keras.metrics.BinaryAccuracy):
    """Binary accuracy against labels in 0..1, as mixup makes them: what is nearer counts."""

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Any:
        nearest = ops.cast(ops.cast(y_true, "float32") > 0.5, "float32")
        return super().update_state(nearest, y_pred, sample_weight)


def _check_distillation(settings: DistillationConfig) -> None:
    """Raise at a soft loss between the classes of one softmax."""
    plain = DistillationConfig()
    for name in ("loss", "divergence", "standardize"):
        value = getattr(settings, name)
        if value != getattr(plain, name):
            raise checks.UsageError(
                f"distillation.{name} must be {checks.shown(getattr(plain, name))} for images with "
                f"several labels, whose soft loss is that of one yes or no each. Received: "
                f"{checks.shown(value)}. Leave it out."
            )


def _check_teacher(
    name: str, logits: np.ndarray, labels: np.ndarray, outputs: Sequence[int | str]
) -> str:
    """Return a remark on a teacher that is right no more often than always the same answer.

    Raises:
        UsageError: It is much better with its outputs in another order, as of `teacher_check`.
    """
    if len(labels) < FEWEST:
        return ""
    first, others = (logits[::2] > 0, labels[::2]), (logits[1::2], labels[1::2])
    # By how many images more than by chance each label [row] and each output [column] go together.
    centred = [part - part.mean(axis=0) for part in map(np.float64, (first[1], first[0]))]
    together = centred[0].T @ centred[1]
    # Where nothing tells, an output stays where it is.
    order = scipy.optimize.linear_sum_assignment(
        together + 1e-6 * np.eye(len(together)), maximize=True
    )[1]
    as_it_is = label_metrics.accuracy(*others)
    reordered = label_metrics.accuracy(others[0][:, order], others[1])
    if reordered - as_it_is > max(0.1, SURE * np.sqrt(0.5 / len(others[1]))):
        raise checks.UsageError(
            f"The labels of {name} stand in another order than the images': it is right on "
            f"{as_it_is:.0%} of the labels looked at, and on {reordered:.0%} if its outputs are "
            f"put in order. Set classes: {in_order(order, outputs)} beside its path, or order the "
            "labels alike."
        )
    share = labels.mean(axis=0)
    always = float(np.maximum(share, 1 - share).mean())
    found = label_metrics.accuracy(logits, labels)
    if found > always:
        return ""
    return (
        f"{name} knows no more of the labels than what is most frequent: it is right on "
        f"{found:.0%} of the labels of {len(labels)} images, always the same answer on "
        f"{always:.0%}. Does it expect other pixels than 0..255, or other labels?"
    )
