"""Studies of images with any number of labels, from a list of files to figures."""

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.test_train import interrupted
from tfdistill import data, losses, records
from tfdistill.cli import evaluate
from tfdistill.config import (
    AugmentConfig,
    CacheConfig,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
)
from tfdistill.config.registry import STUDIES
from tfdistill.distillation.ensembles import Ensemble, average_logits
from tfdistill.inference import output, predictions
from tfdistill.models import saved
from tfdistill.teacher_cache.logit_reading import averaged
from tfdistill.training import evaluation, heads, preflight, runner, tasks, train
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError

NETWORK = ModelConfig("cnn2", width=0.125)
SHORT = TrainingConfig(epochs=4, batch_size=16, learning_rate=0.01)
TASK = tasks.SeveralLabels()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """160 images that are red or not, and bright on the left or not, beside noise."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    lines = ["path,label"]
    for number, (red, left) in enumerate(random.integers(0, 2, (160, 2))):
        pixels = random.integers(40, 90, (8, 8, 3))
        pixels[:, :4] += 60 * left
        pixels[..., 0] += 80 * red
        tf.io.write_file(f"{folder}/{number}.png", tf.io.encode_png(pixels.astype("uint8")))
        lines.append(f"{number}.png,{'|'.join(['red'] * red + ['left'] * left)}")
    (folder / "list.csv").write_text("\n".join(lines))
    augment = AugmentConfig(pad_crop=1, views=2)
    return DataConfig(source=f"csv:{folder}/list.csv", validation=30, augment=augment)


@pytest.fixture
def study(images):
    distillation = DistillationConfig(alpha=0.9, temperature=2.0)
    return StudyConfig(
        "single",
        seeds=[0],
        data=images,
        teacher=NETWORK,
        training=SHORT,
        distillation=distillation,
    )


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """The folder of a study whose teacher, student and student alone are trained."""
    folder = tmp_path_factory.mktemp("study")
    settings = DistillationConfig(alpha=0.9, temperature=2.0)
    config = StudyConfig(
        "single", seeds=[0], data=images, teacher=NETWORK, training=SHORT, distillation=settings
    )
    runner.run_study(config, folder)
    return folder


def runs(study):
    return {run.name: run for run in runner.plan(study)}


def record(folder, name):
    return records.read(records.run_folder(folder, name))


@pytest.mark.slow
def test_a_study_learns_both_labels_and_measures_what_they_need(finished, images):
    teacher, alone, student = (record(finished, n) for n in ("teacher", "alone-0", "distilled-0"))
    labels = data.load(images).test.labels
    chance = np.maximum(labels.mean(0), 1 - labels.mean(0)).mean()
    for found in (teacher, alone, student):
        assert found.figures["test_accuracy"] > chance + 0.2
        assert found.figures["test_mean_average_precision"] > 0.9
        assert "test_ece" not in found.figures and found.calibration == {}
        assert found.best["epoch"] == 1 + int(np.argmax(found.history["val_accuracy"]))
    assert {"test_agreement", "test_teacher_kl"} <= set(student.figures)
    assert student.weights != alone.weights and student.history["soft_loss"][-1] > 0
    [table] = STUDIES["single"].tables([teacher, alone, student])
    assert table.columns[-3:] == ("mAP %", "exact match %", "agreement %")
    assert "share of all labels" in table.note


@pytest.mark.slow
def test_the_record_tells_what_the_saved_network_does(finished, images):
    found, test = record(finished, "distilled-0"), data.load(images).test
    logits = [
        evaluation.load_network(finished, name, data.load(images)).predict(test.images, verbose=0)
        for name in ("distilled-0", "teacher")
    ]
    said, taught = (z > 0 for z in logits)
    assert found.figures["test_accuracy"] == pytest.approx(np.mean(said == test.labels))
    assert found.figures["test_exact_match"] == pytest.approx(
        np.mean((said == test.labels).all(axis=1))
    )
    assert found.figures["test_agreement"] == pytest.approx(np.mean(said == taught))
    # What Keras measured in the epochs is the same figure.
    assert found.figures["validation_accuracy"] == pytest.approx(max(found.history["val_accuracy"]))


@pytest.mark.slow
def test_evaluate_shows_the_figures_of_labels(finished, images):
    network = records.run_folder(finished, "distilled-0") / "best.keras"
    teacher = records.run_folder(finished, "teacher") / "best.keras"
    shown = dict(evaluate.table(str(network), images, str(teacher)).rows)
    figures = record(finished, "distilled-0").best
    expected = f"{100 * figures['test_exact_match']:.2f} %"
    assert shown["images of which all labels are right"] == expected
    assert shown["KL from the teacher, of a label"] == f"{figures['test_teacher_kl']:.4f}"
    assert not any("calibration" in name for name in shown)


@pytest.mark.slow
def test_predictions_name_the_labels_above_a_half(finished, images):
    folder = Path(images.source.removeprefix("csv:")).parent
    files = [folder / f"{number}.png" for number in range(8)]
    network = records.run_folder(finished, "distilled-0") / "best.keras"
    answers = predictions.classify(network, files, top=1)
    file = io.StringIO()
    output.write(answers, "csv", file)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert list(rows[0]) == ["image", "labels", "probability_left", "probability_red", "error"]
    pixels = np.stack([tf.io.decode_png(file.read_bytes()) for file in files]).astype("float32")
    p = keras.ops.sigmoid(
        evaluation.load_network(finished, "distilled-0", data.load(images))(pixels)
    )
    for row, (left, red) in zip(rows, np.asarray(p), strict=True):
        assert float(row["probability_left"]) == pytest.approx(left, abs=1e-5)
        there = [name for name, p in (("left", left), ("red", red)) if p > 0.5]
        assert row["labels"] == "|".join(there)
    [first, *_] = predictions.classify(network, files)
    assert [guess.name for guess in first.labels] == [
        guess.name for guess in first.top if guess.probability > 0.5
    ]
    file = io.StringIO()
    output.write(predictions.classify(network, files), "json", file)
    found = json.loads(file.getvalue())
    assert [{one["label"] for one in row["labels"]} for row in found] == [
        set(row["labels"].split("|")) - {""} for row in rows
    ]
    assert all(len(row["labels"]) + len(row["others"]) == 2 for row in found)
    shown = output.table(list(predictions.classify(network, files)))
    assert shown.columns == ("image", "labels") and any("left" in row[1] for row in shown.rows)


@pytest.mark.slow
def test_a_copied_network_still_says_what_its_outputs_are(finished, images, tmp_path):
    folder = Path(images.source.removeprefix("csv:")).parent
    network = records.run_folder(finished, "distilled-0") / "best.keras"
    shutil.copy(network, tmp_path / "mine.keras")
    expected, copied, plain = (
        predictions.classify(path, [folder / "0.png"])
        for path in (network, tmp_path / "mine.keras", _without_notes(network, tmp_path))
    )
    for one, other in zip(list(expected), list(copied), strict=True):
        assert one.multi_label and other.multi_label and one.top == other.top
    assert saved.class_names(tmp_path / "mine.keras") == ["left", "red"]
    # As a file of an earlier version: one of two classes, by their numbers.
    [answer] = plain
    assert not answer.multi_label and {guess.name for guess in answer.top} == {"0", "1"}


def _without_notes(network, folder):
    loaded = keras.saving.load_model(network)
    loaded.save(folder / "plain.keras")
    return folder / "plain.keras"


@pytest.mark.slow
def test_students_trained_together_and_interrupted_are_those_trained_alone(finished, study):
    student = runs(study)["distilled-0"]
    settings = dataclasses.replace(student.distillation, alpha=0.5)
    pair = [
        dataclasses.replace(student, name="first"),
        dataclasses.replace(student, name="second", distillation=settings),
    ]
    with interrupted(session := Session(), 2, 0.5):
        train.run_together(pair, finished, session)
    first, second = train.run_together(pair, finished, session)
    alone = record(finished, "distilled-0")
    assert first.weights == alone.weights != second.weights
    assert (first.history, first.figures) == (alone.history, alone.figures)


@pytest.mark.slow
def test_mixed_and_smoothed_labels_train_with_live_teachers(finished, study):
    augment = dataclasses.replace(study.data.augment, mixup=0.4)
    student = dataclasses.replace(
        runs(study)["distilled-0"],
        name="mixed",
        data=dataclasses.replace(study.data, augment=augment),
        training=dataclasses.replace(SHORT, label_smoothing=0.1),
        teachers=("teacher", "alone-0"),
        cache=None,
    )
    found = train.run(student, finished)
    assert found.figures["test_accuracy"] > 0.7 and found.history["accuracy"][-1] > 0.6


@pytest.mark.slow
def test_a_weak_teachers_logits_between_0_and_1_teach(images, tmp_path, eagerly):
    """Of a label that most images have they look like probabilities in every batch."""
    inputs = keras.Input((8, 8, 3))
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    logits = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(0.2))(hidden)
    keras.Model(inputs, logits).save(tmp_path / "weak.keras")
    teacher = ModelConfig("saved", path=str(tmp_path / "weak.keras"))
    config = StudyConfig(
        "single",
        seeds=[0],
        data=images,
        teacher=teacher,
        student=NETWORK,
        training=dataclasses.replace(SHORT, epochs=1),
    )
    planned = [run for run in runner.plan(config) if run.name != "alone-0"]
    found = [train.run(run, tmp_path / "study") for run in planned]
    assert found[-1].status == records.FINISHED and found[-1].history["soft_loss"][0] > 0


@pytest.mark.slow
def test_an_ensemble_averages_sigmoids(finished, study):
    ensemble = dataclasses.replace(
        runs(study)["alone-0"],
        name="ensemble",
        model=None,
        members=("teacher", "alone-0"),
        trained=False,
    )
    found = train.run(ensemble, finished)
    images = data.load(study.data)
    members = [evaluation.load_network(finished, name, images) for name in ensemble.members]
    p = sum(1 / (1 + np.exp(-one.predict(images.test.images, verbose=0))) for one in members) / 2
    assert found.figures["test_brier"] == pytest.approx(np.mean((p - images.test.labels) ** 2))


def test_stored_members_are_averaged_as_live_ones():
    z = np.random.default_rng(0).normal(scale=5, size=(3, 4, 2)).astype("float32")
    p = (1 / (1 + np.exp(-z))).mean(axis=0)
    found = averaged(z, TASK.average("probabilities"))
    np.testing.assert_allclose(found, np.log(p / (1 - p)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, average_logits(z, "sigmoid"), rtol=1e-5, atol=1e-5)
    assert TASK.average("logits") == "logits"


def test_losses_are_means_over_the_labels():
    labels, logits = np.array([[1, 0]], "uint8"), np.array([[2.0, 0.0]])
    hard = TASK.hard_loss(soft_labels=False, label_smoothing=0.0)(labels, logits)
    assert float(hard) == pytest.approx((np.log(1 + np.exp(-2)) + np.log(2)) / 2)
    smooth = TASK.hard_loss(soft_labels=True, label_smoothing=0.2)(labels, logits)
    # The first label is 0.9, so that a tenth of its loss is that of a no: 2 more.
    assert float(smooth) == pytest.approx(float(hard) + 0.1 * 2 / 2)
    soft = TASK.soft_loss(DistillationConfig(temperature=2.0, scale_by_t2=False))
    assert isinstance(soft, losses.BinarySoftTargets)
    assert (soft.temperature, soft.scale_by_t2) == (2.0, False)
    metric = TASK.accuracy_metric(soft_labels=True)
    metric.update_state([[0.6, 0.6], [0.3, 0.0]], [[1.0, -1.0], [-3.0, -0.1]])
    assert float(metric.result()) == 0.75


@pytest.mark.parametrize("name", [name for name in STUDIES if name not in ("single", "multi_view")])
def test_studies_of_one_class_refuse_several_labels(images, name):
    """`multi_view` has no images: it makes its own."""
    training = SHORT
    if name == "label_free":
        training = dataclasses.replace(SHORT, steps=2 * SHORT.epochs, select="last")
    networks = {} if name == "channel_split" else {"teacher": NETWORK}
    config = StudyConfig(name, seeds=[0, 1], data=images, training=training, **networks)
    if getattr(STUDIES[name], "SEVERAL_LABELS", False):
        preflight.check_labels(config, runner.plan(config), Session())
        return
    with pytest.raises(UsageError, match=f"{name} needs images of one class.*alpha_temperature, s"):
        preflight.check_labels(config, runner.plan(config), Session())


def test_nothing_is_written_by_what_is_refused(study, tmp_path):
    refused = {
        "mysteries needs images of one class": {"study": "mysteries"},
        "distillation.loss must be 'soft_targets'": {
            "distillation": DistillationConfig(loss="dist")
        },
        "distillation.standardize must be False": {
            "distillation": DistillationConfig(standardize=True)
        },
        "cache.top_k keeps the largest": {"cache": CacheConfig(top_k=1, temperatures=[2.0])},
        "must learn the same: .*digits": {"teacher_data": DataConfig("digits")},
        "data.unlabelled stands beside images of one class": {
            "data": dataclasses.replace(study.data, unlabelled=str(tmp_path))
        },
    }
    for message, changes in refused.items():
        with pytest.raises(UsageError, match=message) as caught:
            runner.run_study(dataclasses.replace(study, **changes), tmp_path / "study")
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


LABELS = np.random.default_rng(0).integers(0, 2, (200, 4))
RIGHT = 2.0 * LABELS - 1 + np.random.default_rng(1).normal(scale=0.5, size=(200, 4))


def test_the_order_of_a_saved_teachers_labels_is_found_and_said():
    assert TASK.check_teacher("teacher", RIGHT, LABELS) == ""
    assert TASK.check_teacher("teacher", 3 * RIGHT - 1, LABELS) == ""
    order = [2, 0, 3, 1]  # label k is output order[k]
    moved = np.empty_like(RIGHT)
    moved[:, order] = RIGHT
    with pytest.raises(UsageError, match=r"another order.*Set classes: \[2, 0, 3, 1\]"):
        TASK.check_teacher("teacher", moved, LABELS)
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=(200, 4))
        if np.mean((noise > 0) == LABELS) < 0.5:
            assert "most frequent" in TASK.check_teacher("teacher", noise, LABELS)
    assert TASK.check_teacher("teacher", RIGHT[:10, ::-1], LABELS[:10]) == ""


def own(activation, path):
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(2, activation=activation)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, outputs).save(path)
    return path


def test_a_saved_teacher_may_end_in_sigmoid_and_not_in_softmax(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (4, 8, 8, 3)).astype("float32")
    path = own("sigmoid", tmp_path / "sigmoid.keras")
    found = saved.load(path, (8, 8, 3), 2, independent=True)(pixels)
    p = keras.models.load_model(path)(pixels)
    np.testing.assert_allclose(keras.ops.sigmoid(found), p, rtol=1e-5)
    with pytest.raises(UsageError, match="ends in softmax, so its classes exclude each other"):
        saved.load(own("softmax", tmp_path / "s.keras"), (8, 8, 3), 2, independent=True)
    with pytest.raises(UsageError, match="ends in sigmoid, so its classes do not exclude"):
        saved.load(path, (8, 8, 3), 2)


def test_a_new_head_is_of_classes(images, tmp_path):
    network = keras.models.load_model(own(None, tmp_path / "own.keras"))
    with pytest.raises(UsageError, match="new head tells classes apart.*Give a teacher that has"):
        heads.new_head(network, data.load(images))


def test_what_its_layers_do_not_tell_of_a_saved_teacher_is_asked(tmp_path):
    path = own(keras.activations.hard_sigmoid, tmp_path / "hard.keras")
    with pytest.raises(UsageError, match="Say which they are with model.outputs"):
        saved.load(path, (8, 8, 3), 2, independent=True)
    pixels = np.random.default_rng(0).uniform(0, 0.5, (4, 8, 8, 3)).astype("float32")
    found = saved.load(path, (8, 8, 3), 2, "probabilities", independent=True)(pixels)
    np.testing.assert_allclose(
        keras.ops.sigmoid(found), keras.models.load_model(path)(pixels), rtol=1e-5
    )
    assert Ensemble([saved.load(path, (8, 8, 3), 2, "logits", independent=True)] * 2, "sigmoid")
