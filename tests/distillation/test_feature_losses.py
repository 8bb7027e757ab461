"""The Distiller with losses between inner layers, and with soft losses that need the labels."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest

from tests.training.test_train import DIGITS, NETWORK, SHORT, STUDENT, TEACHER, interrupted, renamed
from tfdistill import Distiller, FeatureLoss
from tfdistill.config import DistillationConfig, FeatureConfig, ModelConfig
from tfdistill.config.registry import FEATURE_LOSSES
from tfdistill.losses import Decoupled, Hints, decoupled
from tfdistill.training import train
from tfdistill.training.session import Session

HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(distiller, rate=0.01):
    distiller.compile(keras.optimizers.Adam(rate), HARD)
    return distiller


def network(channels=4, size=8, name="map", dtype=None):
    """A network of 3 classes on 8x8x1 images whose layer `name` is a map of the given size."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(channels, 9 - size, dtype=dtype)(inputs)
    x = layers.BatchNormalization(dtype=dtype)(x)
    x = layers.Activation("relu", name=name, dtype=dtype)(x)
    x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
    return keras.Model(inputs, layers.Dense(3, dtype="float32")(x))


def hints(weight=1.0, layer="map"):
    return FeatureLoss(Hints(), weight, teacher_layer=layer, student_layer=layer)


def values(variables):
    return [variable.numpy() for variable in variables]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def connectors_of(distiller):
    of_student = {id(variable) for variable in distiller.student.trainable_variables}
    return [v for v in distiller.trainable_variables if id(v) not in of_student]


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("kind", FEATURE_LOSSES.values(), ids=FEATURE_LOSSES)
def test_every_feature_loss_falls_when_it_is_trained(kind, images):
    x, y = images
    feature = FeatureLoss(kind(), 1.0, teacher_layer="map", student_layer="map")
    distiller = compiled(Distiller(network(4), network(6), alpha=0.0, features=[feature]))
    distiller.hard_weight = 0.0
    history = distiller.fit(x, y, batch_size=24, epochs=5, shuffle=False, verbose=0).history
    assert history["feature_loss"][0] > history["feature_loss"][-1] >= 0
    assert history["loss"] == pytest.approx(history["feature_loss"], rel=1e-5)


@pytest.mark.usefixtures("eagerly")
def test_regressors_of_hints_are_trained_beside_the_student_and_stay_behind(images, tmp_path):
    x, y = images
    student = network(4)
    size = student.count_params()
    distiller = compiled(Distiller(student, network(6), features=[hints()]))
    regressor = connectors_of(distiller)
    assert [tuple(variable.shape) for variable in regressor] == [(1, 1, 4, 6), (6,), (6,), (6,)]
    before = values(regressor)
    distiller.fit(x, y, verbose=0)
    assert not any(np.array_equal(a, b) for a, b in zip(before, values(regressor), strict=True))
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    assert loaded.count_params() == size
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), distiller.predict(x, verbose=0))


