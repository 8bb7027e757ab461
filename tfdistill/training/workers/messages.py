"""What the process that runs a study and its workers say to each other."""

import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdistill.config import StudyConfig
from tfdistill.records import Record
from tfdistill.utils.progress import Silent

EVERY = 0.5  # seconds between two messages about how far a run is


@dataclass(frozen=True)
class Setup:
    """What a worker is told at its start.

    Args:
        folder: The study's folder, absolute.
        working_folder: The folder that relative paths of the configuration start from.
        token: What the file `MARKER` in the study's folder holds, if it is the same folder.
        config: The study, with the number of threads.
        told: What need not be told about the images again.
        trusting: Whether files of networks are trusted.
    """

    folder: str
    working_folder: str
    token: str
    config: StudyConfig
    told: frozenset[str] = frozenset()
    trusting: bool = False


@dataclass(frozen=True)
class Hello:
    """What a worker says first.

    Args:
        host: The machine it is on.
        code: Versions and the hash of the package's files: all that must be the same.
        problem: One line, where it cannot work.
    """

    host: str
    code: dict[str, str]
    problem: str = ""


@dataclass(frozen=True)
class Answer:
    """What came of a task.

    Args:
        records: Of its runs.
        error: One line, where it could not be done.
        kind: `usage` of what a user can correct, `refused` of a result that must not be used, else
            `unknown`: an error of the program.
        notes: What is shown below it.
    """

    records: list[Record] = field(default_factory=list)
    error: str = ""
    kind: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lost:
    """What is said of a worker whose process has ended.

    Args:
        why: As the end of a sentence.
    """

    why: str


class Told(Silent):
    """Progress in a worker, told to the process that shows it.

    Args:
        tell: Takes a function of a display that shows what is told; it can be pickled.
        every: Seconds between two messages about how far a run is.
    """

    def __init__(self, tell: Callable[[Callable[[Silent], Any]], None], every: float = EVERY):
        self._tell_shown = tell
        self.every = every
        self.spoken = float("-inf")

    def begin(self, names: Sequence[str]) -> None:
        self._tell("begin", list(names))

    def resume(self, epoch: int, epochs: int) -> None:
        self._tell("resume", epoch, epochs)

    def skip(self, name: str, why: str) -> None:
        self._tell("skip", name, why)

    def step(self, epoch: int, epochs: int, share: float) -> None:
        self._tell_seldom("step", epoch, epochs, share)

    def epoch(self, epoch: int, epochs: int, logs: dict[str, float]) -> None:
        plain = {name: float(value) for name, value in logs.items()}
        self._tell_seldom("epoch", epoch, epochs, plain)

    def end(self, name: str, outcome: str) -> None:
        self._tell("end", name, outcome)

    def say(self, text: str) -> None:
        self._tell("say", text)

    def warn(self, text: str) -> None:
        self._tell("warn", text)

    def _tell(self, what: str, *arguments: Any) -> None:
        self._tell_shown(operator.methodcaller(what, *arguments))

    def _tell_seldom(self, what: str, *arguments: Any) -> None:
        if time.monotonic() - self.spoken >= self.every:
            self.spoken = time.monotonic()
            self._tell(what, *arguments)
