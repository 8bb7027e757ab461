"""What a worker does in its process, however it is reached: tasks of a study, one after the other.

It writes into the folders of its runs and into caches, and leaves everything else of the study to
the process that gave it the tasks.
"""

import os
import platform
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfdistill.config import RunConfig
from tfdistill.models import saved_model_safety
from tfdistill.training import runner
from tfdistill.training.workers.messages import Answer, Hello, Setup, Told
from tfdistill.training.workers.schedule import Task
from tfdistill.utils import checks, storage
from tfdistill.utils.progress import Silent

MARKER = ".workers"  # in the study's folder, while there are some


class Worker:
    """Does tasks, with one session for all.

    Args:
        setup: As it is told at its start.
        tell: Takes what is to be shown, as functions of a display.
    """

    def __init__(self, setup: Setup, tell: Callable[[Callable[[Silent], Any]], None]):
        self.folder = Path(setup.folder)
        self._setup, self._tell = setup, tell

    def hello(self) -> Hello:
        """Start TensorFlow, and say what this worker is."""
        problem = self._problem()
        return Hello(platform.node(), {} if problem else code(), problem)

    def do(self, task: Task) -> Answer:
        """Do a task; what it raises is in the answer, since not every error can be pickled."""
        try:
            if not task.stores:
                return Answer(runner.do_group(list(task.runs), self.folder, self._session))
            with checks.readers():
                self._store(task.runs[0])
            return Answer()
        except checks.UsageError as error:
            return Answer(error=str(error), kind="usage", notes=_notes(error))
        except checks.Refused as error:
            return Answer(error=str(error), kind="refused", notes=_notes(error))
        except Exception as error:
            line = storage.problem(error)
            if line is not None:
                return Answer(error=line, kind="usage")
            text = f"{type(error).__name__}: {checks.first_line(error)}"
            return Answer(error=text, kind="unknown", notes=(traceback.format_exc(),))

    def _store(self, run: RunConfig) -> None:
        """Store the logits of a run's teachers."""
        from tfdistill.training import teacher_logits

        images, progress = self._session.images(run.data), self._session.progress
        teacher_logits.mended(
            lambda: teacher_logits.of_run(run, images, self.folder, progress), progress
        )

    def _problem(self) -> str:
        """Begin to work; return why it cannot be done."""
        marker = self.folder / MARKER
        here = f"A worker on {platform.node()}"
        remedy = "Put it on a disk that all machines share, at the same path."
        try:
            os.chdir(self._setup.working_folder)
        except OSError:
            return f"{here} does not see the folder {self._setup.working_folder}. {remedy}"
        try:
            seen = marker.read_text()
        except OSError:
            seen = ""
        if seen != self._setup.token:
            return f"{here} does not see the study's folder {self.folder}. {remedy}"
        if self._setup.trusting:
            saved_model_safety.trust()
        try:
            setup = self._setup
            self._session = runner.start(Silent(), setup.config)
        except checks.UsageError as error:
            return " ".join([str(error), *_notes(error)])
        self._session.progress = Told(self._tell)
        self._session.told |= setup.told
        return ""


def code() -> dict[str, str]:
    """Return what must be the same of all workers: results follow from it."""
    from tfdistill.utils import machine

    return {**machine.versions(), "files": str(machine.environment()["code"])}


def _notes(error: BaseException) -> tuple[str, ...]:
    return tuple(getattr(error, "__notes__", ()))
