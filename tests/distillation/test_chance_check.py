"""A teacher that knows no more of the labels than chance is remarked on after the first epoch."""

import warnings

import keras
import numpy as np
import pytest

from tfdistill import Distiller, Population

CLASSES, COUNT = 3, 240
LABELS = np.arange(COUNT, dtype="int32") % CLASSES
IMAGES = np.random.default_rng(0).normal(size=(COUNT, 8, 8, 1)).astype("float32")
NOISE = np.random.default_rng(1).normal(size=(COUNT, CLASSES)).astype("float32")
KNOWING = NOISE + 3 * np.eye(CLASSES, dtype="float32")[LABELS]
WEAK = NOISE + np.eye(CLASSES, dtype="float32")[LABELS]
MOVED = np.roll(KNOWING, 1, axis=-1)


def said(model, labels, logits, epochs=1):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        targets = {"label": labels, "teacher_logits": logits}
        model.fit(IMAGES, targets, batch_size=48, epochs=epochs, verbose=0)
    return [str(each.message) for each in found if "The teacher is right" in str(each.message)]


@pytest.fixture
def distiller(small_network):
    def make(alpha=0.9, loss=keras.losses.SparseCategoricalCrossentropy):
        model = Distiller(small_network(), alpha=alpha)
        model.compile("sgd", loss(from_logits=True))
        return model

    return make


def one_hot(labels):
    return np.eye(CLASSES, dtype="float32")[labels]


@pytest.mark.parametrize("logits, remarked", [(NOISE, True), (MOVED, True), (WEAK, False)])
def test_one_that_knows_nothing_is_named_once(distiller, logits, remarked):
    right = np.mean(logits.argmax(-1) == LABELS)
    found = said(distiller(), LABELS, logits, epochs=2)
    assert len(found) == remarked
    if remarked:
        assert f"right on {right:.1%} of 240 labelled examples, chance is 33.3%" in found[0]


def test_labels_in_other_forms_and_those_that_there_are(distiller):
    assert said(distiller(), LABELS[:, None], KNOWING) == []
    encoded = distiller(loss=keras.losses.CategoricalCrossentropy)
    assert said(encoded, one_hot(LABELS), KNOWING) == []
    assert len(said(encoded, one_hot(LABELS), NOISE)) == 1
    # The teacher is right where there are labels, and need not be elsewhere.
    some = np.where(np.arange(COUNT) < 120, LABELS, -1).astype("int32")
    mixed = np.where(some[:, None] >= 0, KNOWING, MOVED)
    assert said(distiller(), some, mixed) == []
    few = np.where(np.arange(COUNT) < 90, LABELS, -1).astype("int32")
    assert said(distiller(), few, NOISE) == []  # of so few, chance may be anything


def test_a_teacher_that_teaches_nothing_is_not_remarked_on(distiller):
    assert said(distiller(alpha=0.0), LABELS, NOISE) == []


@pytest.mark.parametrize("scale, remarked", [(1.0, False), (255.0, True)])
def test_a_live_teacher_of_pixels_in_0_to_1(small_network, scale, remarked):
    images = np.ones((COUNT, 8, 8, 1), "float32") * (0.2 + 0.3 * LABELS)[:, None, None, None]
    inputs = keras.Input((8, 8, 1))
    brightness = keras.layers.GlobalAveragePooling2D()(inputs)
    teacher = keras.Model(inputs, keras.layers.Dense(CLASSES)(brightness))
    # The class whose brightness, 0.2, 0.5 or 0.8, is nearest.
    teacher.set_weights([np.array([[20.0, 50.0, 80.0]]), np.array([-2.0, -12.5, -32.0])])
    model = Distiller(small_network(), teacher)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model.fit(images * scale, LABELS, batch_size=48, verbose=0)
    assert any("The teacher is right on 33.3%" in str(each.message) for each in found) == remarked


def test_members_of_a_population_say_it_once(distiller):
    members = [distiller(), distiller()]
    population = Population(members)
    population.compile()
    assert len(said(population, LABELS, NOISE)) == 1
