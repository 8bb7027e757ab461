"""Networks of the multi-view theory, many side by side, and their training by gradient descent.

Allen-Zhu & Li (arXiv 2012.09816): F_i(X) = sum_r sum_p act(<w_ir, x_p>), trained on all examples at
once. The weights of all networks stand in one matrix, so a step is two matrix products.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfdistill.config import DistillationConfig
from tfdistill.losses import soft_targets
from tfdistill.studies.multi_view.data import Examples
from tfdistill.studies.multi_view.settings import DescentSettings, NetworkSettings

_CHUNK = 500  # examples whose outputs are computed at once
_STREAM = 100  # tells the initial weights from what else is drawn with a seed


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks of the same kind.

    Args:
        settings: What they are.
        weights: `[dimension, neurons, networks, classes]` float32.
        velocity: Of gradient descent, in the same shape; zeros before it.
    """

    settings: NetworkSettings
    weights: np.ndarray
    velocity: np.ndarray

    @classmethod
    def new(
        cls, settings: NetworkSettings, dimension: int, classes: int, seeds: Sequence[Sequence[int]]
    ) -> "Networks":
        """Return a network with initial weights N(0, sigma_0^2) for each seed."""
        shape = dimension, settings.neurons, classes
        drawn = [
            np.random.default_rng([*seed, _STREAM]).standard_normal(shape, dtype=np.float32)
            for seed in seeds
        ]
        weights = np.stack(drawn, axis=2) * np.float32(settings.deviation)
        return cls(settings, weights, np.zeros_like(weights))

    def __len__(self) -> int:
        return self.weights.shape[2]

    def outputs(self, patches: np.ndarray) -> np.ndarray:
        """Return F of every network, the logits: `[n, networks, classes]` float32.

        Args:
            patches: `[n, patches, dimension]` float32.
        """
        weights = tf.constant(self.weights)
        compute = tf.function(
            lambda part: outputs(part, weights, self.settings), reduce_retracing=True
        )
        parts = range(0, len(patches), _CHUNK)
        return np.concatenate([compute(patches[at : at + _CHUNK]).numpy() for at in parts])

    def responses(self, views: np.ndarray) -> np.ndarray:
        """Return F_i of every network for one patch that is a view of class i and nothing else.

        Args:
            views: `[classes, 2, dimension]` float32.

        Returns:
            `[networks, classes, 2]` float32.
        """
        classes = len(views)
        alone = self.outputs(views.reshape(2 * classes, 1, -1))  # [2k, networks, k]
        own = alone.reshape(classes, 2, len(self), classes)
        return np.stack([own[i, :, :, i].T for i in range(classes)], axis=1)


@dataclass(frozen=True, eq=False)
class Soft:
    """What networks learn from their teachers.

    Args:
        logits: Of the teachers on the training examples, `[n, networks, classes]` float32.
        distillation: Temperature and weights.
        loss: `soft_targets` or `one_sided`.
    """

    logits: np.ndarray
    distillation: DistillationConfig
    loss: str = "soft_targets"


def outputs(patches: tf.Tensor, weights: tf.Tensor, settings: NetworkSettings) -> tf.Tensor:
    """Return F_i(X) = sum_r sum_p act(<w_ir, x_p>) of all networks.

    Args:
        patches: `[n, patches, dimension]` float32.
        weights: `[dimension, neurons, networks, classes]` float32.
        settings: Activation, power and threshold.

    Returns:
        `[n, networks, classes]` float32.
    """
    dimension, neurons, networks, classes = weights.shape
    products = tf.matmul(
        tf.reshape(patches, [-1, dimension]), tf.reshape(weights, [dimension, -1])
    )  # [n * patches, neurons * networks * classes]
    hidden = products if settings.activation == "linear" else smoothed_relu(products, settings)
    terms = tf.reshape(hidden, [-1, patches.shape[1] * neurons, networks * classes])
    return tf.reshape(tf.reduce_sum(terms, axis=1), [-1, networks, classes])


def smoothed_relu(z: tf.Tensor, settings: NetworkSettings) -> tf.Tensor:
    """Return the smoothed ReLU: 0 below 0, z^q / (q c^(q - 1)) on 0..c, z - (1 - 1/q) c above.

    Args:
        z: Float tensor `[...]` of any shape.
        settings: Power q and threshold c.

    Example:
        >>> smoothed_relu(tf.constant([-1.0, 1.5, 3.0]), NetworkSettings(power=4, threshold=1.5))
        [0.0, 0.375, 1.875]
    """
    power, threshold = settings.power, settings.threshold

    @tf.custom_gradient
    def smoothed(z):
        inside = tf.clip_by_value(z / threshold, 0.0, 1.0)
        slope = inside
        for _ in range(power - 2):  # a general power takes many times as long
            slope *= inside
        value = slope * inside * (threshold / power) + tf.nn.relu(z - threshold)
        return value, lambda upstream: upstream * slope

    return smoothed(z)


