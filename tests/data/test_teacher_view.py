"""Which view of an image the teacher's stored logits are of: the student's own, none, another."""

import dataclasses

import numpy as np
import pytest

from tfdistill import data
from tfdistill.config import (
    AugmentConfig,
    CacheConfig,
    DataConfig,
    DistillationConfig,
    FeatureConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from tfdistill.data import BatchSettings, training_batches, view_batches
from tfdistill.training import evaluation, teacher_logits, train
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError

VIEWS = 4
CROPPED = AugmentConfig(pad_crop=2, flip=True, views=VIEWS)
DIGITS = DataConfig(train_examples=64, validation=100, test_examples=100, augment=CROPPED)
SHORT = TrainingConfig(epochs=1, batch_size=32, learning_rate=0.01, select="last")
NETWORK = ModelConfig("cnn2", width=0.125)


def marked_logits(views):
    """`[views, ids, 2]` that tell the view and the id that they are of."""
    numbers = np.meshgrid(np.arange(views), np.arange(79), indexing="ij")
    return np.stack(numbers, axis=-1).astype(np.float32)


def seen(examples, teacher_view, epochs, change=CROPPED, first_epoch=0):
    """Return for every epoch the view that the teacher's logits are of; ids are checked."""
    settings = BatchSettings(40, augment=change, num_classes=4)
    logits = marked_logits(1 if teacher_view == "fixed" else change.num_views)
    batches = training_batches(
        examples,
        settings,
        epochs=epochs,
        first_epoch=first_epoch,
        teacher_logits=logits,
        teacher_view=teacher_view,
    )
    found = []
    for epoch, (images, targets) in enumerate(batches, start=first_epoch):
        views, ids = targets["teacher_logits"].numpy().astype(int).T
        assert sorted(ids) == sorted(examples.ids)
        places = [examples.ids.tolist().index(number) for number in ids]
        rendered = view_batches(examples, settings, epoch % change.num_views, np.array(places))
        assert np.array_equal(images, np.concatenate(list(rendered)))
        found.append(set(views.tolist()))
    return found


@pytest.mark.slow
def test_a_fixed_teacher_answers_once_for_all_views(numbered_images):
    assert seen(numbered_images, "fixed", 6) == [{0}] * 6


@pytest.mark.slow
def test_a_teacher_of_the_same_view_sees_what_the_student_sees(numbered_images):
    assert seen(numbered_images, "same", 6) == [{0}, {1}, {2}, {3}, {0}, {1}]


@pytest.mark.slow
def test_an_independent_teacher_sees_every_other_view_in_turn(numbered_images):
    rounds = VIEWS - 1
    found = [view for (view,) in seen(numbered_images, "independent", VIEWS * rounds)]
    for own in range(VIEWS):
        others = {found[own + VIEWS * turn] for turn in range(rounds)}
        assert others == set(range(VIEWS)) - {own}


@pytest.mark.slow
def test_an_independent_teacher_goes_on_where_it_stopped(numbered_images):
    whole = seen(numbered_images, "independent", 9)
    assert seen(numbered_images, "independent", 9, first_epoch=5) == whole[5:]


def run(name, teacher_view, **changes):
    student = RunConfig(
        name,
        "student",
        1,
        DIGITS,
        NETWORK,
        SHORT,
        teachers=("teacher",),
        distillation=DistillationConfig(1.0, 4.0, teacher_view=teacher_view),
        cache=CacheConfig(),
    )
    return dataclasses.replace(student, **changes)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study folder with a finished teacher."""
    folder = tmp_path_factory.mktemp("study")
    train.run(RunConfig("teacher", "teacher", 0, DIGITS, NETWORK, SHORT), folder)
    return folder


def stored(study, config):
    cache = teacher_logits.of_run(config, data.load(DIGITS), study)
    return cache.logits(), cache.shape


@pytest.mark.slow
def test_stored_logits_of_a_fixed_teacher_are_of_the_unchanged_images(study):
    logits, shape = stored(study, run("fixed", "fixed"))
    assert shape[0] == 1
    images = data.load(DIGITS)
    teacher = evaluation.load_network(study, "teacher", images)
    expected = teacher.predict(images.train.images, verbose=0)
    np.testing.assert_allclose(logits[0, images.train.ids], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_same_and_independent_views_share_a_cache_that_a_fixed_teacher_does_not(study):
    images = data.load(DIGITS)
    folders = [
        teacher_logits.folder_of(run("x", view), images, study)
        for view in ("same", "independent", "fixed")
    ]
    assert folders[0] == folders[1] != folders[2]
    assert stored(study, run("x", "independent"))[1][0] == VIEWS


def test_only_students_of_the_same_teacher_view_are_trained_together():
    keys = {train.together_key(run("x", view)) for view in ("same", "independent", "fixed")}
    assert len(keys) == 3 and "" not in keys


@pytest.mark.slow
def test_the_views_teach_different_students_of_the_same_start(study, eagerly):
    session = Session()
    found = {
        view: train.run(run(view, view), study, session)
        for view in ("same", "fixed", "independent")
    }
    # The same initial weights and images, but other answers of the teacher, from the first epoch.
    assert len({record.weights["last"] for record in found.values()}) == 3
    losses = [record.history["soft_loss"][0] for record in found.values()]
    assert len(set(losses)) == 3


@pytest.mark.parametrize(
    "teacher_view, changes, needed",
    [
        ("fixed", {"cache": None}, "needs a cache."),
        ("independent", {"cache": None}, "needs a cache and data.augment.views of 2 or more."),
        ("independent", {"augment": AugmentConfig(flip=True)}, "views of 2 or more"),
        ("independent", {"augment": AugmentConfig(flip=True, views=1)}, "views of 2 or more"),
        ("fixed", {"augment": AugmentConfig(mixup=0.2, views=4)}, "images that are not mixed"),
        ("independent", {"augment": AugmentConfig(cutmix=1.0, views=4)}, "that are not mixed"),
        # Views that change nothing are only one.
        ("independent", {"augment": AugmentConfig(views=4)}, "views of 2 or more"),
    ],
)
def test_other_views_without_stored_logits_are_refused(teacher_view, changes, needed):
    if "augment" in changes:
        changes = {"data": dataclasses.replace(DIGITS, augment=changes["augment"])}
    with pytest.raises(UsageError, match=needed):
        train.check(run("refused", teacher_view, **changes), Session())


@pytest.mark.slow
def test_a_run_without_the_check_before_is_refused_too(study):
    with pytest.raises(UsageError, match="needs a cache"):
        train.run(run("uncached", "fixed", cache=None), study)


def test_a_fixed_teacher_needs_no_number_of_views():
    endless = dataclasses.replace(DIGITS, augment=AugmentConfig(pad_crop=2))
    train.check(run("endless", "fixed", data=endless), Session())


def test_feature_losses_run_the_teacher_on_the_students_view():
    with pytest.raises(UsageError, match="Leave one of them out"):
        DistillationConfig(teacher_view="fixed", features=[FeatureConfig()])


def test_an_unknown_view_is_refused():
    with pytest.raises(UsageError, match="teacher_view must be one of: same, fixed, independent"):
        DistillationConfig(teacher_view="other")
