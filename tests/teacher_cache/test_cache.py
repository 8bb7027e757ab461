"""Stored teacher logits: exact, of what is asked for, and to a student like live teachers."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.models import earlier
from tests.small_teachers import (
    BATCH,
    CLASSES,
    COUNT,
    CROPPED,
    FULL,
    HALF,
    ROUNDED,
    TOP,
    Counting,
    network,
    settings,
)
from tfdistill import Distiller, UsageError, average_logits, models
from tfdistill.config import AugmentConfig, ModelConfig
from tfdistill.data import pipeline
from tfdistill.models.fingerprint import architecture_hash, weights_hash
from tfdistill.teacher_cache import Teacher, build, open_cache
from tfdistill.teacher_cache.shards import Files
from tfdistill.utils import machine

pytest_plugins = ["tests.stored_logits"]

CHANGES = {
    "none": AugmentConfig(),
    "mixup": dataclasses.replace(CROPPED, mixup=0.4),
    "boxes": dataclasses.replace(CROPPED, erasing=0.5, cutmix=1.0),
}


def live(teachers, pictures, change, view):
    """The teachers' logits on the images of a view: [members, examples, classes]."""
    batches = list(pipeline.view_batches(pictures.train, settings(change), view))
    return np.stack([np.concatenate([t.load()(x) for x in batches]) for t in teachers])


def softmax(logits):
    return keras.ops.convert_to_numpy(keras.ops.softmax(np.asarray(logits, "float64"), axis=-1))


# What is stored


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_row_is_the_teachers_answer_to_the_view(tmp_path, pictures, teachers, change):
    cache = build(tmp_path, teachers, pictures, settings(change))
    assert cache.shape == (change.num_views, 2, COUNT, CLASSES)
    for view in range(change.num_views):
        expected = live(teachers, pictures, change, view)
        for teacher, logits in zip(teachers, expected, strict=True):
            stored = cache.logits(members=[teacher.name])[view, pictures.train.ids]
            np.testing.assert_allclose(stored, logits, atol=1e-5, rtol=1e-5)
        for average in ("probabilities", "logits"):
            both = cache.logits(average)[view, pictures.train.ids]
            wanted = average_logits(expected, average)
            np.testing.assert_allclose(both, wanted, atol=1e-4, rtol=1e-5)


def test_views_differ(finished, pictures):
    reader = open_cache(finished).logits()
    assert np.abs(reader[0, pictures.train.ids] - reader[1, pictures.train.ids]).max() > 0.1


@pytest.mark.slow
def test_average_of_far_apart_probabilities_is_finite(tmp_path, pictures):
    teachers = [Teacher.of(network(n, scale=1e5), f"t{n}") for n in (1, 2)]
    cache = build(tmp_path, teachers, pictures, settings())
    expected = live(teachers, pictures, CROPPED, 0)
    assert np.ptp(expected, axis=-1).max() > 200
    stored = cache.logits()[0, pictures.train.ids]
    np.testing.assert_allclose(stored, average_logits(expected), rtol=1e-4, atol=1e-2)


def test_half_precision_differs_by_a_tenth_of_a_percent(tmp_path, pictures, teachers, finished):
    half = build(tmp_path, teachers[:1], pictures, settings(), HALF)
    stored = half.logits()[1, pictures.train.ids]
    exact = open_cache(finished).logits(members=["one"])[1, pictures.train.ids]
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored, exact, rtol=1e-3, atol=1e-6)
    assert np.any(stored != exact)


