import dataclasses
import hashlib

import numpy as np
import pytest

from tfdistill.config import AugmentConfig
from tfdistill.data import (
    BatchSettings,
    Examples,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
    view_batches,
)
from tfdistill.utils.checks import UsageError

CROP = AugmentConfig(pad_crop=2, flip=True)
TWO_VIEWS = AugmentConfig(pad_crop=2, flip=True, views=2, view_seed=5)
EVERYTHING = AugmentConfig(2, True, resized_crop=0.5, rotation=20, cutout=2, mixup=0.4)
BOXES = AugmentConfig(2, True, erasing=0.7, cutmix=1.0)


def settings(batch_size=16, augment=CROP, **others):
    return BatchSettings(batch_size, augment=augment, num_classes=4, **others)


def epochs(examples, batch_settings, count, **others):
    """Images and labels of epochs, each joined: a list of (images, labels)."""
    batches = list(training_batches(examples, batch_settings, epochs=count, **others))
    steps = steps_per_epoch(len(examples), batch_settings.batch_size)
    groups = [batches[at : at + steps] for at in range(0, len(batches), steps)]
    return [tuple(map(np.concatenate, zip(*group, strict=True))) for group in groups]


def places(shown, examples):
    """Find unchanged images among the examples."""
    found = (np.flatnonzero((examples.images == image).all(axis=(1, 2, 3))) for image in shown)
    return [int(place) for (place,) in found]


def joined(batches):
    return np.concatenate(list(batches.as_numpy_iterator()))


def test_every_epoch_shows_each_example_once_with_its_label(numbered_images):
    plain = settings(augment=AugmentConfig())
    shown = epochs(numbered_images, plain, 3)
    assert len(shown) == 3
    orders = [places(images, numbered_images) for images, _ in shown]
    for order, (_, labels) in zip(orders, shown, strict=True):
        assert sorted(order) == list(range(40))
        assert np.array_equal(labels, numbered_images.labels[order])
    assert orders[0] != orders[1]


def test_last_partial_batch_is_kept(numbered_images):
    sizes = [len(y) for _, y in training_batches(numbered_images, settings(), epochs=2)]
    assert sizes == [16, 16, 8] * 2


@pytest.fixture(scope="module", params=[CROP, EVERYTHING, BOXES])
def stream(numbered_images, request):
    """An augmentation, and the three epochs of a training in batches of 16."""
    return request.param, epochs(numbered_images, settings(16, request.param), 3)


@pytest.mark.slow
def test_stream_continues_exactly_from_any_epoch(numbered_images, stream):
    augment, whole = stream
    rest = epochs(numbered_images, settings(augment=augment), 3, first_epoch=2)
    assert len(rest) == 1
    for one, other in zip(rest[0], whole[2], strict=True):
        assert np.array_equal(one, other)


@pytest.mark.slow
def test_batch_size_changes_nothing_about_the_views(numbered_images, stream):
    augment, whole = stream
    other = epochs(numbered_images, settings(7, augment), 2)
    for one, two in zip(whole[:2], other, strict=True):
        assert np.array_equal(one[0], two[0])
        assert np.allclose(one[1], two[1])


VIEWS = {
    "crop": AugmentConfig(resized_crop=0.08, flip=True),
    "antialiased": AugmentConfig(resized_crop=0.3, antialias=True),
    "rotation": AugmentConfig(resized_crop=0.67, rotation=15.0, mixup=0.4),
    "constant": AugmentConfig(rotation=30.0, rotation_fill="constant", flip=True),
    "boxes": AugmentConfig(resized_crop=0.5, erasing=0.7, cutmix=0.4),
}


@pytest.fixture(scope="module")
def many():
    """135 random images of 16 x 16."""
    pixels = np.random.default_rng(0).integers(0, 256, (135, 16, 16, 3), dtype=np.uint8)
    return Examples.numbered(pixels, np.arange(135) % 3)


@pytest.mark.slow
@pytest.mark.parametrize("augment", VIEWS.values(), ids=VIEWS)
def test_a_view_is_the_same_to_the_bit_in_batches_of_any_size(many, augment):
    batches = {
        size: joined(view_batches(many, settings(size, augment, input_size=12), view=3))
        for size in (128, 1, 20)
    }
    assert batches[128].shape == (135, 12, 12, 3)
    for size, images in batches.items():
        assert np.array_equal(images, batches[128]), size