def train(
    networks: Networks,
    examples: Examples,
    descent: DescentSettings,
    steps: int,
    soft: Soft | None = None,
    after_step: Callable[[int, float], None] | None = None,
) -> Networks:
    """Return the networks after steps of gradient descent with momentum on all examples.

    The loss of each is CE(y, F); with a teacher hard_weight * CE(y, F) + soft_weight * soft, where
    soft is T^2 KL(softmax(G / T) || softmax(F / T)) or the `one_sided` update.

    Args:
        networks: Where to start, with the velocity that they have.
        examples: What to train on.
        descent: Rate and momentum.
        steps: Number of steps.
        soft: What is learned from teachers; None without.
        after_step: Told the number of steps done and the mean training accuracy of the networks
            before the last one, in 0..1.

    Returns:
        The trained networks; weights that are not finite are the caller's to find.
    """
    weights = tf.Variable(networks.weights)
    velocity = tf.Variable(networks.velocity)
    classes = weights.shape[-1]
    patches = tf.constant(examples.patches)
    labels = tf.one_hot(examples.labels, classes)[:, None, :]  # [n, 1, k]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = outputs(patches, weights, networks.settings)  # [n, networks, k]
            loss = tf.reduce_sum(tf.reduce_mean(_losses(labels, logits, soft), axis=0))
        residual = tf.reduce_sum(tf.abs(tf.nn.softmax(logits) - labels), axis=-1)  # [n, networks]
        gradient = tape.gradient(loss, weights)
        rate = _rate(tf.reduce_mean(residual, axis=0), classes, descent)  # [networks]
        velocity.assign(descent.momentum * velocity - rate[:, None] * gradient)
        weights.assign_add(velocity)
        right = tf.argmax(logits, axis=-1) == examples.labels[:, None]
        return tf.reduce_mean(tf.cast(right, tf.float32))

    for done in range(1, steps + 1):
        accuracy = step()
        if after_step:
            after_step(done, float(accuracy))
    return Networks(networks.settings, weights.numpy(), velocity.numpy())


def one_sided(teacher_logits, student_logits, temperature: float) -> tf.Tensor:
    """Return a value whose gradient is the paper's update, which only raises what lags behind.

    The gradient is sum_i min(p_i(F) - p_i(G), 0) grad F_i with p(F) = softmax(min(F, T^2) / T), T
    being the paper's 1 / tau: outputs below the teacher's are raised, none is lowered.

    Args:
        teacher_logits: G, `[n, networks, classes]` float32.
        student_logits: F in the same shape.
        temperature: T > 0.

    Returns:
        `[n, networks]` float32; the value itself means nothing.
    """

    def capped(logits):
        return tf.nn.softmax(tf.minimum(logits, temperature**2) / temperature)

    lag = tf.minimum(capped(student_logits) - capped(teacher_logits), 0.0)
    return tf.reduce_sum(tf.stop_gradient(lag) * student_logits, axis=-1)


def _losses(labels, logits, soft: Soft | None) -> tf.Tensor:
    """Return the loss of every example in every network, `[n, networks]`."""
    hard = -tf.reduce_sum(labels * tf.nn.log_softmax(logits), axis=-1)
    if soft is None:
        return hard
    learned = soft.distillation
    taught = tf.constant(soft.logits)
    hard_weight, soft_weight = learned.hard_weight, learned.soft_weight
    hard_weight = 1 - learned.alpha if hard_weight is None else hard_weight
    soft_weight = learned.alpha if soft_weight is None else soft_weight
    if soft.loss == "one_sided":
        value = one_sided(taught, logits, learned.temperature)
    else:
        value = soft_targets(
            taught,
            logits,
            learned.temperature,
            learned.divergence,
            learned.scale_by_t2,
            learned.standardize,
        )
    return hard_weight * hard + soft_weight * value


def _rate(residual, classes: int, descent: DescentSettings) -> tf.Tensor:
    at_first = 2 * (1 - 1 / classes)
    return descent.rate * tf.minimum(descent.growth, at_first / residual)
