"""Images without labels in a training: hidden labels, their share of a batch, steps, confidence."""

import dataclasses

import numpy as np
import pytest

from tfdistill import data
from tfdistill.config import (
    AugmentConfig,
    CacheConfig,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from tfdistill.data import BatchSettings, training_batches
from tfdistill.training import teacher_logits, train
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError
from tfdistill.utils.progress import Silent

SOME = DataConfig(validation=100, labelled_examples=60)
STEPS = TrainingConfig(
    epochs=3, steps=24, batch_size=20, labelled_share=0.25, learning_rate=0.01, select="last"
)
NETWORK = ModelConfig("cnn2", width=0.125)


@pytest.fixture(scope="module")
def digits():
    return data.load(SOME)


def test_the_labels_that_stay_are_those_of_a_training_on_so_many(digits):
    few = data.load(DataConfig(validation=100, train_examples=60)).train
    has_label = digits.train.labels >= 0
    assert len(digits.train) == 900 and digits.unlabelled == 840
    assert digits.train.ids[has_label].tolist() == few.ids.tolist()
    assert digits.train.labels[has_label].tolist() == few.labels.tolist()
    assert (digits.test.labels >= 0).all() and (digits.validation.labels >= 0).all()


@pytest.mark.parametrize("wanted", [9, 901])
def test_labels_of_every_class_and_no_more_than_there_are(wanted):
    with pytest.raises(UsageError, match=f"at most all \\(900\\). Received: {wanted}"):
        data.load(dataclasses.replace(SOME, labelled_examples=wanted))


def test_a_subset_and_hidden_labels_are_not_of_each_other():
    with pytest.raises(UsageError, match="Set one of them to null"):
        DataConfig(train_examples=100, labelled_examples=50)


def batches(digits, **given):
    settings = BatchSettings(20, labelled=5, augment=AugmentConfig(flip=True, views=50))
    logits = np.stack([np.full((2000, 2), view, "float32") for view in range(50)])
    logits[..., 1] = np.arange(2000)
    found = training_batches(digits.train, settings, teacher_logits=logits, **given)
    return [
        (x.numpy(), y["label"].numpy(), *y["teacher_logits"].numpy().astype(int).T)
        for x, y in found
    ]


def test_a_batch_has_its_share_of_labels_and_each_kind_its_own_passes(digits):
    found = batches(digits, epochs=3, steps=10)
    assert len(found) == 30
    labelled = set(digits.train.ids[digits.train.labels >= 0].tolist())
    first_pass = []
    for place, (_, labels, views, ids) in enumerate(found):
        assert (labels[:5] >= 0).all() and (labels[5:] == -1).all()
        # 60 labelled images are passed over in 12 steps, 840 others in 56.
        assert set(views[:5]) == {place // 12} and set(views[5:]) == {0}
        assert set(ids[:5].tolist()) <= labelled
        first_pass += ids[:5].tolist() if place < 12 else []
    assert sorted(first_pass) == sorted(labelled)
    others = np.concatenate([ids[5:] for _, _, _, ids in found])
    assert len(set(others.tolist())) == 30 * 15


def test_passes_go_on_where_an_epoch_ends_within_one(digits):
    whole, rest = (
        batches(digits, epochs=3, steps=10),
        batches(digits, epochs=3, steps=10, first_epoch=2),
    )
    assert len(rest) == 10
    for before, after in zip(whole[20:], rest, strict=True):
        for first, second in zip(before, after, strict=True):
            np.testing.assert_array_equal(first, second)


def test_epochs_of_some_steps_follow_each_other_through_the_passes(digits):
    some = digits.train.take(np.arange(79))
    settings = BatchSettings(32)  # passes of 3 batches, the last of 15
    found = list(training_batches(some, settings, epochs=2, steps=4))
    assert [len(images) for images, _ in found] == [32, 32, 15, 32, 32, 15, 32, 32]
    passes = list(training_batches(some, settings, epochs=3))
    for (images, _), (expected, _) in zip(found, passes, strict=False):
        np.testing.assert_array_equal(images, expected)


def test_a_kind_that_fills_no_batch_is_refused(digits):
    settings = BatchSettings(100, labelled=61)
    with pytest.raises(UsageError, match="shall have 61 images with a label. Received: 60"):
        training_batches(digits.train, settings, epochs=1)


@pytest.mark.parametrize("share, size", [(0.01, 20), (0.99, 20), (1.0, 64)])
def test_a_share_leaves_both_kinds(share, size):
    with pytest.raises(UsageError, match="images of both kinds"):
        TrainingConfig(labelled_share=share, batch_size=size)


def test_steps_are_equal_parts():
    with pytest.raises(UsageError, match="multiple of training.epochs"):
        TrainingConfig(epochs=4, steps=10)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study folder with a finished teacher, taught on 300 labels."""
    folder = tmp_path_factory.mktemp("study")
    few = DataConfig(validation=100, train_examples=300)
    training = TrainingConfig(epochs=6, batch_size=32, learning_rate=0.01)
    train.run(RunConfig("teacher", "teacher", 0, few, ModelConfig("cnn2"), training), folder)
    return folder


def student(name, **changes):
    run = RunConfig(
        name,
        "student",
        1,
        SOME,
        NETWORK,
        STEPS,
        teachers=("teacher",),
        distillation=DistillationConfig(0.9, 4.0),
        cache=CacheConfig(),
    )
    return dataclasses.replace(run, **changes)


@pytest.mark.slow
def test_it_is_taught_and_ends_alike_when_it_was_interrupted(study):
    session = Session()
    whole = train.run(student("whole"), study, session)
    assert len(whole.history["loss"]) == 3
    train.run(student("stopped", stop_epoch=1), study, session)
    resumed = train.run(student("stopped"), study, session)
    assert resumed.weights["last"] == whole.weights["last"]


@pytest.mark.slow
def test_images_of_which_the_teacher_is_unsure_are_left_out(study, digits):
    run = student("sure")
    logits = teacher_logits.of_run(run, digits, study).logits()
    z = np.asarray(logits[0, digits.train.ids], "float64")
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    told = DistillationConfig(0.9, 4.0, min_confidence=0.9)
    run = dataclasses.replace(run, distillation=told)
    left = teacher_logits.confident(run, digits, logits, Silent())
    kept = set(left.train.ids.tolist())
    sure = digits.train.ids[p.max(axis=1) >= 0.9]
    labelled = digits.train.ids[digits.train.labels >= 0]
    assert kept == set(sure.tolist()) | set(labelled.tolist())
    assert 60 < len(kept) < 900
    impossible = dataclasses.replace(told, min_confidence=1.0)
    with pytest.raises(UsageError, match="leaves no image without a label"):
        one = dataclasses.replace(run, distillation=impossible)
        teacher_logits.confident(one, digits, np.zeros((1, 2000, 10), "float32"), Silent())


@pytest.mark.slow
def test_one_cache_serves_whatever_number_of_labels(study, digits):
    folders = {
        teacher_logits.folder_of(
            student("x", data=dataclasses.replace(SOME, labelled_examples=count)), digits, study
        )
        for count in (None, 50, 60)
    }
    assert len(folders) == 1


def test_a_run_without_teachers_is_refused():
    with pytest.raises(UsageError, match="need a teacher. Received: 840 of them"):
        alone = student("alone", teachers=(), distillation=None, cache=None)
        train.check(alone, Session())


def test_confidence_without_stored_logits_is_refused():
    told = DistillationConfig(0.9, 4.0, min_confidence=0.5)
    with pytest.raises(UsageError, match="min_confidence looks at stored logits. Received: 0.5"):
        train.check(student("live", distillation=told, cache=None), Session())


def test_labels_of_arrays_are_hidden_as_those_of_a_source_are():
    x, y = np.zeros((40, 4, 4, 1), "uint8"), np.arange(40) % 2
    config = DataConfig("arrays", validation=10, labelled_examples=6)
    found = data.from_arrays((x, y), (x, y), config)
    assert [len(found.train), found.unlabelled, len(found.train.labelled)] == [30, 24, 6]


def test_arrays_may_have_images_without_labels_beside_them(tmp_path):
    x, y = np.zeros((40, 4, 4, 1), "uint8"), np.arange(40) % 2
    x += np.arange(40, dtype="uint8")[:, None, None, None]
    np.savez(tmp_path / "more.npz", x=np.full((5, 4, 4, 1), 99, "uint8"))
    config = DataConfig("arrays", validation=10, unlabelled=str(tmp_path / "more.npz"))
    found = data.from_arrays((x, y), (x[:4], y[:4]), config)
    assert [len(found.train), found.unlabelled] == [30 + 5, 5]
    assert (found.train.images[30:] == 99).all() and (found.train.labels[30:] == -1).all()
