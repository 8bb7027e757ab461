"""One loss on several devices: what each computes of its part of a batch, so that all train as one.

Keras divides losses by the number of replicas, whose gradients are added; its metrics undo it.
"""

from typing import Any

import keras
from keras import ops

from tfdistill.utils.types import Tensor


def _replicas() -> int:
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def per_replica(loss: Tensor) -> Tensor:
    return divided(loss, _replicas())


def of_all_replicas(loss: Tensor) -> Tensor:
    return times(loss, _replicas())


def divided(value: Tensor, by: Any) -> Tensor:
    return value if isinstance(by, int) and by == 1 else value / by


def times(value: Tensor, by: Any) -> Tensor:
    return value if isinstance(by, int) and by == 1 else value * by


def share(count: Tensor) -> Any:
    """Return by how much this replica's mean counts in that of the whole batch; 1 on one device.

    Args:
        count: Number of examples that its mean is over.
    """
    replicas = _replicas()
    if replicas == 1:
        return 1
    import tensorflow as tf

    count = ops.cast(count, "float32")
    context = tf.distribute.get_replica_context()
    if context is None:
        return 1
    every = context.all_reduce(tf.distribute.ReduceOp.SUM, count)
    return ops.divide_no_nan(count * replicas, every)


class OnWorkers(keras.Model):
    """A model that also trains over several processes: `tf.distribute.MultiWorkerMirroredStrategy`.

    Keras averages what each worker's step returns along an axis that its numbers do not have, and
    makes the variables of optimiser and metrics from a batch that is spread over devices.
    """

    def train_step(self, *args: Any) -> Any:
        return of_workers(super().train_step(*args))

    def test_step(self, *args: Any) -> Any:
        return of_workers(super().test_step(*args))

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        strategy = self._distribute_strategy
        if iterator is None or not _of_workers(strategy):
            return super()._maybe_symbolic_build(iterator, data_batch)
        _, _, batches = next(iter(iterator))
        batch = keras.tree.map_structure(
            lambda part: strategy.experimental_local_results(part)[0], next(batches)
        )
        with strategy.scope():
            return self._symbolic_build(data_batch=batch)


def of_workers(logs: Any) -> Any:
    """Return what a step reports as Keras averages it over workers, `[1]` each; else as it is."""
    if keras.backend.backend() != "tensorflow":
        return logs
    import tensorflow as tf

    if not _of_workers(tf.distribute.get_strategy()):
        return logs
    return {name: ops.reshape(value, [1]) for name, value in logs.items()}


def _of_workers(strategy: Any) -> bool:
    if strategy is None:
        return False
    import tensorflow as tf

    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
