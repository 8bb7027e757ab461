"""What of a study may be done next, where several workers do it at the same time.

A task is what one worker does: runs that are trained in one step, or the logits of teachers that
several runs read. It may begin when all that it needs is made.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfdistill.config import RunConfig


@dataclass(frozen=True)
class Task:
    """What one worker does at a time.

    Args:
        runs: What it trains in one step; of logits to store, one of the runs that are taught by
            them.
        makes: Names of what is there when it has ended.
        needs: Names of what must be there before.
        stores: Whether it stores the logits of the teachers of its run, and trains nothing.
    """

    runs: tuple[RunConfig, ...]
    makes: tuple[str, ...]
    needs: frozenset[str]
    stores: bool = False

    @property
    def title(self) -> str:
        """What it is called in messages."""
        first = self.runs[0].name
        if self.stores:
            return f"storing the teacher logits of {first}"
        return f"{first} and {len(self.runs) - 1} more" if self.runs[1:] else first


def tasks(groups: Iterable[Sequence[RunConfig]], caches: dict[str, str]) -> list[Task]:
    """Return the tasks of runs.

    Args:
        groups: Runs that are trained in one step, each group after those that it needs.
        caches: By the names of runs, where the logits are stored that they are taught by; of other
            runs nothing. The first task that reads logits stands behind one that stores them.
    """
    found: list[Task] = []
    stored: set[str] = set()
    for group in groups:
        names = tuple(run.name for run in group)
        needs = {name for run in group for name in run.needs} - set(names)
        read = {caches[run.name]: run for run in reversed(group) if run.name in caches}
        for place, run in read.items():
            if place not in stored:
                stored.add(place)
                found.append(Task((run,), (place,), frozenset(run.teachers), stores=True))
        found.append(Task(tuple(group), names, frozenset(needs | set(read))))
    return found


class Schedule:
    """Which tasks of a study may begin, and what failed.

    Args:
        tasks: All, each after those that make what it needs; what none makes is there.

    Example:
        >>> schedule = Schedule(tasks(groups, {}))
        >>> task = schedule.ready()[0]
        >>> schedule.begin(task); schedule.end(task)
    """

    def __init__(self, tasks: Iterable[Task]):
        self.waiting = list(tasks)
        self._unmade = {name for task in self.waiting for name in task.makes}
        self._failed: set[str] = set()

    def ready(self) -> list[Task]:
        """Return the tasks that may begin, in their order."""
        return [task for task in self.waiting if not task.needs & self._unmade]

    def begin(self, task: Task) -> None:
        """Note that a task is no longer waiting."""
        self.waiting.remove(task)

    def end(self, task: Task, failed: Iterable[str] = ()) -> None:
        """Note that a task has ended, and which of its runs others cannot use."""
        self._unmade -= set(task.makes)
        self.fail(failed)

    def fail(self, names: Iterable[str]) -> None:
        """Note which runs others cannot use."""
        self._failed |= set(names)

    def failed_need(self, run: RunConfig) -> str | None:
        """Return the first of what a run needs that failed; None where nothing did."""
        return next((name for name in run.needs if name in self._failed), None)
