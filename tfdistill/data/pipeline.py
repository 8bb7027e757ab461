"""Batches to train on, to evaluate on and to run a teacher over: exact, replayable epochs.

An epoch is a permutation of all examples set by (seed, epoch), and shows each in the view whose
number is the epoch's. So a stream that starts at epoch k equals the rest of one that started at 0.
"""

import weakref
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfdistill.config import AugmentConfig
from tfdistill.data import augment, views
from tfdistill.data.dataset import UNLABELLED, Examples, Tensors
from tfdistill.data.encoded import EncodedImages
from tfdistill.utils import checks

# Of the functions here none has Python's control flow on tensors, which AutoGraph would convert:
# looking for it costs each process one or two seconds.
as_written = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class BatchSettings:
    """How examples become batches.

    Args:
        batch_size: Images in a batch; the last of an epoch may be smaller.
        seed: Of the order and of the views.
        augment: Random augmentation of the images.
        num_classes: Needed for mixup, CutMix and `one_hot`, whose labels are `[b, num_classes]`
            float32.
        input_size: Side in pixels that augmented images are brought to; None keeps theirs.
        one_hot: Give labels as distributions even without mixing. Several labels, which are 0 and 1
            already, become float32.
        labelled: Images of each batch that have a label; the others have none, and each kind has
            passes of its own, whose last partial batch is left out. None: as they come.
    """

    batch_size: int
    seed: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    num_classes: int | None = None
    input_size: int | None = None
    one_hot: bool = False
    labelled: int | None = None

    def __post_init__(self):
        checks.count("batch_size", self.batch_size)
        checks.count("seed", self.seed, minimum=0)
        if self.soft_labels:
            checks.count("num_classes", self.num_classes)

    @property
    def soft_labels(self) -> bool:
        """Whether labels are distributions over the classes."""
        return self.one_hot or self.augment.mixes


