"""Numbers that go wrong in training: each stops with its cause in one line, or is handled right."""

import dataclasses
import gc
import math
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfdistill import data, losses, records
from tfdistill.config import (
    DataConfig,
    DistillationConfig,
    ModelConfig,
    RunConfig,
    StudyConfig,
    TrainingConfig,
)
from tfdistill.data import pipeline
from tfdistill.distillation.distiller import Distiller
from tfdistill.distillation.population import Population
from tfdistill.training import evaluation, runner, train
from tfdistill.utils.checks import UsageError
from tfdistill.utils.progress import Silent

pytestmark = pytest.mark.slow

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
DIGITS = DataConfig(train_examples=64, validation=50, test_examples=1)
SHORT = TrainingConfig(epochs=1, batch_size=32)
ALONE = RunConfig("alone", "alone", 0, DIGITS, ModelConfig("cnn2", width=0.125), SHORT)


def compiled(student, teacher=None, **settings):
    distiller = Distiller(student, teacher, **settings)
    distiller.compile("sgd", CROSS_ENTROPY, metrics=["accuracy"], run_eagerly=True)
    return distiller


def step(model, images, y):
    return model.train_on_batch(images, y, return_dict=True)


def finite(model):
    return all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves a network of the digits with one of its weights changed."""

    def save(value):
        network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
        network.add(keras.layers.Dense(10))
        kernel, bias = network.get_weights()
        bias[3] = value
        network.set_weights([kernel, bias])
        network.save(tmp_path / "teacher.keras")
        return tmp_path / "teacher.keras"

    return save


class TestStudies:
    @pytest.mark.usefixtures("eagerly")
    def test_a_saved_teacher_that_gives_no_numbers_is_named_and_the_rest_is_done(
        self, saved, tmp_path
    ):
        config = StudyConfig(
            study="single",
            seeds=[0],
            data=DIGITS,
            teacher=ModelConfig("saved", path=str(saved(np.nan)), outputs="logits"),
            student=ALONE.model,
            training=SHORT,
        )
        teacher, alone = runner.run_study(config, tmp_path / "out", Silent())
        assert teacher.status == records.DIVERGED
        assert "teacher.keras gives NaN or infinite logits" in teacher.message
        assert alone.status == records.FINISHED
        assert not (tmp_path / "out" / "runs" / "distilled-0").exists()

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("rate", [1e18, 1e38])
    def test_weights_that_the_last_step_spoils_are_no_result(self, rate, tmp_path):
        # One step in all: its loss is that of the initial weights, and finite.
        settings = TrainingConfig(epochs=1, batch_size=64, optimizer="sgd", learning_rate=rate)
        record = train.run(dataclasses.replace(ALONE, training=settings), tmp_path)
        assert record.status == records.DIVERGED
        assert "lower the learning rate" in record.message
        assert not list(tmp_path.glob("runs/alone/*.keras"))

    def test_one_test_image_and_batches_without_some_classes_are_enough(self, tmp_path):
        settings = dataclasses.replace(SHORT, batch_size=4)
        record = train.run(dataclasses.replace(ALONE, training=settings), tmp_path)
        assert record.status == records.FINISHED
        assert record.best["test_accuracy"] in (0.0, 1.0) and math.isfinite(record.best["test_nll"])


class TestLeaks:
    def test_stored_logits_are_let_go_with_their_batches(self, tmp_path):
        images = data.load(DIGITS)
        np.save(tmp_path / "logits.npy", np.zeros((1, 1000, 10), "float32"))
        logits = np.load(tmp_path / "logits.npy", mmap_mode="r")
        settings = pipeline.BatchSettings(batch_size=32)
        batches = pipeline.training_batches(images.train, settings, epochs=1, teacher_logits=logits)
        kept = weakref.ref(logits)
        del logits
        assert sum(len(y["teacher_logits"]) for _, y in batches) == 64
        del batches
        gc.collect()
        assert kept() is None


class TestImages:
    def arrays(self, labels, pixels=None, **settings):
        labels = np.asarray(labels)
        pixels = np.zeros((len(labels), 8, 8), np.uint8) if pixels is None else pixels
        config = DataConfig(source="arrays", **settings)
        return data.from_arrays((pixels, labels), (pixels, labels), config)

    @pytest.mark.parametrize(
        ("labels", "settings", "message"),
        [
            ([0, 1, -1, 2], {}, r"Labels must lie in 0\.\.2 .* from -1 to 2"),
            ([0, 0, 0, 0], {}, "at least two classes"),
            ([0, 1, 3, 3, 1, 0], {}, "Received none of: 2"),
            ([0], {}, "at least two classes"),
            ([0, 1], {}, "training example|must be a share below 1"),
            ([0, 1] * 4, {"train_examples": 1}, "Every class needs at least one training example"),
        ],
    )
    def test_labels_that_cannot_be_learned_are_refused(self, labels, settings, message):
        with pytest.raises(UsageError, match=message) as error:
            self.arrays(labels, **settings)
        assert "\n" not in str(error.value)

    def test_labels_beyond_the_named_classes_are_refused(self):
        pixels, labels = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 2, 1])
        with pytest.raises(UsageError, match=r"Labels must lie in 0\.\.1 for 2 classes"):
            data.from_arrays((pixels, labels), (pixels, labels), class_names=("a", "b"))

    def test_a_prepared_set_with_images_without_a_label_is_refused(self, tmp_path):
        class Unlabelled(tfds.core.GeneratorBasedBuilder):
            """Two classes to train on, and a test split without labels, as competitions have."""

            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(4, 4, 1)),
                    "label": tfds.features.ClassLabel(names=["no", "yes"]),
                }
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=("image", "label"),
                )

            def _split_generators(self, dl_manager):
                return {name: self._generate_examples(name) for name in ("train", "test")}

            def _generate_examples(self, name):
                for number in range(8):
                    label = number % 2 if name == "train" else -1
                    yield number, {"image": np.zeros((4, 4, 1), np.uint8), "label": label}

        Unlabelled(data_dir=tmp_path).download_and_prepare()
        config = DataConfig(source="tfds:unlabelled", data_dir=str(tmp_path), validation=2)
        with pytest.raises(UsageError, match="in its split 'test'. Received: labels from -1 to -1"):
            data.load(config)

    def test_no_validation_images_are_refused(self):
        with pytest.raises(UsageError, match=r"data\.validation must be a finite number > 0"):
            DataConfig(validation=0)

    def test_a_batch_larger_than_the_set_is_refused_before_anything_is_written(self, tmp_path):
        config = StudyConfig(
            study="single",
            data=DIGITS,
            teacher=ALONE.model,
            training=TrainingConfig(epochs=1, batch_size=65),
        )
        with pytest.raises(UsageError, match="64 training examples and batch_size=65"):
            runner.run_study(config, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_constant_images_are_normalised_to_numbers(self):
        pixels = np.full((20, 8, 8, 3), 7, np.uint8)
        images = self.arrays([0, 1] * 10, pixels)
        assert images.std == (1.0, 1.0, 1.0)
        logits = evaluation.build(ALONE.model, images)(images.train.images)
        assert np.isfinite(logits).all()


class TestDistiller:
    @pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
    @pytest.mark.parametrize("size", [1e4, 1e30])
    def test_teacher_logits_of_any_finite_size_train(self, small_network, images, precision, size):
        student = small_network(dtype=None if precision == "float32" else precision)
        distiller = compiled(student, alpha=0.5, temperature=4.0)
        pixels, labels = images
        taught = (size * np.eye(3)[labels]).astype("float32")
        logs = step(distiller, pixels, {"label": labels, "teacher_logits": taught})
        assert math.isfinite(logs["loss"]) and finite(student)

    @pytest.mark.parametrize("temperature", [1e-3, 1e-2, 1e2, 1e3])
    def test_value_and_gradient_are_right_at_any_temperature(self, temperature):
        teacher = np.array([[2.0, 0.5, -1.0]])
        student = tf.constant([[0.3, 0.1, -0.2]])
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = losses.SoftTargets(temperature)(teacher.astype("float32"), student)
        found = tape.gradient(loss, student).numpy()[0]

        def log_softmax(logits):
            shifted = (logits - logits.max()) / temperature
            return shifted - np.log(np.exp(shifted).sum())

        log_p, log_q = log_softmax(teacher[0]), log_softmax(student.numpy()[0].astype("float64"))
        p, q = np.exp(log_p), np.exp(log_q)
        rounded = 2e-7 * temperature**2  # what T^2 makes of float32's last digit
        value = temperature**2 * np.sum(p * (log_p - log_q))
        assert float(loss) == pytest.approx(value, rel=1e-4, abs=rounded)
        expected = temperature * (q - p)
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max() + 1e-9)

    def test_a_label_that_there_is_not_stops_the_step(self, small_network, images):
        pixels, labels = images
        distiller = compiled(small_network(), small_network())
        with pytest.raises(tf.errors.InvalidArgumentError, match="label value of 5|= 5 is not in"):
            step(distiller, pixels, np.where(labels == 1, 5, labels))


class TestPopulation:
    def test_a_member_whose_teacher_gives_no_numbers_spoils_no_other(self, small_network, images):
        pixels, labels = images
        spoiled = small_network()
        spoiled.set_weights([np.full_like(weight, np.nan) for weight in spoiled.get_weights()])
        members = [compiled(small_network(), teacher) for teacher in (small_network(), spoiled)]
        population = Population(members)
        population.compile(run_eagerly=True)
        step(population, pixels, labels)
        assert finite(members[0].student) and not finite(members[1].student)

    @pytest.mark.usefixtures("eagerly")
    def test_a_diverging_run_of_several_is_reported_and_the_others_finish(self, tmp_path):
        steep = dataclasses.replace(
            ALONE,
            name="taught",
            teachers=("alone",),
            distillation=DistillationConfig(alpha=0.0, hard_weight=1e38),
        )
        gentle = dataclasses.replace(steep, name="gentle", distillation=DistillationConfig())
        train.run(ALONE, tmp_path)
        found = train.run_together([steep, gentle], tmp_path)
        assert [record.status for record in found] == [records.DIVERGED, records.FINISHED]
        assert found[0].message and "\n" not in found[0].message
