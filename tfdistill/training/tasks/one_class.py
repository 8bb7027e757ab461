"""Each image is of one class of several: softmax, cross-entropy, calibration of the first class."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import scipy.special

from tfdistill.config import DistillationConfig
from tfdistill.config.registry import LOGIT_LOSSES
from tfdistill.losses import TemperedLoss
from tfdistill.models.logits import look_like_probabilities
from tfdistill.records import Predictions
from tfdistill.training import metrics, teacher_check
from tfdistill.training.tasks.task import Task
from tfdistill.utils.numerics import log_softmax


class OneClass(Task):
    """Labels are `[n]` numbers of classes."""

    def average(self, average: str) -> str:
        return average

    def hard_loss(self, soft_labels: bool, label_smoothing: float) -> keras.losses.Loss:
        if soft_labels:
            return keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=label_smoothing
            )
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def soft_loss(self, settings: DistillationConfig) -> TemperedLoss:
        return LOGIT_LOSSES[settings.loss].from_settings(settings)

    def accuracy_metric(self, soft_labels: bool) -> str:
        return "accuracy"

    def accuracy(self, logits: np.ndarray, labels: np.ndarray) -> float:
        return metrics.accuracy(logits, labels)

    def right(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        many = len(labels) >= 10 * logits.shape[-1]
        expected = teacher_check.best_order(logits, labels)[labels] if many else labels
        return (logits.argmax(axis=-1) == expected).astype(float)

    def summary(
        self, logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None = None
    ) -> dict[str, float]:
        return metrics.summary(logits, labels, teacher_logits)

    def reliability(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
        return metrics.reliability(logits, labels)

    def answers(self, logits: np.ndarray, labels: np.ndarray) -> Predictions:
        return Predictions(labels, logits.argmax(-1), np.exp(log_softmax(logits).max(-1)))

    def check_teacher(
        self, name: str, logits: np.ndarray, labels: np.ndarray, outputs: Sequence[int | str] = ()
    ) -> str:
        return teacher_check.check_teacher(name, logits, labels, outputs)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return scipy.special.softmax(logits, axis=-1)

    def choice(self, logits: np.ndarray) -> np.ndarray:
        return logits.argmax(axis=-1)

    def chosen(self, answers: Mapping[str, np.ndarray]) -> np.ndarray:
        return answers["class_id"]

    def look_like_probabilities(self, outputs: np.ndarray) -> bool:
        return look_like_probabilities(outputs)
