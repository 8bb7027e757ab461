"""Ensembles: both kinds of averaging, saving, and training as one network."""

import keras
import numpy as np
import pytest
from keras import ops

from tfdistill import Ensemble, average_logits


def test_averaging_probabilities_by_hand():
    # [3/4, 1/4] and [1/4, 3/4] average to [1/2, 1/2]; the logits say so without a softmax
    logits = np.log([[[3.0, 1.0]], [[1.0, 3.0]]])
    np.testing.assert_allclose(np.exp(average_logits(logits)), [[0.5, 0.5]], rtol=1e-6)


def test_the_two_averages_differ_for_a_confident_member():
    logits = np.array([[[10.0, 0.0]], [[0.0, 2.0]]])
    np.testing.assert_allclose(average_logits(logits, "logits"), [[5.0, 1.0]])
    probabilities = ops.softmax(average_logits(logits))
    expected = (1 / (1 + np.exp(-10.0)) + 1 / (1 + np.exp(2.0))) / 2
    assert float(probabilities[0, 0]) == pytest.approx(expected, rel=1e-5)


def test_an_ensemble_of_one_predicts_as_its_member(small_network, images):
    x, _ = images
    member = small_network()
    np.testing.assert_allclose(
        ops.softmax(Ensemble([member]).predict(x, verbose=0)),
        ops.softmax(member.predict(x, verbose=0)),
        rtol=1e-5,
    )


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_saved_and_loaded_it_predicts_the_same(small_network, images, tmp_path, average):
    x, _ = images
    ensemble = Ensemble([small_network(), small_network(6)], average)
    ensemble.save(tmp_path / "e.keras")
    loaded = keras.saving.load_model(tmp_path / "e.keras")
    np.testing.assert_array_equal(ensemble.predict(x, verbose=0), loaded.predict(x, verbose=0))
    assert loaded.average == average


@pytest.mark.slow
def test_fitted_it_trains_all_members_through_their_average(small_network, images):
    x, y = images
    ensemble = Ensemble([small_network(), small_network()], "logits")
    before = [member.get_weights() for member in ensemble.members]
    ensemble.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = ensemble.fit(x, y, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for member, weights in zip(ensemble.members, before, strict=True):
        assert all((a != b).any() for a, b in zip(member.get_weights(), weights, strict=True))


def test_members_stay_apart(small_network, images):
    x, _ = images
    members = [small_network(), small_network()]
    apart = Ensemble(members).member_logits(x)
    assert apart.shape == (2, 24, 3)
    np.testing.assert_allclose(apart[1], members[1](x), rtol=1e-6)


def test_errors(small_network):
    inputs = keras.Input((8, 8, 1))
    other = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
    with pytest.raises(ValueError, match="average must be one of: probabilities, logits"):
        Ensemble([small_network()], average="votes")
    with pytest.raises(ValueError, match="teacher with 3, student with 5"):
        Ensemble([small_network(), other])
