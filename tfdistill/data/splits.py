"""Stratified parts of a set of labels, the same on every machine and in every process."""

import dataclasses

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.data.dataset import UNLABELLED, Dataset, Examples, Source
from tfdistill.utils import checks

VALIDATION, SUBSET, TEST, TEST_SUBSET = range(4)


def stratified(labels: np.ndarray, count: int, seed: int, stream: int) -> np.ndarray:
    """Choose `count` examples so that every class keeps its share, to within one example.

    Of several labels, every combination keeps its share that has one example or more in it; of the
    rarer ones together, some are chosen at random.

    Args:
        labels: `[n]` int, or `[n, labels]` of 0 and 1.
        count: 0..n.
        seed: >= 0.
        stream: Tells choices with the same seed apart.

    Returns:
        `[count]` int64 places in `labels`, ascending.
    """
    if labels.ndim == 2:
        labels = _combinations(labels, count)
    classes, sizes = np.unique(labels, return_counts=True)
    shares = count * sizes / len(labels)
    taken = np.floor(shares).astype(int)
    taken[np.argsort(taken - shares, kind="stable")[: count - taken.sum()]] += 1
    # RandomState and not Generator: only its numbers are promised never to change.
    random = np.random.RandomState([seed, stream])
    pairs = zip(classes, taken, strict=True)
    chosen = [random.permutation(np.flatnonzero(labels == name))[:size] for name, size in pairs]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _combinations(labels: np.ndarray, count: int) -> np.ndarray:
    """Return numbers of the combinations of labels, `[n]`; -1 of those too rare to have a share."""
    _, numbers, sizes = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    numbers = numbers.reshape(-1)
    return np.where(count * sizes[numbers] >= len(labels), numbers, -1)


def without(chosen: np.ndarray, total: int) -> np.ndarray:
    """Return the places of 0..total - 1 that are not in `chosen` `[n]`, `[total - n]` ascending."""
    return np.setdiff1d(np.arange(total), chosen, assume_unique=True)


def training_and_validation(source: Source, config: DataConfig) -> tuple[Examples, Examples]:
    """Return the examples to train on and those to select with.

    The second do not depend on `config.train_examples`, nor, where the source sets them aside
    itself, on `config.validation`.

    Raises:
        UsageError: A part would be empty, lack a class to train on, or be larger than the set.
    """
    labels = source.train.labels
    kept, validation = np.arange(len(labels)), source.validation
    if validation is None:
        held = stratified(labels, _held_back(config, len(labels)), config.split_seed, VALIDATION)
        kept, validation = without(held, len(labels)), source.train.take(held)
    if config.train_examples is not None:
        kept = _subset(kept, labels, config.train_examples, config.split_seed)
    _check_taught(labels[kept], source.class_names)
    return source.train.take(kept), validation


def _check_taught(labels: np.ndarray, names: tuple[str, ...]) -> None:
    """Raise unless there are training examples of every class; of a label, with and without it."""
    if labels.ndim == 1:
        checks.no_empty_class(np.bincount(labels, minlength=len(names)), names, "training")
        return
    having = labels.sum(axis=0, dtype=np.int64)
    for name, count in zip(names, having, strict=True):
        if count in (0, len(labels)):
            raise checks.UsageError(
                "Every label needs training images with it and others without it. Received: "
                f"{name}, which {count} of {len(labels)} have. Add images or remove the label."
            )


def tested(source: Source, config: DataConfig) -> Examples:
    """Return the examples to test on: all, unless `config.test_examples` is set.

    Raises:
        UsageError: There are fewer.
    """
    total, wanted = len(source.test), config.test_examples
    if wanted is None:
        return source.test
    if wanted > total:
        raise checks.UsageError(
            f"data.test_examples must be at most {total}, the size of the test set. "
            f"Received: data.test_examples={wanted}."
        )
    chosen = stratified(source.test.labels, wanted, config.split_seed, TEST_SUBSET)
    return source.test.take(chosen)


def with_hidden_labels(images: Dataset, config: DataConfig) -> Dataset:
    """Return a data set in which only `config.labelled_examples` training images have a label.

    Raises:
        UsageError: There are fewer, one of each class would not be left, or images have several
            labels.
    """
    wanted, train = config.labelled_examples, images.train
    if wanted is None:
        return images
    if images.multi_label or not images.num_classes <= wanted <= len(train):
        raise checks.UsageError(
            "data.labelled_examples is of images of one class each, at least one of every class "
            f"({images.num_classes}) and at most all ({len(train)}). Received: {wanted}"
            f"{' of images with several labels' * images.multi_label}."
        )
    kept = stratified(train.labels, wanted, config.split_seed, SUBSET)
    labels = np.full_like(train.labels, UNLABELLED)
    labels[kept] = train.labels[kept]
    _check_taught(labels[kept], images.class_names)
    return dataclasses.replace(images, train=dataclasses.replace(train, labels=labels))


def _held_back(config: DataConfig, total: int) -> int:
    value = config.validation
    count = max(1, round(value * total)) if value < 1 else int(value)
    if count >= total or value >= 1 and count != value:
        raise checks.UsageError(
            f"data.validation must be a share below 1 or a whole number below {total}, the size of "
            f"the training set. Received: data.validation={value!r}."
        )
    return count


def _subset(kept: np.ndarray, labels: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    if wanted > len(kept):
        raise checks.UsageError(
            f"data.train_examples must be at most {len(kept)}, what the validation part leaves. "
            f"Received: data.train_examples={wanted}."
        )
    return kept[stratified(labels[kept], wanted, seed, SUBSET)]
