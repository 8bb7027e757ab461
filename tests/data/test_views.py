import numpy as np
import pytest

from tfdistill.config import AugmentConfig
from tfdistill.data import views


def test_draws_depend_on_seed_and_view_only():
    table = views.draws(0, 3, 100).numpy()
    assert np.array_equal(table, views.draws(0, 3, 100))
    assert not np.array_equal(table, views.draws(0, 4, 100))
    assert not np.array_equal(table, views.draws(1, 3, 100))


def test_more_examples_leave_the_draws_of_the_others():
    assert np.array_equal(views.draws(0, 3, 1000)[:17], views.draws(0, 3, 17))
    assert np.array_equal(views.weights(0, 3, 1000, 0.4)[:17], views.weights(0, 3, 17, 0.4))


def test_draws_are_uniform_in_every_column():
    table = views.draws(0, 0, 20_000).numpy()
    assert table.min() >= 0
    assert table.max() < 1
    # Four standard errors of a mean of 20,000 uniform numbers.
    assert np.abs(table.mean(axis=0) - 0.5).max() < 4 * np.sqrt(1 / 12 / 20_000)


def test_order_visits_everything_once_and_changes():
    first, second = views.order(0, 0, 50).numpy(), views.order(0, 1, 50).numpy()
    assert sorted(first) == list(range(50))
    assert not np.array_equal(first, second)


def test_partners_form_one_cycle():
    partners, place, seen = views.partners(0, 0, 30).numpy(), 0, []
    for _ in range(30):
        place = partners[place]
        seen.append(place)
    assert sorted(seen) == list(range(30))


def test_weights_follow_the_folded_beta():
    weights = views.weights(0, 0, 20_000, 1.0).numpy()
    assert weights.min() >= 0.5
    # Beta(1, 1) is uniform, so the larger part has mean 3/4 and deviation 1/sqrt(48).
    assert abs(weights.mean() - 0.75) < 4 / np.sqrt(48 * 20_000)


def test_weights_of_a_tiny_parameter_are_finite():
    assert np.allclose(views.weights(0, 0, 1000, 0.001), 1, atol=0.5)


CROP = AugmentConfig(resized_crop=0.08, flip=True)


def test_windows_are_whole_pixels_within_the_image():
    for sides in ((32, 32), (40, 60)):
        table = views.windows(0, 0, 2000, CROP, sides).numpy()
        top, left, height, width, flip, angle = table.T
        assert np.array_equal(table[:, :5], np.round(table[:, :5]))
        assert (top >= 0).all() and (top + height <= sides[0]).all() and (height >= 1).all()
        assert (left >= 0).all() and (left + width <= sides[1]).all() and (width >= 1).all()
        assert set(flip) == {0.0, 1.0} and not angle.any()


def test_windows_have_the_areas_and_ratios_that_were_asked_for():
    """Of a large image, where rounding to pixels does not count."""
    table = views.windows(0, 0, 4000, CROP, (2000, 2000)).numpy()
    share = table[:, 2] * table[:, 3] / 2000**2
    ratio = np.log(table[:, 3] / table[:, 2]) / np.log(4 / 3)
    assert share.min() > 0.079 and share.max() <= 1.0
    assert np.abs(ratio).max() < 1.01
    # A draw that does not fit is drawn again: large areas become rarer, small ones stay uniform.
    inside = share[share < 0.5]
    counts, _ = np.histogram(inside, bins=6, range=(0.08, 0.5))
    assert counts.min() > 0.85 * counts.mean() and counts.max() < 1.15 * counts.mean()


def test_few_windows_span_a_whole_side():
    """At shares from 0.8, redrawing leaves 12 % of crops that span a side; clipping made 62 %."""
    config = AugmentConfig(resized_crop=0.8)
    table = views.windows(0, 0, 4000, config, (2000, 2000)).numpy()
    spans = ((table[:, 2] >= 1998) | (table[:, 3] >= 1998)).mean()
    assert spans < 0.15


def test_an_image_too_narrow_for_every_draw_gives_its_centre():
    table = views.windows(0, 0, 50, AugmentConfig(resized_crop=1.0), (20, 100)).numpy()
    assert (table[:, :4] == [0, 36, 20, 27]).all()


