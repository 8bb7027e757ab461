"""Teacher and student see the same part of an image, each at its own size."""

import dataclasses

import numpy as np
import pytest

from tests.conftest import untraced
from tfdistill import data
from tfdistill.config import (
    AugmentConfig,
    CacheConfig,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
)
from tfdistill.data import BatchSettings, view_batches
from tfdistill.data.dataset import Examples
from tfdistill.training import evaluation, runner, teacher_logits, train
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError

VIEWS = AugmentConfig(resized_crop=0.3, flip=True, views=2)
STUDY = StudyConfig(
    study="single",
    seeds=[0],
    data=DataConfig(validation=64, train_examples=64, test_examples=64, augment=VIEWS),
    teacher=ModelConfig("cnn2", width=0.25, input_size=16),
    student=ModelConfig("cnn2", width=0.125),
    training=TrainingConfig(epochs=1, batch_size=32),
)


def coordinates(count=40, side=64):
    """Images whose pixels are their own coordinates, four grey levels each: y, x and 0."""
    y, x = np.mgrid[:side, :side] * 4
    image = np.stack([y, x, 0 * x], axis=-1).astype("uint8")
    return Examples.numbered(np.repeat(image[None], count, axis=0), np.zeros(count, "int32"))


def rendered(examples, size, augment=VIEWS):
    settings = BatchSettings(16, seed=3, augment=augment, input_size=size)
    batches = list(view_batches(examples, settings, view=1))
    return np.concatenate(batches).astype("float64")[..., :2]


@pytest.mark.parametrize("antialias", [False, True])
def test_the_windows_agree_to_half_a_pixel_of_the_student(antialias):
    examples = coordinates()
    augment = dataclasses.replace(VIEWS, antialias=antialias)
    teacher, student = (rendered(examples, size, augment) for size in (64, 16))
    averaged = teacher.reshape(-1, 16, 4, 16, 4, 2).mean(axis=(2, 4))
    # Half a pixel of the student is at most 2 of the stored ones, or 8 grey levels.
    inner = slice(1, -1)  # at the border, a pixel beyond the window is the window's last
    distance = np.abs(averaged - student)[:, inner, inner]
    assert distance.max() <= 8
    mirrored = np.abs(averaged - student[:, :, ::-1])[:, inner, inner]
    assert (mirrored.max(axis=(1, 2, 3)) > 8).all()
    shifted = np.abs(averaged[:, :, 1:] - student[:, :, :-1])[:, inner, inner]
    assert shifted.mean() > 2 * distance.mean()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with untraced():
        return folder, {record.name: record for record in runner.run_study(STUDY, folder)}


@pytest.mark.slow
def test_each_network_takes_its_own_size(study):
    folder, found = study
    images = data.load(STUDY.data)
    shapes = {
        name: evaluation.load_network(folder, name, images).input_shape[1:3] for name in found
    }
    assert shapes == {"teacher": (16, 16), "alone-0": (8, 8), "distilled-0": (8, 8)}
    assert 0 <= found["distilled-0"].figures["test_agreement"] <= 1


@pytest.mark.slow
def test_the_teachers_answers_are_of_its_own_size_and_serve_any_student(study):
    folder, _ = study
    runs = {run.name: run for run in runner.plan(STUDY)}
    images = data.load(STUDY.data)
    run = runs["distilled-0"]
    stored = teacher_logits.of_run(run, images, folder).logits()
    teacher = evaluation.load_network(folder, "teacher", images)
    settings = BatchSettings(32, augment=VIEWS, input_size=16)
    for view in range(2):
        shown = np.concatenate(list(view_batches(images.train, settings, view)))
        assert shown.shape[1:3] == (16, 16)
        expected = teacher.predict(shown, verbose=0)
        np.testing.assert_allclose(stored[view, images.train.ids], expected, rtol=1e-4, atol=1e-4)
    smaller = dataclasses.replace(STUDY, student=ModelConfig("cnn2", input_size=6))
    others = {other.name: other for other in runner.plan(smaller)}
    place = teacher_logits.folder_of(run, images, folder)
    assert teacher_logits.folder_of(others["distilled-0"], images, folder) == place


def test_a_teacher_of_another_size_must_have_stored_logits():
    live = dataclasses.replace(STUDY, cache=None)
    with pytest.raises(UsageError, match="teaches by stored logits. Received: .* 16 and None"):
        for run in runner.plan(live):
            train.check(run, Session())
    endless = dataclasses.replace(VIEWS, views=None)
    changed = dataclasses.replace(STUDY, data=dataclasses.replace(STUDY.data, augment=endless))
    with pytest.raises(UsageError, match="Set cache and data.augment.views"):
        for run in runner.plan(changed):
            train.check(run, Session())
    fixed = DistillationConfig(teacher_view="fixed")
    for run in runner.plan(dataclasses.replace(changed, distillation=fixed)):
        train.check(run, Session())


def test_pixels_of_a_crop_are_of_images_that_keep_their_size():
    padded = dataclasses.replace(STUDY.data, augment=AugmentConfig(pad_crop=1))
    with pytest.raises(UsageError, match="in pixels of images that keep their size"):
        for run in runner.plan(dataclasses.replace(STUDY, data=padded, cache=CacheConfig())):
            train.check(run, Session())


def test_networks_that_are_averaged_see_one_size():
    runs = [
        dataclasses.replace(run, name=name, teachers=())
        for run, name in zip(runner.plan(STUDY)[:2], ("large", "small"), strict=True)
    ]
    seen = {run.name: run.data.input_size for run in runs}
    average = dataclasses.replace(runs[0], name="both", model=None, members=("large", "small"))
    with pytest.raises(UsageError, match="see images at one size. Received: 16, None"):
        runner._with_size_of_teachers(average, seen)
