"""What outputs are: classes, yes or no, numbers; networks that end in softmax or sigmoid."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfdistill import Distiller, Ensemble, FeatureLoss, Population, UsageError, average_logits
from tfdistill.losses import BinarySoftTargets, Dist, SoftTargets, binary_soft_targets, soft_targets

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
SPARSE = keras.losses.SparseCategoricalCrossentropy
BINARY = keras.losses.BinaryCrossentropy


def network(outputs=3, activation=None, hidden=5, seed=0):
    starts = [keras.initializers.GlorotUniform(seed + place) for place in range(2)]
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(hidden, activation="relu", kernel_initializer=starts[0]),
            layers.Dense(outputs, activation=activation, kernel_initializer=starts[1]),
        ]
    )


def labels(outputs=3):
    if outputs == 1:
        return (X[:, 0] > 0).astype("float32")[:, None]
    return np.arange(len(X)) % outputs


def trained(student, teacher, loss, y, metrics=(), **settings):
    """Return the figures of one step, and the student's weights after it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distiller = Distiller(student, teacher, **settings)
        distiller.compile(keras.optimizers.SGD(0.1), loss, metrics=list(metrics))
        history = distiller.fit(X, y, batch_size=len(X), shuffle=False, verbose=0).history
    return {name: values[0] for name, values in history.items()}, student.get_weights(), distiller


class TestNumbersByHand:
    def test_bernoulli(self):
        # p = sigmoid(2 / 2) = 0.731059; KL(p || 0.5) = 0.110945; times T^2 = 4
        assert float(binary_soft_targets([[2.0]], [[0.0]], 2.0)[0]) == pytest.approx(0.443779, 1e-5)

    def test_several_outputs_are_averaged(self):
        # The second output agrees, so half of 0.327813 (T = 1, p = 0.880797)
        value = binary_soft_targets([[2.0, 1.0]], [[0.0, 1.0]], 1.0)
        assert float(value[0]) == pytest.approx(0.163907, rel=1e-5)

    def test_a_class_that_cannot_be_adds_nothing(self):
        # p_t = (1, 0, 0), p_s = 1/3 each: KL = log 3
        minus = -np.inf
        for divergence in ("kl", "cross_entropy"):
            value = soft_targets([[0.0, minus, minus]], [[0.0, 0.0, 0.0]], 1.0, divergence)
            assert float(value[0]) == pytest.approx(np.log(3), rel=1e-6)
        assert float(soft_targets([[0.0, minus]], [[0.0, minus]], 1.0)[0]) == 0.0
        assert float(binary_soft_targets([[minus]], [[0.0]], 1.0)[0]) == pytest.approx(np.log(2))

    def test_weighted_ensembles(self):
        # p = 0.75 * (0.5, 0.5) + 0.25 * (0.880797, 0.119203)
        logits = average_logits([[[0.0, 0.0]], [[2.0, 0.0]]], weights=[3, 1])
        assert ops.softmax(logits)[0].numpy() == pytest.approx([0.595199, 0.404801], rel=1e-5)
        # p = 0.75 * sigmoid(0) + 0.25 * sigmoid(2)
        one = average_logits([[[0.0]], [[2.0]]], "sigmoid", [0.75, 0.25])
        assert float(ops.sigmoid(one)[0, 0]) == pytest.approx(0.595199, rel=1e-5)
        plain = average_logits([[[0.0]], [[2.0]]], "logits", [0.75, 0.25])
        assert float(plain[0, 0]) == pytest.approx(0.5)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("loss", [BINARY(from_logits=True), "binary_crossentropy", BINARY()])
def test_one_output_learns_from_its_teacher(loss):
    student, teacher = network(1), network(1, seed=5)
    z_s, z_t = student(X), teacher(X)
    logs, _, distiller = trained(student, teacher, loss, labels(1), alpha=1.0, temperature=2.0)
    assert isinstance(distiller.soft_loss, BinarySoftTargets) and distiller.temperature == 2.0
    expected = float(np.mean(binary_soft_targets(z_t, z_s, 2.0)))
    assert logs["soft_loss"] == pytest.approx(expected, rel=1e-5) and expected > 1e-3


