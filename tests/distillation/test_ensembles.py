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


@pytest.mark.usefixtures("eagerly")
def test_fitted_it_trains_all_members_through_their_average(small_network, images):
    x, y = images
    ensemble = Ensemble([small_network(), small_network()], "logits")
    before = [member.get_weights() for member in ensemble.members]
    ensemble.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = ensemble.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for member, weights in zip(ensemble.members, before, strict=True):
        assert all((a != b).any() for a, b in zip(member.get_weights(), weights, strict=True))


def test_members_stay_apart(small_network, images):
    x, _ = images
    members = [small_network(), small_network()]
    apart = Ensemble(members).member_logits(x)
    assert apart.shape == (2, 24, 3)
    np.testing.assert_allclose(apart[1], members[1](x), rtol=1e-6)


def at_size(side, channels=1):
    """Return a network of 3 classes whose logits are the mean of its image, once, twice, thrice."""
    inputs = keras.Input((side, side, channels))
    mean = keras.layers.GlobalAveragePooling2D()(inputs)
    logits = keras.layers.Dense(3, use_bias=False)
    model = keras.Model(inputs, logits(mean))
    logits.set_weights([np.array([[1.0, 2.0, 3.0]] * channels, "float32")])
    return model


@pytest.mark.usefixtures("with_xla")
@pytest.mark.parametrize("jit", [False, True])
def test_members_of_several_sizes_see_the_same_image_at_their_own(jit, tmp_path):
    """The mean of an image is that of every other pixel's neighbours, too: all logits agree."""
    ensemble = Ensemble([at_size(8), at_size(16)], "logits", weights=[1, 3])
    assert ensemble.input_shape == (None, 16, 16, 1)
    image = np.zeros((1, 16, 16, 1), "float32")
    image[0, 4:12, 4:12] = 16  # far enough from the border, where fewer pixels share the weights
    ensemble.compile(jit_compile=jit)
    assert ensemble.jit_compile == jit
    np.testing.assert_allclose(ensemble.predict(image, verbose=0), [[4, 8, 12]], rtol=1e-5)
    small, large = ensemble.member_logits(image)
    np.testing.assert_allclose(small, large, rtol=1e-5)
    ensemble.save(tmp_path / "e.keras")
    loaded = keras.saving.load_model(tmp_path / "e.keras")
    np.testing.assert_allclose(loaded.predict(image, verbose=0), [[4, 8, 12]], rtol=1e-5)
    assert loaded.weights_of_members == [0.25, 0.75]


def test_a_shrunk_image_is_averaged_over_all_its_pixels():
    """A checkerboard of 0 and 12: without antialiasing a smaller image would show one colour."""
    seen = keras.Input((2, 2, 1))
    pixels = keras.Model(seen, keras.layers.Flatten()(seen))
    large = keras.Input((8, 8, 1))
    zeros = keras.layers.Rescaling(0.0)(keras.layers.GlobalAveragePooling2D()(large))
    ensemble = Ensemble([pixels, keras.Model(large, keras.layers.Concatenate()([zeros] * 4))])
    board = 12.0 * (np.indices((8, 8)).sum(0) % 2)[None, :, :, None]
    np.testing.assert_allclose(ensemble.member_logits(board)[0], [[6.0] * 4], atol=0.2)


def test_members_of_other_proportions_or_channels_are_refused():
    wide = keras.Input((8, 4, 1))
    flat = keras.Model(wide, keras.layers.Dense(3)(keras.layers.Flatten()(wide)))
    for other in (flat, at_size(8, channels=3)):
        with pytest.raises(
            ValueError, match=r"same proportions and channels.*inputs \(8, 8, 1\), "
        ):
            Ensemble([at_size(8), other])


def test_errors(small_network):
    inputs = keras.Input((8, 8, 1))
    other = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
    with pytest.raises(ValueError, match="average must be one of: probabilities, logits"):
        Ensemble([small_network()], average="votes")
    with pytest.raises(ValueError, match="teacher with 3, student with 5"):
        Ensemble([small_network(), other])
