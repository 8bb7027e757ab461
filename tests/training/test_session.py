"""What runs share: images that are read once, and no more of them than are needed."""

import dataclasses

import numpy as np

from tfdistill.config import AugmentConfig, DataConfig
from tfdistill.training.session import KEPT_DATASETS, Session

DIGITS = DataConfig(train_examples=64, validation=50, test_examples=50)


def test_images_are_read_once_whatever_the_augmentation():
    session = Session()
    first = session.images(DIGITS)
    flipped = dataclasses.replace(DIGITS, augment=AugmentConfig(flip=True))
    assert session.images(flipped) is first
    assert session.images(dataclasses.replace(DIGITS, validation=10)) is not first


def test_a_few_sets_of_images_are_kept():
    session = Session()
    first = session.images(DIGITS)
    for number in range(KEPT_DATASETS):
        session.images(dataclasses.replace(DIGITS, split_seed=number))
    again = session.images(DIGITS)
    assert again is not first
    assert np.array_equal(again.train.images, first.train.images)
