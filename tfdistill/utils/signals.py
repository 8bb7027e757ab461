"""SIGTERM, SIGHUP and Ctrl-C end a command within seconds: one line, no traceback, no child left.

The first signal raises KeyboardInterrupt, so that everything is tidied up. Python does that only
between two of its own instructions, and libraries may swallow it; so a thread that the signal wakes
ends the process after `GRACE` seconds. All files appear whole or not at all: nothing is lost then.
"""

import atexit
import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

# Seconds for what Python does of itself; everything is to be over after 5.
GRACE = 3.0
_NAMES = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP (its terminal was closed)",
}
_SHOW_CURSOR = b"\x1b[?25h"
_before_leaving: list[Callable[[], None]] = []


def run(command: Callable[[], int], advice: str = "") -> int:
    """Run a command as what this process is for and return its exit status.

    SIGTERM, SIGHUP and Ctrl-C end the process, with status 143, 129 or 130, even where `command`
    hangs in native code; a signal that is ignored at the start, as under nohup, stays ignored.
    Where nobody reads the output any more (`| head`), the command ends with status 141.

    Args:
        command: What to do; returns an exit status.
        advice: A sentence for a user whose command was stopped.

    Example:
        >>> sys.exit(signals.run(work, "The same command resumes where this one stopped."))
    """
    _open_closed_streams()
    ending = _Ending(advice)
    ending.prepare()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a dash or a ±
            stream.reconfigure(errors="replace")
    try:
        ending.status = status = _written(command, ending)
    except BaseException:  # a library may have made another error of the KeyboardInterrupt
        if ending.signal:
            ending.leave(ending.signal)
        raise
    finally:
        ending.over = True
    if status and ending.signal:
        ending.leave(ending.signal)
    return status


@contextlib.contextmanager
def before_leaving(do: Callable[[], None]) -> Iterator[None]:
    """Have something done where a signal ends the process within, though Python does no more."""
    _before_leaving.append(do)
    try:
        yield
    finally:
        _before_leaving.remove(do)


def _open_closed_streams() -> None:
    """Let what is closed at the start (`>&-`) be /dev/null; the next file would take its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


class _Ending:
    """How this process ends at a signal.

    Args:
        advice: What is said to the user.
    """

    def __init__(self, advice: str):
        self.signal = 0
        self.status: int | None = None
        self.over = False
        self.advice = advice
        self._errors = os.dup(2)  # standard error is closed to native code for a while at the start
        self._silent = threading.Lock()

    def prepare(self) -> None:
        """Take over the signals."""
        atexit.register(self._end)  # before others are: so it is called last
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(wake,), daemon=True).start()
        for number in _NAMES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)

    def say(self, what: str) -> None:
        """Write the one line, at the first call."""
        if self._silent.acquire(blocking=False):
            start = "\n" if os.isatty(self._errors) else ""  # the terminal has written ^C
            text = " ".join(part for part in (f"{start}tfdistill: {what}.", self.advice) if part)
            with contextlib.suppress(OSError):
                os.write(self._errors, f"{text}\n".encode())

    def leave(self, number: int) -> None:
        """End the process now: the threads of TensorFlow may not end in good order."""
        with contextlib.suppress(OSError):
            if os.isatty(1):
                os.write(1, _SHOW_CURSOR)
        for do in list(_before_leaving):
            do()
        self.say(f"stopped by {_NAMES[signal.Signals(number)]}")
        os._exit(128 + number)

    def _end(self) -> None:
        """End the process before Python gives the signals back, where all has been done."""
        if self.status is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.status)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self.signal and not self.over:
            self.signal = number
            raise KeyboardInterrupt

    def _watch(self, wake: int) -> None:
        number = os.read(wake, 1)[0]
        time.sleep(GRACE)
        self.leave(number)


def _written(command: Callable[[], int], ending: _Ending) -> int:
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        with open(os.devnull, "w") as nowhere:  # Python writes the rest when it ends
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if ending.advice:
            ending.say("nobody reads the output any more")
        return 128 + signal.SIGPIPE