@pytest.mark.usefixtures("eagerly")
def test_outputs_that_do_not_exclude_each_other():
    student, teacher = network(3), network(3, seed=5)
    expected = float(np.mean(binary_soft_targets(teacher(X), student(X), 4.0)))
    y = np.random.default_rng(1).integers(0, 2, (len(X), 3)).astype("float32")
    logs, _, _ = trained(student, teacher, BINARY(from_logits=True), y)
    assert logs["soft_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("loss", ["mse", keras.losses.Huber(), "mean_absolute_error"])
def test_between_numbers_it_is_the_squared_difference(loss):
    student, teacher = network(2), network(2, seed=5)
    expected = float(np.mean((student(X) - teacher(X)) ** 2))
    logs, _, _ = trained(student, teacher, loss, X[:, :2], alpha=0.5)
    assert logs["soft_loss"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UsageError, match="has no temperature"):
        trained(student, teacher, loss, X[:, :2], temperature=2.0)


@pytest.mark.usefixtures("eagerly")
def test_a_class_at_each_position_with_weights_of_images():
    def dense(seed):
        start = keras.initializers.GlorotUniform(seed)
        inputs = keras.Input((2, 3, 4))
        return keras.Model(inputs, layers.Conv2D(3, 1, kernel_initializer=start)(inputs))

    student, teacher = dense(0), dense(1)
    x = np.random.default_rng(0).normal(size=(6, 2, 3, 4)).astype("float32")
    y = np.random.default_rng(0).integers(0, 3, (6, 2, 3))
    weights = np.arange(6, dtype="float32")
    value = np.asarray(soft_targets(teacher(x), student(x), 4.0))
    assert value.shape == (6, 2, 3)
    log_p = np.asarray(ops.log_softmax(student(x)))
    hard = -np.take_along_axis(log_p, y[..., None], -1)[..., 0]
    distiller = Distiller(student, teacher)
    distiller.compile("sgd", SPARSE(from_logits=True), metrics=["accuracy"])
    logs = distiller.train_on_batch(x, y, sample_weight=weights, return_dict=True)
    shares = weights[:, None, None]
    assert float(logs["soft_loss"]) == pytest.approx((value * shares).mean(), rel=1e-5)
    assert float(logs["hard_loss"]) == pytest.approx((hard * shares).mean(), rel=1e-5)
    assert float(logs["accuracy"]) == pytest.approx((log_p.argmax(-1) == y).mean())


class TestLastActivations:
    @pytest.fixture(scope="class")
    def plain(self):
        """What a student learns between networks that give logits."""
        return trained(network(), network(seed=5), SPARSE(from_logits=True), labels())

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize(
        "loss", [SPARSE(from_logits=True), SPARSE(), "sparse_categorical_crossentropy"]
    )
    @pytest.mark.parametrize("student_end", [None, "softmax"])
    @pytest.mark.parametrize("teacher_end", [None, "softmax"])
    def test_softmax_at_either_end_trains_as_without(self, plain, loss, student_end, teacher_end):
        ended = trained(network(3, student_end), network(3, teacher_end, seed=5), loss, labels())
        assert ended[0] == pytest.approx(plain[0], rel=1e-5)
        for one, other in zip(plain[1], ended[1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)

    @pytest.mark.usefixtures("eagerly")
    def test_sigmoid_at_either_end_trains_as_without(self):
        loss = BINARY(from_logits=True)
        plain = trained(network(1), network(1, seed=5), loss, labels(1), ["accuracy"])
        student, teacher = network(1, "sigmoid"), network(1, "sigmoid", seed=5)
        ended = trained(student, teacher, BINARY(), labels(1), ["accuracy"])
        assert ended[0] == pytest.approx(plain[0], rel=1e-5)

    @pytest.mark.usefixtures("eagerly")
    def test_metrics_and_predictions_are_of_the_students_own_outputs(self):
        student = network(3, "softmax")
        _, _, distiller = trained(student, network(seed=5), SPARSE(), labels(), ["accuracy"])
        np.testing.assert_array_equal(
            distiller.predict(X, verbose=0), student.predict(X, verbose=0)
        )
        figures = distiller.evaluate(X, labels(), verbose=0, return_dict=True)
        probabilities = np.asarray(student(X))
        assert figures["accuracy"] == np.mean(probabilities.argmax(-1) == labels())
        expected = -np.log(probabilities[np.arange(len(X)), labels()]).mean()
        assert figures["loss"] == pytest.approx(expected, rel=1e-5)

    def test_they_are_said(self):
        with pytest.warns(UserWarning, match="teacher ends in softmax"):
            Distiller(network(), network(3, "softmax", seed=5))
        with pytest.warns(UserWarning, match="member ends in softmax"):
            Ensemble([network(3, "softmax"), network(3, "softmax", seed=5)])
        distiller = Distiller(network(3, "softmax"), network(seed=5))
        with pytest.warns(UserWarning, match="student ends in softmax"):
            distiller.compile("sgd", SPARSE(from_logits=True))
        with pytest.warns(UserWarning, match="student returns logits"):
            Distiller(network(), network(seed=5)).compile("sgd", SPARSE())

    def test_members_of_an_ensemble_teach_their_mean_probability(self):
        members = [network(3, "softmax"), network(3, "softmax", seed=5)]
        with pytest.warns(UserWarning):
            ensemble = Ensemble(members, weights=[1, 3])
        mean = 0.25 * np.asarray(members[0](X)) + 0.75 * np.asarray(members[1](X))
        np.testing.assert_allclose(ops.softmax(ensemble(X)), mean, rtol=1e-5)
        sigmoids = [network(1, "sigmoid"), network(1, "sigmoid", seed=5)]
        with pytest.warns(UserWarning):
            ensemble = Ensemble(sigmoids)
        mean = (np.asarray(sigmoids[0](X)) + np.asarray(sigmoids[1](X))) / 2
        np.testing.assert_allclose(ops.sigmoid(ensemble(X)), mean, rtol=1e-5)

    @pytest.mark.usefixtures("eagerly")
    def test_a_population_takes_the_teachers_logits_too(self, plain):
        members = [Distiller(network(seed=place)) for place in range(2)]
        for member in members:
            member.compile(keras.optimizers.SGD(0.1), SPARSE(from_logits=True))
        with pytest.warns(UserWarning, match="teacher ends in softmax"):
            population = Population(members, network(3, "softmax", seed=5))
        population.compile()
        history = population.fit(X, labels(), batch_size=len(X), shuffle=False, verbose=0).history
        assert history["0/soft_loss"][0] == pytest.approx(plain[0]["soft_loss"], rel=1e-5)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("end", [None, "softmax"])
def test_feature_losses_between_sequential_networks(end):
    def named(seed):
        made = network(3, end, seed=seed)
        return keras.Sequential([keras.Input((4,)), *made.layers], name=f"net_{seed}")

    student, teacher = named(0), named(5)
    inner = [one.layers[0] for one in (student, teacher)]
    expected = float(np.mean((inner[0](X) - inner[1](X)) ** 2))
    feature = FeatureLoss("mse", 2.0, inner[1].name, inner[0].name)
    logs = trained(student, teacher, SPARSE(from_logits=True), labels(), features=[feature])[0]
    assert logs["feature_loss"] == pytest.approx(2 * expected, rel=1e-5)


class Subclassed(keras.Model):
    """A network whose layers do not tell that it ends in softmax."""

    def __init__(self, softmax):
        super().__init__()
        self.dense, self.softmax = layers.Dense(3), softmax

    def call(self, x):
        return ops.softmax(self.dense(x)) if self.softmax else self.dense(x)


class TestProbabilitiesThatNoLayerTells:
    @pytest.mark.slow
    @pytest.mark.parametrize("batches", [False, True])
    def test_of_a_teacher_stop_the_training(self, batches):
        import tensorflow as tf

        teacher = Subclassed(softmax=True)
        distiller = Distiller(network(), teacher)
        distiller.compile("sgd", SPARSE(from_logits=True))
        data = (X, labels())
        if batches:
            data = (tf.data.Dataset.from_tensor_slices(data).batch(16),)
        with pytest.raises(UsageError, match="teacher's outputs are probabilities"):
            distiller.fit(*data, verbose=0)

    @pytest.mark.slow
    def test_of_a_student_and_of_a_members_teacher(self):
        distiller = Distiller(Subclassed(softmax=True), network())
        distiller.compile("sgd", SPARSE())
        with pytest.raises(UsageError, match="student's outputs are probabilities"):
            distiller.fit(X, labels(), verbose=0)
        member = Distiller(network())
        member.compile("sgd", SPARSE(from_logits=True))
        population = Population([member], Subclassed(softmax=True))
        population.compile()
        with pytest.raises(UsageError, match="teacher's outputs are probabilities"):
            population.fit(X, labels(), verbose=0)

    @pytest.mark.slow
    def test_logits_of_such_networks_train(self):
        distiller = Distiller(Subclassed(softmax=False), Subclassed(softmax=False))
        distiller.compile("sgd", SPARSE(from_logits=True))
        assert distiller.fit(X, labels(), verbose=0).history["soft_loss"][0] > 0


class TestRefusals:
    @pytest.mark.usefixtures("eagerly")
    def test_a_loss_that_does_not_tell_what_outputs_are(self):
        with pytest.raises(UsageError, match="soft loss must be named"):
            trained(network(), network(seed=5), "poisson", labels())
        logs = trained(
            network(),
            network(seed=5),
            "categorical_hinge",
            np.eye(3)[labels()],
            soft_loss="soft_targets",
        )[0]
        assert logs["soft_loss"] > 0

    @pytest.mark.parametrize(
        "student, teacher, loss, match",
        [
            (network(1), network(1, seed=5), SPARSE(from_logits=True), "two or more outputs"),
            (network(1), network(1, seed=5), None, "must be named"),
            (network(3, "sigmoid"), network(), SPARSE(), "student ends in sigmoid"),
            (network(3), network(3, "softmax"), BINARY(), "teacher ends in softmax"),
            (network(), network(seed=5), [SPARSE()], "one loss"),
        ],
        ids=["one class", "no loss", "student's sigmoid", "teacher's softmax", "a list"],
    )
    def test_outputs_and_losses_that_contradict(self, student, teacher, loss, match):
        with pytest.raises(UsageError, match=match):
            trained(student, teacher, loss, labels())

    def test_a_softmax_over_one_output(self):
        for loss in (SoftTargets(), Dist()):
            with pytest.raises(UsageError, match="over one output"):
                loss(np.zeros((4, 1)), np.zeros((4, 1)))

    @pytest.mark.parametrize("average", [None, "probabilities"])
    def test_members_with_one_output_of_unknown_meaning(self, average):
        with pytest.raises(UsageError, match="average"):
            Ensemble([network(1), network(1, seed=5)], average)

    @pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [1.0, -1.0], [1.0, np.nan]])
    def test_weights_of_members(self, weights):
        with pytest.raises(UsageError, match="weights"):
            Ensemble([network(), network(seed=5)], weights=weights)

    def test_several_outputs(self):
        inputs = keras.Input((4,))
        heads = [layers.Dense(3)(inputs) for _ in range(2)]
        for outputs, shown in (
            (heads, "list of 0, 1"),
            (dict(zip("ab", heads, strict=True)), "'a', 'b'"),
        ):
            several = keras.Model(inputs, outputs)
            for pair in ((several, network()), (network(), several)):
                with pytest.raises(UsageError, match=shown):
                    Distiller(*pair)
            with pytest.raises(UsageError, match=shown):
                Ensemble([several])

    def test_weights_that_student_and_teacher_share(self):
        one = network()
        with pytest.raises(UsageError, match="must not train weights of its teacher"):
            Distiller(one, one)
        inputs = keras.Input((4,))
        on_top = keras.Model(inputs, layers.Dense(3)(one(inputs)))
        with pytest.raises(UsageError, match="must not train weights of its teacher"):
            Distiller(on_top, one)
        one.trainable = False
        Distiller(on_top, one)
        member = Distiller(network())
        member.compile("sgd", SPARSE(from_logits=True))
        with pytest.raises(UsageError, match="must not train weights of its teacher"):
            Population([member], member.student)

    def test_members_that_give_probabilities_or_are_not_built(self):
        inputs = keras.Input((4,))
        hidden = layers.Lambda(ops.softmax)(layers.Dense(3)(inputs))
        with pytest.raises(UsageError, match="member's outputs are probabilities"):
            Ensemble([keras.Model(inputs, hidden)])
        with pytest.raises(UsageError, match="Begin it with a keras.Input"):
            Ensemble([keras.Sequential([layers.Dense(3)])])

    def test_a_task_that_preprocesses_in_predict_alone(self):
        class Task(keras.Sequential):
            preprocessor = layers.Rescaling(1 / 255)

        task = Task([keras.Input((4,)), layers.Dense(3)])
        for pair in ((network(), task), (task, network())):
            with pytest.raises(UsageError, match="preprocesses images in its predict"):
                Distiller(*pair)
        task.preprocessor = None
        Distiller(network(), task)


