"""Networks of the multi-view theory: their outputs, and steps of gradient descent by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tfdistill.config import DistillationConfig
from tfdistill.studies.multi_view.data import Examples
from tfdistill.studies.multi_view.network import Networks, Soft, one_sided, smoothed_relu, train
from tfdistill.studies.multi_view.settings import DescentSettings, NetworkSettings

CURVED = NetworkSettings(neurons=2, power=4, threshold=1.5)
FLAT = NetworkSettings(neurons=1, activation="linear")
PLAIN = DescentSettings(rate=0.5, growth=1.0, momentum=0.0)


def examples(count=6, patches=2, dimension=4, classes=3):
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(count, patches, dimension)).astype("float32")
    return Examples(inputs, np.arange(count) % classes, np.full(count, -1))


def new(settings=CURVED, seeds=((0, 0), (0, 1)), dimension=4, classes=3):
    return Networks.new(settings, dimension, classes, seeds)


def test_smoothed_relu_by_hand():
    values = smoothed_relu(tf.constant([-1.0, 0.0, 0.75, 1.5, 3.0]), CURVED)
    # z^4 / (4 * 1.5^3) up to 1.5, z - 0.75 * 1.5 above
    np.testing.assert_allclose(values, [0, 0, 0.75**4 / 13.5, 0.375, 1.875], rtol=1e-6)


@pytest.mark.parametrize("power", [2, 3, 5])
def test_the_slope_of_the_smoothed_relu_is_that_of_its_values(power):
    settings = NetworkSettings(power=power, threshold=1.5)
    z = tf.constant(np.linspace(-1, 3, 41), tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = smoothed_relu(z, settings)
    step = 1e-6
    nearby = [smoothed_relu(z + change, settings) for change in (step, -step)]
    np.testing.assert_allclose(
        tape.gradient(value, z), (nearby[0] - nearby[1]) / (2 * step), atol=1e-5
    )


def test_outputs_are_sums_over_neurons_and_patches():
    weights = np.zeros((4, 2, 1, 3), np.float32)
    weights[0, 0, 0, 1] = weights[1, 1, 0, 1] = 3.0  # class 1: one neuron each for x_0 and x_1
    patches = np.zeros((1, 2, 4), np.float32)
    patches[0, 0, 0] = patches[0, 1, 1] = 1.0
    patches[0, 1, 0] = -1.0
    found = Networks(CURVED, weights, np.zeros_like(weights)).outputs(patches)
    np.testing.assert_allclose(found, [[[0, 2 * 1.875, 0]]], rtol=1e-6)


def test_networks_side_by_side_are_networks_alone():
    together, patches = new(), examples().patches
    for place, seed in enumerate(((0, 0), (0, 1))):
        alone = new(seeds=(seed,))
        np.testing.assert_array_equal(together.weights[:, :, place], alone.weights[:, :, 0])
        np.testing.assert_allclose(
            together.outputs(patches)[:, place], alone.outputs(patches)[:, 0], rtol=1e-5
        )


def test_initial_weights_have_the_stated_deviation():
    networks = new(NetworkSettings(neurons=10, deviation=0.08), dimension=500)
    assert networks.weights.std() == pytest.approx(0.08, rel=0.02)
    assert len(networks) == 2


def test_responses_are_to_one_view_of_the_own_class():
    weights = np.zeros((4, 1, 1, 2), np.float32)
    views = np.eye(4, dtype=np.float32).reshape(2, 2, 4)
    weights[1, 0, 0, 0] = 3.0  # class 0 knows its second view
    weights[0, 0, 0, 1] = 3.0  # class 1 takes class 0's first view for its own
    found = Networks(NetworkSettings(neurons=1), weights, np.zeros_like(weights)).responses(views)
    np.testing.assert_allclose(found, [[[0, 1.875], [0, 0]]], rtol=1e-6)


def numpy_step(weights, inputs, labels, rate):
    """One step for a linear network: softmax regression on summed patches, by hand."""
    sums = inputs.sum(axis=1)
    logits = sums @ weights
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return weights - rate * sums.T @ (shares - np.eye(3)[labels]) / len(labels)


def test_a_step_of_gradient_descent_by_hand():
    data = examples()
    start = new(NetworkSettings(neurons=1, activation="linear", deviation=1e-5))
    found = train(start, data, PLAIN, steps=1)
    for place in range(2):
        expected = numpy_step(start.weights[:, 0, place], data.patches, data.labels, 0.5)
        np.testing.assert_allclose(found.weights[:, 0, place], expected, rtol=1e-5, atol=1e-6)


def test_momentum_adds_the_former_step():
    data, start = examples(), new(FLAT)
    one = train(start, data, PLAIN, steps=1)
    moving = Networks(FLAT, one.weights, one.weights - start.weights)
    settings = DescentSettings(rate=0.5, growth=1.0, momentum=0.9)
    found = train(moving, data, settings, steps=1)
    still = train(one, data, PLAIN, steps=1)
    expected = still.weights + 0.9 * (one.weights - start.weights)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("growth", "times"), [(10.0, 4.0), (3.0, 3.0)])
def test_the_rate_grows_as_the_errors_fade(growth, times):
    data = examples(count=1, patches=1)
    weights = np.zeros((4, 1, 1, 3), np.float32)
    # Probability 5/6 of the right class: |p - y|_1 is 1/3, a quarter of 2 (1 - 1/3).
    weights[:, 0, 0, 0] = data.patches[0, 0] * np.log(10) / (data.patches**2).sum()
    start = Networks(FLAT, weights, np.zeros_like(weights))
    plain = train(start, data, PLAIN, steps=1).weights - weights
    settings = DescentSettings(rate=0.5, growth=growth, momentum=0.0)
    grown = train(start, data, settings, steps=1).weights - weights
    np.testing.assert_allclose(grown, times * plain, rtol=1e-4, atol=1e-6)


def test_going_on_with_the_velocity_is_training_in_one_go():
    data, settings = examples(), DescentSettings()
    whole = train(new(), data, settings, steps=7)
    parted = train(train(new(), data, settings, steps=4), data, settings, steps=3)
    np.testing.assert_array_equal(whole.weights, parted.weights)


def test_soft_targets_alone_pull_towards_the_teacher():
    data, start = examples(count=3), new(FLAT)
    teacher = np.random.default_rng(3).normal(size=(3, 2, 3)).astype("float32")
    taught = DistillationConfig(hard_weight=0.0, soft_weight=1.0, temperature=4.0)
    found = train(start, data, PLAIN, 300, Soft(teacher, taught)).outputs(data.patches)

    def distance(logits):
        logits = logits - logits.mean(axis=-1, keepdims=True)
        return np.abs(logits - (teacher - teacher.mean(axis=-1, keepdims=True))).mean(axis=(0, 2))

    assert (distance(found) < 0.5 * distance(start.outputs(data.patches))).all()


def test_the_soft_loss_is_weighed_beside_the_labels():
    data, start = examples(), new(FLAT)
    teacher = np.random.default_rng(3).normal(size=(6, 2, 3)).astype("float32")

    def step(**weights):
        taught = DistillationConfig(temperature=2.0, **weights)
        return train(start, data, PLAIN, 1, Soft(teacher, taught)).weights - start.weights

    hard = train(start, data, PLAIN, 1).weights - start.weights
    soft = step(hard_weight=0.0, soft_weight=1.0)
    both = step(hard_weight=1.0, soft_weight=3.0)
    np.testing.assert_allclose(both, hard + 3 * soft, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(step(alpha=0.25), 0.75 * hard + 0.25 * soft, rtol=1e-4, atol=1e-6)


def test_progress_is_told_of_every_step():
    seen = []
    train(new(), examples(), PLAIN, 3, after_step=lambda done, accuracy: seen.append(done))
    assert seen == [1, 2, 3]


def test_the_papers_update_raises_what_lags_and_lowers_nothing():
    teacher = tf.constant([[[4.0, 0.0, 2.0]]])
    student = tf.constant([[[4.0, 2.0, 0.0]]])
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = one_sided(teacher, student, temperature=2.0)
    shares = np.exp([2.0, 1.0, 0.0]) / np.exp([2.0, 1.0, 0.0]).sum()
    expected = [0, 0, shares[2] - shares[1]]  # descent raises the third output alone
    np.testing.assert_allclose(tape.gradient(value, student)[0, 0], expected, atol=1e-6)


def test_the_papers_update_takes_logits_beyond_the_cap_as_equal():
    teacher, student = tf.constant([[[9.0, 0.0]]]), tf.constant([[[4.0, 0.0]]])
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = one_sided(teacher, student, temperature=2.0)
    np.testing.assert_allclose(tape.gradient(value, student), [[[0, 0]]], atol=1e-7)
