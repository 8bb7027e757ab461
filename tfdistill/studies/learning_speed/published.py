"""The two mistakes of the published program, rebuilt as controls: a loss and a network.

Source: github.com/valukov-alex/knoledge_distilling, 2020.
"""

import dataclasses

import keras
from keras import layers, ops

from tfdistill.config import ModelConfig
from tfdistill.losses.logit_loss import TemperedLoss, softened
from tfdistill.models import cnn
from tfdistill.utils import checks


def kl_of_log(log_p, log_q):
    """Return what torch.kl_div gave when it got log p where it expects p: zero, always.

    PyTorch of 2020 computed where(target > 0, target * (log target - input), 0) for each element.
    A target of log-probabilities is nowhere above 0, so value and gradient are exactly zero. So the
    "distilled" networks of the published experiment learned from the labels alone.
    """
    target = log_p
    positive = target > 0
    log_target = ops.log(ops.where(positive, target, 1.0))  # a logarithm that is always finite
    return ops.sum(ops.where(positive, target * (log_target - log_q), 0.0), axis=-1)


@keras.saving.register_keras_serializable("tfdistill")
class KlOfLog(TemperedLoss):
    """`kl_of_log` of softened logits as a Keras loss: teacher's are y_true, student's are y_pred.

    Args:
        temperature: T, 0.001 to 1000, which changes nothing.

    Example:
        >>> KlOfLog()(teacher_logits, student_logits)
        0.0
    """

    def __init__(self, temperature: float = 4.0, name: str = "kl_of_log"):
        super().__init__(temperature, name)

    def call(self, y_true, y_pred):
        log_teacher = ops.log_softmax(softened(y_true, self.temperature_variable), axis=-1)
        log_student = ops.log_softmax(softened(y_pred, self.temperature_variable), axis=-1)
        return kl_of_log(log_teacher, log_student)


@keras.saving.register_keras_serializable("tfdistill")
class AlwaysDropout(layers.Dropout):
    """Dropout that goes on in validation and test, as where a program forgets to turn it off.

    Out of training it draws from a generator of its own, so a network that has this layer in the
    place of `Dropout`, from the same seed, gets the same weights.

    Args:
        rate: Share of the inputs that is set to zero, in 0..1.
        settings: As of `keras.layers.Dropout`.

    Example:
        >>> AlwaysDropout(0.5)(ops.ones((1, 4)), training=False)
        [[2.0, 0.0, 0.0, 2.0]]
    """

    def build(self, input_shape):
        if self.rate > 0:
            # A new random seed would be a draw more than `Dropout` makes of Python's generator.
            seed = int(self.seed_generator.state.numpy()[0])
            self.evaluation_generator = keras.random.SeedGenerator(seed)
        super().build(input_shape)

    def call(self, inputs, training=False):
        if training or self.rate == 0:
            return super().call(inputs, training=training)
        return keras.random.dropout(
            inputs, self.rate, self.noise_shape, seed=self.evaluation_generator
        )


def build(config: ModelConfig, input_shape, num_classes: int, mean=0.0, std=1.0) -> keras.Model:
    """Return `cnn2-dropout-in-evaluation` or `cnn4-dropout-in-evaluation`.

    Raises:
        UsageError: A `cnn2` that has no dropout.
    """
    plain = dataclasses.replace(config, name=config.name.removesuffix("-dropout-in-evaluation"))
    if plain.name == "cnn2" and not config.dropout:
        raise checks.UsageError(
            f"{config.name} needs dropout. Received: model.dropout={config.dropout}. Give a rate "
            "above 0, or take cnn4, which has dropout of its own."
        )
    return cnn.build(plain, input_shape, num_classes, mean, std, AlwaysDropout)
