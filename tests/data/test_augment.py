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


def window(top=0, left=0, height=4, width=4, flip=0, angle=0.0):
    return tf.constant([[top, left, height, width, flip, angle]], tf.float32)


def test_the_whole_image_as_a_window_changes_nothing(image):
    shown = augment.render(tf.constant(image), window(), (4, 4)).numpy()
    assert np.array_equal(shown, image)


def test_a_window_of_whole_pixels_is_cut_out_and_mirrored(image):
    part = window(top=1, left=2, height=3, width=2)
    assert np.array_equal(augment.render(tf.constant(image), part, (3, 2)), image[:, 1:, 2:])
    part = window(top=1, left=2, height=3, width=2, flip=1)
    assert np.array_equal(
        augment.render(tf.constant(image), part, (3, 2)), image[:, 1:, 2:][:, :, ::-1]
    )


def test_a_window_sees_nothing_beyond_itself():
    image = np.kron([[10, 20], [30, 40]], np.ones((8, 8))).astype(np.uint8)[None, :, :, None]
    shown = augment.render(tf.constant(image), window(top=8, left=0, height=8, width=8), (16, 16))
    assert shown.dtype == tf.uint8 and (shown.numpy() == 30).all()


def test_two_sizes_of_one_window_show_the_same_place():
    """Pixels that hold their coordinates: at half the size, the mean of two pixels' centres."""
    image = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None], (64, 64))[None, :, :, None]
    part = window(top=10, left=20, height=32, width=16)
    large = augment.render(tf.constant(image), part, (32, 32)).numpy()[0, :, 0, 0]
    small = augment.render(tf.constant(image), part, (8, 8), antialias=True).numpy()[0, :, 0, 0]
    assert np.array_equal(large, np.arange(10, 42))
    middle = 10 + 4 * np.arange(8) + 1.5
    assert np.abs(small[1:-1] - middle[1:-1]).max() <= 0.5


def test_shrinking_with_antialias_averages():
    stripes = np.zeros((1, 8, 8, 1), np.uint8)
    stripes[:, :, ::2] = 200
    part = window(height=8, width=8)
    plain = augment.render(tf.constant(stripes), part, (2, 2)).numpy()
    smooth = augment.render(tf.constant(stripes), part, (2, 2), antialias=True).numpy()
    whole = augment.resize(tf.constant(stripes), 2).numpy()
    assert np.abs(smooth.astype(int) - 100).max() < 15
    assert np.abs(whole.astype(int) - 100).max() < 15
    assert plain.max() == 100 and np.array_equal(smooth, whole)


def test_rotation_by_a_right_angle_turns_pixels(image):
    turned = augment.render(tf.constant(image), window(angle=np.pi / 2), (4, 4), fill="reflect")
    assert np.array_equal(turned[0, :, :, 0], np.rot90(image[0, :, :, 0], 1))


def test_what_lies_outside_a_rotated_image_is_mirrored_or_grey():
    bright = tf.fill([1, 9, 9, 1], tf.constant(250, tf.uint8))
    part = window(height=9, width=9, angle=np.pi / 4)
    assert (augment.render(bright, part, (9, 9), fill="reflect").numpy() == 250).all()
    grey = augment.render(bright, part, (9, 9), fill="constant").numpy()[0, :, :, 0]
    assert grey[0, 0] == augment.GREY and grey[4, 4] == 250


def test_mix_rounds_the_weighted_mean(image):
    mixed = augment.mix(tf.constant(image), tf.zeros_like(image), tf.constant([0.75]))
    assert mixed.numpy()[0, 0, :, 0].tolist() == [1, 2, 2, 3]


def test_resize_doubles_flat_areas():
    images = np.full((2, 4, 4, 3), 77, np.uint8)
    resized = augment.resize(tf.constant(images), 8)
    assert resized.shape == (2, 8, 8, 3)
    assert (resized.numpy() == 77).all()


def test_a_box_is_taken_from_another_image_or_set_to_grey(image):
    images = tf.constant(np.repeat(image, 2, axis=0))
    boxes = tf.constant([[1, 0, 3, 2], [0, 0, 0, 0]])
    pasted = augment.paste(images, 255 - images, boxes).numpy()[..., 0]
    assert pasted[0].tolist() == [
        [1, 2, 3, 4],
        [244, 243, 13, 14],
        [234, 233, 23, 24],
        [31, 32, 33, 34],
    ]
    assert np.array_equal(pasted[1], image[0, :, :, 0])
    grey = augment.paste(images, augment.GREY, boxes).numpy()
    assert grey.dtype == np.uint8 and (grey[0, 1:3, :2] == 128).all()