def test_augmentation_in_pixels_needs_images_that_keep_their_size(numbered_images):
    for augment in (AugmentConfig(pad_crop=2), AugmentConfig(cutout=2)):
        with pytest.raises(UsageError, match="in pixels of images that keep their size"):
            training_batches(numbered_images, settings(augment=augment, input_size=9), epochs=1)


@pytest.mark.slow
def test_view_batches_show_what_training_shows(numbered_images, stream):
    augment, whole = stream
    shown, _ = whole[1]
    view = joined(view_batches(numbered_images, settings(9, augment), view=1))
    assert view.shape == numbered_images.images.shape
    assert sorted(map(bytes, shown)) == sorted(map(bytes, view))
    assert not np.array_equal(shown, view)


def test_a_view_does_not_depend_on_the_other_examples(numbered_images):
    part = numbered_images.take(np.arange(10, 20))
    whole = joined(view_batches(numbered_images, settings(), view=5))
    assert np.array_equal(joined(view_batches(part, settings(), view=5)), whole[10:20])


def test_one_augmentation_leaves_the_draws_of_another(numbered_images):
    cropped = joined(view_batches(numbered_images, settings(), view=0))
    both = AugmentConfig(pad_crop=2, flip=True, cutout=1)
    cut = joined(view_batches(numbered_images, settings(augment=both), view=0))
    assert (cropped != cut).any(axis=-1).sum(axis=(1, 2)).max() == 1


def test_views_without_boxes_are_what_they_were_before_there_were_any(numbered_images):
    """The digest is of the version before random erasing and CutMix."""
    augment = AugmentConfig(pad_crop=2, flip=True, cutout=2)
    view = joined(view_batches(numbered_images, settings(augment=augment), view=3))
    assert hashlib.sha256(view.tobytes()).hexdigest()[:16] == "412a97d9fe6ee4d7"


def test_erasing_sets_a_box_of_some_images_to_grey_and_leaves_the_rest(numbered_images):
    plain = joined(view_batches(numbered_images, settings(), view=0))
    erasing = dataclasses.replace(CROP, erasing=0.5)
    erased = joined(view_batches(numbered_images, settings(augment=erasing), view=0))
    changed = (plain != erased).any(axis=-1)
    assert 10 < changed.any(axis=(1, 2)).sum() < 30
    assert (erased[changed] == 128).all()
    for one in changed[changed.any(axis=(1, 2))]:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


