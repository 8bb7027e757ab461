"""The moving average of a network's weights: by hand, in every kind of step, in validation."""

import keras
import numpy as np
import pytest

from tfdistill import Distiller
from tfdistill.distillation.moving_average import MovingAverage
from tfdistill.distillation.population import Population
from tfdistill.utils.checks import UsageError

HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


def arrays(variables):
    return [variable.numpy() for variable in variables]


def averaged(course, decay):
    """Return the average of arrays by step, in float64; the first are those before training."""
    averages = [each.astype("float64") for each in course[0]]
    for t, weights in enumerate(course[1:], start=1):
        d = min(decay, (1 + t) / (10 + t))
        averages = [d * a + (1 - d) * w for a, w in zip(averages, weights, strict=True)]
    return averages


@pytest.mark.parametrize("decay, expected", [(0.9, -372 / 143), (0.2, -30.28 / 11)])
def test_three_steps_by_hand(eagerly, decay, expected):
    """The weight goes 0, -1, -2, -3, with d = 2/11, 1/4, 4/13, or 2/11, 0.2, 0.2."""
    one = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    network = keras.Sequential([keras.Input((1,)), one])
    network.compile(keras.optimizers.SGD(1.0), lambda y, answer: answer)
    average = MovingAverage(network, decay)
    for _ in range(3):
        network.train_on_batch(np.ones((1, 1)), np.zeros((1, 1)))
    assert network.get_weights()[0].item() == -3
    assert average.variables[0].numpy().item() == pytest.approx(expected, rel=1e-6)


def student(small_network, precision):
    keras.utils.set_random_seed(5)
    dtype = None if precision == "float32" else precision
    return small_network(4, dropout=0.3, batch_norm=True, dtype=dtype)


def learner(small_network, precision, taught, **settings):
    """Return a compiled student, alone or taught by a live teacher, and its network."""
    model = network = student(small_network, precision)
    if taught:
        model = Distiller(network, small_network(6))
    model.compile(keras.optimizers.Adam(0.05), HARD, **settings)
    return model, network


@pytest.mark.slow
@pytest.mark.usefixtures("with_xla")
@pytest.mark.parametrize(
    "taught, precision, settings",
    [
        (False, "float32", {"steps_per_execution": 3}),
        (True, "float32", {"jit_compile": True, "steps_per_execution": 2}),
        (True, "mixed_float16", {}),
    ],
)
def test_the_average_is_that_of_the_weights_after_each_step(
    small_network, images, taught, precision, settings
):
    """Of batch norm's statistics, too."""
    x, y = images
    # XLA draws other units for dropout than TensorFlow does.
    jit = {name: value for name, value in settings.items() if name == "jit_compile"}
    model, network = learner(small_network, precision, taught, **jit)
    course = [arrays(network.weights)]
    for place in (0, 8, 16):
        model.train_on_batch(x[place : place + 8], y[place : place + 8])
        course.append(arrays(network.weights))
    model, network = learner(small_network, precision, taught, **settings)
    average = MovingAverage(model, 0.3)
    model.fit(x, y, **FIT)
    average.copy_to_model()
    tolerance = 1e-4 if precision == "float32" else 2e-3
    for a, b in zip(arrays(network.weights), averaged(course, 0.3), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_members_have_the_averages_that_they_would_have_alone(small_network, images):
    x, y = images
    validation = {"validation_data": (x[:10], y[:10])}

    def built():
        keras.utils.set_random_seed(7)
        members = [small_network(4, batch_norm=True), small_network(3, dropout=0.5)]
        teacher = np.random.default_rng(1).normal(size=(24, 3)).astype("float32")
        members = [Distiller(members[0]), members[1]]
        for member in members:
            member.compile(keras.optimizers.Adam(0.05), HARD, metrics=["accuracy"])
        return members, teacher, [MovingAverage(member, 0.5) for member in members]

    members, teacher, averages = built()
    population = Population(members)
    population.compile()
    targets = {"label": y, "teacher_logits": teacher}
    history = population.fit(x, targets, epochs=2, callbacks=averages, **FIT, **validation).history
    logs = population.member_logs(history)
    alone, _, expected = built()
    for place, (member, average) in enumerate(zip(alone, expected, strict=True)):
        own = targets if isinstance(member, Distiller) else y
        figures = member.fit(x, own, epochs=2, callbacks=[average], **FIT, **validation).history
        assert figures["val_loss"] == pytest.approx(logs[place]["val_loss"], rel=1e-6)
        for a, b in zip(arrays(average.variables), arrays(averages[place].variables), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(member.get_weights(), members[place].get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_validation_sees_the_average_and_training_goes_on_from_the_weights(small_network, images):
    x, y = images
    found = []
    for watched in (True, False):
        network = student(small_network, "float32")
        network.compile(keras.optimizers.Adam(0.05), HARD)
        average = MovingAverage(network, 0.7)
        callbacks = [average] if watched else []
        history = network.fit(x, y, epochs=2, validation_data=(x, y), callbacks=callbacks, **FIT)
        found.append((network.get_weights(), history.history["loss"], arrays(average.variables)))
        if watched:
            average.copy_to_model()
            last = network.evaluate(x, y, batch_size=8, verbose=0)
            assert history.history["val_loss"][-1] == pytest.approx(last, rel=1e-5)
        else:
            assert history.history["val_loss"][-1] != pytest.approx(last, rel=1e-3)
    for a, b in zip(*(weights for weights, _, _ in found), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[0][1] == found[1][1]
    for a, b in zip(found[0][2], found[1][2], strict=True):
        np.testing.assert_array_equal(a, b)


class Interrupt(keras.callbacks.Callback):
    def on_test_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_after_an_interrupted_validation_training_goes_on_from_the_weights(
    eagerly, small_network, images
):
    x, y = images[0][:8], images[1][:8]
    network = small_network()
    network.compile(keras.optimizers.SGD(0.5), HARD)
    average = MovingAverage(network, 0.9)
    with pytest.raises(KeyboardInterrupt):
        network.fit(
            x, y, validation_data=(x, y), callbacks=[average, Interrupt()], batch_size=8, verbose=0
        )
    shown = network.get_weights()
    average.on_train_begin()
    weights = network.get_weights()
    assert any((a != b).any() for a, b in zip(shown, weights, strict=True))
    for a, b in zip(shown, arrays(average.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    average.restart()
    for a, b in zip(weights, arrays(average.variables), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("decay", [0, 1, 1.5, -0.1, float("nan"), "0.9", None, True])
def test_a_decay_that_cannot_be_is_refused(small_network, decay):
    network = small_network()
    network.compile("sgd", HARD)
    with pytest.raises(UsageError, match="decay must be a number above 0 and below 1"):
        MovingAverage(network, decay)


def test_a_model_that_is_not_compiled_is_refused(small_network):
    with pytest.raises(UsageError, match="Build and compile it first"):
        MovingAverage(small_network(), 0.9)
