"""Runs on real images: records, teachers' logits, exact resume after a kill, divergence."""

import contextlib
import dataclasses
import os
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.forked import Forked
from tfdistill import data, records
from tfdistill.config import (
    AugmentConfig,
    CacheConfig,
    DataConfig,
    DistillationConfig,
    FeatureConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.data import BatchSettings
from tfdistill.training import evaluation, teacher_logits, train
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError
from tfdistill.utils.progress import Silent

DIGITS = DataConfig(train_examples=96, validation=100)
SHORT = TrainingConfig(epochs=3, batch_size=32, learning_rate=0.01)
NETWORK = ModelConfig("cnn2", width=0.125)
DROPOUT = ModelConfig("cnn2", width=0.125, dropout=0.3)
TEACHER = RunConfig("teacher", "teacher", 0, DIGITS, NETWORK, SHORT)
STUDENT = RunConfig(
    "student",
    "student",
    1,
    DIGITS,
    NETWORK,
    SHORT,
    teachers=("teacher",),
    distillation=DistillationConfig(),
)
VIEWS = dataclasses.replace(DIGITS, augment=AugmentConfig(pad_crop=1, views=2))
CACHED = dataclasses.replace(STUDENT, name="cached", data=VIEWS, cache=CacheConfig())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study folder with a finished teacher."""
    folder = tmp_path_factory.mktemp("study")
    train.run(TEACHER, folder)
    return folder


@pytest.fixture(scope="module")
def session():
    """Images, and the teacher's answers to them, for runs that are not about another session."""
    return Session()


def load(study, name, part=None):
    return evaluation.load_network(study, name, data.load(DIGITS), part)


def once(run, study, session=None):
    """Return the record of a run, which is trained for the first test that asks for it."""
    return records.read(records.run_folder(study, run.name)) or train.run(run, study, session)


def renamed(run, name, **changes):
    return dataclasses.replace(run, name=name, **changes)


@pytest.mark.slow
def test_a_run_leaves_its_record_and_both_networks(study):
    record = records.read(records.run_folder(study, "teacher"))
    assert {path.name for path in records.run_folder(study, "teacher").iterdir()} == {
        "record.json",
        "best.keras",
        "last.keras",
        "predictions.npy",
    }
    assert record.last["epoch"] == 3
    assert record.best["epoch"] == 1 + int(np.argmax(record.history["val_accuracy"]))
    assert record.parameters == load(study, "teacher").count_params()
    assert record.flops > 0 and sum(record.calibration["count"]) == 797


def test_a_run_leaves_what_the_selected_weights_say_of_each_test_image(study):
    record = records.with_predictions(study, records.read(records.run_folder(study, "teacher")))
    found = record.predictions
    assert len(found.labels) == 797
    assert found.right.mean() == pytest.approx(record.figures["test_accuracy"], abs=1e-12)
    assert found.probabilities.min() >= 0.1 and found.probabilities.max() <= 1


@pytest.mark.parametrize("part", ["best", "last"])
def test_the_record_tells_what_the_saved_network_does(study, part):
    record = records.read(records.run_folder(study, "teacher"))
    network = keras.saving.load_model(records.run_folder(study, "teacher") / f"{part}.keras")
    test = data.load(DIGITS).test
    guesses = network.predict(test.images, verbose=0).argmax(-1)
    assert getattr(record, part)["test_accuracy"] == pytest.approx((guesses == test.labels).mean())


def test_a_network_is_traced_once_for_all_batches_of_an_evaluation(monkeypatch):
    images = data.load(DIGITS)
    network = evaluation.build(NETWORK, images)
    network.compile(steps_per_execution=4)
    expected = network.predict(images.test.images, 32, verbose=0)  # the last batch is smaller
    traced, step = [], network.predict_step
    monkeypatch.setattr(network, "predict_step", lambda batch: traced.append(1) or step(batch))
    for part in (images.test, images.validation, images.test):
        found = evaluation.predict(network, part, BatchSettings(32))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert len(traced) == 1


@pytest.mark.slow
def test_a_student_is_compared_with_its_teacher(study, session):
    record = once(STUDENT, study, session)
    student = load(study, "student")
    teacher = load(study, "teacher")
    images = data.load(DIGITS).test.images
    same = student.predict(images, verbose=0).argmax(-1) == teacher.predict(
        images, verbose=0
    ).argmax(-1)
    assert record.figures["test_agreement"] == pytest.approx(same.mean())
    assert {"hard_loss", "soft_loss"} <= set(record.history)


class StopAfter(Silent):
    """Interrupts a training from within, as Ctrl-C does."""

    def __init__(self, epoch, share):
        self.where = epoch, share

    def step(self, epoch, epochs, share):
        if (epoch, share) >= self.where:
            raise KeyboardInterrupt


@contextlib.contextmanager
def interrupted(session, *where):
    """Interrupt the training of a session, which goes on to be used, there."""
    session.progress = StopAfter(*where)
    with pytest.raises(KeyboardInterrupt):
        yield
    session.progress = Silent()


@pytest.mark.slow
def test_a_run_that_is_interrupted_twice_ends_with_the_same_weights(study, session):
    whole = once(STUDENT, study, session)
    parted = renamed(STUDENT, "parted")
    for where in ((0, 0.5), (2, 1.0)):
        with interrupted(session, *where):
            train.run(parted, study, session)
    record = train.run(parted, study, session)
    assert record.weights == whole.weights
    assert record.history == whole.history


@pytest.mark.slow
def test_known_logits_and_a_live_teacher_train_the_same_student(study, session):
    known = once(STUDENT, study, session)
    # The similarity loss needs the live teacher; at a vanishing weight it changes nothing else.
    settings = dataclasses.replace(STUDENT.distillation, features=[FeatureConfig(weight=1e-12)])
    live = train.run(renamed(STUDENT, "live", distillation=settings, cache=None), study, session)
    assert known.history["soft_loss"] == pytest.approx(live.history["soft_loss"], rel=1e-4)
    a, b = (load(study, name, "last").get_weights() for name in ("student", "live"))
    for first, second in zip(a, b, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_an_ensemble_is_evaluated_without_training(study, session):
    once(STUDENT, study, session)
    ensemble = RunConfig(
        name="ensemble",
        row="ensemble",
        seed=0,
        data=DIGITS,
        model=None,
        training=SHORT,
        members=("teacher", "student"),
        trained=False,
    )
    record = train.run(ensemble, study, session)
    members = [load(study, name, "last") for name in ensemble.members]
    test = data.load(DIGITS).test
    mean = sum(keras.ops.softmax(member.predict(test.images, verbose=0)) for member in members)
    expected = (np.argmax(mean, -1) == test.labels).mean()
    assert record.last["test_accuracy"] == pytest.approx(expected)
    answers = records.with_predictions(study, record).predictions
    assert answers.right.mean() == pytest.approx(record.figures["test_accuracy"])
    assert record.history == {} and record.parameters == 2 * members[0].count_params()


@pytest.mark.slow
def test_several_networks_train_as_one_average_with_what_an_optimiser_can_have(study, session):
    settings = dataclasses.replace(
        SHORT, optimizer="sgd", label_smoothing=0.1, weight_decay=1e-3, schedule="cosine"
    )
    run = renamed(TEACHER, "average", width=2, average="logits", training=settings)
    record = train.run(run, study, session)
    assert record.history["loss"][-1] < record.history["loss"][0]
    network = load(study, "average")
    assert len(network.members) == 2 and network.average == "logits"
    first, second = (member.get_weights()[-2] for member in network.members)
    assert (first != second).any()
    assert record.parameters == network.count_params()


@pytest.mark.slow
def test_mixed_precision_trains_and_leaves_the_global_policy(study, session):
    settings = dataclasses.replace(SHORT, epochs=1, precision="mixed_bfloat16")
    record = train.run(renamed(TEACHER, "mixed", training=settings), study, session)
    assert record.status == records.FINISHED
    assert keras.config.dtype_policy().name == "float32"
    assert load(study, "mixed").layers[2].compute_dtype == "bfloat16"


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run_with_a_record(study, session):
    settings = dataclasses.replace(SHORT, optimizer="sgd", learning_rate=1e30)
    record = train.run(renamed(TEACHER, "diverged", training=settings), study, session)
    assert record.status == records.DIVERGED
    assert "in epoch 1 of 3, step" in record.message and "lower the learning rate" in record.message
    assert record == records.read(records.run_folder(study, "diverged"))


@pytest.mark.slow
def test_several_steps_of_one_call_are_the_same_steps(study, session):
    """96 images are three batches: calls of two steps would end within an epoch."""
    training = dataclasses.replace(SHORT, steps_per_execution=3)
    in_calls = renamed(TEACHER, "in-calls", training=training)
    known = records.read(records.run_folder(study, "teacher"))
    assert train.run(in_calls, study, session).weights == known.weights
    two = renamed(TEACHER, "two", training=dataclasses.replace(SHORT, steps_per_execution=2))
    with pytest.raises(
        UsageError, match="divide the 3 steps of an epoch. Received: 2. Set it to 1"
    ):
        train.check(two, session)
    with pytest.raises(UsageError, match="divide the 3 steps of an epoch"):
        train.run(two, study, session)


@pytest.mark.slow
def test_xla_compiles_on_a_cpu_where_it_is_asked_for(study, session):
    training = dataclasses.replace(SHORT, jit="on")
    images = dataclasses.replace(DIGITS, test_examples=64)  # every size of a batch is compiled
    first, again = (
        train.run(renamed(TEACHER, name, training=training, data=images), study, session)
        for name in ("xla", "xla-again")
    )
    assert first.weights == again.weights
    (learner,) = session.bench._kept.each
    assert learner.jit_compile
    plain, compiled = (load(study, name, "last") for name in ("teacher", "xla"))
    for one, other in zip(plain.get_weights(), compiled.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_too_few_images_for_a_batch_are_refused_before_anything_is_written(tmp_path):
    settings = dataclasses.replace(SHORT, batch_size=512)
    run = renamed(TEACHER, "large", training=settings)
    with pytest.raises(UsageError, match="96 training examples and batch_size=512"):
        train.check(run, Session())
    with pytest.raises(UsageError, match="96 training examples and batch_size=512"):
        train.run(run, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_new_and_reused_learners_go_on_with_their_random_numbers(study):
    """Begun by a learner that others used before, and ended by a new one.

    The dropout network's random state must be reset, and restored.
    """
    session, run = Session(), renamed(CACHED, "dropout", seed=3, model=DROPOUT)
    whole = train.run(run, study, session)
    times = {path: path.stat().st_mtime_ns for path in (study / "cache").rglob("*.npy")}
    other = dataclasses.replace(CACHED.distillation, alpha=0.5, temperature=2.0)
    before = renamed(run, "dropout-before", seed=4, distillation=other, stop_epoch=1)
    train.run(before, study, session)
    parted = renamed(run, "dropout-parted")
    with interrupted(session, 1, 0.1):
        train.run(parted, study, session)
    record = train.run(parted, study, Session())
    assert record.weights == whole.weights
    assert record.history == whole.history
    # Stored once for all that differ in seed, alpha and temperature.
    assert times == {path: path.stat().st_mtime_ns for path in (study / "cache").rglob("*.npy")}


class KillAfter(StopAfter):
    """Kills its process in a training."""

    def step(self, epoch, epochs, share):
        if (epoch, share) >= self.where:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_run(folder):
    train.run(renamed(TEACHER, "killed"), folder, Session(KillAfter(1, 0.5)))


@pytest.mark.slow
def test_a_killed_process_goes_on_and_ends_with_the_same_weights(study, tmp_path):
    folder = records.run_folder(tmp_path, "killed")
    assert Forked(killed_run, tmp_path).wait() == -signal.SIGKILL
    assert (folder / "state.npz").exists() and not (folder / "record.json").exists()
    told = Told()
    resumed = train.run(renamed(TEACHER, "killed"), tmp_path, Session(told))
    assert told.resumed == [1]
    whole = records.read(records.run_folder(study, "teacher"))
    assert resumed.weights == whole.weights
    assert resumed.history == whole.history


@pytest.mark.slow
def test_a_saved_model_with_softmax_outputs_teaches_and_stays_as_it_is(
    study, session, tmp_path, caplog
):
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    network = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(hidden))
    network.export(tmp_path / "exported", verbose=False)
    model = ModelConfig("saved", path=str(tmp_path / "exported"))
    exported = renamed(TEACHER, "exported", model=model, trained=False)
    record = train.run(exported, study, session)
    assert "probabilities" in caplog.text
    images = data.load(DIGITS).test
    accuracy = (network.predict(images.images, verbose=0).argmax(-1) == images.labels).mean()
    assert record.last["test_accuracy"] == pytest.approx(accuracy)
    student = train.run(renamed(STUDENT, "of-exported", teachers=("exported",)), study, session)
    assert student.last["test_agreement"] > 0


def last_weights(study, name):
    return load(study, name, "last").get_weights()


@pytest.mark.slow
def test_under_augmentation_a_cache_trains_the_student_of_the_live_teacher(
    study, session, tmp_path
):
    """Also where a view has boxes of other images."""
    augment = AugmentConfig(pad_crop=1, flip=True, cutmix=1.0, views=2)
    images = dataclasses.replace(DIGITS, augment=augment)
    stored = CacheConfig(folder=str(tmp_path))  # other tests count those of the study
    for name, cache in (("stored", stored), ("beside", None)):
        train.run(renamed(STUDENT, name, data=images, cache=cache), study, session)
    assert list(tmp_path.glob("teacher/v*/*.npy"))
    for a, b in zip(last_weights(study, "stored"), last_weights(study, "beside"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.warnings, self.resumed = [], []

    def warn(self, text):
        self.warnings.append(text)

    def resume(self, epoch, epochs):
        self.resumed.append(epoch)


@pytest.mark.slow
def test_logits_that_are_damaged_while_a_student_trains_are_named_and_mended(
    study, session, monkeypatch
):
    """The second view is first read in the second epoch: the first is not trained again."""
    once(CACHED, study, session)
    (shard,) = study.glob("cache/teacher-*/v0001/*.npy")
    content = shard.read_bytes()
    shard.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
    monkeypatch.setattr(session, "progress", told := Told())
    train.run(renamed(CACHED, "mended"), study, session)
    assert told.warnings == [f"{shard} is damaged (its checksum is another); it is computed again"]
    assert told.resumed == [1] and shard.read_bytes() == content
    for a, b in zip(last_weights(study, "cached"), last_weights(study, "mended"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_students_of_many_classes_are_taught_at_their_own_temperatures(study, monkeypatch):
    """Of the largest classes alone, the stored logits of each temperature are others."""
    monkeypatch.setattr(teacher_logits, "MANY_CLASSES", 10)
    monkeypatch.setattr(teacher_logits, "LARGEST", 3)
    session = Session()
    once_each = dataclasses.replace(SHORT, epochs=1)
    runs, alone = (
        [dataclasses.replace(run, data=DIGITS, training=once_each) for run in cells(name)]
        for name in ("many", "many-alone")
    )
    together = train.run_together(runs, study, session)
    assert [record.name for record in together] == [run.name for run in runs]
    assert together[1].weights == train.run(alone[1], study, session).weights
    assert len(list(study.glob("cache/teacher-*"))) == 2


@pytest.mark.slow
def test_a_cache_of_another_teacher_is_refused(study, tmp_path):
    run = renamed(CACHED, "own-folder", cache=CacheConfig(folder=str(tmp_path)))
    teacher_logits.of_run(run, data.load(run.data), study)
    once(STUDENT, study)
    shutil.copytree(study / "runs" / "student", tmp_path / "other" / "runs" / "teacher")
    with pytest.raises(UsageError, match="weights of teacher teacher changed"):
        train.run(run, tmp_path / "other")


def cells(name):
    settings = CACHED.distillation, DistillationConfig(0.2, 1.0)
    return [
        renamed(CACHED, f"cell-{name}-{place}", distillation=each)
        for place, each in enumerate(settings)
    ]


@pytest.fixture(scope="module")
def traced(study):
    """The learners whose train step was traced for two students that were trained together.

    Their records are in the study, and logs for TensorBoard.
    """
    found, step = [], keras.Model.train_step

    def noted(learner, data):
        found.append(learner)
        return step(learner, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "train_step", noted)
        train.run_together(cells("together"), study, Session(tensorboard=True))
    return found


@pytest.fixture(scope="module")
def together(study, traced):
    """The records of two students that were trained together."""
    return [records.read(records.run_folder(study, run.name)) for run in cells("together")]


@pytest.mark.slow
def test_a_step_is_traced_once(traced):
    assert len(traced) == len(set(map(id, traced))) == 2


@pytest.mark.slow
def test_tensorboard_shows_figures_and_settings_of_every_student(study, together):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for record in together:
        folder = records.run_folder(study, record.name)
        logs = EventAccumulator(str(folder / "tensorboard")).Reload()
        events = logs.Tensors("val_accuracy")
        shown = [float(tf.make_ndarray(event.tensor_proto)) for event in events]
        assert shown == pytest.approx(record.history["val_accuracy"])
        settings = logs.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        assert b"temperature" in settings and b"alpha" in settings


@pytest.mark.slow
def test_students_trained_together_are_those_trained_alone(study, together, session):
    alone = once(CACHED, study, session), train.run(cells("alone")[1], study, session)
    for one, other in zip(together, alone, strict=True):
        assert one.weights == other.weights
        assert one.history == other.history
        assert one.figures == other.figures


@pytest.mark.slow
def test_a_diverging_student_stops_the_other_neither_before_nor_after_an_interruption(
    study, together
):
    fast = dataclasses.replace(SHORT, optimizer="sgd", learning_rate=1e30)
    first, second = cells("beside-diverging")
    runs = [renamed(first, "cell-diverging", training=fast), second]
    with interrupted(session := Session(), 2, 0.1):
        train.run_together(runs, study, session)
    diverged, found = train.run_together(runs, study, session)
    assert (diverged.status, found.status) == (records.DIVERGED, records.FINISHED)
    assert "lower the learning rate" in diverged.message
    assert found.weights == together[1].weights
    assert found.history == together[1].history
    assert not list((study / "together").iterdir())


def test_runs_that_share_batches_may_be_trained_together():
    one, other = cells("key")
    assert train.together_key(one) == train.together_key(other)
    assert train.together_key(one) != train.together_key(renamed(other, "x", seed=5))
    top = CacheConfig(top_k=3, temperatures=[1.0, 5.0])
    assert train.together_key(renamed(one, "x", cache=top)) != train.together_key(
        renamed(other, "x", cache=top)
    )
    similar = dataclasses.replace(one.distillation, features=[FeatureConfig(weight=3.0)])
    assert train.together_key(renamed(one, "x", distillation=similar, cache=None)) == ""


def test_hashes_are_those_of_before_there_were_the_newest_keys(study):
    """Of an average of the weights, random erasing and CutMix, each of which changes them.

    The hashes are of the version before, which knew neither `data.storage` nor `data.workers`.
    """
    images = data.load(DIGITS)
    views = dataclasses.replace(DIGITS, augment=AugmentConfig(pad_crop=1, rotation=10, views=2))
    run = renamed(CACHED, "cached", data=views)
    key = records.run_key(to_dict(run), [])
    folder = teacher_logits.folder_of(run, images, study)
    assert (key, folder.name) == ("50be908f18eda4eb", "teacher-cf44b69b")
    averaged = renamed(run, "cached", training=dataclasses.replace(SHORT, ema=0.9))
    assert records.run_key(to_dict(averaged), []) != key
    for change in ({"erasing": 0.5}, {"cutmix": 1.0}):
        augment = dataclasses.replace(views.augment, **change)
        other = renamed(run, "cached", data=dataclasses.replace(views, augment=augment))
        assert records.run_key(to_dict(other), []) != key
        assert teacher_logits.folder_of(other, images, study) != folder


@pytest.mark.slow
def test_a_run_stopped_early_goes_on_to_the_same_end(study, session):
    whole = once(CACHED, study, session)
    stopped = train.run(renamed(CACHED, "rung", stop_epoch=1), study, session)
    assert len(stopped.history["loss"]) == 1
    went_on = train.run(renamed(CACHED, "rung"), study, session)
    assert went_on.weights == whole.weights and went_on.history == whole.history