class Counting(keras.layers.Layer):
    """Passes its input on and counts how often it did."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs


def counting():
    inner = network()
    counter = Counting()
    return keras.Model(inner.inputs[0], counter(inner.output)), counter


@pytest.mark.usefixtures("eagerly")
def test_teacher_and_student_run_once_in_a_step(images):
    x, y = images
    student, of_student = counting()
    teacher, of_teacher = counting()
    features = [FeatureLoss(kind(), 1.0, "map", "map") for kind in FEATURE_LOSSES.values()]
    distiller = Distiller(student, teacher, soft_loss=Decoupled(), features=features)
    before = float(of_teacher.calls)  # it was asked once whether it gives probabilities
    compiled(distiller).fit(x, y, batch_size=8, verbose=0)
    assert (float(of_student.calls), float(of_teacher.calls) - before) == (3, 3)


def test_maps_that_do_not_fit_are_refused_when_built():
    feature = FeatureLoss(Hints(), teacher_layer="wide", student_layer="narrow")
    teacher, student = network(6, size=8, name="wide"), network(4, size=3, name="narrow")
    with pytest.raises(ValueError) as error:
        Distiller(student, teacher, features=[feature])
    told = str(error.value)
    assert all(
        part in told for part in ("'wide'", "'narrow'", "(None, 8, 8, 6)", "(None, 3, 3, 4)")
    )
    assert "\n" not in told


@pytest.mark.parametrize("side", ["teacher_layer", "student_layer"])
def test_a_layer_that_is_not_there_is_answered_with_those_that_are(side):
    feature = dataclasses.replace(hints(), **{side: "mapp"})
    with pytest.raises(ValueError, match="mapp.*Did you mean 'map'"):
        Distiller(network(name="map"), network(name="map"), features=[feature])


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_saved_distiller_goes_on_with_its_regressors(images, tmp_path):
    x, y = images
    teacher = network(6)
    distiller = compiled(Distiller(network(4), teacher, features=[hints()]))
    distiller.fit(x, y, shuffle=False, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    loaded.set_teacher(teacher)
    assert same(values(distiller.variables), values(loaded.variables))
    for model in (distiller, loaded):
        model.fit(x, y, shuffle=False, verbose=0)
    assert same(values(distiller.trainable_variables), values(loaded.trainable_variables))


@pytest.mark.usefixtures("eagerly")
def test_a_teacher_may_come_later_and_another_after_it(images):
    x, y = images
    distiller = Distiller(network(4), features=[hints()])
    distiller.set_teacher(network(6))
    compiled(distiller).fit(x, y, verbose=0)
    before = values(connectors_of(distiller))
    distiller.set_teacher(network(6))
    assert before and same(before, values(connectors_of(distiller)))
    with pytest.raises(ValueError, match=r"\(None, 8, 8, 7\)"):
        distiller.set_teacher(network(7))


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("one_hot", [False, True])
def test_decoupled_gets_the_labels(one_hot, images):
    x, y = images
    student, teacher = network(4), network(6)
    expected = decoupled(teacher(x), student(x, training=True), y, temperature=2.0)
    distiller = Distiller(student, teacher, soft_loss=Decoupled(2.0), hard_weight=1, soft_weight=1)
    hard = keras.losses.CategoricalCrossentropy(from_logits=True) if one_hot else HARD
    distiller.compile("sgd", hard)
    labels = keras.utils.to_categorical(y, 3) if one_hot else y
    logs = distiller.train_on_batch(x, labels, return_dict=True)
    assert float(logs["soft_loss"]) == pytest.approx(float(np.mean(expected)), rel=1e-5)
    other = decoupled(teacher(x), student(x), (y + 1) % 3, temperature=2.0)
    assert float(logs["soft_loss"]) != pytest.approx(float(np.mean(other)), rel=1e-2)


@pytest.mark.usefixtures("eagerly")
def test_labels_and_soft_loss_have_the_given_weights_and_the_penalty_its_own(small_network, images):
    x, y = images
    student = small_network(penalty=keras.regularizers.L2(0.3))
    penalty = float(sum(student.losses))
    distiller = Distiller(student, small_network(), hard_weight=0.1, soft_weight=9.0)
    logs = compiled(distiller).train_on_batch(x, y, return_dict=True)
    expected = 0.1 * logs["hard_loss"] + 9.0 * logs["soft_loss"] + penalty
    assert float(logs["loss"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
def test_the_soft_loss_gains_its_weight_over_the_first_steps(images):
    x, y = images
    settings = {"hard_weight": 1.0, "soft_weight": 2.0, "warmup_steps": 4}
    student = network(dtype="mixed_float16")
    distiller = compiled(Distiller(student, network(6), **settings), rate=1e-4)
    logs = distiller.fit(x, y, batch_size=24, epochs=6, shuffle=False, verbose=0).history
    growing = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.0])
    expected = np.array(logs["hard_loss"]) + growing * 2.0 * np.array(logs["soft_loss"])
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_warm_up_goes_on_where_a_saved_distiller_stopped(images, tmp_path):
    x, y = images
    teacher = network(6)
    distiller = compiled(Distiller(network(4), teacher, hard_weight=0.0, warmup_steps=4))
    distiller.fit(x, y, batch_size=8, verbose=0)  # 3 steps
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    loaded.set_teacher(teacher)
    logs = loaded.train_on_batch(x, y, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(0.75 * 0.9 * float(logs["soft_loss"]), rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("kind", FEATURE_LOSSES.values(), ids=FEATURE_LOSSES)
def test_half_precision_gives_about_the_same_loss(kind, images):
    x, y = images
    teacher, student = network(6), network(4)
    feature = FeatureLoss(kind(), 1.0, teacher_layer="map", student_layer="map")
    found = []
    for policy in ("float32", "mixed_float16"):
        keras.utils.set_random_seed(3)
        keras.config.set_dtype_policy(policy)
        try:
            half = network(4)
            half.set_weights(student.get_weights())
            distiller = compiled(Distiller(half, teacher, features=[feature]))
        finally:
            keras.config.set_dtype_policy("float32")
        found.append(distiller.fit(x, y, batch_size=24, verbose=0).history["feature_loss"][0])
        assert all(v.dtype == "float32" for v in distiller.trainable_variables)
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert found[1] == pytest.approx(found[0], rel=0.05, abs=1e-5) and found[0] > 0


HINTED = dataclasses.replace(
    STUDENT,
    model=ModelConfig("cnn2", width=0.25),
    distillation=DistillationConfig(features=[FeatureConfig("hints", 1.0)]),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study folder with a finished teacher."""
    folder = tmp_path_factory.mktemp("study")
    train.run(TEACHER, folder)
    return folder


@pytest.fixture(scope="module")
def whole(study):
    """The record of a student trained with hints, without interruption."""
    return train.run(renamed(HINTED, "whole"), study)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_run_with_hints_takes_the_papers_weight_where_none_is_given(study, whole):
    """It is 100, and 1 in the run that the others are compared with."""
    taught = DistillationConfig(alpha=0.0, features=[FeatureConfig("hints")])
    one = dataclasses.replace(SHORT, epochs=1)
    run = renamed(HINTED, "papers", distillation=taught, training=one)
    history = train.run(run, study).history
    total = history["hard_loss"][0] + history["feature_loss"][0]
    assert history["loss"][0] == pytest.approx(total, rel=1e-4)
    assert history["feature_loss"][0] > 20 * whole.history["feature_loss"][0]


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights_after_another_in_the_process(
    study, whole, tmp_path
):
    shutil.copytree(study / "runs" / "teacher", tmp_path / "runs" / "teacher")
    session, parted = Session(), renamed(HINTED, "parted")
    for run in (renamed(HINTED, "between", seed=9), parted):
        with interrupted(session, 1, 0.1):
            train.run(run, tmp_path, session)
    record = train.run(parted, tmp_path, session)
    assert record.weights == whole.weights
    assert record.history == whole.history


@pytest.mark.slow
def test_what_is_saved_of_a_run_is_the_student_alone(study, whole):
    from tfdistill import data
    from tfdistill.training import evaluation

    saved = evaluation.load_network(study, "whole", data.load(DIGITS), "last")
    assert saved.count_params() == whole.parameters
    assert type(saved).__name__ == "Functional" and NETWORK.name == saved.name
