"""Studies on a Ray cluster: two simulated machines give the bits of one process."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.forked import LONG, Forked
from tests.training.test_workers import (
    CONFIG,
    Shown,
    none_left,
    results,
    run_here,
    states,
    written,
)
from tfdistill.cli.main import main
from tfdistill.training import runner

pytest.importorskip("ray", reason="Ray is not installed: pip install tfdistill[ray]")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two machines of one core each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    yield made.address
    made.shutdown()


def actors():
    """Return the processes that are workers of Ray."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::Actor"):
            found.append(int(path.parent.name))
    return found


def test_two_machines_give_the_bits_of_one_process_though_workers_are_killed(cluster, tmp_path):
    several = tmp_path / "several"
    killed = []

    def kill(shown, number, names):
        if names == ["alone-0"] and not killed:
            deadline = time.monotonic() + LONG
            while not states(several / "runs" / "alone-0"):
                assert time.monotonic() < deadline
            killed.extend(actors())
            for process in killed:
                os.kill(process, signal.SIGKILL)

    shown = Shown(kill)
    runner.run_study(CONFIG, several, shown, 2, "ray", cluster)
    lost = [line for line in shown.lines if line.startswith("A worker of Ray was lost")]
    assert len(lost) == len(killed) == 2
    assert "alone-0 resumed" in shown.lines
    one = Forked(run_here, CONFIG, str(tmp_path / "one"))
    _, errors = one.communicate()
    assert one.returncode == 0, errors
    assert results(several) == results(tmp_path / "one")
    assert none_left(several)


def test_a_cluster_that_is_too_small_or_cannot_be_reached_is_one_line(cluster, tmp_path, capfd):
    path = written(CONFIG, tmp_path)
    given = ["run", str(path), "--executor", "ray"]
    assert main([*given, "--workers", "3", "--address", cluster]) == 2
    assert main([*given, "--workers", "2", "--threads", "2", "--address", cluster]) == 2
    assert main([*given, "--address", "ray://head:10001"]) == 2
    assert main([*given, "--address", "nobody"]) == 2
    assert main([*given, "--address", "127.0.0.1:1"]) == 2
    assert main([*given, "--address", "127.0.0.1:99999999999"]) == 2
    errors = capfd.readouterr().err.splitlines()
    assert [line for line in errors if not line.startswith("tfdistill: error: ")] == []
    small, wide, client, nobody, closed, beyond = errors
    assert "has room for 2 workers of 1 threads: machines with 1, 1 cores" in small
    assert "has room for 0 workers of 2 threads" in wide
    assert "Received: 'ray://head:10001'" in client
    assert "Ray cannot be reached or started at 'nobody'" in nobody
    assert "Ray cannot be reached at '127.0.0.1:1': [Errno 111] Connection refused." in closed
    assert "Ray cannot be reached at '127.0.0.1:99999999999'" in beyond
    assert not (tmp_path / "out").exists()