class TestNamesOfKeras:
    def test_arguments_are_answered_with_ours(self):
        for name in ("distillation_losses", "student_loss_weight", "distillation_loss_weights"):
            with pytest.raises(UsageError, match=r"Unknown argument.*Give"):
                Distiller(network(), network(seed=5), **{name: 0.5})
        distiller = Distiller(network(), network(seed=5))
        with pytest.raises(UsageError, match="student_loss_fn"):
            distiller.compile("adam", student_loss_fn=SPARSE())
        divergence = keras.losses.KLDivergence()
        given = keras.distillation.LogitsDistillation(3.0, loss=divergence)
        with pytest.raises(UsageError, match="SoftTargets"):
            Distiller(network(), network(seed=5), soft_loss=given)

    def test_names_of_classes_and_layers_are_answered_with_ours(self):
        import tfdistill

        for name in ("LogitsDistillation", "FeatureDistillation"):
            with pytest.raises(AttributeError, match="Give "):
                getattr(tfdistill, name)
        with pytest.raises(UsageError, match="Give teacher_layer='a'"):
            FeatureLoss("mse", teacher_layer_name="a")

    def test_losses_by_name(self):
        distiller = Distiller(network(), network(seed=5), soft_loss="decoupled")
        assert distiller.soft_loss.name == "decoupled"
        assert isinstance(FeatureLoss("mse").loss, keras.losses.MeanSquaredError)
        for wrong in ("decouple", 3.0, lambda a, b: a):
            with pytest.raises(UsageError, match="soft_loss must be"):
                Distiller(network(), network(seed=5), soft_loss=wrong)

    @pytest.mark.parametrize("loss", ["kl_divergence", keras.losses.KLDivergence(), BINARY()])
    def test_a_soft_loss_between_probabilities(self, loss):
        with pytest.raises(UsageError, match="takes probabilities"):
            Distiller(network(), network(seed=5), soft_loss=loss)

    def test_the_teacher_can_be_asked_for(self):
        teacher = network(seed=5)
        distiller = Distiller(network(), teacher)
        assert distiller.teacher is teacher
        assert distiller.count_params() == network().count_params()
        distiller.set_teacher(None)
        assert distiller.teacher is None

    def test_the_reverse_order_is_noticed(self):
        with pytest.warns(UserWarning, match="more weights than its teacher"):
            Distiller(network(hidden=50), network())

    @pytest.mark.usefixtures("eagerly")
    def test_the_settings_that_the_documentation_gives_for_theirs_train_the_same(self):
        theirs, ours, teacher = network(), network(), network(seed=5)
        divergence = keras.losses.KLDivergence()
        given = keras.distillation.LogitsDistillation(3.0, loss=divergence)
        kerass = keras.distillation.Distiller(teacher, theirs, given, student_loss_weight=0.3)
        distiller = Distiller(student=ours, teacher=teacher, alpha=0.7, temperature=3.0)
        for one in (kerass, distiller):
            one.compile(keras.optimizers.SGD(0.1), SPARSE(from_logits=True))
            one.fit(X, labels(), batch_size=8, shuffle=False, verbose=0)
        for weight, other in zip(theirs.get_weights(), ours.get_weights(), strict=True):
            np.testing.assert_allclose(weight, other, rtol=1e-4, atol=1e-6)
