"""Reading stored logits: exact averages, by view and id, from many threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.small_teachers import HALF, TOP
from tfdistill import UsageError, average_logits
from tfdistill.config import AVERAGES
from tfdistill.teacher_cache import open_cache
from tfdistill.teacher_cache.logit_reading import NARROW, TopRows, averaged, lost, packed

pytest_plugins = ["tests.stored_logits"]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("scale", [0.1, 0.99, 1.01, 10], ids=lambda scale: f"{scale} x NARROW")
def test_averages_are_those_of_an_ensemble_however_far_apart(average, scale):
    logits = np.random.default_rng(0).uniform(0, 1, (5, 16, 100)).astype("float32")
    logits[0, 0, :2] = 0, 1
    logits *= np.float32(scale * NARROW)
    found = averaged(logits, average)
    assert found.dtype == np.float32 and np.isfinite(found).all()
    exact = average_logits(logits.astype("float64"), average)
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-4)


def test_rest_of_largest_classes_by_hand():
    """Probabilities 0.5, 0.2, 0.2, 0.1 with the two largest kept leave 0.3 for two classes."""
    logits = np.log([[[0.1, 0.5, 0.2, 0.2]]]) + 7.0
    values, numbers, rest = packed(logits, TOP, "probabilities")
    assert numbers.tolist() == [[1, 2]]
    stored = np.zeros(2, [("logits", "f8", 2), ("classes", "u2", 2), ("rest", "f8", 2)])
    stored["logits"], stored["classes"], stored["rest"] = values, numbers, rest
    read = TopRows(lambda view, member, rows: stored[rows], 0, 1.0, 4)(0, np.array([0, 1]))
    np.testing.assert_allclose(np.exp(read), 2 * [[0.15, 0.5, 0.2, 0.15]], rtol=1e-6)


def test_what_the_largest_classes_cost_by_hand():
    """0.5 and one 0.2 are kept; 0.1 and 0.2 are taught as 0.15 each.

    At T 1 the divergence is 0.1 log(0.1 / 0.15) + 0.2 log(0.2 / 0.15); at T 4 the probabilities are
    0.562341, 0.840896 and twice 0.668740 of 2.740718.
    """
    logits = np.log([[[0.1, 0.5, 0.2, 0.2]]]) + 7.0
    (kept, divergence), (kept_at_4, _) = lost(logits, TOP, "probabilities")
    assert kept == pytest.approx(0.7) and kept_at_4 == pytest.approx(0.5508, abs=1e-4)
    assert divergence == pytest.approx(-0.0405465 + 0.0575364, abs=1e-6)


def test_logits_too_large_for_float16_are_refused():
    with pytest.raises(UsageError, match="float16 holds.*size 70000.*Set cache.dtype to float32"):
        packed(np.array([[[0.0, -70000.0]]]), HALF, "logits")


def test_unknown_ids_and_views_raise(finished, pictures):
    reader = open_cache(finished).logits()
    for strange in (0, 2, -1, int(pictures.train.ids.max()) + 1):
        with pytest.raises(KeyError, match=f"id {strange} "):
            reader[0, np.array([pictures.train.ids[0], strange])]
    for view in (-1, 2):
        with pytest.raises(IndexError, match=f"view {view}"):
            reader[view, pictures.train.ids]


def test_unknown_member_is_refused(finished):
    with pytest.raises(UsageError, match="one of: one, two.*'three'"):
        open_cache(finished).logits(members=["three"])


def test_threads_read_at_once(finished, pictures):
    ids, reader = pictures.train.ids, open_cache(finished).logits()
    expected = reader[1, ids]

    def wrong(_):
        return sum(not np.array_equal(reader[np.int64(1), ids], expected) for _ in range(200))

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(wrong, range(4))) == 0
