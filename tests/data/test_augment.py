import numpy as np
import pytest
import tensorflow as tf

from tfdistill.config import AugmentConfig
from tfdistill.data import augment, views

MIDDLE = 0.5


def draws(count=1, **columns):
    """A table of draws that are one half, but for the named columns."""
    table = np.full((count, len(views.COLUMNS)), MIDDLE, np.float32)
    for name, value in columns.items():
        table[:, views.COLUMNS.index(name)] = value
    return tf.constant(table)


def apply(images, table, **settings):
    return augment.apply(tf.constant(images), table, AugmentConfig(**settings)).numpy()


@pytest.fixture
def image():
    """One image whose pixel at (y, x) is 10 y + x + 1."""
    return (10 * np.arange(4)[:, None] + np.arange(4) + 1).astype(np.uint8)[None, :, :, None]


def test_padded_crop_takes_the_drawn_window(image):
    shifted = apply(image, draws(crop_y=0.0, crop_x=0.99), pad_crop=1)[0, :, :, 0]
    assert shifted.tolist() == [[0, 0, 0, 0], [2, 3, 4, 0], [12, 13, 14, 0], [22, 23, 24, 0]]


def test_centre_of_the_padding_changes_nothing(image):
    assert np.array_equal(apply(image, draws(), pad_crop=2), image)


def test_every_shift_is_drawn_equally_often(image):
    ys = np.array([0.0, 0.19, 0.2, 0.39, 0.4, 0.59, 0.6, 0.79, 0.8, 0.999], np.float32)
    images = np.repeat(image, len(ys), axis=0)
    table = draws(len(ys), crop_y=ys)
    corner = apply(images, table, pad_crop=2)[:, 0, 0, 0]
    assert corner.tolist() == [0, 0, 0, 0, 1, 1, 11, 11, 21, 21]


def test_flip_mirrors_below_one_half_only(image):
    images = np.repeat(image, 2, axis=0)
    table = draws(2, flip=[0.49, 0.5])
    flipped = apply(images, table, flip=True)
    assert np.array_equal(flipped[0], image[0, :, ::-1])
    assert np.array_equal(flipped[1], image[0])


def test_flip_and_crop_together_flip_the_crop(image):
    table = draws(crop_y=0.0, crop_x=0.0, flip=0.0)
    both = apply(image, table, pad_crop=1, flip=True)
    assert np.array_equal(both, apply(image, table, pad_crop=1)[:, :, ::-1])


def test_cutout_is_grey_and_clipped_at_the_border(image):
    cut = apply(image, draws(cutout_y=0.0, cutout_x=0.74), cutout=2)[0, :, :, 0]
    assert np.argwhere(cut == augment.GREY).tolist() == [[0, 1], [0, 2]]
    cut = apply(image, draws(cutout_y=0.5, cutout_x=0.5), cutout=3)[0, :, :, 0]
    assert (cut == augment.GREY).sum() == 9
    assert cut[0, 0] == 1


def test_whole_resized_crop_without_turn_changes_nothing(image):
    table = draws(area=0.0, aspect=0.5)
    assert np.array_equal(apply(image, table, resized_crop=1.0), image)


def test_resized_crop_enlarges_the_drawn_quarter():
    image = np.kron([[10, 20], [30, 40]], np.ones((8, 8))).astype(np.uint8)[None, :, :, None]
    table = draws(area=0.0, window_y=0.999999, window_x=0.0)
    crop = apply(image, table, resized_crop=0.25)
    assert crop.dtype == np.uint8
    assert (crop[0, 1:, :-1] == 30).all()


def test_rotation_by_a_right_angle_turns_pixels(image):
    turned = apply(image, draws(angle=1.0), rotation=90.0)
    assert np.array_equal(turned[0, :, :, 0], np.rot90(image[0, :, :, 0], 1))


def test_no_turn_is_drawn_in_the_middle(image):
    assert np.array_equal(apply(image, draws(), rotation=45.0), image)


def test_mix_rounds_the_weighted_mean(image):
    mixed = augment.mix(tf.constant(image), tf.zeros_like(image), tf.constant([0.75]))
    assert mixed.numpy()[0, 0, :, 0].tolist() == [1, 2, 2, 3]


def test_resize_doubles_flat_areas():
    images = np.full((2, 4, 4, 3), 77, np.uint8)
    resized = augment.resize(tf.constant(images), 8)
    assert resized.shape == (2, 8, 8, 3)
    assert (resized.numpy() == 77).all()
