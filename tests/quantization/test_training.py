"""Quantised students in training: in a Distiller and a Population, saved, resumed, and better."""

import keras
import numpy as np
import pytest

from tfdistill import Distiller, FeatureLoss, Population, SimilarityPreserving
from tfdistill.config import DataConfig
from tfdistill.data.sources import digits
from tfdistill.quantization import calibrate, quantize_aware
from tfdistill.quantization.layers import FakeQuantize

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def source():
    return digits.read(DataConfig("digits"))


def small():
    """Return a float network whose steps are traced in a second."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Rescaling(1 / 64, -2.0)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("relu", name="features")(x)
    x = keras.layers.Dense(16, activation="relu", name="hidden")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


@pytest.fixture(scope="module")
def trained(source):
    """A network that has learned the digits."""
    network = small()
    network.compile(keras.optimizers.Adam(0.01), LOSS)
    network.fit(source.train.images, source.train.labels, batch_size=32, epochs=5, verbose=0)
    return network


def low_bits(network, images, **settings):
    return calibrate(quantize_aware(network, weight_bits=2, **settings), images[:200])


def distiller(student, teacher, optimizer=None, jit_compile=False, **settings):
    made = Distiller(student=student, teacher=teacher, **settings)
    made.compile(optimizer or keras.optimizers.Adam(0.002), LOSS, jit_compile=jit_compile)
    return made


def fit(model, examples, count=128, epochs=1):
    return model.fit(
        examples.images[:count],
        examples.labels[:count],
        batch_size=64,
        epochs=epochs,
        shuffle=False,
        verbose=0,
    )


def accuracy(network, examples):
    logits = np.asarray(network(examples.images, training=False))
    return np.mean(logits.argmax(1) == examples.labels)


def ranges_of(network):
    return [layer.range for layer in network.layers if isinstance(layer, FakeQuantize)]


def same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
@pytest.mark.parametrize("ranges", ["average", "learned"])
def test_what_rounding_to_few_bits_costs_is_learned_again(source, trained, ranges):
    train, test = source.train, source.test
    student = low_bits(trained, train.images, ranges=ranges, activation_bits=4)
    whole, before, first = accuracy(trained, test), accuracy(student, test), ranges_of(student)
    fit(distiller(student, trained), train, count=900, epochs=4)
    assert before < whole - 0.05
    assert accuracy(student, test) > before + 0.5 * (whole - before)
    image, *others = zip(ranges_of(student), first, strict=True)
    assert image[0] == image[1] == (-2.0, 1.984375)  # pixels 0 and 255 by mean 128 and deviation 64
    assert all(moved != measured for moved, measured in others)


def test_a_student_that_was_not_calibrated_learns_its_ranges(source, eagerly):
    student = quantize_aware(small())
    fit(distiller(student, small()), source.train)
    assert all(low <= 0 < high for low, high in ranges_of(student))


def test_a_student_of_its_own_float_network_is_not_taken_for_its_teacher(recwarn):
    Distiller(student=quantize_aware(small()), teacher=small())
    assert not [each for each in recwarn if "more weights" in str(each.message)]


@pytest.mark.slow
def test_saved_loaded_and_resumed_it_is_the_same_to_the_bit(source, tmp_path, eagerly):
    features = [FeatureLoss(SimilarityPreserving(), 10.0, "features")]
    student = low_bits(small(), source.train.images)
    made = distiller(student, small(), features=features)
    history = fit(made, source.train).history
    assert history["feature_loss"][0] >= 0 and history["soft_loss"][0] > 0
    made.student.save(tmp_path / "student.keras")
    made.save(tmp_path / "distiller.keras")
    images = source.test.images[:64]
    loaded = keras.models.load_model(tmp_path / "student.keras")
    same(loaded.get_weights(), made.student.get_weights())
    np.testing.assert_array_equal(loaded(images), made.student(images))
    resumed = keras.models.load_model(tmp_path / "distiller.keras")
    resumed.set_teacher(small())
    for each in (made, resumed):
        fit(each, source.train)
    same(made.student.get_weights(), resumed.student.get_weights())
    assert ranges_of(made.student) != ranges_of(loaded)


@pytest.mark.slow
def test_a_member_of_a_population_is_what_it_is_alone(source, eagerly):
    alone, member, other = (
        distiller(student, small())
        for student in (
            low_bits(small(), source.train.images, ranges="learned"),
            low_bits(small(), source.train.images, ranges="learned"),
            small(),
        )
    )
    fit(alone, source.train)
    population = Population([member, other])
    population.compile(jit_compile=False)
    fit(population, source.train)
    same(member.student.get_weights(), alone.student.get_weights())


@pytest.mark.slow
def test_xla_computes_the_same(source, with_xla):
    found = []
    for jit in (False, True):
        student = low_bits(small(), source.train.images)
        made = distiller(student, small(), keras.optimizers.SGD(0.001), jit)
        fit(made, source.train, count=64)
        assert made.jit_compile == jit
        found.append(student.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
