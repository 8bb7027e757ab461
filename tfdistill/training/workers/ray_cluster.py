"""Workers on the machines of a Ray cluster (https://docs.ray.io), or on this one by Ray.

Each is an actor that does its tasks in one thread and is asked in another how far it is. The
study's folder must be on a disk that all machines share.
"""

import contextlib
import logging
import math
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from tfdistill.training.workers.messages import EVERY, Answer, Hello, Lost, Setup
from tfdistill.training.workers.pool import Message
from tfdistill.training.workers.schedule import Task
from tfdistill.utils import checks

# Of the environment, what workers must have as well.
_PREFIXES = ("TFDISTILL_", "TFDS_", "TF_", "KERAS_")
_CORES = "CPU"
CONNECT_SECONDS = 10.0


class Actor:
    """A worker in a process of Ray."""

    def __init__(self) -> None:
        self._news: deque[Callable[[Any], Any]] = deque()

    @ray.method(concurrency_group="work")
    def begin(self, setup: Setup) -> Hello:
        """Start TensorFlow."""
        from tfdistill.training.workers.worker import Worker

        self._worker = Worker(setup, self._news.append)
        return self._worker.hello()

    @ray.method(concurrency_group="work")
    def do(self, task: Task) -> Answer:
        """Do a task."""
        return self._worker.do(task)

    @ray.method(concurrency_group="news")
    def news(self) -> list[Callable[[Any], Any]]:
        """Return what is to be shown since the last call."""
        return [self._news.popleft() for _ in range(len(self._news))]


class RayHandle:
    """A worker of Ray.

    Args:
        setup: What it is told.
        settings: Of the actor: the cores and GPUs that it needs.
    """

    def __init__(self, setup: Setup, settings: dict[str, Any]):
        groups = {"work": 1, "news": 1}
        self.actor = ray.remote(concurrency_groups=groups, **settings)(Actor).remote()
        self.waiting = [self.actor.begin.remote(setup)]

    def give(self, task: Task) -> None:
        self.waiting.append(self.actor.do.remote(task))

    def heard(self, ended: Sequence[Any]) -> Iterator[Message]:
        """Yield what it says, with the answers that have come.

        Args:
            ended: Of its calls.
        """
        try:
            for call in ended:
                message = ray.get(call)
                self.waiting.remove(call)
                yield from ray.get(self.actor.news.remote())  # all of it was said before
                yield message
            if not ended and self.begun:
                yield from ray.get(self.actor.news.remote())
        except RayTaskError as error:
            raise checks.UsageError(
                f"A worker of Ray cannot work: {checks.first_line(error.cause or error)} Install "
                "the same tfdistill on all machines, and give the same command again: it resumes."
            ) from error
        except RayError:
            yield Lost("of Ray was lost")

    @property
    def begun(self) -> bool:
        """Whether TensorFlow has started there."""
        return len(self.waiting) < 2


class RayCluster:
    """A cluster that this process is connected to until `close`.

    Args:
        address: HOST:PORT of its head, or `auto`; None takes RAY_ADDRESS, else starts Ray here.

    Raises:
        UsageError: Ray cannot be reached or started.
    """

    def __init__(self, address: str | None):
        if address is not None and "://" in address:
            raise checks.UsageError(
                "address must be HOST:PORT of a Ray cluster that this machine belongs to, or auto. "
                f"Received: {checks.shown(address)}. Give the command on a machine of the cluster."
            )
        self._handles: list[RayHandle] = []
        self._settings: dict[str, Any] = {}
        self._started = not ray.is_initialized()
        if self._started:
            _connect(address or os.environ.get("RAY_ADDRESS") or "local")

    def threads(self, workers: int, wanted: int | None) -> int:
        """Return the threads of each worker; by default as many as all can have.

        Raises:
            UsageError: There are not as many cores.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [int(node.get(_CORES, 0)) for node in nodes]
        possible = range(max(cores, default=0), 0, -1)
        fitting = (each for each in possible if _places(cores, each) >= workers)
        threads = wanted or next(fitting, 1)
        if _places(cores, threads) < workers:
            raise checks.UsageError(
                f"The Ray cluster has room for {_places(cores, threads)} workers of {threads} "
                f"threads: machines with {', '.join(map(str, cores)) or 'no'} cores. Received: "
                f"workers={workers}. Take fewer workers or --threads."
            )
        gpus = sum(node.get("GPU", 0) for node in nodes)
        share = 1 / math.ceil(workers / gpus) if gpus else 0
        self._settings = {"num_cpus": threads, "num_gpus": share}
        return threads

    def start(self, number: int, setup: Setup) -> RayHandle:
        """Start a worker."""
        environment = {"env_vars": _environment()}
        self._handles.append(RayHandle(setup, {**self._settings, "runtime_env": environment}))
        return self._handles[-1]

    def heard(self, handles: Sequence[RayHandle]) -> Iterator[tuple[RayHandle, Message]]:
        """Yield what workers say, and what they have shown; at most every half second."""
        calls = [call for handle in handles for call in handle.waiting]
        ended, _ = ray.wait(calls, num_returns=1, timeout=EVERY, fetch_local=False)
        for handle in handles:
            for message in handle.heard([call for call in handle.waiting if call in ended]):
                yield handle, message

    def close(self) -> None:
        """End all workers, and the connection if it was made here."""
        with contextlib.suppress(Exception):
            for handle in self._handles:
                ray.kill(handle.actor)
            self._handles = []
            if self._started:
                ray.shutdown()


def _connect(address: str) -> None:
    """Connect to a cluster; Ray takes signals over for itself and must give them back."""
    remedy = "Start it with `ray start --head`, and give the address that it says."
    _check_reached(address, remedy)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    settings: dict[str, Any] = {}
    if address == "local":
        settings = {"num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except Exception as error:  # each way in which it cannot be reached has an error of its own
        raise checks.UsageError(
            f"Ray cannot be reached or started at {checks.shown(address)}: "
            f"{checks.first_line(error)} {remedy}"
        ) from error
    finally:
        for number, handler in handlers.items():
            with contextlib.suppress(ValueError):  # not in the main thread, where it set none
                signal.signal(number, handler)


def _check_reached(address: str, remedy: str) -> None:
    """Raise where nobody listens at HOST:PORT; Ray itself would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise checks.UsageError(
            f"Ray cannot be reached at {checks.shown(address)}: {checks.first_line(error)} {remedy}"
        ) from None


def _places(cores: Sequence[int], threads: int) -> int:
    """Return how many workers of some threads machines of some cores have room for."""
    return sum(each // threads for each in cores)


def _environment() -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES)}
    path = os.pathsep.join(os.path.abspath(place) for place in sys.path)
    return {"TF_FORCE_GPU_ALLOW_GROWTH": "true", **found, "PYTHONPATH": path}
