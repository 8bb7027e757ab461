"""The published mistakes: a loss that is always zero, and dropout that is never turned off."""

import math

import keras
import numpy as np
import pytest

from tests import forked
from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.studies.learning_speed.published import KlOfLog, kl_of_log
from tfdistill.utils.checks import UsageError


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("gap", [0.0, 1.0, 60.0, 1e4])
def test_kl_of_log_is_zero_and_teaches_nothing(temperature, gap):
    import tensorflow as tf

    teacher, student = tf.Variable([[gap, 0.0, -1.0]]), tf.Variable([[0.0, gap, 2.0]])
    with tf.GradientTape() as tape:
        loss = KlOfLog(temperature)(teacher, student)
    assert float(loss) == 0.0
    for gradient in tape.gradient(loss, [teacher, student]):
        np.testing.assert_array_equal(gradient, np.zeros((1, 3)))


def test_kl_of_log_is_the_formula_where_the_target_is_positive():
    # Given probabilities, as it should be, the same formula is the divergence.
    p, q = np.array([0.75, 0.25, 0.0]), np.array([0.5, 0.25, 0.25])
    assert float(kl_of_log(p, np.log(q))) == pytest.approx(0.75 * math.log(1.5))


@pytest.fixture
def pixels():
    """Return uint8 [4, 16, 16, 3]."""
    return np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype("uint8")


def build(name, **settings):
    keras.utils.set_random_seed(3)
    config = ModelConfig(name, width=0.25, **settings)
    return models.build(config, (16, 16, 3), 5, 127.5, 127.5)


@pytest.mark.slow
def test_dropout_in_evaluation_gives_other_logits_every_time(pixels):
    network = build("cnn4-dropout-in-evaluation")
    assert abs(network.predict(pixels, verbose=0) - network.predict(pixels, verbose=0)).max() > 0.1


@pytest.mark.slow
def test_dropout_in_evaluation_does_not_change_the_training(pixels):
    trained = []
    for name in ("cnn2", "cnn2-dropout-in-evaluation"):
        network = build(name, dropout=0.5)
        network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        batches = (pixels, np.arange(4))
        network.fit(*batches, epochs=3, verbose=0, shuffle=False, validation_data=batches)
        trained.append(network.get_weights())
    for plain, dropping in zip(*trained, strict=True):
        np.testing.assert_array_equal(plain, dropping)


@pytest.mark.slow
def test_dropout_in_evaluation_outlives_a_file(pixels, tmp_path):
    network = build("cnn4-dropout-in-evaluation")
    network.save(tmp_path / "network.keras")
    code = (
        "import sys, numpy\n"
        "assert not [name for name in sys.modules if 'learning_speed' in name]\n"
        "from tfdistill import models\n"
        "from tfdistill.config import ModelConfig\n"
        "config, pixels = ModelConfig('saved', path=sys.argv[1]), numpy.load(sys.argv[2])\n"
        "network = models.build(config, (16, 16, 3), 5)\n"
        "print(abs(network.predict(pixels, verbose=0) - network.predict(pixels, verbose=0)).max())"
    )
    (tmp_path / "program.py").write_text(code)
    np.save(tmp_path / "pixels.npy", pixels)
    names = "program.py", "network.keras", "pixels.npy"
    process = forked.program(*(tmp_path / name for name in names))
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert float(output) > 0.1


def test_dropout_in_evaluation_needs_dropout():
    with pytest.raises(UsageError, match="cnn2-dropout-in-evaluation needs dropout") as caught:
        build("cnn2-dropout-in-evaluation")
    assert "\n" not in str(caught.value)
    assert build("cnn2-dropout-in-evaluation", dropout=0.5)
