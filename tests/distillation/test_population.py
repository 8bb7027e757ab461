"""A population: each member as if trained alone, its logs and errors, the estimate of memory."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill import (
    Distiller,
    FeatureLoss,
    LossWeightSchedule,
    SimilarityPreserving,
    SoftTargets,
)
from tfdistill.distillation.population import Population, fitting, member_bytes
from tfdistill.utils.checks import UsageError

CALLBACKS = keras.callbacks
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


def compiled(model, optimizer=None, **settings):
    model.compile(optimizer or keras.optimizers.SGD(0.1), HARD, metrics=["accuracy"], **settings)
    return model


def weights_of(model):
    return [weight.numpy() for weight in model.weights]


def assert_same(first, second, **tolerance):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, **(tolerance or {"rtol": 0, "atol": 0}))


class Student(keras.Model):
    """A subclassed model: without weights and shapes before its first batch."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        return self.dense(keras.ops.reshape(inputs, (-1, 64)))


@pytest.fixture
def family(small_network):
    """Return a function that builds the same very different, compiled members at every call."""

    def build(**settings):
        keras.utils.set_random_seed(7)
        adam, average = keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1, use_ema=True)
        penalty = keras.regularizers.L2(0.1)
        entropy = SoftTargets(2.0, divergence="cross_entropy")
        members = [
            (Distiller(small_network(), alpha=0.9, temperature=4.0), None),
            (Distiller(small_network(6, dropout=0.5), alpha=0.1, temperature=1.0), adam),
            (Distiller(small_network(3, batch_norm=True), soft_loss=entropy), average),
            (small_network(5, dropout=0.3, penalty=penalty), None),
        ]
        return [compiled(model, optimizer, **settings) for model, optimizer in members]

    return build


@pytest.fixture
def targets(images):
    """Labels with random teacher logits [24, 3]."""
    logits = np.random.default_rng(1).normal(size=(24, 3)).astype("float32")
    return {"label": images[1], "teacher_logits": logits}


def together(members, teacher=None, **settings):
    population = Population(members, teacher)
    population.compile(**settings)
    return population


def targets_of(member, targets):
    return targets if isinstance(member, Distiller) else targets["label"]


@pytest.mark.slow
@pytest.mark.usefixtures("with_xla")
@pytest.mark.parametrize(
    "chosen, settings, tolerance",
    [
        (slice(0, None, 2), {}, {}),
        (slice(1, 2), {"steps_per_execution": 3}, {}),
        (slice(1, None, 2), {"jit_compile": True}, {"rtol": 1e-3, "atol": 1e-5}),
    ],
)
def test_every_member_ends_as_if_trained_alone(
    images, targets, family, chosen, settings, tolerance
):
    x, y = images
    members, alone = family()[chosen], family(**settings)[chosen]
    validation = {"validation_data": (x[:10], y[:10])}
    population = together(members, **settings)
    history = population.fit(x, targets, epochs=2, **FIT, **validation).history
    logs = population.member_logs(history)
    for place, (member, other) in enumerate(zip(members, alone, strict=True)):
        expected = other.fit(x, targets_of(other, targets), epochs=2, **FIT, **validation).history
        assert set(logs[place]) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(logs[place][name], values, rtol=1e-3 if tolerance else 1e-6)
        assert_same(weights_of(member), weights_of(other), **tolerance)
        assert_same(
            [v.numpy() for v in member.optimizer.variables],
            [v.numpy() for v in other.optimizer.variables],
            **tolerance,
        )


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_the_teacher_runs_for_all_and_stays_outside(small_network, images, family):
    x, y = images
    teacher = small_network(batch_norm=True, dropout=0.9)
    before = weights_of(teacher)
    members, alone = family()[1:], family()[1:]
    population = together(members, teacher)
    population.fit(x, y, **FIT)
    logits = teacher.predict(x, batch_size=8, verbose=0)
    assert_same(before, weights_of(teacher))
    for member, other in zip(members, alone, strict=True):
        other.fit(x, targets_of(other, {"label": y, "teacher_logits": logits}), **FIT)
        assert_same(weights_of(member), weights_of(other), rtol=1e-5, atol=1e-6)
    own = {id(variable) for variable in population.variables}
    assert not own & {id(variable) for variable in teacher.variables}
    assert population.count_params() == sum(member.count_params() for member in members)


