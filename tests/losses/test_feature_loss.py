"""What the losses between activations share, against numbers worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tfdistill.losses import Probabilistic, RelationalAngle, RelationalDistance
from tfdistill.losses.feature_loss import pooled, unit


def test_unit_vectors_by_hand():
    np.testing.assert_allclose(unit(tf.constant([[3.0, 4.0]])), [[0.6, 0.8]], rtol=1e-6)


def test_a_vector_of_zero_stays_zero_and_has_no_gradient():
    vectors = tf.constant([[0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        first = unit(vectors)[0, 0]
    assert float(first) == 0.0
    np.testing.assert_array_equal(tape.gradient(first, vectors), [[0.0, 0.0]])


def test_maps_are_averaged_over_positions_and_vectors_are_left():
    maps = np.array([[[[1.0, 0.0], [3.0, 0.0]], [[5.0, 0.0], [7.0, 8.0]]]])
    np.testing.assert_array_equal(pooled(maps), [[4.0, 2.0]])
    np.testing.assert_array_equal(pooled([[1.0, 2.0]]), [[1.0, 2.0]])


@pytest.mark.parametrize("kind", [RelationalDistance, RelationalAngle, Probabilistic])
def test_maps_count_by_their_mean_over_positions(kind):
    teacher, student = np.random.default_rng(0).normal(size=(2, 5, 3, 3, 4)).astype("float32")
    of_means = kind()(teacher.mean((1, 2)), student.mean((1, 2)))
    assert float(kind()(teacher, student)) == pytest.approx(float(of_means), rel=1e-4)
