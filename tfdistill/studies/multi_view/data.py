"""Examples of the multi-view distribution, and Gaussian ones with planted labels.

Definitions of D_m and D_s in Allen-Zhu & Li (arXiv 2012.09816). Other than there, the ranges of the
coefficients are numbers instead of orders of k, all patches have noise of the same size, and the
number of single-view examples is exact.
"""

from dataclasses import dataclass

import numpy as np

from tfdistill.studies.multi_view.settings import MultiViewData, PlantedData

# Tell apart what is drawn with one seed.
_VIEWS, _TRAIN, _TEST, _PLANTED = range(4)


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of n patches each.

    Args:
        patches: `[n, patches, dimension]` float32.
        labels: `[n]` int64.
        shown: `[n]` int64: the own view that a single-view example shows, 0 or 1; -1 where it shows
            both.
    """

    patches: np.ndarray
    labels: np.ndarray
    shown: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Task:
    """Training and test examples, and the views that they are made of.

    Args:
        views: `[classes, 2, dimension]` float32, orthonormal; None of examples without views.
        train: Training examples.
        test: Test examples.
    """

    views: np.ndarray | None
    train: Examples
    test: Examples


def task(data: MultiViewData | PlantedData, seed: int) -> Task:
    """Return the examples of a seed, the same whenever it is called.

    Example:
        >>> task(MultiViewData(), seed=21).train.patches.shape
        (600, 6, 2000)
    """
    if isinstance(data, PlantedData):
        return _planted_task(data, seed)
    views = orthonormal_views(data, np.random.default_rng([seed, _VIEWS]))
    single = data.single_view_examples
    train = sample(
        data, views, data.train_examples - single, single, np.random.default_rng([seed, _TRAIN])
    )
    test = sample(
        data,
        views,
        data.test_multi_view,
        data.test_single_view,
        np.random.default_rng([seed, _TEST]),
    )
    return Task(views, train, test)


def orthonormal_views(data: MultiViewData, rng: np.random.Generator) -> np.ndarray:
    """Return two unit vectors for each class, all orthogonal: `[classes, 2, dimension]` float32."""
    random = rng.standard_normal((data.dimension, 2 * data.classes))
    vectors = np.linalg.qr(random)[0].T
    return vectors.reshape(data.classes, 2, data.dimension).astype(np.float32)


def sample(
    data: MultiViewData,
    views: np.ndarray,
    multi_view: int,
    single_view: int,
    rng: np.random.Generator,
) -> Examples:
    """Return multi-view examples and after them single-view examples.

    Patch p of an example is x_p = sum_v (z_pv + alpha_pv) v + xi_p: z are the coefficients of the
    views that the patch shows, alpha feature noise in 0..gamma, xi Gaussian noise.

    Args:
        data: The distribution.
        views: `[classes, 2, dimension]` float32, orthonormal.
        multi_view: Number of multi-view examples.
        single_view: Number of single-view examples.
        rng: Source of all that is random.
    """
    count = multi_view + single_view
    labels = rng.integers(data.classes, size=count)
    shown = np.where(np.arange(count) < multi_view, -1, rng.integers(2, size=count))
    sums = _coefficients(data, labels, shown, rng)  # [n, 2k]
    weights = _on_patches(data, sums, rng)  # [n, P, 2k]
    weights += rng.uniform(0, data.largest_feature_noise, size=weights.shape)
    patches = weights.astype(np.float32) @ views.reshape(2 * data.classes, -1)  # [n, P, d]
    deviation = np.float32(data.noise / np.sqrt(data.dimension))
    patches += deviation * rng.standard_normal(patches.shape, dtype=np.float32)
    return Examples(patches, labels, shown)


def _coefficients(data: MultiViewData, labels, shown, rng) -> np.ndarray:
    """Return the coefficient of every view of all classes in every example, `[n, 2k]`; 0: none."""
    shape = len(labels), 2 * data.classes
    class_of, side = np.divmod(np.arange(shape[1]), 2)
    own = class_of == labels[:, None]
    single = shown[:, None] >= 0
    lacking = own & single & (side != shown[:, None])
    others = _drawn(data, own, rng)
    parts = (
        (own & ~lacking, data.own),
        (lacking, data.missing),
        (others & ~single, data.other),
        (others & single, data.other_single_view),
    )
    return sum(where * rng.uniform(*ends, size=shape) for where, ends in parts)


def _drawn(data: MultiViewData, own, rng) -> np.ndarray:
    """Return which views of other classes the examples show, `[n, 2k]` bool."""
    candidates = ~own & (rng.random(own.shape) < data.sparsity / data.classes)
    order = np.where(candidates, rng.random(own.shape), np.inf).argsort(axis=1)
    place = order.argsort(axis=1)  # of each view among the candidates of its example
    return candidates & (place < data.most_others)


def _on_patches(data: MultiViewData, sums, rng) -> np.ndarray:
    """Spread each example's views over patches of their own at random places, `[n, P, 2k]`."""
    count, views = sums.shape
    patches = rng.permuted(np.tile(np.arange(data.patches), (count, 1)), axis=1)
    weights = np.zeros((count, data.patches, views))
    example, view = np.nonzero(sums)
    place = (np.cumsum(sums > 0, axis=1) - 1)[example, view]  # 0, 1, ... in each example
    for number in range(data.patches_per_view):
        patch = patches[example, place * data.patches_per_view + number]
        weights[example, patch, view] = sums[example, view] / data.patches_per_view
    return weights


def _planted_task(data: PlantedData, seed: int) -> Task:
    rng = np.random.default_rng([seed, _PLANTED])
    scale = np.float32(1 / np.sqrt(data.dimension))
    planted = rng.standard_normal((data.dimension, data.classes, data.neurons), dtype=np.float32)

    def examples(count: int) -> Examples:
        inputs = scale * rng.standard_normal((count, data.dimension), dtype=np.float32)
        hidden = np.maximum(np.tensordot(inputs, planted, 1), 0)  # [n, k, neurons]
        return Examples(inputs[:, None], hidden.sum(axis=2).argmax(axis=1), np.full(count, -1))

    return Task(None, examples(data.train_examples), examples(data.test_examples))
