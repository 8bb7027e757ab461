"""What batches hold beside images: examples without labels, weights, and what must be refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfdistill import Decoupled, Distiller, Population, SoftTargets, UsageError

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.arange(12, dtype="int32") % 3
SOME = np.where(np.arange(12) % 2, -1, Y).astype("int32")
LOGITS = np.random.default_rng(1).normal(size=(12, 3)).astype("float32")
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(seed=0):
    start = keras.initializers.GlorotUniform(seed)
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_initializer=start)])


def distiller(alpha=0.5, loss=HARD, jit_compile=False, **settings):
    made = Distiller(network(), alpha=alpha, **settings)
    metrics = ["accuracy"] if loss else []
    made.compile(keras.optimizers.SGD(0.1), loss, metrics=metrics, jit_compile=jit_compile)
    return made


def one_epoch(made, y, x=X, **settings):
    history = made.fit(x, y, batch_size=len(X), shuffle=False, verbose=0, **settings).history
    return {name: values[0] for name, values in history.items()}


def hard_of(student, labels):
    z = np.asarray(student(X), "float64")
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels]


class TestWithoutLabels:
    @pytest.mark.slow
    @pytest.mark.usefixtures("with_xla")
    @pytest.mark.parametrize("jit", [False, True])
    def test_minus_one_counts_in_the_soft_loss_alone(self, jit):
        made = distiller(jit_compile=jit)
        assert made.jit_compile == jit
        known = SOME >= 0
        expected = hard_of(made.student, np.maximum(SOME, 0))[known].mean()
        right = (np.asarray(made.student(X)).argmax(-1) == SOME)[known].mean()
        soft = float(SoftTargets(4.0)(LOGITS, made.student(X)))
        logs = one_epoch(made, {"label": SOME, "teacher_logits": LOGITS})
        assert logs["hard_loss"] == pytest.approx(expected, rel=1e-5)
        assert logs["soft_loss"] == pytest.approx(soft, rel=1e-5)
        assert logs["loss"] == pytest.approx((expected + soft) / 2, rel=1e-5)
        assert logs["accuracy"] == pytest.approx(right)

    @pytest.mark.usefixtures("eagerly")
    def test_weights_of_examples_count_beside_it(self):
        made = distiller()
        weights = np.linspace(0.5, 2.0, 12).astype("float32")
        known = SOME >= 0
        expected = (hard_of(made.student, np.maximum(SOME, 0)) * weights)[known].mean()
        y = {"label": SOME, "teacher_logits": LOGITS}
        logs = one_epoch(made, y, sample_weight=weights)
        assert logs["hard_loss"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.usefixtures("eagerly")
    def test_rows_of_one_hot_labels_and_yes_or_no(self):
        rows = np.where((SOME >= 0)[:, None], np.eye(3)[np.maximum(SOME, 0)], -1.0)
        one_hot = keras.losses.CategoricalCrossentropy(from_logits=True)
        made = distiller(loss=one_hot)
        expected = hard_of(made.student, np.maximum(SOME, 0))[SOME >= 0].mean()
        logs = one_epoch(made, {"label": rows.astype("float32"), "teacher_logits": LOGITS})
        assert logs["hard_loss"] == pytest.approx(expected, rel=1e-5)
        made = distiller(loss=keras.losses.BinaryCrossentropy(from_logits=True))
        z = np.asarray(made.student(X), "float64")
        each = np.log1p(np.exp(-z)) + (1 - rows) * z
        logs = one_epoch(made, {"label": rows.astype("float32"), "teacher_logits": LOGITS})
        assert logs["hard_loss"] == pytest.approx(each[SOME >= 0].mean(), rel=1e-5)

    @pytest.mark.usefixtures("eagerly")
    def test_a_batch_without_any_label_has_no_hard_loss(self):
        logs = one_epoch(distiller(), {"label": np.full(12, -1), "teacher_logits": LOGITS})
        assert logs["hard_loss"] == 0.0 and logs["loss"] == pytest.approx(logs["soft_loss"] / 2)

    @pytest.mark.usefixtures("eagerly")
    def test_the_teachers_class_stands_for_the_label_that_a_soft_loss_needs(self):
        made = distiller(alpha=1.0, soft_loss=Decoupled())
        filled = np.where(SOME >= 0, SOME, LOGITS.argmax(-1))
        expected = float(Decoupled()((LOGITS, filled), made.student(X)))
        logs = one_epoch(made, {"label": SOME, "teacher_logits": LOGITS})
        assert logs["soft_loss"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("loss", [None, HARD])
    def test_the_teacher_alone_needs_no_labels(self, loss):
        figures = []
        for y, alpha in ((None, 1.0), ({"teacher_logits": LOGITS}, 1.0), (Y, 1.0)):
            made = distiller(alpha, loss)
            made.set_teacher(None if isinstance(y, dict) else network(1))
            figures.append(one_epoch(made, y))
        assert set(figures[0]) == set(figures[1]) == {"loss", "soft_loss"}
        assert figures[0]["loss"] == pytest.approx(figures[2]["soft_loss"], rel=1e-6)

    def test_datasets_of_images_alone(self):
        made = distiller(1.0, None)
        made.set_teacher(network(1))
        images = tf.data.Dataset.from_tensor_slices(X).batch(12)
        assert made.fit(images, verbose=0).history["soft_loss"][0] > 0

    def test_alpha_below_one_needs_labels_and_their_loss(self):
        with pytest.raises(UsageError, match="the teacher alone can teach"):
            one_epoch(distiller(0.9), {"teacher_logits": LOGITS})
        with pytest.raises(UsageError, match="labels need a loss"):
            one_epoch(distiller(0.9, None), {"label": Y, "teacher_logits": LOGITS})
        made = distiller(1.0)
        one_epoch(made, {"teacher_logits": LOGITS})
        with pytest.raises(UsageError, match="alpha must stay 1"):
            made.alpha = 0.5
        assert made.alpha == 1.0

    def test_a_member_that_learns_from_labels_alone_needs_them(self):
        alone = network()
        alone.compile("sgd", HARD)
        population = Population([distiller(1.0), alone])
        population.compile()
        with pytest.raises(UsageError, match="learns from labels alone"):
            population.fit(X, {"teacher_logits": LOGITS}, verbose=0)


class OwnMean(keras.metrics.Metric):
    """The mean of the first output, as a user writes a metric."""

    def __init__(self):
        super().__init__(name="own")
        self.total, self.count = (self.add_weight(initializer="zeros") for _ in range(2))

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(keras.ops.sum(y_pred[:, 0] * sample_weight))
        self.count.assign_add(keras.ops.sum(sample_weight))

    def result(self):
        return self.total / self.count


class OwnCount(OwnMean):
    """The number of examples, as a user writes a metric that takes no weights."""

    def update_state(self, y_true, y_pred):
        self.total.assign_add(keras.ops.cast(keras.ops.shape(y_pred)[0], "float32"))
        self.count.assign(1.0)


@pytest.mark.slow
class TestMetricsWithoutLabels:
    """Any metric counts labelled examples alone; the values were worked out by hand."""

    def figures(self, x, labels, loss, metrics=(), weighted=(), weights=None):
        """Evaluate a student that returns its inputs, then train it at learning rate 0."""
        x = np.asarray(x, "float32")
        student = keras.Sequential([keras.Input(x.shape[1:]), layers.Dense(x.shape[1])])
        student.set_weights([np.eye(x.shape[1]), np.zeros(x.shape[1])])
        made = Distiller(student, alpha=0.5)
        given = {"metrics": list(metrics), "weighted_metrics": list(weighted)}
        made.compile(keras.optimizers.SGD(0.0), loss, **given)
        labels = np.asarray(labels)
        given = {"batch_size": 4, "sample_weight": weights, "verbose": 0}
        found = made.evaluate(x, labels, return_dict=True, **given)
        y = {"label": labels, "teacher_logits": x}
        trained = made.fit(x, y, validation_data=(x, labels), **given).history
        for name in set(found) - {"loss"}:
            assert trained[name][0] == pytest.approx(found[name])
            if weights is None:
                assert trained[f"val_{name}"][0] == pytest.approx(found[name])
        return found

    def test_yes_or_no(self):
        yes_or_no = keras.losses.BinaryCrossentropy(from_logits=True)
        metrics = [
            keras.metrics.AUC(from_logits=True, name="auc"),
            keras.metrics.Precision(thresholds=0.0, name="precision"),
            keras.metrics.TrueNegatives(thresholds=0.5, name="negatives"),
            OwnMean(),
            OwnCount(),
        ]
        weighted = [keras.metrics.Precision(thresholds=0.0, name="weighted")]
        x, labels = [[0], [1], [2], [3], [4], [5]], [0, -1, 1, 0, 1, -1]
        weights = np.array([1, 9, 2, 6, 4, 9], "float32")
        found = self.figures(x, labels, yes_or_no, metrics, weighted, weights)
        # Labelled are 0, 3 (no) and 2, 4 (yes): 2 > 0, 4 > 0 and 4 > 3 of four pairs.
        assert found["auc"] == pytest.approx(3 / 4)
        assert found["precision"] == pytest.approx(2 / 3)
        assert found["negatives"] == 1
        assert found["own"] == pytest.approx(9 / 4)
        assert found["weighted"] == pytest.approx((2 + 4) / (2 + 6 + 4))
        assert found["own_1"] == 6  # it cannot be told

    @pytest.mark.usefixtures("eagerly")
    def test_several_labels(self):
        several = keras.losses.BinaryCrossentropy(from_logits=True)
        metrics = [
            keras.metrics.Recall(thresholds=0.0, name="recall"),
            keras.metrics.AUC(from_logits=True, multi_label=True, name="auc"),
            keras.metrics.F1Score(threshold=0.0001, average="macro", name="f1"),
            "accuracy",
        ]
        x = [[1, -1], [1, 1], [-1, 1], [-2, -2], [2, -3]]
        labels = [[1, 1], [-1, -1], [0, 1], [1, 0], [-1, -1]]
        found = self.figures(x, np.array(labels, "float32"), several, metrics)
        assert found["recall"] == pytest.approx(2 / 4)  # of 4 that are there, 2 are said
        # First label: 1, -2 there, -1 not: one of two pairs. Second: -1, 1 there, -2 not: both.
        assert found["auc"] == pytest.approx((1 / 2 + 1) / 2, abs=1e-3)
        assert found["f1"] == pytest.approx((2 / 3 + 2 / 3) / 2, abs=1e-5)
        assert found["accuracy"] == pytest.approx(4 / 6)

    @pytest.mark.usefixtures("eagerly")
    def test_one_of_several_classes(self):
        metrics = [
            "accuracy",
            keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2"),
            keras.metrics.MeanIoU(3, sparse_y_pred=False, name="iou"),
        ]
        x = [[3, 2, 1], [3, 2, 1], [1, 2, 3], [3, 1, 2], [1, 3, 2]]
        found = self.figures(x, [0, -1, 1, 1, -1], HARD, metrics)
        assert found["accuracy"] == pytest.approx(1 / 3)
        assert found["top2"] == pytest.approx(2 / 3)
        # Said 0, 2, 0 where 0, 1, 1 is right: class 0 one of two, 1 and 2 none.
        assert found["iou"] == pytest.approx((1 / 2 + 0 + 0) / 3)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_class_weights_count_beside_stored_logits_as_beside_a_teacher():
    class_weight = {0: 3.0, 2: 0.0}
    per_class = np.array([3.0, 1.0, 0.0])[Y]
    made = distiller()
    expected = (hard_of(made.student, Y) * per_class).mean()
    stored = {"label": Y, "teacher_logits": LOGITS}
    batches = tf.data.Dataset.from_tensor_slices((X, stored)).batch(12)
    for given in ({"y": stored}, {"y": None, "x": batches}, {"y": Y}):
        made = distiller()
        made.set_teacher(network(1))
        settings = {"x": X, "class_weight": class_weight, **given}
        if given["y"] is None:
            figures = made.fit(settings["x"], class_weight=class_weight, verbose=0).history
            logs = {name: values[0] for name, values in figures.items()}
        else:
            logs = one_epoch(made, **settings)
        assert logs["hard_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("eagerly")
def test_the_loss_of_an_evaluation_is_that_of_the_labels_wherever_logits_come_from():
    stored, live = distiller(), distiller()
    live.set_teacher(network(1))
    figures = [
        stored.evaluate(X, {"label": Y, "teacher_logits": LOGITS}, verbose=0, return_dict=True),
        live.evaluate(X, Y, verbose=0, return_dict=True),
    ]
    assert figures[0] == figures[1]
    assert figures[0]["loss"] == pytest.approx(hard_of(live.student, Y).mean(), rel=1e-5)
    with pytest.raises(UsageError, match="Evaluation needs labels"):
        live.evaluate(X, verbose=0)


@pytest.mark.usefixtures("eagerly")
def test_the_figures_of_an_epoch_add_up_with_a_small_last_batch():
    made = distiller(0.3)
    y = {"label": Y, "teacher_logits": LOGITS}
    history = made.fit(X, y, batch_size=9, shuffle=False, verbose=0).history
    logs = {name: values[0] for name, values in history.items()}
    expected = 0.7 * logs["hard_loss"] + 0.3 * logs["soft_loss"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


BAD_LOGITS = {
    "NaN": (np.nan, "nan in row 7"),
    "infinity": (np.inf, "inf in row 7"),
    "beyond float16": (np.float16(1e6), "inf in row 7"),
}


class TestRefusedBeforeTraining:
    def check(self, y, match, **settings):
        made = distiller(**settings)
        before = made.student.get_weights()
        with pytest.raises(UsageError, match=match) as raised:
            one_epoch(made, y)
        assert "\n" not in str(raised.value)
        for one, other in zip(before, made.student.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize("value, shown", BAD_LOGITS.values(), ids=BAD_LOGITS)
    def test_logits_that_are_no_numbers(self, value, shown):
        logits = LOGITS.copy()
        logits[7, 1] = value
        self.check({"label": Y, "teacher_logits": logits}, shown)

    def test_probabilities_for_logits(self):
        p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
        for given in (p, p.astype("float16")):
            self.check({"label": Y, "teacher_logits": given}, "logits are probabilities")
        yes_or_no = keras.losses.BinaryCrossentropy(from_logits=True)
        y = np.eye(3, dtype="float32")[Y]
        self.check({"label": y, "teacher_logits": p}, "are probabilities", loss=yes_or_no)

    @pytest.mark.parametrize(
        "value, match", [(3, "3 in row 5"), (-2, "-2 in row 5"), (np.nan, "nan"), (0.5, "0.5 in")]
    )
    def test_labels_that_are_no_classes(self, value, match):
        labels = Y.astype("float32")
        labels[5] = value
        self.check({"label": labels, "teacher_logits": LOGITS}, match)
        self.check({"label": labels, "teacher_logits": LOGITS}, match, alpha=1.0)

    def test_half_labelled_rows_and_names(self):
        yes_or_no = keras.losses.BinaryCrossentropy(from_logits=True)
        rows = np.eye(3, dtype="float32")[Y]
        rows[4, 1] = -1
        self.check({"label": rows, "teacher_logits": LOGITS}, "row 4", loss=yes_or_no)
        self.check({"label": Y.astype(str), "teacher_logits": LOGITS}, "numbers of classes")

    def test_labels_of_another_form_than_the_loss_takes(self):
        one_hot = np.eye(3, dtype="float32")[Y]
        self.check({"label": one_hot, "teacher_logits": LOGITS}, "sparse loss takes the numbers")
        categorical = keras.losses.CategoricalCrossentropy(from_logits=True)
        self.check({"label": Y, "teacher_logits": LOGITS}, "to_categorical", loss=categorical)
        yes_or_no = keras.losses.BinaryCrossentropy(from_logits=True)
        signs = 2 * one_hot - 1
        self.check({"label": signs, "teacher_logits": LOGITS}, "-1 and 1 alone", loss=yes_or_no)

    def test_logits_with_another_number_of_axes(self):
        self.check({"label": Y, "teacher_logits": LOGITS[:, None]}, "shape of the student's")

    @pytest.mark.parametrize("key", ["labels", "logits", "teacher"])
    def test_targets_with_another_key(self, key):
        self.check({"label": Y, key: LOGITS}, f"unknown key '{key}'")

    def test_a_population_looks_at_them_too(self):
        population = Population([distiller(), distiller()])
        population.compile()
        with pytest.raises(UsageError, match="-2 in row 0"):
            population.fit(X, {"label": Y - 2, "teacher_logits": LOGITS}, verbose=0)

    @pytest.mark.usefixtures("eagerly")
    def test_minus_infinity_is_a_class_that_cannot_be(self):
        logits = LOGITS.copy()
        logits[:, 2] = -np.inf
        made = distiller(alpha=1.0)
        assert np.isfinite(one_epoch(made, {"label": Y, "teacher_logits": logits})["soft_loss"])
        assert all(np.isfinite(weight).all() for weight in made.student.get_weights())
