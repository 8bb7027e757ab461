"""What runs share: images that are read once, and no more of them than are needed."""

import dataclasses
import io
import logging

import numpy as np
from PIL import Image
from rich.console import Console

from tfdistill.config import AugmentConfig, DataConfig
from tfdistill.training.session import KEPT_DATASETS, Session
from tfdistill.utils.progress import Lines

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


def test_what_is_read_is_told_once(tmp_path, caplog):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(10):
            color = (20 * number, 90 * (name == "cat"), 0)  # no copies of each other
            Image.new("RGB", (8, 8), color).save(tmp_path / name / f"{number}.png")
        (tmp_path / name / "a.heic").touch()
    images = DataConfig(source=f"folder:{tmp_path}", validation=4)
    text = io.StringIO()
    session = Session(Lines(Console(file=text, width=300)))
    session.images(images)
    session.images(dataclasses.replace(images, image_size=4))
    skipped, counts, *more = text.getvalue().splitlines()
    assert skipped.startswith("Skipped 2 (without an image's ending") and not more
    assert counts == (
        f"folder:{tmp_path}: 2 classes; 12 training, 4 validation, 4 test images. Classes: cat, dog"
    )
    # Where nothing is shown, what is left out is logged.
    with caplog.at_level(logging.WARNING):
        Session().images(images)
    assert [record.getMessage() for record in caplog.records] == [skipped]
