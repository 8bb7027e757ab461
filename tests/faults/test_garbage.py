"""What finished runs leave to Python's collector is freed, even if Python itself never collects."""

import dataclasses
import gc
import weakref

import keras
import pytest
from tensorflow.python.framework.func_graph import FuncGraph

from tfdistill.config import DataConfig, DistillationConfig, ModelConfig, RunConfig, TrainingConfig
from tfdistill.training import learners, train
from tfdistill.training.session import Session

pytestmark = pytest.mark.slow

DIGITS = DataConfig(train_examples=64, validation=50, test_examples=50)
SHORT = TrainingConfig(epochs=1, batch_size=32)
ALONE = RunConfig("alone", "alone", 0, DIGITS, ModelConfig("cnn2", width=0.125), SHORT)
TAUGHT = dataclasses.replace(ALONE, teachers=("alone",), distillation=DistillationConfig())


@pytest.fixture
def uncollected():
    """Let Python collect nothing by itself, and leave out what earlier tests left."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand, right after a collection."""

    class Clock:
        now = 1e9

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(learners, "time", clock)
    return clock


def loop():
    """Return a weak reference to what only the collector can free."""

    class Node:
        pass

    node = Node()
    node.itself = node
    return weakref.ref(node)


def networks_and_graphs():
    """Return the numbers of networks, of graphs, and of graphs of a compiled training step."""
    found = [each for each in gc.get_objects() if issubclass(type(each), (keras.Model, FuncGraph))]
    graphs = [each for each in found if isinstance(each, FuncGraph)]
    steps = sum(graph.name == "one_step_on_data" for graph in graphs)
    return len(found) - len(graphs), len(graphs), steps


def test_runs_that_share_a_compiled_step_leave_as_much_as_one(uncollected, monkeypatch, tmp_path):
    monkeypatch.setattr(learners, "COLLECT_EVERY", 0.0)
    session = Session()
    train.run(ALONE, tmp_path, session)
    found = [networks_and_graphs()]
    for seed in range(1, 4):
        train.run(dataclasses.replace(TAUGHT, name=f"run-{seed}", seed=seed), tmp_path, session)
        found.append(networks_and_graphs())
    assert found[2] == found[3]
    assert found[0][-1] == found[3][-1] > 0  # the step of the first kind of run was let go


def test_all_objects_are_looked_through_only_now_and_then(uncollected, clock):
    bench = learners.Workbench()
    bench.collect_garbage()
    left = loop()
    clock.now += 0.9 * learners.COLLECT_EVERY
    bench.collect_garbage()
    assert left() is not None
    clock.now += 0.2 * learners.COLLECT_EVERY
    bench.collect_garbage()
    assert left() is None
    again = loop()
    bench.collect_garbage()
    assert again() is not None