@pytest.mark.slow
def test_student_learns_the_same_as_beside_the_live_teacher(finished, pictures, teachers):
    def student_after(reader, teacher):
        keras.utils.set_random_seed(5)
        distiller = Distiller(network(7), teacher, alpha=0.7, temperature=2.0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.SGD(0.01), loss, jit_compile=False)
        batches = pipeline.training_batches(
            pictures.train, settings(), epochs=4, teacher_logits=reader
        )
        steps = pipeline.steps_per_epoch(COUNT, BATCH)
        distiller.fit(batches, epochs=4, steps_per_epoch=steps, shuffle=False, verbose=0)
        return [np.asarray(w) for w in distiller.student.trainable_weights]

    cached = student_after(open_cache(finished).logits(members=["one"]), None)
    beside = student_after(None, teachers[0].load())
    start = [np.asarray(w) for w in network(7).trainable_weights]
    assert max(np.abs(a - b).max() for a, b in zip(cached, start, strict=True)) > 1e-3
    for one, other in zip(cached, beside, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


# Finished caches


@pytest.mark.slow
def test_complete_cache_loads_no_teacher(tmp_path, pictures):
    load = Counting(1)
    first = build(tmp_path, [load.teacher("one")], pictures, settings())
    again = build(tmp_path, [load.teacher("one")], pictures, settings())
    assert load.calls == 1
    assert first.images_per_second > 0 and again.images_per_second is None


def test_batch_size_and_run_seed_are_free(copied, pictures, teachers):
    other = dataclasses.replace(settings(), batch_size=16, seed=1)
    assert build(copied, teachers, pictures, other).images_per_second is None


# Caches of something else


def _relabelled(images):
    return dataclasses.replace(images, train=images.train.take(np.arange(COUNT)[::-1]))


CHANGED = {
    "weights of teacher two": {"teachers": lambda ts: [ts[0], Teacher.of(network(3), "two")]},
    "architecture of teacher two": {
        "teachers": lambda ts: [ts[0], dataclasses.replace(ts[1], architecture="0")]
    },
    "teachers": {"teachers": lambda ts: ts[:1]},
    "source": {"images": lambda images: dataclasses.replace(images, name="digits")},
    "class names": {"images": lambda i: dataclasses.replace(i, class_names=tuple("vwxyz"))},
    "split": {"images": _relabelled},
    "augmentation": {"settings": lambda s: settings(dataclasses.replace(CROPPED, cutout=2))},
    "number of views": {"settings": lambda s: settings(dataclasses.replace(CROPPED, views=3))},
    "view seed": {"settings": lambda s: settings(dataclasses.replace(CROPPED, view_seed=4))},
    "input size": {"settings": lambda s: dataclasses.replace(s, input_size=8)},
    "dtype": {"cache": lambda c: HALF},
    "top_k": {"cache": lambda c: TOP},
    "precision": {"cache": lambda c: ROUNDED},
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_changed_is_named(finished, pictures, teachers, name):
    given = {"teachers": teachers, "images": pictures, "settings": settings(), "cache": FULL}
    given |= {key: change(given[key]) for key, change in CHANGED[name].items()}
    with pytest.raises(UsageError, match=f"the {name}.* changed") as refusal:
        build(finished, **given)
    assert str(finished) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.slow
def test_a_teacher_that_pads_otherwise_is_another_one(tmp_path, pictures):
    # Of the same name and weights: a ResNet-8 of today and one from before.
    before = earlier.resnet8((8, 8, 3), CLASSES)
    now = models.build(ModelConfig("resnet8", width=0.25), (8, 8, 3), CLASSES)
    now.set_weights(before.get_weights())
    stored = build(tmp_path, [Teacher.of(before)], pictures, settings())
    assert build(tmp_path, [Teacher.of(before)], pictures, settings()).shape == stored.shape
    assert weights_hash(before) == weights_hash(now)
    with pytest.raises(UsageError, match="the architecture of teacher resnet8 changed"):
        build(tmp_path, [Teacher.of(now)], pictures, settings())


def test_several_changes_are_all_named(finished, pictures, teachers):
    other = [teachers[0], Teacher.of(network(3), "two")]
    flipped = settings(dataclasses.replace(CROPPED, flip=False))
    with pytest.raises(UsageError, match="the weights of teacher two and the augmentation changed"):
        build(finished, other, pictures, flipped)


def test_another_version_is_refused(finished, pictures, teachers, monkeypatch):
    monkeypatch.setattr(machine, "version", lambda package: "99")
    with pytest.raises(UsageError, match="else: the tfdistill version changed"):
        build(finished, teachers, pictures, settings())


@pytest.mark.slow
def test_same_architecture_has_the_same_hash():
    assert architecture_hash(network(1)) == architecture_hash(network(1))
    compiled = network(1)
    compiled.compile("sgd", "mse")
    assert architecture_hash(compiled) == architecture_hash(network(1))
    assert architecture_hash(network(1)) != architecture_hash(network(1, classes=4))
    assert weights_hash(network(1)) == weights_hash(network(1)) != weights_hash(network(2))


def test_hash_survives_saving(tmp_path):
    network(1).save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert architecture_hash(loaded) == architecture_hash(network(1))


# What cannot be built


def test_teacher_of_nan_is_named_and_nothing_is_listed(tmp_path, pictures):
    broken = network(1)
    broken.layers[-1].bias.assign([0, 0, np.nan, 0, 0])
    with pytest.raises(UsageError, match="Teacher bad gives NaN.* for 44 of 44 .*view 0"):
        build(tmp_path, [Teacher.of(broken, "bad")], pictures, settings())
    assert not list(tmp_path.glob("v*/*"))


def test_teacher_of_other_classes_is_refused(tmp_path, pictures):
    other = Teacher.of(network(1, classes=4), "small")
    with pytest.raises(UsageError, match="Teacher small must give 5 logits"):
        build(tmp_path, [other], pictures, settings())


def test_two_teachers_of_one_name_and_endless_views_are_refused(tmp_path, pictures, teachers):
    with pytest.raises(UsageError, match="names of the teachers"):
        build(tmp_path, [teachers[0], teachers[0]], pictures, settings())
    with pytest.raises(UsageError, match="Set augment.views"):
        build(tmp_path, teachers, pictures, settings(AugmentConfig(flip=True)))
    assert not list(tmp_path.iterdir())


# The largest classes alone


@pytest.mark.parametrize("temperature", TOP.temperatures)
def test_top_k_keeps_probabilities_and_the_mass_of_the_rest(
    largest, pictures, teachers, temperature
):
    full = np.asarray(average_logits(live(teachers, pictures, CROPPED, 1)))
    exact = softmax(full / temperature)
    stored = softmax(
        largest.logits(temperature=temperature)[1, pictures.train.ids] / np.float64(temperature)
    )
    kept = np.argsort(-full, axis=-1)[:, :2]
    expected = np.repeat((1 - np.take_along_axis(exact, kept, -1).sum(-1))[:, None] / 3, 5, axis=1)
    np.put_along_axis(expected, kept, np.take_along_axis(exact, kept, -1), -1)
    np.testing.assert_allclose(stored, expected, atol=1e-6)


def test_top_k_refuses_what_is_not_stored(largest, pictures, teachers, tmp_path):
    for given in ({}, {"temperature": 2.0}):
        with pytest.raises(UsageError, match="one of cache.temperatures: 1.0, 4.0"):
            largest.logits(**given)
    for given in ({"average": "logits"}, {"members": ["one"]}):
        with pytest.raises(UsageError, match="only the average of all teachers' probabilities"):
            largest.logits(temperature=1.0, **given)
    with pytest.raises(UsageError, match="the average changed"):
        build(largest.folder, teachers, pictures, settings(), TOP, average="logits")
    with pytest.raises(UsageError, match="less than the number of classes, 5"):
        build(tmp_path, teachers, pictures, settings(), dataclasses.replace(TOP, top_k=5))


# Verification


def _tamper(folder):
    """Move logits and their checksums with them: only running the teachers again can tell."""
    files = Files(folder, open_cache(folder).manifest)
    shards = files.shards()
    for chunk in files.layout.chunks():
        path = shards[chunk.folder, chunk.name]
        logits = files.read(path)["logits"]
        logits[..., 0] += 50.0
        path.unlink()
        files.write(chunk, [logits])


@pytest.mark.slow
def test_verification_finds_tampered_logits(finished, copied, pictures, teachers):
    good = open_cache(finished).verify(teachers, pictures, settings(), rows=30)
    assert good.rows == 30 and good.largest_difference < 1e-4 and good.agreement == 1.0
    _tamper(copied)
    bad = open_cache(copied).verify(teachers, pictures, settings(), rows=30)
    assert bad.largest_difference > 49 and bad.agreement < 0.9


@pytest.mark.slow
def test_verification_of_the_largest_classes(largest, pictures, teachers):
    found = largest.verify(teachers, pictures, settings(), rows=10**6)
    assert found.rows == 2 * COUNT
    assert found.largest_difference < 1e-4 and found.agreement == 1.0
    others = [Teacher.of(network(n), name) for n, name in ((3, "one"), (4, "two"))]
    assert largest.verify(others, pictures, settings()).largest_difference > 0.1
