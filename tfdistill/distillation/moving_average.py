"""An exponential moving average of a network's weights over its training steps.

Polyak & Juditsky 1992; with the decay of Tarvainen & Valpola 2017 (arXiv 1703.01780), section 3.
Keras's own (`use_ema`) writes the averages over the weights at the end of every `fit`, so that a
training that is resumed goes on from them, and validation sees the weights of the last step.
"""

from typing import Any

import keras
from keras import ops

from tfdistill.distillation.distiller import Distiller
from tfdistill.utils import checks, tensorflow


class MovingAverage(keras.callbacks.Callback):
    """Keeps the average of the weights of a model, or of a Distiller's student, beside them.

    After step t (1, 2, ...) of the optimizer

        average = d * average + (1 - d) * weights,    d = min(decay, (1 + t) / (10 + t)),

    so that the average of a short training is not that of its first weights. It is part of the
    compiled step, whatever `steps_per_execution` and `jit_compile` are. As a callback of `fit` it
    lets validation see the average. Training always goes on from the weights themselves, which
    other callbacks see between epochs.

    Statistics of batch normalisation are averaged, too: those of the last step belong to the last
    weights, not to their average. States of random-number generators are not.

    Args:
        model: A compiled model or `Distiller`, or one that will be a member of a `Population`,
            whose `fit` then takes the averages of all members as callbacks.
        decay: Of the average, above 0 and below 1; about 1 / (1 - decay) steps count.

    Raises:
        UsageError: A decay that cannot be, a model that is not compiled or not built, several
            devices, or Keras on another backend than TensorFlow.

    Example:
        >>> average = MovingAverage(distiller, decay=0.99)
        >>> distiller.fit(images, labels, validation_data=validation, callbacks=[average])
        >>> average.copy_to_model()  # at the end: the average in the place of the weights
        >>> distiller.student.save("student.keras")
    """

    def __init__(self, model: keras.Model, decay: float):
        tensorflow.needed("A MovingAverage")
        super().__init__()
        self.decay = checks.proper_fraction("decay", decay)
        self._network = model.student if isinstance(model, Distiller) else model
        _check(model, self._network)
        self._pairs = [
            (keras.Variable(weight, trainable=False, dtype=weight.dtype, name="average"), weight)
            for weight in self._network.weights
            if keras.backend.is_float_dtype(weight.dtype)
        ]
        self._validating = False
        self._be_updated_by(model)

    @property
    def variables(self) -> list[keras.Variable]:
        """The network's variables with the averages in the place of its weights."""
        averages = {id(weight): average for average, weight in self._pairs}
        return [averages.get(id(each), each) for each in self._network.variables]

    def restart(self) -> None:
        """Begin anew at the present weights."""
        self._validating = False
        for average, weight in self._pairs:
            average.assign(weight)

    def copy_to_model(self) -> None:
        """Give the model the average in the place of its weights."""
        for average, weight in self._pairs:
            weight.assign(average)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._validating:
            self._swap()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._validating:
            self._swap()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.on_test_end()  # after a validation that was interrupted

    def _swap(self) -> None:
        for average, weight in self._pairs:
            value = ops.convert_to_numpy(weight).copy()
            weight.assign(average)
            average.assign(value)
        self._validating = not self._validating

    def _be_updated_by(self, model: keras.Model) -> None:
        step = model.train_step

        def train_step(data: Any) -> Any:
            logs = step(data)
            t = ops.cast(model.optimizer.iterations, "float32")
            d = ops.minimum(self.decay, (1.0 + t) / (10.0 + t))
            for average, weight in self._pairs:
                difference = weight - average
                average.assign_add(ops.cast(1.0 - d, difference.dtype) * difference)
            return logs

        # Of this model alone, whatever its class: networks are Keras's own.
        model.train_step = train_step
        model.train_function = None


def _check(model: keras.Model, network: keras.Model) -> None:
    if not (model.compiled and model.optimizer is not None and network.built):
        raise checks.UsageError(
            f"A MovingAverage needs a model that is built, and compiled with an optimizer. "
            f"Received: {model.name}, which is not. Build and compile it first."
        )
    count = model.distribute_strategy.num_replicas_in_sync if model.distribute_strategy else 1
    if count > 1:
        raise checks.UsageError(
            f"A MovingAverage needs a model on one device. Received: {model.name} on {count}. "
            "Leave out the strategy."
        )
