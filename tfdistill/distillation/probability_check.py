"""Networks whose layers do not tell whether they end in softmax: seen by their outputs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tfdistill.distillation.outputs import Family
from tfdistill.distillation.targets import FEW, look_like_probabilities, probabilities
from tfdistill.utils import checks
from tfdistill.utils.types import Tensor

if TYPE_CHECKING:
    from tfdistill.distillation.distiller import Distiller


class ProbabilityCounts:
    """Whether outputs whose layers do not tell were probabilities; no weights, as alpha."""

    def __init__(self) -> None:
        self.of = {
            "The teacher's outputs are": keras.metrics.Mean("teacher"),
            "The student's outputs are": keras.metrics.Mean("student"),
        }

    def update(self, teacher: Tensor | None, student: Tensor | None, family: Family | None) -> None:
        if keras.backend.backend() == "jax":  # where such a variable would be a constant
            return
        for rows, metric in zip((teacher, student), self.of.values(), strict=True):
            if rows is not None:
                alike = look_like_probabilities(ops.stop_gradient(rows), family)
                metric.update_state(ops.cast(alike, "float32"))


class Watching(keras.callbacks.Callback):
    """Looks at what Distillers count while they are trained.

    Args:
        distillers: Those; None means the model that is trained.
    """

    def __init__(self, distillers: Sequence["Distiller"] | None = None):
        super().__init__()
        self._distillers = distillers
        self._seen = False

    def _watched(self) -> "Sequence[Distiller]":
        return [self.model] if self._distillers is None else self._distillers


class ProbabilityCheck(Watching):
    """Stops a training whose teacher or student gave probabilities in all of its first batch."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch and self._seen:
            return
        self._seen = True
        for distiller in self._watched():
            for who, metric in distiller._probability_counts.of.items():
                rows, alike = (
                    float(ops.convert_to_numpy(ops.convert_to_tensor(value)))
                    for value in (metric.count, metric.total)
                )
                if rows >= FEW and alike == rows:
                    raise checks.UsageError(probabilities(who))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._seen = False
        for distiller in self._watched():
            for metric in distiller._probability_counts.of.values():
                metric.reset_state()
