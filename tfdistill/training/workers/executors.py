"""Where a study's tasks are done: in this process, in others of this machine, or by Ray.

The modules of the kinds of workers are imported where they are asked for.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tfdistill.config import StudyConfig
from tfdistill.models import saved_model_safety
from tfdistill.records import Record
from tfdistill.training.workers.schedule import Task
from tfdistill.utils import checks

if TYPE_CHECKING:
    from tfdistill.training.session import Session
    from tfdistill.training.workers.pool import Kind

EXECUTORS = ("processes", "ray")
MOST = 1024  # workers, and threads of each


class Executor(Protocol):
    """Does tasks, one or several at the same time."""

    parallel: bool

    @property
    def has_room(self) -> bool:
        """Whether one more task may begin."""

    @property
    def busy(self) -> bool:
        """Whether there are tasks of which `ended` has not told yet."""

    def choose(self, ready: Sequence[Task]) -> Task:
        """Return which of several tasks to begin."""

    def begin(self, task: Task) -> None:
        """Have a task done."""

    def ended(self) -> list[tuple[Task, list[Record]]]:
        """Wait until tasks have ended; return each with the records of its runs."""


class Here:
    """Does tasks in this process, one after the other.

    Args:
        folder: The study's folder.
        session: What the runs share.
    """

    parallel = False

    def __init__(self, folder: Path, session: "Session"):
        self._folder, self._session = folder, session
        self._found: list[tuple[Task, list[Record]]] = []

    @property
    def has_room(self) -> bool:
        return not self._found

    @property
    def busy(self) -> bool:
        return bool(self._found)

    def choose(self, ready: Sequence[Task]) -> Task:
        return ready[0]

    def begin(self, task: Task) -> None:
        from tfdistill.training import runner

        found = runner.do_group(list(task.runs), self._folder, self._session)
        self._found.append((task, found))

    def ended(self) -> list[tuple[Task, list[Record]]]:
        found, self._found = self._found, []
        return found


def kind_of(workers: int, executor: str, address: str | None) -> "Kind | None":
    """Return how workers are started; None where this process does all itself.

    Args:
        workers: Number of workers.
        executor: `processes` or `ray`, with which one worker is one elsewhere.
        address: Of a Ray cluster.

    Raises:
        UsageError: A number that is not possible here, an unknown executor, an address without Ray,
            or a cluster that cannot be reached.
    """
    checks.one_of("executor", executor, EXECUTORS)
    checks.count("workers", workers)
    if executor == "ray":
        if workers > MOST:
            raise checks.UsageError(f"workers must be at most {MOST}. Received: workers={workers}.")
        checks.installed(["ray"], "ray", "The executor ray")
        from tfdistill.training.workers.ray_cluster import RayCluster

        return RayCluster(address)
    if address is not None:
        raise checks.UsageError(
            f"An address is of a Ray cluster. Received: {checks.shown(address)} with the executor "
            f"{executor}. Leave it out, or take --executor ray."
        )
    if workers == 1:
        return None
    from tfdistill.training.workers.processes import Processes

    return Processes(workers)


def opened(
    kind: "Kind | None", workers: int, config: StudyConfig, folder: Path, session: "Session"
) -> contextlib.AbstractContextManager[Executor]:
    """Return what does the tasks of a study within a `with`.

    Args:
        kind: Of `kind_of`.
        workers: Number of workers.
        config: The study, with the threads of each.
        folder: The study's folder, whose lock is held.
        session: Of this process.
    """
    if kind is None:
        return contextlib.nullcontext(Here(folder, session))
    from tfdistill.training.workers import pool

    setup = pool.setup(folder, config, session.told, saved_model_safety.trusting())
    return pool.Pool(kind, workers, setup, session.progress)