@pytest.mark.parametrize("size", [None, 15])
def test_cutmix_labels_have_the_shares_of_the_pixels(numbered_images, size):
    """Each image is of one level of its own, so that pixels tell whose they are."""
    levels = (6 * np.arange(40)).astype(np.uint8)
    flat = np.broadcast_to(levels[:, None, None, None], (40, 6, 6, 3)).copy()
    examples = type(numbered_images)(flat, numbered_images.labels, numbered_images.ids)
    run = settings(augment=AugmentConfig(cutmix=1.0), input_size=size)
    images, labels = epochs(examples, run, 1)[0]
    assert labels.dtype == np.float32
    mixed = 0
    for image, label in zip(images[..., 0], labels, strict=True):
        found, counts = np.unique(image, return_counts=True)
        expected = np.zeros(4)
        np.add.at(expected, examples.labels[found // 6], counts / image.size)
        np.testing.assert_allclose(label, expected, atol=1e-6)
        mixed += len(found) == 2
    assert mixed > 25


def test_seed_changes_order_and_views(numbered_images):
    one, other = (epochs(numbered_images, settings(seed=seed), 1)[0] for seed in (0, 1))
    assert not np.array_equal(one[1], other[1])
    views = [joined(view_batches(numbered_images, settings(seed=seed), view=0)) for seed in (0, 1)]
    assert not np.array_equal(*views)


def test_views_return_after_their_number_in_another_order(numbered_images):
    shown = epochs(numbered_images, settings(augment=TWO_VIEWS), 3)
    assert sorted(map(bytes, shown[2][0])) == sorted(map(bytes, shown[0][0]))
    assert not np.array_equal(shown[2][0], shown[0][0])
    assert sorted(map(bytes, shown[1][0])) != sorted(map(bytes, shown[0][0]))


def test_numbered_views_are_the_same_to_every_run(numbered_images):
    runs = [settings(augment=TWO_VIEWS, seed=seed) for seed in (0, 1)]
    one, other = (epochs(numbered_images, run, 1)[0] for run in runs)
    assert sorted(map(bytes, one[0])) == sorted(map(bytes, other[0]))
    assert not np.array_equal(one[1], other[1])  # in another order


@pytest.mark.slow
def test_a_view_of_some_places_is_that_part_of_the_whole(numbered_images):
    run = settings(augment=EVERYTHING)
    whole = joined(view_batches(numbered_images, run, view=1))
    some = joined(view_batches(numbered_images, run, view=1, places=np.array([7, 3, 39])))
    assert np.array_equal(some, whole[[7, 3, 39]])


def test_mixup_mixes_images_as_it_mixes_labels(numbered_images):
    levels = np.linspace(0, 240, 4, dtype=np.uint8)[numbered_images.labels]
    flat = np.broadcast_to(levels[:, None, None, None], (40, 6, 6, 3)).copy()
    examples = type(numbered_images)(flat, numbered_images.labels, numbered_images.ids)
    images, labels = epochs(examples, settings(augment=AugmentConfig(mixup=1.0)), 1)[0]
    assert labels.dtype == np.float32
    assert np.allclose(labels.sum(axis=1), 1)
    assert ((labels > 0).sum(axis=1) <= 2).all()
    assert (labels.max(axis=1) < 0.99).any()
    expected = labels @ np.linspace(0, 240, 4)
    assert np.abs(images[:, 0, 0, 0] - expected).max() <= 0.51


def test_one_hot_labels(numbered_images):
    plain = epochs(numbered_images, settings(), 1)[0][1]
    soft = epochs(numbered_images, settings(one_hot=True), 1)[0][1]
    assert plain.dtype == np.int32
    assert np.array_equal(soft, np.eye(4, dtype=np.float32)[plain])


def test_soft_labels_need_the_number_of_classes():
    with pytest.raises(UsageError, match="num_classes"):
        BatchSettings(8, one_hot=True)


def test_input_size_is_what_batches_have(numbered_images):
    flip = settings(augment=AugmentConfig(flip=True), input_size=9)
    images = next(iter(training_batches(numbered_images, flip, epochs=1)))[0]
    assert images.shape == (16, 9, 9, 3)
    assert images.dtype == "uint8"
    assert next(iter(evaluation_batches(numbered_images, 8, 9)))[0].shape == (8, 9, 9, 3)


def test_teacher_logits_belong_to_example_and_view(numbered_images):
    views, ids = np.meshgrid(np.arange(2), np.arange(79), indexing="ij")
    logits = np.stack([views, ids, ids, ids], axis=-1).astype(np.float32)
    run = settings(augment=TWO_VIEWS)
    rendered = [joined(view_batches(numbered_images, run, view)) for view in (0, 1)]
    place_of = {number: place for place, number in enumerate(numbered_images.ids)}
    batches = list(training_batches(numbered_images, run, epochs=3, teacher_logits=logits))
    assert len(batches) == 9
    for step, (images, targets) in enumerate(batches):
        view = step // 3 % 2
        known = targets["teacher_logits"].numpy()
        order = [place_of[number] for number in known[:, 1]]
        assert (known[:, 0] == view).all()
        assert np.array_equal(images, rendered[view][order])
        assert np.array_equal(targets["label"], numbered_images.labels[order])


@pytest.mark.parametrize("shape", [(1, 79, 4), (2, 78, 4), (79, 4)])
def test_teacher_logits_must_cover_views_and_examples(numbered_images, shape):
    run, logits = settings(augment=TWO_VIEWS), np.zeros(shape, np.float32)
    with pytest.raises(UsageError, match="at least 2 views and 79 ids"):
        training_batches(numbered_images, run, epochs=2, teacher_logits=logits)


def test_views_without_end_have_no_known_logits(numbered_images):
    with pytest.raises(UsageError, match="Set augment.views"):
        training_batches(
            numbered_images, settings(), epochs=2, teacher_logits=np.zeros((2, 79, 4), np.float32)
        )


def test_evaluation_keeps_images_and_order(numbered_images):
    batches = list(evaluation_batches(numbered_images, 16).as_numpy_iterator())
    images, labels = map(np.concatenate, zip(*batches, strict=True))
    assert np.array_equal(images, numbered_images.images)
    assert np.array_equal(labels, numbered_images.labels)


def test_steps_count_the_partial_batch_and_need_a_full_one():
    assert steps_per_epoch(900, 128) == 8
    assert steps_per_epoch(896, 128) == 7
    with pytest.raises(UsageError, match="100 training examples and batch_size=128"):
        steps_per_epoch(100, 128)


def test_no_epochs_left_is_an_empty_stream(numbered_images):
    assert list(training_batches(numbered_images, settings(), epochs=2, first_epoch=2)) == []
