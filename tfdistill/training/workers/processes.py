"""Workers that are processes of this machine.

A new Python is started for each, and nothing of this process's program is run in it again, as
`multiprocessing` would.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import connection

from tfdistill.training.workers.messages import Lost, Setup
from tfdistill.training.workers.pool import Message
from tfdistill.training.workers.schedule import Task
from tfdistill.utils import checks

PATIENCE = 1.0  # seconds for a process to tidy up; a command is to be over after 5
_UNREACHABLE = (EOFError, OSError)


class ProcessHandle:
    """A worker in a process.

    Args:
        number: Which of the study's workers: 1, 2, ...
        setup: What it is told.
        gpus: Names of the GPUs of this machine; it gets one of them.
    """

    def __init__(self, number: int, setup: Setup, gpus: Sequence[str] = ()):
        self.connection, theirs = multiprocessing.Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[(number - 1) % len(gpus)]
        with theirs:
            self.process = self._started(theirs, environment)
        with contextlib.suppress(*_UNREACHABLE):
            self.connection.send(setup)

    def _started(
        self, theirs: connection.Connection, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        number = theirs.fileno()
        # Its stdin is written to by nobody, and closed when this process ends, however it does.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(number)],
            stdin=subprocess.PIPE,
            pass_fds=[number],
            env=environment,
        )

    def give(self, task: Task) -> None:
        with contextlib.suppress(*_UNREACHABLE):  # `heard` tells that it has ended
            self.connection.send(task)

    def heard(self) -> Message:
        """Return what it says next."""
        try:
            message: Message = self.connection.recv()
            return message
        except _UNREACHABLE:
            return Lost(_ended(self.process.wait()))


class Processes:
    """Processes of this machine as workers; of several GPUs, each has one.

    Args:
        workers: How many there will be.

    Raises:
        UsageError: More than there are cores.
    """

    def __init__(self, workers: int):
        cores = _cores()
        most = max(cores, 2)
        if workers > most:
            raise checks.UsageError(
                f"workers must be at most {most} on this machine of {cores} cores. Received: "
                f"workers={workers}. Take fewer, or more machines by --executor ray."
            )
        # Else the first process that computes on a GPU takes all of its memory.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        self._handles: list[ProcessHandle] = []

    def threads(self, workers: int, wanted: int | None) -> int:
        """Return the threads of each worker."""
        return wanted or max(1, _cores() // workers)

    def start(self, number: int, setup: Setup) -> ProcessHandle:
        """Start a worker."""
        self._handles.append(ProcessHandle(number, setup, _gpus()))
        return self._handles[-1]

    def heard(self, handles: Sequence[ProcessHandle]) -> Iterator[tuple[ProcessHandle, Message]]:
        """Yield what workers say, of each that says something; wait until one does."""
        by_connection = {handle.connection: handle for handle in handles}
        for ready in connection.wait(list(by_connection)):
            handle = by_connection[ready]  # type: ignore[index]
            yield handle, handle.heard()

    def close(self) -> None:
        """End all workers: all files appear whole or not at all, so nothing is lost."""
        for handle in self._handles:
            handle.process.terminate()
        for handle in self._handles:
            try:
                handle.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                handle.process.kill()
                handle.process.wait()
            handle.connection.close()
            if handle.process.stdin:
                handle.process.stdin.close()
        self._handles = []


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _gpus() -> list[str]:
    """Return the names of this machine's GPUs where there are several, as CUDA takes them."""
    from tfdistill.utils import machine

    count = len(machine.accelerators())
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = shown.split(",") if shown else [str(number) for number in range(count)]
    return names if count > 1 and len(names) == count else []


def _import_path() -> list[str]:
    return [os.path.abspath(place) for place in sys.path]


def _ended(status: int) -> str:
    """Return how a process has ended, as the end of a sentence."""
    if status == -signal.SIGKILL:
        return "was killed by signal 9, as the system does when memory runs out"
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def main() -> None:
    """Work in this process until there is no more to do, or nobody who gives work."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the terminal sends them to all; see `close`
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    work(connection.Connection(int(sys.argv[1])))


def work(driver: connection.Connection) -> None:
    """Do what comes through a connection; end this process when stdin is closed."""
    threading.Thread(target=_end_with_driver, daemon=True).start()
    from tfdistill.training.workers.worker import Worker

    with contextlib.suppress(*_UNREACHABLE):
        worker = Worker(driver.recv(), driver.send)
        driver.send(worker.hello())
        while True:
            driver.send(worker.do(driver.recv()))
    os._exit(1)  # the threads of TensorFlow may not end in good order


def _end_with_driver() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