class TeacherLogits(Protocol):
    """An array `[views, ids, classes]`, or what answers to `[view, ids]` as one does."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def training_batches(
    examples: Examples,
    settings: BatchSettings,
    *,
    epochs: int,
    first_epoch: int = 0,
    steps: int | None = None,
    teacher_logits: TeacherLogits | None = None,
    teacher_view: str = "same",
) -> tf.data.Dataset:
    """Return the batches of epochs `first_epoch` .. `epochs` - 1, one after the other.

    Give `fit` this with `steps_per_epoch=steps_per_epoch(...)` and `shuffle=False`.

    Args:
        examples: All are seen once in every pass.
        settings: Batch size, seed and augmentation.
        epochs: Number of epochs of the whole training, not of the rest.
        first_epoch: Where to start.
        steps: Batches of an epoch; None: an epoch is a pass. Passes follow each other whatever an
            epoch's length, and the number of the pass is that of the view.
        teacher_logits: `[views, largest id + 1, classes]` floats, an array or, as a `TeacherCache`
            gives, what has a `shape` and answers to `[view, ids]` with `[b, classes]`.
        teacher_view: Which view's logits go with an image: those of the `same` view, of the only
            one that there is (`fixed`), or of another one (`independent`), of every other one in
            turn as the views come round again.

    Returns:
        A `tf.data.Dataset` of (images, labels): `[b, h, w, c]` uint8 and `[b]` int32 (of
        several labels `[b, labels]` uint8), or `[b, num_classes]` float32 for soft labels. With
        `teacher_logits`, of (images, {"label": labels, "teacher_logits": `[b, classes]` float32}).

    Raises:
        UsageError: `teacher_logits` lack a view or an example, or augmentation in pixels beside
            another input size.

    Example:
        >>> settings = BatchSettings(batch_size=64, augment=AugmentConfig(flip=True))
        >>> batches = training_batches(data.train, settings, epochs=10)
        >>> steps = steps_per_epoch(len(data.train), 64)
        >>> model.fit(batches, epochs=10, steps_per_epoch=steps, shuffle=False)
    """
    checks.count("epochs", epochs, minimum=first_epoch)
    check_pixel_units(settings, examples.images.shape[1:3])
    store = examples.tensors
    num_views = settings.augment.num_views
    if teacher_logits is not None:
        needed = 1 if teacher_view == "fixed" else num_views
        _check_logits(teacher_logits.shape, needed, store.num_ids)

    def one_pass(number: tf.Tensor, pool: _Pool) -> tf.data.Dataset:
        view = number % num_views if num_views else number
        render = _renderer(store, settings, view)
        order = views.order(settings.seed, number, len(pool.places))
        order = tf.gather(tf.constant(pool.places), order)[: pool.steps * pool.size]
        if teacher_logits is None:
            return _in_batches(order, pool.size, render, store.workers)

        def batch(places: tf.Tensor):
            images, labels = render(places)
            seen = _seen_by_teacher(teacher_view, number, num_views)
            known = _rows_of(teacher_logits, seen, tf.gather(store.ids, places))
            return images, {"label": labels, "teacher_logits": known}

        return _in_batches(order, pool.size, batch, store.workers)

    steps = steps or steps_per_epoch(len(examples), settings.batch_size)
    streams = [
        _passes(one_pass, pool, first_epoch * steps, epochs * steps)
        for pool in _pools(examples, settings)
    ]
    batches = streams[0]
    if len(streams) > 1:
        batches = tf.data.Dataset.zip(*streams).map(
            as_written(
                lambda *parts: tf.nest.map_structure(lambda *each: tf.concat(each, 0), *parts)
            )
        )
    batches = _served(batches)
    batches.teacher_logits = teacher_logits  # `_rows_of` does not keep them
    return batches


@dataclass(frozen=True, eq=False)
class _Pool:
    """Examples that have passes of their own.

    Args:
        places: `[n]` int64, theirs among all.
        size: How many of them a batch has.
        steps: Batches of a pass.
    """

    places: np.ndarray
    size: int
    steps: int


def _pools(examples: Examples, settings: BatchSettings) -> list[_Pool]:
    """Return the pools of examples from which each batch is made."""
    places = np.arange(len(examples))
    if settings.labelled is None:
        size = settings.batch_size
        return [_Pool(places, size, steps_per_epoch(len(examples), size))]
    has_label = examples.labels != UNLABELLED
    sizes = settings.labelled, settings.batch_size - settings.labelled
    pools = []
    for mask, size, kind in zip((has_label, ~has_label), sizes, ("with", "without"), strict=True):
        if mask.sum() < size:
            raise checks.UsageError(
                f"A batch of {settings.batch_size} shall have {size} images {kind} a label. "
                f"Received: {mask.sum()} such images. Change training.labelled_share."
            )
        pools.append(_Pool(places[mask], size, mask.sum() // size))
    return pools


def _passes(one_pass, pool: _Pool, start: int, stop: int) -> tf.data.Dataset:
    """Return the batches `start` .. `stop` - 1 of a pool, counted through all of its passes."""
    first, last = start // pool.steps, -(-stop // pool.steps)
    passes = tf.data.Dataset.range(first, last).flat_map(
        as_written(lambda number: one_pass(number, pool))
    )
    return passes.skip(start - first * pool.steps).take(stop - start)


def view_batches(
    examples: Examples, settings: BatchSettings, view: int, places: np.ndarray | None = None
) -> tf.data.Dataset:
    """Return the images of one view, `[b, h, w, c]` uint8, in the order of the examples.

    They equal, to the bit, what `training_batches` shows in an epoch of this view.

    Args:
        examples: All of the training set: with mixup and CutMix, the others decide with whom one
            is mixed.
        settings: Batch size, seed and augmentation.
        view: View number, >= 0.
        places: `[m]` places of the examples to show; None means all.
    """
    check_pixel_units(settings, examples.images.shape[1:3])
    store = examples.tensors
    wanted = np.arange(store.count) if places is None else np.asarray(places)
    # On the host also where there is a GPU, as the functions of a pipeline are.
    with tf.device("CPU"):
        render = _renderer(store, settings, tf.constant(view, tf.int64))
        ordered = tf.constant(wanted, tf.int64)
    return _served(
        _in_batches(ordered, settings.batch_size, lambda part: render(part)[0], store.workers)
    )


def evaluation_batches(
    examples: Examples, batch_size: int, input_size: int | None = None
) -> tf.data.Dataset:
    """Return unchanged (images `[b, h, w, c]` uint8, their labels), in their order."""
    store, key = examples.tensors, (batch_size, input_size)
    if key not in store.unchanged:
        render = _renderer(store, BatchSettings(batch_size, input_size=input_size), view=0)
        with tf.device("CPU"):
            places = tf.range(store.count, dtype=tf.int64)
        batches = _in_batches(places, batch_size, render, store.workers)
        store.unchanged[key] = _served(batches)
    return store.unchanged[key]


def distributions(labels: tf.Tensor, num_classes: int | None) -> tf.Tensor:
    """Return labels, `[b]` or `[b, labels]` of 0 and 1, as `[b, num_classes]` float32."""
    if labels.shape.rank == 2:
        return tf.cast(labels, tf.float32)
    return tf.one_hot(labels, num_classes)


def check_pixel_units(settings: BatchSettings, sides: tuple[int | None, ...]) -> None:
    """Raise if augmentation in pixels would be of images that networks see at another size.

    Args:
        settings: Augmentation and input size.
        sides: Height and width of the stored images; None where they differ.

    Raises:
        UsageError: `pad_crop` or `cutout` beside another input size.
    """
    size = settings.input_size
    seen = (size, size) if size else tuple(sides)
    if (settings.augment.pad_crop or settings.augment.cutout) and seen != tuple(sides):
        stored = "several sizes" if None in sides else f"{sides[0]} x {sides[1]}"
        raise checks.UsageError(
            "augment.pad_crop and augment.cutout are in pixels of images that keep their size. "
            f"Received: images of {stored} and data.input_size={size}. Set "
            "augment.resized_crop instead, or data.image_size in place of data.input_size."
        )


def steps_per_epoch(examples_count: int, batch_size: int) -> int:
    """Return the number of batches of an epoch, the last partial one included.

    Raises:
        UsageError: There are fewer examples than one batch holds.
    """
    checks.enough_examples(examples_count, batch_size)
    return -(-examples_count // batch_size)


def _renderer(store: Tensors, settings: BatchSettings, view: tf.Tensor):
    """Return the function that makes a batch of `view` from the places of its examples."""
    augmentation = settings.augment
    seed = settings.seed if augmentation.views is None else augmentation.view_seed
    show = _shower(store, settings)
    draws = views.draws(seed, view, store.num_ids) if augmentation.active else None
    windows = None
    if augmentation.resized_crop or augmentation.rotation:
        windows = views.windows(seed, view, store.num_ids, augmentation, _sides(store))
    erased, seen = None, _seen_sides(store, settings)
    if augmentation.erasing:
        erased = views.erasing_boxes(seed, view, store.num_ids, augmentation.erasing, seen)

    def augmented(places: tf.Tensor) -> tf.Tensor:
        ids = tf.gather(store.ids, places)
        images = show(places, None if windows is None else tf.gather(windows, ids))
        if draws is None:
            return images
        drawn = tf.gather(draws, ids)
        images = augment.apply(images, drawn, augmentation, flipped=windows is not None)
        if erased is not None:
            images = augment.paste(images, augment.GREY, tf.gather(erased, ids))
        return images

    def labelled(places: tf.Tensor) -> tf.Tensor:
        labels = tf.gather(store.labels, places)
        return distributions(labels, settings.num_classes) if settings.soft_labels else labels

    def plain(places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return augmented(places), labelled(places)

    if not augmentation.mixes:
        return plain
    partners = views.partners(seed, view, store.count)
    boxes = None
    if augmentation.cutmix:
        boxes = views.cutmix_boxes(seed, view, store.num_ids, augmentation.cutmix, seen)
        weights = views.kept(boxes, seen)
    else:
        weights = views.weights(seed, view, store.num_ids, augmentation.mixup)

    def mixed(places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ids, other = tf.gather(store.ids, places), tf.gather(partners, places)
        weight = tf.gather(weights, ids)
        images, others = augmented(places), augmented(other)
        if boxes is None:
            images = augment.mix(images, others, weight)
        else:
            images = augment.paste(images, others, tf.gather(boxes, ids))
        labels = weight[:, None] * labelled(places) + (1 - weight)[:, None] * labelled(other)
        return images, labels

    return mixed


def _sides(store: Tensors) -> views.Sides:
    """Return height and width of the images; by their ids where they differ."""
    height, width = store.images.shape[1:3]
    if height is not None and width is not None:
        return height, width
    assert isinstance(store.images, EncodedImages)
    sides = np.ones((2, store.num_ids), np.int32)
    sides[:, store.ids.numpy()] = store.images.sides.T
    return sides[0], sides[1]


def _seen_sides(store: Tensors, settings: BatchSettings) -> tuple[int, int]:
    """Return height and width at which networks see the images; 0 where nothing tells them."""
    height, width = store.images.shape[1:3]
    return settings.input_size or int(height or 0), settings.input_size or int(width or 0)


def _shower(store: Tensors, settings: BatchSettings):
    """Return the function from places (`[b]`) and windows, or None, to images at their size."""
    images, config, size = store.images, settings.augment, settings.input_size
    height, _, channels = images.shape[1:]
    sides = _seen_sides(store, settings)
    if isinstance(images, EncodedImages) and size is None:
        images.check_sizes()
    fill = config.rotation_fill if config.rotation else None
    if not isinstance(images, EncodedImages):

        def gathered(places: tf.Tensor, windows: tf.Tensor | None) -> tf.Tensor:
            shown = tf.gather(images, places)
            if windows is None:
                return augment.resize(shown, size)
            return augment.render(shown, windows, sides, config.antialias, fill)

        return gathered

    def one(row: dict[str, tf.Tensor]) -> tf.Tensor:
        window = row.get("window")
        if window is None:
            return augment.resize(images.whole(row)[None], size)[0]
        if fill:
            return augment.turned(images.whole(row), window, sides, fill)
        part = images.part(row, augment.box(window))
        return augment.cropped(part, window, sides, config.antialias)

    def decoded(places: tf.Tensor, windows: tf.Tensor | None) -> tf.Tensor:
        rows = images.encoded(places)
        if windows is not None:
            rows["window"] = windows
        return tf.map_fn(one, rows, fn_output_signature=tf.TensorSpec((*sides, channels), tf.uint8))

    return decoded


def _in_batches(places: tf.Tensor, size: int, render, workers: int) -> tf.data.Dataset:
    steps = -(-places.shape[0] // size)
    return tf.data.Dataset.range(0, steps * size, size).map(
        as_written(lambda start: render(places[start : start + size])),
        num_parallel_calls=workers,
        deterministic=True,
    )


def _served(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    # With it on, every end of fit or evaluate may wait for a sleeping thread of the autotuner.
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)


def _rows_of(teacher_logits: TeacherLogits, view: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    # TensorFlow keeps every `read` as long as the process lives, and with it would keep the logits
    # and the open file that they are read from.
    logits = weakref.ref(teacher_logits)

    def read(number: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        stored = logits()
        assert stored is not None  # the batches hold it
        return np.asarray(stored[number, wanted], np.float32)

    rows = tf.numpy_function(read, [view, ids], tf.float32)
    return tf.ensure_shape(rows, (None, teacher_logits.shape[-1]))


def _seen_by_teacher(teacher_view: str, epoch: tf.Tensor, num_views: int | None) -> tf.Tensor:
    """Return the number of the view whose logits go with the images of an epoch."""
    if teacher_view == "fixed" or num_views is None:  # None is refused before
        return tf.zeros_like(epoch)
    if teacher_view == "same":
        return epoch % num_views
    others = 1 + (epoch // num_views) % (num_views - 1)
    return (epoch + others) % num_views


def _check_logits(shape: tuple[int, ...], num_views: int | None, num_ids: int) -> None:
    if num_views is None:
        raise checks.UsageError(
            "Teacher logits of augmented images need a number of views. Received: views=None. Set "
            "augment.views, for example to 10."
        )
    if len(shape) != 3 or shape[0] < num_views or shape[1] < num_ids:
        raise checks.UsageError(
            f"teacher_logits must be [views, ids, classes] with at least {num_views} views and "
            f"{num_ids} ids. Received: {list(shape)}."
        )
