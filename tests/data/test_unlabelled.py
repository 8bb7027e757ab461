"""Images without labels beside labelled ones."""

import numpy as np
import pytest
from PIL import Image

from tfdistill.config import (
    AugmentConfig,
    DataConfig,
    DistillationConfig,
    RunConfig,
    TrainingConfig,
)
from tfdistill.config.training import ModelConfig
from tfdistill.data import BatchSettings, load, training_batches
from tfdistill.training import train
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError


@pytest.fixture
def photos(tmp_path, write_image):
    """Two classes of ten flat grey images, and five more without labels: 200, 202, ..., 208."""
    for name, start in (("cat", 0), ("dog", 100)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for level in range(start, start + 20, 2):
            write_image(tmp_path / "photos" / name / f"{level:03}.png", level)
    (tmp_path / "more" / "a" / "b").mkdir(parents=True)
    for level in range(200, 210, 2):
        write_image(tmp_path / "more" / "a" / "b" / f"{level}.png", level)
    return tmp_path


def read(photos, unlabelled, **settings):
    told: list[str] = []
    config = DataConfig(f"folder:{photos / 'photos'}", unlabelled=str(unlabelled), **settings)
    return load(config, told.append), told


def levels(images):
    return images[:, 4, 4, 0].tolist()


def test_they_follow_the_labelled_ones_with_ids_of_their_own(photos):
    data, _ = read(photos, photos / "more", validation=4)
    known = data.train.labels >= 0
    assert known.sum() == 12 and data.unlabelled == 5 and (data.train.labels[12:] == -1).all()
    assert levels(data.train.images[12:]) == [200, 202, 204, 206, 208]
    ids = np.concatenate([data.train.ids, data.validation.ids])
    assert len(set(ids)) == len(ids)
    assert "17 training (5 without labels), 4 validation, 4 test images" in data.summary
    without, _ = read(photos, photos / "more", validation=4, normalize="measured")
    assert data.mean == without.mean  # of the labelled ones, as a network without the others has


def test_a_list_of_paths_names_them_too(photos):
    names = ["more/a/b/204.png", "", str(photos / "more/a/b/200.png"), "more/a/b/204.png"]
    (photos / "list.txt").write_text("\n".join(names))
    data, _ = read(photos, photos / "list.txt", validation=4)
    assert levels(data.train.images[12:]) == [204, 200]


def test_copies_of_test_and_validation_images_are_left_out(photos):
    data, told = read(photos, photos / "photos", validation=4)
    held = {*levels(data.test.images), *levels(data.validation.images)}
    assert not held & set(levels(data.train.images)) and data.unlabelled == 12
    assert any("Left out 8 images without labels" in line for line in told)


def test_what_else_lies_there_is_told(photos):
    (photos / "more" / "notes.md").write_text("x")
    _, told = read(photos, photos / "more", validation=4)
    assert any("notes.md" in line for line in told)


def test_batches_hold_them_with_the_label_minus_one(photos):
    data, _ = read(photos, photos / "more", validation=4)
    settings = BatchSettings(17, augment=AugmentConfig(flip=True), num_classes=2)
    ((images, labels),) = training_batches(data.train, settings, epochs=1).as_numpy_iterator()
    seen = dict(zip(levels(images), labels.tolist(), strict=True))
    assert all((label == -1) == (level >= 200) for level, label in seen.items())


def test_places_that_hold_none_are_refused(photos):
    (photos / "empty").mkdir()
    (photos / "list.txt").write_text("absent.png\n")
    small = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    (photos / "small").mkdir()
    small.save(photos / "small" / "1.png")
    for place, match in (
        ("absent", "which is neither"),
        ("empty", "which holds none"),
        ("absent.txt", "cannot be read"),
        ("list.txt", "which is no file"),
        ("small", "must have the size of the others"),
    ):
        with pytest.raises(UsageError, match=match):
            read(photos, photos / place, validation=4)


@pytest.mark.parametrize(
    "augment, distilled, match",
    [
        ({}, False, "need a teacher"),
        ({"mixup": 0.2}, True, "need a label for each image"),
        ({"cutmix": 1.0}, True, "need a label for each image"),
    ],
)
def test_runs_that_cannot_learn_from_them_are_refused(photos, augment, distilled, match):
    data = DataConfig(
        f"folder:{photos / 'photos'}",
        unlabelled=str(photos / "more"),
        validation=4,
        augment=AugmentConfig(**augment),
    )
    taught = {"teachers": ("teacher",), "distillation": DistillationConfig()} if distilled else {}
    training = TrainingConfig(epochs=1, batch_size=4)
    run = RunConfig("one", "row", 0, data, ModelConfig("cnn2"), training, **taught)
    with pytest.raises(UsageError, match=match):
        train.check(run, Session())