def test_the_teacher_runs_once_for_all_members(small_network, images, family):
    runs = []

    class Teacher(keras.layers.Layer):
        def call(self, x):
            runs.append(x.shape)
            return x

    logits = keras.layers.Dense(3)(keras.layers.Flatten()(inputs := keras.Input((8, 8, 1))))
    teacher = keras.Model(inputs, Teacher()(logits))
    population = together(family(), teacher, run_eagerly=True)
    runs.clear()  # of building it, and of the question whether it gives probabilities
    population.train_on_batch(*images)
    assert runs == [(24, 3)]


@pytest.mark.usefixtures("eagerly")
def test_logits_in_the_batch_go_before_the_teacher(small_network, images, targets, family):
    x, _ = images
    members, alone = family()[:1], family()[:1]
    together(members, small_network()).fit(x, targets, **FIT)
    together(alone).fit(x, targets, **FIT)
    for member, other in zip(members, alone, strict=True):
        assert_same(weights_of(member), weights_of(other))


@pytest.mark.usefixtures("eagerly")
def test_a_member_with_feature_losses_runs_its_own_teacher(small_network, images, targets):
    x, _ = images
    teacher = small_network(6)

    def member():
        keras.utils.set_random_seed(3)
        feature = FeatureLoss(SimilarityPreserving(), weight=10.0)
        return compiled(Distiller(small_network(), teacher, features=[feature]))

    first, alone = member(), member()
    population = together([first, compiled(small_network())])
    logs = population.fit(x, targets, **FIT).history
    alone.fit(x, targets, **FIT)
    assert logs["0/feature_loss"][0] > 0
    assert_same(weights_of(first), weights_of(alone))
    assert [logits.shape for logits in population.predict(x, verbose=0)] == [(24, 3), (24, 3)]


def test_without_any_teacher_logits_it_raises(images, family):
    with pytest.raises(ValueError, match="no teacher and the batch has no teacher_logits"):
        together(family()).fit(*images, **FIT)


