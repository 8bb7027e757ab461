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
