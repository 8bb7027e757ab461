"""Hints and the layers between student and teacher."""

import keras
import numpy as np
import pytest

from tfdistill.losses import Hints, hints
from tfdistill.utils.checks import UsageError


def test_by_hand():
    # (1 + 4) / 2 and (0 + 9) / 2
    value = hints([[1.0, 2.0], [0.0, 0.0]], [[0.0, 4.0], [0.0, 3.0]])
    np.testing.assert_allclose(value, [2.5, 4.5])


def test_every_element_of_a_map_counts_alike():
    teacher, student = np.zeros((2, 3, 4, 5)), np.full((2, 3, 4, 5), 2.0)
    np.testing.assert_allclose(hints(teacher, student), [4.0, 4.0])


def test_shapes_that_differ_are_refused_rather_than_broadcast():
    with pytest.raises(UsageError, match=r"teacher \(2, 4, 4, 8\), student \(2, 4, 4, 1\)"):
        hints(np.zeros((2, 4, 4, 8)), np.zeros((2, 4, 4, 1)))


@pytest.mark.parametrize(
    "student, layer, kernel, strides",
    [
        ((None, 6, 4, 3), keras.layers.Conv2D, (1, 1, 3, 7), (1, 1)),
        ((None, 12, 8, 3), keras.layers.Conv2D, (3, 3, 3, 7), (2, 2)),
        ((None, 3, 2, 3), keras.layers.Conv2DTranspose, (4, 4, 7, 3), (2, 2)),
    ],
    ids=["same size", "twice as large", "half as large"],
)
def test_the_regressor_of_maps(student, layer, kernel, strides):
    regressor = Hints().connector((None, 6, 4, 7), student)
    convolution, norm, relu = regressor.layers
    assert isinstance(convolution, layer)
    assert tuple(convolution.kernel.shape) == kernel and convolution.strides == strides
    assert isinstance(norm, keras.layers.BatchNormalization)
    assert isinstance(relu, keras.layers.ReLU)
    assert regressor(np.ones((2, *student[1:]), "float32")).shape == (2, 6, 4, 7)


def test_the_regressor_of_vectors_is_linear():
    regressor = Hints().connector((None, 7), (None, 3))
    ones, zeros = np.ones((2, 3), "float32"), np.zeros((2, 3), "float32")
    assert regressor(ones).shape == (2, 7)
    np.testing.assert_allclose(regressor(ones) + regressor(-ones), 2 * regressor(zeros), atol=1e-6)


@pytest.mark.parametrize(
    "teacher, student",
    [
        ((None, 8, 8, 4), (None, 6, 6, 4)),
        ((None, 8, 8, 4), (None, 16, 8, 4)),
        ((None, 8, 8, 4), (None, 2, 2, 4)),
        ((None, 8, 8, 4), (None, 4)),
        ((None, 16), (None, 2, 2, 4)),
        ((None, None, None, 4), (None, 8, 8, 4)),
    ],
)
def test_what_no_regressor_matches_is_refused_with_both_shapes(teacher, student):
    with pytest.raises(UsageError) as error:
        Hints().connector(teacher, student)
    message = str(error.value)
    assert f"teacher {teacher}, student {student}" in message and "Choose other layers" in message


def test_the_regressor_has_the_policy_in_force():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        regressor = Hints().connector((None, 4, 4, 2), (None, 4, 4, 3))
    finally:
        keras.config.set_dtype_policy(before)
    predicted = regressor(np.ones((2, 4, 4, 3), "float16"))
    assert predicted.dtype == "float16"
    assert {variable.dtype for variable in regressor.trainable_variables} == {"float32"}
    assert Hints()(np.ones((2, 4, 4, 2), "float16"), predicted).dtype == "float32"


@pytest.mark.slow
def test_a_regressor_learns_to_predict_the_teacher():
    student = np.random.default_rng(0).normal(size=(64, 4, 4, 3)).astype("float32")
    teacher = np.maximum(student @ np.array([[1.0, 0.5], [-1.0, 0.0], [0.0, 2.0]]), 0.0)
    regressor = Hints().connector((None, 4, 4, 2), (None, 4, 4, 3))
    regressor.compile(keras.optimizers.Adam(0.05), loss=Hints())
    values = regressor.fit(student, teacher, 16, epochs=20, verbose=0).history["loss"]
    assert values[-1] < 0.1 * values[0]
