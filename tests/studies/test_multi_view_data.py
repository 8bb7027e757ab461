"""Examples of the multi-view distribution: what is drawn is what the definition says."""

import dataclasses

import numpy as np
import pytest

from tfdistill.studies.multi_view.data import task
from tfdistill.studies.multi_view.settings import MultiViewData, PlantedData
from tfdistill.utils.checks import UsageError

# Without noise, so that a patch's products with the views are its coefficients.
CLEAN = MultiViewData(
    classes=4,
    dimension=40,
    noise=0.0,
    feature_noise=0.0,
    sparsity=2.0,
    mu=0.2,
    single_view_examples=100,
    test_multi_view=30,
    test_single_view=20,
)


def coefficients(found):
    """Return `[n, patches, 2k]`: how much of each view each patch of the training set holds."""
    views = found.views.reshape(-1, found.views.shape[-1])
    return np.round(found.train.patches @ views.T, 5)


def own_and_others(found):
    """Return the sums over patches of own views `[n, 2]` and of all others `[n, 2k - 2]`."""
    sums = coefficients(found).sum(axis=1)
    classes = np.arange(sums.shape[1]) // 2
    own = classes == found.train.labels[:, None]
    return sums[own].reshape(len(sums), 2), sums[~own].reshape(len(sums), -1)


def test_views_are_orthonormal():
    views = task(CLEAN, 1).views.reshape(8, 40)
    np.testing.assert_allclose(views @ views.T, np.eye(8), atol=1e-6)


def test_sizes_types_and_share_of_single_view_examples():
    found = task(CLEAN, 1)
    assert found.train.patches.shape == (500, 6, 40)
    assert found.train.patches.dtype == np.float32
    assert (found.train.shown >= 0).sum() == 100
    assert len(found.test) == 50 and (found.test.shown >= 0).sum() == 20
    assert set(found.train.labels) == {0, 1, 2, 3} and set(found.train.shown) == {-1, 0, 1}


def test_own_views_are_strong_but_for_the_one_that_a_single_view_example_lacks():
    found = task(CLEAN, 1)
    own, _ = own_and_others(found)
    shown = found.train.shown
    single = shown >= 0
    assert own[~single].min() >= 1.0 and own[~single].max() <= 1.5
    numbers = np.arange(single.sum())
    strong, weak = (own[single][numbers, side] for side in (shown[single], 1 - shown[single]))
    assert strong.min() >= 1.0 and strong.max() <= 1.5
    assert weak.min() >= 0.015 and weak.max() <= 0.03


def test_other_views_are_weaker_and_as_many_as_the_sparsity_says():
    found = task(dataclasses.replace(CLEAN, patches=8, most_others=6), 1)
    _, others = own_and_others(found)
    single = found.train.shown >= 0
    for group, low, high in ((others[~single], 0.3, 0.4), (others[single], 0.15, 0.3)):
        assert group[group > 0].min() >= low and group.max() <= high
    # Each of the six is there with probability 2 / 4.
    assert (others > 0).mean() == pytest.approx(0.5, abs=0.03)


def test_no_class_is_favoured_where_there_is_no_room_for_all_others():
    found = task(dataclasses.replace(CLEAN, sparsity=4.0, most_others=2, patches=4), 1)
    _, others = own_and_others(found)
    assert ((others > 0).sum(axis=1) == 2).all()
    assert (others > 0).mean(axis=0) == pytest.approx(np.full(6, 1 / 3), abs=0.07)


@pytest.mark.parametrize("each", [1, 2])
def test_every_view_has_patches_of_its_own(each):
    found = task(dataclasses.replace(CLEAN, patches=12, patches_per_view=each), 1)
    shown = coefficients(found) > 0
    assert shown.sum(axis=2).max() == 1
    assert set(shown.sum(axis=1).ravel()) == {0, each}
    assert shown.any(axis=2).mean(axis=0).min() > 0.2  # at any place


def test_feature_noise_and_gaussian_noise_have_the_stated_size():
    noisy = dataclasses.replace(CLEAN, noise=0.5, feature_noise=0.1, dimension=400)
    found = task(noisy, 1)
    flat = found.views.reshape(8, -1)
    rest = found.train.patches - (found.train.patches @ flat.T) @ flat
    assert np.linalg.norm(rest, axis=2).mean() == pytest.approx(0.5, rel=0.02)
    idle = coefficients(found)[..., 0][coefficients(found)[..., 0] < 0.2]
    assert idle.mean() == pytest.approx(0.05, abs=0.01)


def test_default_feature_noise_is_that_of_the_paper():
    assert MultiViewData(classes=4, dimension=40).largest_feature_noise == pytest.approx(1 / 8)


def test_a_seed_gives_the_same_examples_and_another_seed_others():
    one, again, other = task(CLEAN, 1), task(CLEAN, 1), task(CLEAN, 2)
    np.testing.assert_array_equal(one.train.patches, again.train.patches)
    np.testing.assert_array_equal(one.test.labels, again.test.labels)
    assert (one.train.labels != other.train.labels).any()
    assert (one.train.patches[:50] != one.test.patches[:50]).any()


def test_planted_labels_follow_from_the_inputs():
    data = PlantedData(classes=3, dimension=2, neurons=1, train_examples=3000, test_examples=500)
    found = task(data, 1)
    assert found.views is None and found.train.patches.shape == (3000, 1, 2)
    assert found.train.patches.std() == pytest.approx(2**-0.5, abs=0.03)
    assert set(found.train.labels) == {0, 1, 2}
    # Labels are constant along a direction, as sums of ReLUs without bias are.
    directions = [found.train.patches[:, 0], found.test.patches[:, 0]]
    train, test = (np.arctan2(*inputs.T) for inputs in directions)
    nearest = np.abs(test[:, None] - train).argmin(axis=1)
    assert (found.train.labels[nearest] == found.test.labels).mean() > 0.98


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mu": 1.5}, "settings.data.mu must be a number from 0 to 1"),
        ({"mu": 0.0}, "settings.data.mu must be a finite number > 0"),
        ({"dimension": 19}, "10 classes have 20 orthogonal views.*dimension=19"),
        ({"patches": 5}, "need 6 patches.*patches=5"),
        ({"patches_per_view": 2}, "need 12 patches.*patches=6"),
        ({"own": [2.0, 1.0]}, r"settings.data.own must be two numbers.*\[2.0, 1.0\]"),
        ({"sparsity": 11.0}, "settings.data.sparsity / classes must be a number from 0 to 1"),
        ({"single_view_examples": 0}, "single_view_examples must be a whole number"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        MultiViewData(**changes)
