"""Processes that need not start TensorFlow: forks of one that has imported it, once per worker.

Importing TensorFlow costs five seconds of CPU. A process that has done it and run nothing (it has
no thread yet) is forked instead; everything after the imports is a process's own. A test about
imports or about the start of a program takes `subprocess`.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path

import pytest

from tfdistill.export import benchmark, format, isolated

LONG = 600  # seconds before a process is taken for hanging, however busy the machine is
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "keras",
        "keras_tuner",
        "tfdistill.studies",
        "tfdistill.training.train",
        "tests.forked",
        "tests.frozen",
    ]
)


class Forked:
    """What `subprocess.Popen` is, as far as the tests need it; output is text, read by lines.

    Args:
        function: A function of a module; it runs in the process.
        *arguments: Its arguments, which can be pickled.
        **environment: Variables that are set before.
    """

    def __init__(self, function: Callable, *arguments, **environment: str):
        outputs = [_CONTEXT.Pipe(duplex=False) for _ in range(2)]
        work = function, arguments, {**os.environ, **environment}
        self._process = _CONTEXT.Process(
            target=_run, args=(*(writer for _, writer in outputs), *work)
        )
        # Its imports look into the folder where it begins; others have a package `tests`, too.
        with contextlib.chdir(Path(__file__).parents[1]):
            forkserver.ensure_running()
        self._process.start()
        for _, writer in outputs:
            writer.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(reader.fileno())) for reader, _ in outputs)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float = LONG) -> int:
        self._process.join(timeout)
        assert self.returncode is not None, f"still running after {timeout} seconds"
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self) -> tuple[str, str]:
        """Wait for the end; return what is left of the output and of the errors."""
        with ThreadPoolExecutor(2) as pool:  # a full pipe would keep the process from ending
            output, errors = pool.map(lambda stream: stream.read(), (self.stdout, self.stderr))
        self.wait()
        return output, errors


def tfdistill(*arguments, **environment: str) -> Forked:
    """Start `python -m tfdistill` with arguments."""
    return Forked(_module, "tfdistill", list(map(str, arguments)), **environment)


def program(path: Path, *arguments) -> Forked:
    """Start a program of Python with arguments."""
    return Forked(_program, str(path), list(map(str, arguments)))


class ForkedProbe(Forked):
    """The process of a `Probe`: the same program without the package, with TensorFlow imported."""

    def __init__(self, *arguments: str, errors: Path, **environment: str):
        reader, writer = _CONTEXT.Pipe(duplex=False)
        super().__init__(_probe, reader, str(errors), list(arguments), **environment)
        reader.close()
        self.stdin = os.fdopen(os.dup(writer.fileno()), "wb", buffering=0)
        writer.close()
        self.stdout = self.stdout.detach()  # bytes

    def __enter__(self) -> "ForkedProbe":
        return self

    def __exit__(self, *_) -> None:
        self.stdin.close()
        self.wait()
        self.stdout.close()
        self.stderr.close()


@contextlib.contextmanager
def probes() -> Iterator[None]:
    """Fork the processes that ask an export with TensorFlow, where a test is not about their start.

    What they run and cannot import is the same; `tests/export/test_isolated.py` starts them as a
    user does. Measurements of their speed are short.
    """
    started = isolated.Probe._started

    def fork(probe: isolated.Probe) -> ForkedProbe:
        runtime = probe._runtime()
        if "tensorflow" in format.runtime_of(probe.path).without:
            return started(probe)  # fast as it is
        given = str(probe.path), runtime, "--threads", str(probe.threads)
        return ForkedProbe(*given, errors=probe._errors, **probe._environment())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolated.Probe, "_started", fork)
        patch.setattr(benchmark, "SECONDS", 0.05)
        yield


def wait_until(found: Callable, process: Forked) -> None:
    """Wait until something is there; fail when the process ends before."""
    deadline = time.monotonic() + LONG
    while not found():
        assert process.poll() is None, process.stderr.read()[-2000:]
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)  # asked again and again, never longer than it takes


def _module(name: str, arguments: list[str]) -> None:
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _program(path: str, arguments: list[str]) -> None:
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


def _probe(stdin, errors: str, arguments: list[str]) -> None:
    os.dup2(stdin.fileno(), 0)
    stdin.close()
    sys.stdin = os.fdopen(0)
    with open(errors, "wb") as file:
        os.dup2(file.fileno(), 2)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tfdistill"]:
        del sys.modules[name]
    _program(isolated.__file__, arguments)


def _run(stdout, stderr, function, arguments, environment) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for connection, number in ((stdout, 1), (stderr, 2)):
        os.dup2(connection.fileno(), number)
        connection.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    # What it forks comes of the server that it came of; else it would start one of its own.
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None
    function(*arguments)
