"""The train step: its formula, its independence from the teacher, and Keras's own promises."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfdistill import Distiller, Ensemble, FeatureLoss, SimilarityPreserving, SoftTargets
from tfdistill.distillation.schedules import LossWeightSchedule

HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(distiller, **settings):
    distiller.compile(keras.optimizers.SGD(0.1), HARD, metrics=["accuracy"], **settings)
    return distiller


def weights_of(model):
    return [weight.numpy() for weight in model.weights]


def assert_same(first, second, **tolerance):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, **(tolerance or {"rtol": 0, "atol": 0}))


def copy_of(model):
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    return other


@pytest.mark.usefixtures("eagerly")
def test_the_loss_is_the_formula_with_weights_and_regularisation(small_network, images):
    x, y = images
    student, teacher = small_network(penalty=keras.regularizers.L2(0.3)), small_network()
    sample_weight = np.linspace(0.0, 2.0, len(x)).astype("float32")

    z_s = student(x).numpy().astype("float64")
    z_t = teacher(x).numpy().astype("float64")
    p = lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True)  # noqa: E731
    hard = -np.log(p(z_s)[np.arange(len(y)), y])
    soft = 16 * (p(z_t / 4) * (np.log(p(z_t / 4)) - np.log(p(z_s / 4)))).sum(-1)
    penalty = 0.3 * sum((layer.kernel.numpy() ** 2).sum() for layer in student.layers[1:2])
    expected = ((0.3 * hard + 0.7 * soft) * sample_weight).mean() + penalty

    distiller = compiled(Distiller(student, teacher, alpha=0.7, temperature=4.0))
    logs = distiller.train_on_batch(x, y, sample_weight=sample_weight, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(logs["hard_loss"]) == pytest.approx((hard * sample_weight).mean(), rel=1e-5)
    assert float(logs["soft_loss"]) == pytest.approx((soft * sample_weight).mean(), rel=1e-5)


@pytest.mark.usefixtures("eagerly")
def test_weights_of_examples_count_beside_arrays_and_beside_datasets(small_network, images):
    x, y = images
    targets = {"label": y, "teacher_logits": small_network()(x).numpy()}
    weights = np.linspace(0.0, 2.0, len(x)).astype("float32")
    student = small_network()
    dataset = tf.data.Dataset.from_tensor_slices((x, targets, weights)).batch(24)
    losses = []
    for data in ((x, targets, weights), (dataset,)):
        distiller = compiled(Distiller(copy_of(student)))
        names = ("x", "y", "sample_weight")
        given = dict(zip(names, data, strict=False))
        history = distiller.fit(**given, batch_size=None if len(data) == 1 else 24, verbose=0)
        losses.append(history.history["loss"][0])
    unweighted = compiled(Distiller(copy_of(student))).fit(x, targets, batch_size=24, verbose=0)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(unweighted.history["loss"][0], rel=1e-3)


@pytest.mark.usefixtures("eagerly")
def test_logits_in_the_batch_train_as_the_live_teacher_does(small_network, images):
    x, y = images
    student, teacher = small_network(batch_norm=True), small_network()
    other = copy_of(student)
    live = compiled(Distiller(student, teacher, alpha=0.5, temperature=2.0))
    cached = compiled(Distiller(other, alpha=0.5, temperature=2.0))
    logits = teacher.predict(x, batch_size=8, verbose=0)
    live.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    cached.fit(x, {"label": y, "teacher_logits": logits}, batch_size=8, shuffle=False, verbose=0)
    assert_same(weights_of(student), weights_of(other), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("eagerly")
def test_the_teacher_never_changes_and_is_no_part_of_the_distiller(small_network, images, tmp_path):
    x, y = images
    student, teacher = small_network(), small_network(batch_norm=True, dropout=0.5)
    before = weights_of(teacher)
    distiller = compiled(Distiller(student, teacher))
    distiller.fit(x, y, epochs=2, verbose=0)
    assert_same(before, weights_of(teacher))
    assert teacher.trainable and len(teacher.trainable_variables) == 6
    assert distiller.count_params() == student.count_params()
    distiller.save_weights(tmp_path / "d.weights.h5")
    distiller.save(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras")
    assert sum(v.numpy().size for v in loaded.variables) == sum(
        v.numpy().size for v in student.variables
    )


@pytest.mark.usefixtures("eagerly")
def test_the_teacher_runs_in_inference_mode(small_network, images):
    x, y = images
    student, teacher = small_network(), small_network(batch_norm=True, dropout=0.9)
    distiller = compiled(Distiller(student, teacher, alpha=1.0, temperature=1.0))
    expected = SoftTargets(1.0)(teacher(x, training=False), student(x))
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert float(logs["soft_loss"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("alpha, moves_with", [(0.0, "labels"), (1.0, "teacher")])
def test_alpha_at_its_ends_leaves_one_loss_alone(small_network, images, alpha, moves_with):
    x, y = images
    start = small_network()
    logits = np.random.default_rng(1).normal(size=(2, len(x), 3)).astype("float32")
    results = {}
    for name, labels, taught in (
        ("reference", y, logits[0]),
        ("labels", (y + 1) % 3, logits[0]),
        ("teacher", y, logits[1]),
    ):
        student = copy_of(start)
        distiller = compiled(Distiller(student, alpha=alpha))
        distiller.train_on_batch(x, {"label": labels, "teacher_logits": taught})
        results[name] = np.concatenate([w.ravel() for w in weights_of(student)])
    for name in ("labels", "teacher"):
        changed = not np.array_equal(results[name], results["reference"])
        assert changed == (name == moves_with)


def test_without_a_teacher_it_raises_instead_of_training_on_labels(small_network, images):
    x, y = images
    student = small_network()
    before = weights_of(student)
    with pytest.raises(ValueError, match="has no teacher and the batch has no teacher_logits"):
        compiled(Distiller(student)).fit(x, y, verbose=0)
    assert_same(before, weights_of(student))


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_saving_and_loading_goes_on_as_if_never_interrupted(small_network, images, tmp_path):
    x, y = images
    teacher = small_network()
    distiller = compiled(Distiller(small_network(), teacher, alpha=0.6, temperature=3.0))
    distiller.fit(x, y, epochs=2, shuffle=False, verbose=0)
    distiller.save(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras")
    assert (loaded.alpha, loaded.temperature) == (pytest.approx(0.6), 3.0)
    with pytest.raises(ValueError, match="has no teacher"):
        loaded.train_on_batch(x, y)
    loaded.set_teacher(teacher)
    for model in (distiller, loaded):
        model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    assert_same(weights_of(distiller.student), weights_of(loaded.student))
    assert int(loaded.optimizer.iterations) == 4
    np.testing.assert_array_equal(distiller.predict(x, verbose=0), loaded.predict(x, verbose=0))


@pytest.mark.slow
def test_a_new_teacher_replaces_the_old_in_a_compiled_step(small_network, images):
    x, y = images
    first, second = small_network(), small_network()
    distiller = compiled(Distiller(small_network(), first, alpha=1.0, temperature=1.0))
    distiller.fit(x, y, verbose=0)
    distiller.set_teacher(second)
    expected = SoftTargets(1.0)(second(x), distiller.student(x))
    loss = distiller.fit(x, y, batch_size=24, verbose=0).history["loss"][0]
    assert loss == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_alpha_and_temperature_follow_a_schedule_without_retracing(small_network, images):
    x, y = images
    traces = []

    class Counting(SoftTargets):
        def call(self, y_true, y_pred):
            traces.append(1)
            return super().call(y_true, y_pred)

    distiller = compiled(Distiller(small_network(), small_network(), soft_loss=Counting()))
    seen = []
    distiller.fit(
        x,
        y,
        epochs=3,
        verbose=0,
        callbacks=[
            LossWeightSchedule(alpha=lambda e: e / 2, temperature=lambda e: 1.0 + e),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda e, logs: seen.append(
                    (distiller.alpha, distiller.temperature, logs)
                )
            ),
        ],
    )
    assert [(alpha, temperature) for alpha, temperature, _ in seen] == [(0, 1), (0.5, 2), (1, 3)]
    assert seen[0][2]["loss"] == pytest.approx(seen[0][2]["hard_loss"], rel=1e-5)
    assert seen[2][2]["loss"] == pytest.approx(seen[2][2]["soft_loss"], rel=1e-5)
    assert len(traces) <= 2  # Keras may trace once for the shapes


@pytest.mark.usefixtures("eagerly")
def test_evaluation_measures_the_student_and_shows_no_zero_soft_loss(small_network, images):
    x, y = images
    distiller = compiled(Distiller(small_network(), small_network()))
    history = distiller.fit(x, y, validation_data=(x, y), verbose=0).history
    assert {"loss", "hard_loss", "soft_loss", "accuracy", "val_loss", "val_accuracy"} == set(
        history
    )
    expected = float(HARD(y, distiller.student(x)))
    assert distiller.evaluate(x, y, return_dict=True, verbose=0)["loss"] == pytest.approx(expected)


@pytest.mark.slow
def test_dropout_stays_on_in_training_after_a_validation(small_network, images):
    x, y = images
    student = small_network(dropout=0.5)
    distiller = compiled(Distiller(student, small_network()))
    distiller.fit(x, y, validation_data=(x, y), verbose=0)
    seeds = [v.numpy() for v in distiller.non_trainable_variables if "seed" in v.name]
    distiller.fit(x, y, validation_data=(x, y), verbose=0)
    after = [v.numpy() for v in distiller.non_trainable_variables if "seed" in v.name]
    assert any((a != b).any() for a, b in zip(seeds, after, strict=True))


@pytest.mark.usefixtures("eagerly")
def test_feature_losses_reach_the_student_and_leave_the_teacher(small_network, images):
    x, y = images
    student, teacher = small_network(4), small_network(6)
    before = weights_of(teacher)
    feature = FeatureLoss(SimilarityPreserving(), weight=10.0)
    distiller = compiled(Distiller(student, teacher, alpha=0.0, features=[feature]))
    kernel = student.layers[1].kernel.numpy()
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["hard_loss"] + logs["feature_loss"], rel=1e-5)
    assert logs["feature_loss"] > 0
    assert (student.layers[1].kernel.numpy() != kernel).any()
    assert_same(before, weights_of(teacher))
    assert distiller.predict(x, verbose=0).shape == (24, 3)


@pytest.mark.usefixtures("eagerly")
def test_an_ensemble_teaches_its_mean_probabilities(small_network, images):
    x, y = images
    members = [small_network(), small_network(5)]
    student = small_network()
    mean = ops.mean(ops.stack([ops.softmax(m(x)) for m in members]), axis=0)
    expected = SoftTargets(1.0)(ops.log(mean), student(x))
    distiller = compiled(Distiller(student, Ensemble(members), alpha=1.0, temperature=1.0))
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
def test_with_several_steps_in_one_call_it_trains_the_same(small_network, images):
    x, y = images
    start, teacher = small_network(), small_network()
    results = []
    for steps in (1, 3):
        student = copy_of(start)
        distiller = compiled(Distiller(student, teacher), steps_per_execution=steps)
        distiller.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        results.append(weights_of(student))
    assert_same(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("eagerly")
def test_class_weight_counts(small_network, images):
    x, y = images
    distiller = compiled(Distiller(small_network(), small_network(), alpha=0.0))
    expected = float(HARD(y, distiller.student(x), np.where(y == 0, 3.0, 0.0)))
    history = distiller.fit(x, y, class_weight={0: 3.0, 1: 0.0, 2: 0.0}, verbose=0, epochs=1)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_mixed_float16_scales_the_loss_also_for_a_loaded_student(small_network, images, tmp_path):
    x, y = images
    keras.config.set_dtype_policy("mixed_float16")
    try:
        small_network().save(tmp_path / "student.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    student = keras.saving.load_model(tmp_path / "student.keras")
    teacher = small_network()
    distiller = compiled(Distiller(student, teacher, alpha=1.0, temperature=2.0))
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    expected = float(SoftTargets(2.0)(teacher(x), student(x)))
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-2)
    assert all(weight.dtype == "float32" for weight in student.trainable_weights)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_callbacks_that_restore_the_best_weights_work(small_network, images, tmp_path):
    x, y = images
    distiller = compiled(Distiller(small_network(), small_network()))
    path = tmp_path / "best.weights.h5"
    distiller.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=3,
        verbose=0,
        callbacks=[
            keras.callbacks.ModelCheckpoint(path, save_weights_only=True),
            keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True),
        ],
    )
    predictions = distiller.predict(x, verbose=0)
    distiller.load_weights(path)
    assert distiller.predict(x, verbose=0).shape == predictions.shape
    assert path.exists()


@pytest.mark.usefixtures("eagerly")
def test_a_subclassed_student_is_built_by_its_first_batch(small_network, images):
    x, y = images

    class Student(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, inputs):
            return self.dense(keras.ops.reshape(inputs, (-1, 64)))

    distiller = compiled(Distiller(Student(), small_network()))
    losses = distiller.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_keras_tuner_searches_alpha(small_network, images, tmp_path):
    import keras_tuner

    x, y = images
    teacher = small_network()

    def build(choices):
        alpha = choices.Choice("alpha", [0.1, 0.9])
        return compiled(Distiller(small_network(), teacher, alpha=alpha))

    tuner = keras_tuner.GridSearch(build, "val_accuracy", directory=tmp_path)
    tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    assert {each.get("alpha") for each in tuner.get_best_hyperparameters(2)} == {0.1, 0.9}


class TestErrors:
    @pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan"), "0.5"])
    def test_alpha_outside_its_range(self, small_network, alpha):
        with pytest.raises(
            ValueError, match="alpha must be a number from 0 to 1. Received: alpha="
        ):
            Distiller(small_network(), alpha=alpha)

    def test_an_assigned_alpha_is_checked_too(self, small_network):
        distiller = Distiller(small_network(), alpha=0.5)
        with pytest.raises(ValueError, match="alpha must be"):
            distiller.alpha = 2.0
        assert distiller.alpha == 0.5

    @pytest.mark.parametrize("temperature", [0, -1.0, float("inf")])
    def test_temperature_not_positive(self, small_network, temperature):
        with pytest.raises(ValueError, match="temperature must be a number from 0.001 to 1000"):
            Distiller(small_network(), temperature=temperature)

    def test_temperature_and_loss_together(self, small_network):
        with pytest.raises(ValueError, match="temperature or soft_loss, not both"):
            Distiller(small_network(), temperature=2.0, soft_loss=SoftTargets())

    def test_other_classes(self, small_network):
        inputs = keras.Input((8, 8, 1))
        teacher = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
        with pytest.raises(ValueError, match="teacher with 5, student with 3"):
            Distiller(small_network(), teacher)

    def test_other_classes_in_the_batch(self, small_network, images):
        x, y = images
        targets = {"label": y, "teacher_logits": np.zeros((24, 5), "float32")}
        with pytest.raises(ValueError, match="teacher with 5, student with 3"):
            compiled(Distiller(small_network())).train_on_batch(x, targets)

    def test_other_input(self, small_network):
        inputs = keras.Input((9, 9, 1))
        teacher = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
        with pytest.raises(ValueError, match=r"teacher input \(None, 9, 9, 1\)"):
            Distiller(small_network(), teacher)

    def test_a_layer_that_is_not_there(self, small_network):
        feature = FeatureLoss(SimilarityPreserving(), student_layer="nowhere")
        with pytest.raises(ValueError, match="nowhere"):
            Distiller(small_network(), small_network(), features=[feature])

    def test_metrics_in_the_place_of_weights_of_losses(self, small_network):
        with pytest.raises(ValueError, match=r"weighted by its alpha.*loss_weights=\['accuracy'\]"):
            Distiller(small_network()).compile(
                "sgd", "sparse_categorical_crossentropy", ["accuracy"]
            )
