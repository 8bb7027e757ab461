"""Runs of the multi-view theory: groups of networks, students, ensembles, and their records."""

import dataclasses

import numpy as np
import pytest

from tfdistill import records
from tfdistill.config import (
    DataConfig,
    DistillationConfig,
    FeatureConfig,
    RunConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.studies.multi_view import run as multi_view_run
from tfdistill.studies.multi_view.data import task
from tfdistill.studies.multi_view.network import Networks
from tfdistill.studies.multi_view.settings import (
    DescentSettings,
    GroupSettings,
    MultiViewData,
    NetworkSettings,
    PlantedData,
)
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError
from tfdistill.utils.progress import Silent

DATA = MultiViewData(
    classes=3,
    dimension=60,
    noise=0.3,
    sparsity=1.0,
    mu=0.1,
    single_view_examples=10,
    test_multi_view=60,
    test_single_view=60,
)
GROUP = GroupSettings(
    NetworkSettings(neurons=6), DescentSettings(), data=DATA, networks=3, steps=400
)
TAUGHT = DistillationConfig(hard_weight=1.0, soft_weight=3.0, temperature=10.0, average="logits")


def run_of(name, settings=GROUP, **more):
    return RunConfig(
        name=name,
        row=name,
        seed=5,
        data=DataConfig(),
        model=None,
        training=TrainingConfig(),
        kind="multi_view",
        settings=to_dict(settings),
        **more,
    )


SINGLE = run_of("single")
STUDENT = run_of("student", teachers=("single",), distillation=TAUGHT)
LOGITS = run_of("logits", members=("single",), average="logits", trained=False)


def do(run, folder, session=None):
    return multi_view_run.run(run, folder, session or Session())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study folder with a finished group of three single networks."""
    folder = tmp_path_factory.mktemp("study")
    do(SINGLE, folder)
    return folder


def saved(study, name):
    with np.load(records.run_folder(study, name) / "weights.npz") as file:
        return file["weights"], file["velocity"]


def networks(study, name):
    return Networks(GROUP.network, *saved(study, name))


@pytest.mark.slow
def test_a_run_leaves_its_record_and_its_weights(study):
    record = records.read(records.run_folder(study, "single"))
    folder = records.run_folder(study, "single")
    assert {path.name for path in folder.iterdir()} == {"record.json", "weights.npz"}
    assert saved(study, "single")[0].shape == (60, 6, 3, 3)
    assert record.status == records.FINISHED and record.figures["epoch"] == 400
    assert record.parameters == 60 * 6 * 3 and record.flops == 2 * 6 * 60 * 6 * 3
    assert len(record.extra["networks"]) == 3


def test_the_record_tells_what_the_saved_networks_do(study):
    found = records.read(records.run_folder(study, "single")).extra["networks"]
    examples = task(DATA, 5)
    wrong = (
        networks(study, "single").outputs(examples.test.patches).argmax(-1)
        != (examples.test.labels[:, None])
    )
    single = examples.test.shown >= 0
    for place, figures in enumerate(found):
        assert figures["multi_view_error"] == pytest.approx(wrong[~single, place].mean())
        assert figures["single_view_error"] == pytest.approx(wrong[single, place].mean())
        both = 0.9 * figures["multi_view_error"] + 0.1 * figures["single_view_error"]
        assert figures["test_error"] == pytest.approx(both)
    mean = np.mean([figures["test_error"] for figures in found])
    record = records.read(records.run_folder(study, "single"))
    assert record.figures["test_accuracy"] == pytest.approx(1 - mean)


def test_networks_learn_the_multi_view_examples(study):
    for figures in records.read(records.run_folder(study, "single")).extra["networks"]:
        assert figures["multi_view_error"] < 0.05
        assert figures["training_error"] < 0.05
        learned, responses = np.array(figures["learned"]), np.array(figures["responses"])
        assert learned.any(axis=1).sum() >= 2
        assert responses[learned].min() > responses[~learned].max(initial=0)


def test_the_same_run_twice_gives_the_same_bits(study):
    again = do(dataclasses.replace(SINGLE, name="again"), study)
    first = records.read(records.run_folder(study, "single"))
    assert again.weights == first.weights
    assert again.extra == first.extra


@pytest.mark.slow
def test_going_on_from_a_finished_run_is_training_in_one_go(study):
    rest = dataclasses.replace(GROUP, steps=15)
    parted = do(run_of("control", rest, start="single"), study)
    whole = do(run_of("whole", dataclasses.replace(GROUP, steps=415)), study)
    assert parted.weights == whole.weights


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_an_ensemble_averages_its_members(study, average):
    run = dataclasses.replace(LOGITS, name=f"ensemble-{average}", average=average)
    record = do(run, study)
    (figures,) = record.extra["networks"]
    examples = task(DATA, 5).test
    logits = networks(study, "single").outputs(examples.patches)
    values = np.exp(logits - logits.max(axis=-1, keepdims=True))
    values = values / values.sum(axis=-1, keepdims=True) if average == "probabilities" else logits
    right = values.mean(axis=1).argmax(axis=-1) == examples.labels
    assert figures["single_view_error"] == pytest.approx(1 - right[examples.shown >= 0].mean())
    assert not (records.run_folder(study, run.name) / "weights.npz").exists()


def test_an_ensemble_answers_to_a_view_as_its_members_in_the_mean(study):
    members = records.read(records.run_folder(study, "single")).extra["networks"]
    (ensemble,) = do(LOGITS, study).extra["networks"]
    mean = np.mean([figures["responses"] for figures in members], axis=0)
    np.testing.assert_allclose(ensemble["responses"], mean, atol=1e-3)


def gap(study, student, wanted):
    """Return how far each student's training logits are from some teacher's, centred."""
    patches = task(DATA, 5).train.patches
    taught, own = wanted(networks(study, "single").outputs(patches)), networks(study, student)
    difference = own.outputs(patches) - taught
    difference -= difference.mean(axis=-1, keepdims=True)
    return np.abs(difference).mean(axis=(0, 2))


def ensemble_of(logits):
    return logits.mean(axis=1, keepdims=True)


def next_of(logits):
    return np.roll(logits, -1, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("taught_by", "teacher"), [("ensemble", ensemble_of), ("next", next_of)], ids=["all", "next"]
)
def test_students_come_near_their_own_teacher(study, taught_by, teacher):
    settings = dataclasses.replace(GROUP, taught_by=taught_by, steps=400)
    run = run_of(f"of-{taught_by}", settings, teachers=("single",), distillation=TAUGHT)
    do(run, study)
    other = next_of if taught_by == "ensemble" else ensemble_of
    assert (gap(study, run.name, teacher) < gap(study, run.name, other)).all()


@pytest.mark.slow
def test_a_teacher_that_only_knows_the_labels_is_the_same_for_a_whole_class(study):
    logits = networks(study, "single").outputs(task(DATA, 5).train.patches)
    labels = task(DATA, 5).train.labels
    settings = dataclasses.replace(GROUP, taught_by="labels")
    taught = multi_view_run._taught(logits, labels, settings, "logits")
    usual = logits.mean(axis=1)[np.arange(len(labels)), labels].mean()
    np.testing.assert_allclose(taught[labels == 1], [[[0, usual, 0]] * 3] * (labels == 1).sum())
    run = run_of("of-labels", settings, teachers=("single",), distillation=TAUGHT)
    assert do(run, study).status == records.FINISHED


@pytest.mark.slow
def test_the_papers_update_trains_other_students_than_soft_targets(study):
    settings = dataclasses.replace(GROUP, soft_loss="one_sided", steps=50)
    runs = [
        run_of(name, each, teachers=("single",), distillation=TAUGHT)
        for name, each in (("raised", settings), ("soft", dataclasses.replace(GROUP, steps=50)))
    ]
    raised, soft = (do(run, study) for run in runs)
    assert raised.weights != soft.weights
    patches = task(DATA, 5).train.patches
    assert (
        networks(study, "raised").outputs(patches).mean()
        > networks(study, "soft").outputs(patches).mean()
    )


def test_students_start_from_the_weights_of_their_controls(study):
    one_step = dataclasses.replace(GROUP, steps=1, descent=DescentSettings(rate=1e-12))
    starts = []
    for name, more in (("a", {}), ("b", {"teachers": ("single",), "distillation": TAUGHT})):
        do(run_of(name, one_step, **more), study)
        starts.append(saved(study, name)[0])
    np.testing.assert_allclose(*starts, atol=1e-8)


def test_planted_labels_are_learned_by_linear_networks(tmp_path):
    linear = GroupSettings(
        NetworkSettings(neurons=1, activation="linear"),
        DescentSettings(),
        planted=PlantedData(
            classes=3, dimension=8, neurons=1, train_examples=300, test_examples=300
        ),
        networks=2,
        steps=60,
    )
    record = do(run_of("planted", linear), tmp_path)
    assert set(record.extra["networks"][0]) == {"training_error", "test_error"}
    assert record.figures["test_accuracy"] > 0.5
    ensemble = run_of("both", linear, members=("planted",), average="logits", trained=False)
    (figures,) = do(ensemble, tmp_path).extra["networks"]
    # Training is convex: two networks are nearly one.
    assert figures["test_error"] == pytest.approx(1 - record.figures["test_accuracy"], abs=0.02)


def test_a_run_is_done_again_only_if_something_it_follows_from_changed(study):
    record = records.read(records.run_folder(study, "single"))
    key = records.run_key(to_dict(SINGLE), [])
    other = dataclasses.replace(SINGLE, settings=to_dict(dataclasses.replace(GROUP, steps=401)))
    assert record.key == key != records.run_key(to_dict(other), [])


def test_weights_that_are_no_numbers_are_recorded_as_diverged(tmp_path):
    settings = dataclasses.replace(GROUP, descent=DescentSettings(rate=3e38), steps=5)
    record = do(run_of("fast", settings), tmp_path)
    assert record.status == records.DIVERGED and "lower settings.descent.rate" in record.message


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            dataclasses.replace(
                STUDENT, distillation=dataclasses.replace(TAUGHT, features=[FeatureConfig()])
            ),
            "soft targets and nothing else.*1 features",
        ),
        (
            dataclasses.replace(
                STUDENT, distillation=dataclasses.replace(TAUGHT, loss="decoupled")
            ),
            "distillation.loss='decoupled'",
        ),
        (
            dataclasses.replace(
                STUDENT, settings=to_dict(GROUP) | {"networks": 1, "taught_by": "next"}
            ),
            "at least 2. Received: settings.networks=1",
        ),
        (dataclasses.replace(SINGLE, settings=to_dict(GROUP) | {"step": 4}), "unknown key 'step'"),
        (dataclasses.replace(SINGLE, settings=to_dict(GROUP) | {"data": None}), "either"),
    ],
    ids=["features", "loss", "alone", "key", "no data"],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(run, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        multi_view_run.check(run, Session())
    with pytest.raises(UsageError, match=message):
        do(run, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_batch_is_one_step(tmp_path):
    run = multi_view_run.one_batch(SINGLE)
    record = do(run, tmp_path)
    assert record.figures["epoch"] == 1
    assert multi_view_run.cost(run, Session()) < multi_view_run.cost(SINGLE, Session())


class Steps(Silent):
    def __init__(self):
        self.seen = []

    def epoch(self, epoch, epochs, logs):
        self.seen.append((epoch, epochs, logs["accuracy"]))


def test_progress_is_told_of_every_step(tmp_path):
    progress = Steps()
    short = dataclasses.replace(GROUP, steps=3)
    do(run_of("short", short), tmp_path, Session(progress))
    assert [seen[:2] for seen in progress.seen] == [(0, 3), (1, 3), (2, 3)]
    assert all(0 <= seen[2] <= 1 for seen in progress.seen)


def test_a_view_is_learned_from_a_quarter_of_the_usual_answer():
    responses = np.array([[[8.0, 1.7], [6.0, 1.8]]])  # usual: 7
    assert multi_view_run.learned(responses).tolist() == [[[True, False], [True, True]]]