def test_windows_of_a_seed_stay_and_other_views_differ():
    first = views.windows(3, 1, 100, CROP, (32, 32))
    assert np.array_equal(first, views.windows(3, 1, 100, CROP, (32, 32)))
    assert np.array_equal(first, views.windows(3, 1, 901, CROP, (32, 32))[:100])
    assert not np.array_equal(first, views.windows(3, 2, 100, CROP, (32, 32)))


def test_rotation_is_drawn_to_both_sides():
    angles = views.windows(0, 0, 2000, AugmentConfig(rotation=30.0), (8, 8)).numpy()[:, 5]
    degrees = np.degrees(angles)
    assert -30.001 <= degrees.min() < -29 and 29 < degrees.max() <= 30.001
    assert abs(degrees.mean()) < 1.5


def shares(boxes, sides):
    """Return the heights and widths of boxes as shares of the sides, in float64."""
    top, left, bottom, right = np.asarray(boxes, "float64").T
    return (bottom - top) / sides[0], (right - left) / sides[1]


def test_boxes_that_are_erased_have_the_areas_and_ratios_of_the_paper():
    sides = 1000, 2000
    boxes = views.erasing_boxes(0, 3, 4000, 0.5, sides).numpy()
    erased = boxes[boxes[:, 2] > 0]
    assert len(erased) == pytest.approx(2000, abs=100)
    assert (boxes[boxes[:, 2] == 0] == 0).all()
    assert (boxes >= 0).all() and (boxes[:, 2] <= 1000).all() and (boxes[:, 3] <= 2000).all()
    high, wide = shares(erased, sides)
    area, ratio = high * wide, high / wide
    assert area.min() == pytest.approx(0.02, abs=0.003) and 0.38 < area.max() < 0.402
    assert np.median(area) == pytest.approx(0.2, abs=0.02)
    assert 0.29 < ratio.min() < 0.32 and 1 / 0.32 < ratio.max() < 1 / 0.29
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.05)
    place = erased[:, 0] / 1000 / (1 - high)
    assert place.mean() == pytest.approx(0.5, abs=0.03) and place.min() < 0.01 < 0.99 < place.max()


@pytest.mark.parametrize("probability, count", [(1.0, 500), (0.1, 50)])
def test_as_many_boxes_are_erased_as_were_asked_for(probability, count):
    boxes = views.erasing_boxes(1, 0, 500, probability, (32, 32)).numpy()
    assert (boxes[:, 2] > 0).sum() == pytest.approx(count, abs=3 * (1 - probability) * 7)


def test_cutmix_keeps_as_much_as_follows_from_its_clipped_boxes():
    """Of a side r whose centre is uniform, r - r^2/4 lies within; r^2 is uniform where a is 1.

    The box then has E (r - r^2/4)^2 = 1/2 - 1/5 + 1/48 of the area in the mean.
    """
    sides = 1000, 500
    boxes = views.cutmix_boxes(0, 0, 20_000, 1.0, sides)
    high, wide = shares(boxes, sides)
    kept = views.kept(boxes, sides).numpy()
    assert kept.dtype == np.float32
    assert np.allclose(kept, 1 - high * wide, atol=1e-6)
    assert kept.mean() == pytest.approx(1 - (1 / 2 - 1 / 5 + 1 / 48), abs=0.01)
    boxes = boxes.numpy()
    whole = (boxes[:, :2] > 0).all(axis=1) & (boxes[:, 2:] < sides).all(axis=1)
    assert np.allclose(high[whole], wide[whole], atol=0.004)


def test_the_kept_share_is_that_of_the_pixels_by_hand():
    boxes = np.array([[0, 0, 0, 0], [1, 2, 3, 5], [0, 0, 4, 8]])
    assert views.kept(boxes, (4, 8)).numpy().tolist() == [1.0, 1 - 6 / 32, 0.0]


@pytest.mark.parametrize("made", [views.erasing_boxes, views.cutmix_boxes])
def test_boxes_lie_at_the_same_place_of_images_of_any_size(made):
    """Corners are rounded to whole pixels: half a small one is two large ones."""
    large, small = (made(2, 1, 300, 0.8, (side, side)).numpy() for side in (64, 16))
    assert np.abs(large - 4 * small).max() <= 2 + 0.5
    assert not np.array_equal(large, made(2, 2, 300, 0.8, (64, 64)).numpy())
    assert not np.array_equal(large, made(3, 1, 300, 0.8, (64, 64)).numpy())
    assert np.array_equal(large[:10], made(2, 1, 10, 0.8, (64, 64)).numpy())
