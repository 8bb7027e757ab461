"""Workers that are given tasks: begun when there is work, asked what came of it, replaced when
one is lost.

How a worker is started and reached is the business of its kind: `processes.py`, `ray_cluster.py`.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tfdistill.config import RunConfig, StudyConfig, to_dict
from tfdistill.records import Record
from tfdistill.training.workers.messages import Answer, Hello, Lost, Setup
from tfdistill.training.workers.schedule import Task
from tfdistill.training.workers.worker import MARKER, code
from tfdistill.utils import checks, signals, storage
from tfdistill.utils.progress import Silent
from tfdistill.utils.storage import digest

RETRIES = 2  # times that a task is given to another worker, after its own was lost
_NAMES = {"files": "code of tfdistill"}
Message = Hello | Answer | Lost | Callable[[Silent], Any]


class Handle(Protocol):
    """One worker, as it is seen from outside."""

    def give(self, task: Task) -> None:
        """Let it do a task; it has none."""


class Kind(Protocol):
    """How workers are started and reached."""

    def threads(self, workers: int, wanted: int | None) -> int:
        """Return the threads of each of some workers: as many as are wanted, if that is said."""

    def start(self, number: int, setup: Setup) -> Handle:
        """Start a worker."""

    def heard(self, handles: Sequence[Any]) -> Iterable[tuple[Any, Message]]:
        """Return what workers said, of those that `start` gave; wait until one says something."""

    def close(self) -> None:
        """End all workers, wherever they are in their work; may be called again."""


class Pool:
    """Workers of a study; within a `with` they can be given tasks, and none is left after it.

    Args:
        kind: How they are started.
        count: How many work at the same time.
        setup: What each is told; its token is made here.
        progress: Where their progress is shown.
    """

    parallel = True

    def __init__(self, kind: Kind, count: int, setup: Setup, progress: Silent):
        self._kind, self._count, self._progress = kind, count, progress
        self._setup = setup
        self._displays: dict[Handle, Silent] = {}
        self._given: dict[Handle, Task] = {}
        self._last: dict[Handle, str] = {}
        self._losses: dict[tuple[str, ...], int] = {}
        self._started = 0
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Pool":
        marker = Path(self._setup.folder) / MARKER
        self._open.enter_context(signals.before_leaving(self._kind.close))
        with storage.appearing(marker) as path:
            path.write_text(self._setup.token)
        self._open.callback(marker.unlink, missing_ok=True)
        self._open.callback(self._kind.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def has_room(self) -> bool:
        """Whether one more task may begin."""
        return len(self._given) < self._count

    @property
    def busy(self) -> bool:
        """Whether a task is being done."""
        return bool(self._given)

    def choose(self, ready: Sequence[Task]) -> Task:
        """Return the task to begin: where it can be, one whose compiled step a free worker has."""
        known = {self._last[each] for each in self._displays if each not in self._given}
        return next((task for task in ready if _compiled(task) in known), ready[0])

    def begin(self, task: Task) -> None:
        """Have a task done."""
        free = [each for each in self._displays if each not in self._given]
        same = [each for each in free if self._last[each] == _compiled(task)]
        if not free:
            self._started += 1
            handle = self._kind.start(self._started, self._setup)
            self._displays[handle] = self._progress.part()
        handle = (same or free or [handle])[0]
        self._given[handle], self._last[handle] = task, _compiled(task)
        handle.give(task)

    def ended(self) -> list[tuple[Task, list[Record]]]:
        """Wait until tasks have ended; return each with the records of its runs.

        Raises:
            UsageError: What a run raised, a worker that cannot work, or one that was lost again and
                again.
            Refused: As a run raised it.
            RuntimeError: Another error of a run.
        """
        found: list[tuple[Task, list[Record]]] = []
        while self._given and not found:
            for handle, message in self._kind.heard(list(self._given)):
                if isinstance(message, Hello):
                    check(message)
                elif isinstance(message, Answer):
                    _raise(message)
                    found.append((self._given.pop(handle), message.records))
                elif isinstance(message, Lost):
                    self._give_again(handle, message)
                else:
                    message(self._displays[handle])
        return found

    def _give_again(self, handle: Handle, lost: Lost) -> None:
        task = self._given.pop(handle)
        self._displays.pop(handle).leave()
        losses = self._losses[task.makes] = self._losses.get(task.makes, 0) + 1
        if losses > RETRIES:
            raise checks.UsageError(
                f"{losses} workers have ended at {task.title}: the last {lost.why}. Free memory "
                "or take fewer --workers, and give the same command again: it resumes."
            )
        self._progress.say(
            f"A worker {lost.why}; another goes on with {task.title} at its last finished epoch"
        )
        self.begin(task)


def check(hello: Hello) -> None:
    """Raise if a worker cannot work, or would not do what this process does.

    Raises:
        UsageError: What it said, or packages that differ.
    """
    if hello.problem:
        raise checks.UsageError(hello.problem)
    here = code()
    different = [name for name, value in here.items() if hello.code.get(name) != value]
    if different:
        name = different[0]
        found, expected = (str(each.get(name))[:12] for each in (hello.code, here))
        raise checks.UsageError(
            "Workers must have the packages of the process that gives them work. Received: a "
            f"worker on {hello.host} whose {_NAMES.get(name, name)} is {found}, not {expected}. "
            "Install the same there, and give the same command again: it resumes."
        )


def setup(folder: Path, config: StudyConfig, told: Iterable[str], trusting: bool) -> Setup:
    """Return what workers of this process's study are told."""
    places = str(Path(folder).absolute()), str(Path.cwd())
    return Setup(*places, secrets.token_hex(16), config, frozenset(told), trusting)


def _compiled(task: Task) -> str:
    """Return about what a compiled step depends on, without TensorFlow."""
    return digest(task.stores, [_shape(run) for run in task.runs])


def _shape(run: RunConfig) -> list[Any]:
    values = to_dict(run)
    distillation = run.distillation and run.distillation.loss
    return [values["kind"], values["model"], values["data"], values["training"], distillation]


def _raise(answer: Answer) -> None:
    """Raise the error of an answer, if there is one."""
    if not answer.error:
        return
    kinds: dict[str, type[Exception]] = {"usage": checks.UsageError, "refused": checks.Refused}
    error = kinds.get(answer.kind, RuntimeError)(answer.error)
    for note in answer.notes:
        error.add_note(note)
    raise error
