"""The teachers' forward pass, in float32 or in bfloat16, compiled once."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tfdistill import data
from tfdistill.models.logits import WithoutActivation, last_operation
from tfdistill.teacher_cache.logit_reading import answers
from tfdistill.utils import checks, machine
from tfdistill.utils.progress import Silent
from tfdistill.utils.types import Tensor

BFLOAT16 = "bfloat16"
MOST_CONSTANTS = 4_000_000  # weights; as constants they take 15 times the memory
_OF_PIXELS = (keras.layers.Normalization, keras.layers.Rescaling, keras.layers.Resizing)


class Forward:
    """Computes teachers' logits, `[members, b, classes]` float32, of a batch of raw pixels.

    Args:
        networks: From raw pixels to logits.
        names: Theirs, for messages.
        images: What they are shown, for its sizes.
        input_size: Side in pixels that they are shown at; None means the images' own.
        precision: `float32` or `bfloat16`: then all layers but those of the pixels, and the last,
            compute as under Keras's policy `mixed_bfloat16`.
        jit: Whether to compile with XLA: `auto`, `on` or `off`.

    Raises:
        UsageError: A network that does not run in bfloat16.
    """

    def __init__(
        self,
        networks: Sequence[keras.Model],
        names: Sequence[str],
        images: data.Dataset,
        input_size: int | None,
        precision: str,
        jit: str,
    ):
        self._networks, self._names = networks, names
        self._spec = tf.TensorSpec([None, *images.at(input_size).input_shape], tf.uint8)
        self._xla = machine.uses_xla(jit)
        function, traced = self._traced(precision)
        self._compute = function if self._xla else _with_constants(traced, function)

    def __call__(self, batch: Tensor) -> Tensor:
        return self._compute(batch)

    def tell(self, batches: Sequence[Tensor], several_labels: bool, progress: Silent) -> None:
        """Tell how far the logits of some batches are from those that float32 gives."""
        exact, _ = self._traced("float32")
        here, there = (
            np.concatenate([compute(batch).numpy() for batch in batches], axis=1)
            for compute in (self._compute, exact)
        )
        kind = "sigmoid" if several_labels else "probabilities"
        for name, rounded, right in zip(self._names, here, there, strict=True):
            same = (answers(rounded, kind) == answers(right, kind)).mean()
            progress.say(
                f"teacher logits: {name} in bfloat16 differs from float32 by at most "
                f"{np.abs(rounded - right).max():.2g} (logits up to {np.abs(right).max():.3g}), "
                f"and gives the same answer for {100 * same:.2f} % of {len(right)} images"
            )

    def _traced(self, precision: str) -> tuple[Callable[[Tensor], Tensor], Any]:
        """Return the compiled function, and its only graph."""

        def forward(batch: Tensor) -> Tensor:
            outputs = [network(batch, training=False) for network in self._networks]
            return tf.stack([tf.cast(each, tf.float32) for each in outputs])

        function = tf.function(forward, input_signature=[self._spec], jit_compile=self._xla)
        if precision != BFLOAT16:
            return function, function.get_concrete_function()
        try:
            with _in_bfloat16(self._networks):
                traced = function.get_concrete_function()
            function(tf.zeros([1, *self._spec.shape[1:]], tf.uint8))
        except Exception as error:  # layers of the user's own raise what they please
            raise checks.UsageError(
                f"Teacher {', '.join(self._names)} cannot be computed in bfloat16. Received: "
                f"{checks.first_line(error)} Set cache.precision to float32."
            ) from error
        return function, traced


def _with_constants(traced: Any, function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Return a function whose weights are constants, so that they are folded and cast but once.

    That saves thin networks up to a sixth, and large ones little.
    """
    if sum(math.prod(each.shape) for each in traced.variables) > MOST_CONSTANTS:
        return function
    try:
        frozen = convert_variables_to_constants_v2(traced)
    except Exception:  # a user's network that holds what cannot be a constant
        return function
    return lambda batch: frozen(batch)[0]


@contextlib.contextmanager
def _in_bfloat16(networks: Iterable[keras.Model]) -> Iterator[None]:
    """Let the float32 layers of networks compute in bfloat16 while they are traced.

    Their weights, and those of a layer with another policy, stay what they are.
    """
    layers = [layer for network in networks for layer in _inner_layers(network)]
    before = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = "mixed_bfloat16"
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


def _inner_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Return the float32 layers of a network, but for those of pixels and the one of its outputs.

    8 bits of mantissa would coarsen the pixels before the first weights, and the logits.
    """
    if any(isinstance(layer, keras.layers.TFSMLayer) for layer in _in_order(network)):
        raise ValueError("A SavedModel, which computes as it was saved.")
    last = last_operation(network)
    last = last.layer if isinstance(last, WithoutActivation) else last
    layers = [
        layer
        for layer in _in_order(network)
        if not isinstance(layer, (WithoutActivation, *_OF_PIXELS))
    ]
    return [
        layer
        for layer in itertools.dropwhile(lambda layer: not layer.weights, layers)
        if layer is not last and layer.dtype_policy.name == "float32"
    ]


def _in_order(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield all layers of a network, and of networks and layers in it, from its inputs on."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _in_order(layer)
        else:
            yield from layer._flatten_layers()