@pytest.mark.usefixtures("eagerly")
def test_sample_weight_counts_for_every_member(images, targets, family):
    x, _ = images
    weight = np.linspace(0.0, 2.0, len(x)).astype("float32")
    members, alone = family()[::3], family()[::3]

    def batches(taught):
        return tf.data.Dataset.from_tensor_slices((x, taught, weight)).batch(8)

    together(members).fit(batches(targets), shuffle=False, verbose=0)
    for member, other in zip(members, alone, strict=True):
        other.fit(batches(targets_of(other, targets)), shuffle=False, verbose=0)
        assert_same(weights_of(member), weights_of(other))


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_evaluate_and_predict_measure_every_member(images, targets, family):
    x, y = images
    members = family()[::3]
    population = together(members)
    population.fit(x, targets, **FIT)
    logs = population.evaluate(x, y, batch_size=8, return_dict=True, verbose=0)
    predicted = population.predict(x, batch_size=8, verbose=0)
    for place, of_member in enumerate(population.member_logs(logs)):
        alone = members[place].evaluate(x, y, batch_size=8, return_dict=True, verbose=0)
        assert of_member == pytest.approx(alone)
        accuracy = (predicted[place].argmax(-1) == y).mean()
        assert of_member["accuracy"] == pytest.approx(accuracy)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_early_stopping_watches_one_member_and_restores_all(images, targets, family):
    x, y = images
    population = together(family()[:2])
    seen = []
    stop = keras.callbacks.EarlyStopping(
        "val_0/accuracy", mode="max", min_delta=2.0, restore_best_weights=True
    )
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(population.get_weights())
    )
    population.fit(x, targets, validation_data=(x, y), epochs=5, callbacks=[stop, note], **FIT)
    assert len(seen) == 2  # no accuracy rises by 2, and the first epoch is the best
    assert_same(population.get_weights(), seen[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda path: CALLBACKS.LearningRateScheduler(lambda epoch: 0.1),
        lambda path: CALLBACKS.ReduceLROnPlateau("val_0/loss"),
        lambda path: CALLBACKS.TerminateOnNaN(),
        lambda path: LossWeightSchedule(alpha=lambda epoch: 0.1),
        lambda path: CALLBACKS.BackupAndRestore(path),
        lambda path: CALLBACKS.EarlyStopping("val_loss"),
        lambda path: CALLBACKS.ModelCheckpoint(f"{path}/a.keras"),
        lambda path: CALLBACKS.ModelCheckpoint(
            f"{path}/a.weights.h5", "val_loss", save_weights_only=True, save_best_only=True
        ),
    ],
)
def test_callbacks_that_act_on_one_model_are_refused(make, images, targets, family, tmp_path):
    population = together(family()[:2])
    before = population.get_weights()
    callback = make(tmp_path)
    with pytest.raises(UsageError, match=f"The callback {type(callback).__name__} acts on one"):
        population.fit(images[0], targets, callbacks=[callback], **FIT)
    assert_same(population.get_weights(), before)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_callbacks_that_look_at_all_members_are_taken(images, targets, family, tmp_path):
    x, y = images
    weights = tmp_path / "all.weights.h5"
    callbacks = [
        CALLBACKS.CSVLogger(str(tmp_path / "log.csv")),
        CALLBACKS.TensorBoard(str(tmp_path / "logs")),
        CALLBACKS.ModelCheckpoint(str(weights), save_weights_only=True),
    ]
    population = together(family()[:2])
    population.fit(x, targets, validation_data=(x, y), callbacks=callbacks, **FIT)
    columns = (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert {"epoch", "0/loss", "1/accuracy", "val_0/loss", "val_1/accuracy"} <= set(columns)
    assert len(list((tmp_path / "logs").rglob("events.out.tfevents*"))) == 2
    again = together(family()[:2])
    again.load_weights(weights)
    assert_same(again.get_weights(), population.get_weights())


@pytest.mark.usefixtures("eagerly")
def test_saved_weights_continue_every_member(images, targets, family, tmp_path):
    x, _ = images
    first, second = together(family()[:2]), together(family()[:2])
    first.fit(x, targets, epochs=1, **FIT)
    first.save_weights(tmp_path / "p.weights.h5")
    second.load_weights(tmp_path / "p.weights.h5")
    assert_same(weights_of(first), weights_of(second))
    for member, loaded in zip(first.members, second.members, strict=True):
        slots = [[v.numpy() for v in m.optimizer.variables] for m in (member, loaded)]
        assert_same(*slots)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_member_that_diverges_disturbs_no_other(small_network, images, targets, family):
    x, _ = images
    wild = compiled(small_network(), keras.optimizers.SGD(float("nan")))
    members, alone = family()[1:3], family()[1:3]
    logs = together([wild, *members]).fit(x, targets, **FIT).history
    assert np.isnan(logs["0/loss"][-1]) and np.isfinite(logs["1/loss"][-1])
    for member, other in zip(members, alone, strict=True):
        other.fit(x, targets_of(other, targets), **FIT)
        assert_same(weights_of(member), weights_of(other))


@pytest.mark.usefixtures("eagerly")
def test_mixed_float16_scales_the_loss_of_its_member_only(small_network, images, targets):
    x = images[0]
    half = compiled(Distiller(small_network(dtype="mixed_float16"), alpha=0.5))
    full = compiled(small_network())
    other = compiled(keras.models.clone_model(full))
    other.set_weights(full.get_weights())
    logs = together([half, full]).train_on_batch(
        x[:8], {k: v[:8] for k, v in targets.items()}, return_dict=True
    )
    assert isinstance(half.optimizer, keras.optimizers.LossScaleOptimizer)
    assert int(half.optimizer.step_counter) == 1 and np.isfinite(logs["0/loss"])
    assert not isinstance(full.optimizer, keras.optimizers.LossScaleOptimizer)
    other.train_on_batch(x[:8], targets["label"][:8])
    assert_same(weights_of(full), weights_of(other))


@pytest.mark.slow
def test_a_subclassed_member_is_built_by_its_first_batch(small_network, images):
    members = [compiled(Student()), compiled(Distiller(Student()))]
    losses = together(members, small_network()).fit(*images, epochs=3, **FIT).history
    assert losses["0/loss"][-1] < losses["0/loss"][0]
    assert losses["1/loss"][-1] < losses["1/loss"][0]


def test_logs_are_taken_apart_by_member():
    logs = {"0/loss": 1, "10/loss": 2, "val_0/a/b": 3, "learning_rate": 4, "x/loss": 5}
    logs |= {f"{place}/loss": 0 for place in range(1, 10)}
    members = Population.member_logs(logs)
    assert len(members) == 11
    assert members[0] == {"loss": 1, "val_a/b": 3} and members[10] == {"loss": 2}


def flat(side):
    return keras.Sequential([keras.Input((side, side, 1)), keras.layers.Flatten()])


class TestErrors:
    def test_no_members(self):
        with pytest.raises(ValueError, match="at least one member. Received: none"):
            Population([])

    def test_a_member_that_is_not_compiled(self, small_network):
        population = Population([compiled(small_network()), small_network()])
        with pytest.raises(ValueError, match="must be compiled .* Received: member 1"):
            population.compile()

    def test_one_model_twice(self, small_network):
        model = compiled(small_network())
        with pytest.raises(ValueError, match="members 0 and 1, which share"):
            Population([model, model])

    def test_one_student_in_two_members(self, small_network):
        student = small_network()
        with pytest.raises(ValueError, match="members 1 and 2, which share"):
            Population([small_network(), compiled(Distiller(student)), Distiller(student)])

    def test_one_optimizer_for_two_members(self, small_network):
        optimizer = keras.optimizers.SGD(0.1)
        members = [compiled(small_network(), optimizer) for _ in range(2)]
        with pytest.raises(ValueError, match="members 0 and 1, which share 'sgd"):
            together(members)

    def test_one_metric_for_two_members(self, small_network, images):
        metric = keras.metrics.SparseCategoricalAccuracy()
        members = [small_network() for _ in range(2)]
        for member in members:
            member.compile("sgd", HARD, metrics=[metric])
        with pytest.raises(ValueError, match="members 0 and 1, which share"):
            together(members).fit(*images, **FIT)

    def test_members_of_other_images_or_classes(self, small_network):
        with pytest.raises(ValueError, match="take the same images. Received: member 0 with"):
            Population([small_network(), flat(4)])
        with pytest.raises(ValueError, match="member 0 with 3, member 1 with 64"):
            Population([small_network(), Distiller(flat(8))])

    def test_a_teacher_that_does_not_fit(self, small_network):
        with pytest.raises(ValueError, match="Received: teacher with 64, student with 3"):
            Population([small_network()], flat(8))

    def test_feature_losses_without_an_own_teacher(self, small_network):
        feature = FeatureLoss(SimilarityPreserving())
        member = Distiller(small_network(), features=[feature])
        with pytest.raises(ValueError, match="Received: member 1 .* without one"):
            Population([small_network(), member], small_network())


class TestMemory:
    def test_it_is_the_formula(self, small_network):
        step = 20 * 2**20
        activations = 6 * 6 * 4 + 6 * 6 * 4 + 4 + 3  # convolution, relu, pooling, logits
        weights = 4 * 9 + 4 + 4 * 3 + 3
        expected = weights * 4 * 4 + 10 * activations * 4 + step
        assert member_bytes(small_network(), batch_size=10) == expected
        assert member_bytes(small_network(), 10, slots=0) == expected - weights * 4 * 2

    def test_it_grows_with_batch_width_and_depth_and_shrinks_with_float16(self, small_network):
        start = member_bytes(small_network(), 10)
        assert member_bytes(small_network(), 20) > start
        assert member_bytes(small_network(5), 10) > start
        assert member_bytes(small_network(batch_norm=True), 10) > start
        assert member_bytes(small_network(dtype="mixed_float16"), 10) < start

    def test_models_inside_count(self, small_network):
        inner = small_network()
        images = keras.Input((8, 8, 1))
        assert member_bytes(keras.Model(images, inner(images)), 10) == member_bytes(inner, 10)

    def test_as_many_fit_as_the_memory_holds_and_always_one(self, small_network):
        student = small_network()
        one = member_bytes(student, 10)
        found = [fitting(student, 10, size) for size in (0, one, 3 * one - 1, 3 * one)]
        assert found == [1, 1, 2, 3]

    def test_unknown_layers_raise(self):
        with pytest.raises(ValueError, match="functional and sequential models"):
            member_bytes(Student(), 10)
