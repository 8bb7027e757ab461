"""What every task answers."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tfdistill.config import DistillationConfig, RunConfig
from tfdistill.losses import TemperedLoss
from tfdistill.records import Predictions


class Task:
    """What is learned of images: the losses, the figures and the averages of networks.

    Logits are `[n, outputs]` float of a whole split, labels those of `data.Examples`.

    Attributes:
        like_probabilities: Whether logits may well look like probabilities, so that those of a
            study's own teachers must not be judged by their looks.
    """

    like_probabilities = False

    def check(self, config: RunConfig) -> None:
        """Raise `UsageError` at settings of a run that have no meaning here."""

    def average(self, average: str) -> str:
        """Return how networks are averaged, as `average_logits` names it.

        Args:
            average: As configurations name it: `probabilities` or `logits`.
        """
        raise NotImplementedError

    def hard_loss(self, soft_labels: bool, label_smoothing: float) -> keras.losses.Loss:
        """Return the loss between labels and logits.

        Args:
            soft_labels: Whether labels are float32, as with mixup and smoothing.
            label_smoothing: Share of the label that is spread, in 0..1.
        """
        raise NotImplementedError

    def soft_loss(self, settings: DistillationConfig) -> TemperedLoss:
        """Return the loss between the teacher's logits and the student's."""
        raise NotImplementedError

    def accuracy_metric(self, soft_labels: bool) -> str | keras.metrics.Metric:
        """Return what Keras measures as `accuracy` in every epoch; argument as of `hard_loss`."""
        raise NotImplementedError

    def accuracy(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Return how much is right, in 0..1; the best epoch is chosen by it."""
        raise NotImplementedError

    def right(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return how much is right of each image, `[n]` in 0..1.

        Where images are many beside the classes, whatever order a network's outputs stand in.
        """
        raise NotImplementedError

    def summary(
        self, logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None = None
    ) -> dict[str, float]:
        """Return all figures of one split by name, `accuracy` and `nll` among them."""
        raise NotImplementedError

    def reliability(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
        """Return the diagram of `metrics.reliability`; empty where there is none."""
        raise NotImplementedError

    def answers(self, logits: np.ndarray, labels: np.ndarray) -> Predictions | None:
        """Return what is kept of each test image; None where there is not one class."""
        return None

    def check_teacher(
        self, name: str, logits: np.ndarray, labels: np.ndarray, outputs: Sequence[int | str] = ()
    ) -> str:
        """Return a remark on a saved teacher that knows too little, as `teacher_check` does.

        Raises:
            UsageError: Its outputs stand in another order.
        """
        raise NotImplementedError

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of logits, `[n, outputs]`."""
        raise NotImplementedError

    def choice(self, logits: np.ndarray) -> np.ndarray:
        """Return what logits say, in the form of labels."""
        raise NotImplementedError

    def chosen(self, answers: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return what the outputs of an exported network say, in the form of labels."""
        raise NotImplementedError

    def look_like_probabilities(self, outputs: np.ndarray) -> bool:
        """Return whether outputs that should be logits are probabilities."""
        raise NotImplementedError
