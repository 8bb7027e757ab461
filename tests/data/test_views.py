import numpy as np

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
