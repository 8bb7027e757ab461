"""A server in a process of its own, for the time of a `with` block."""

import queue
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """Runs a command from the repository's root; its output is read as it comes."""

    def __init__(self, command: list[str]):
        self.command = command
        self._lines: queue.Queue[str | None] = queue.Queue()

    def __enter__(self):
        self._process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait(600)

    def line_with(self, text: str, seconds: float) -> str:
        """Return the first line that holds `text`; fail after `seconds` or at the process's end."""
        deadline, seen = time.monotonic() + seconds, []
        while True:
            try:
                line = self._lines.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"No {text!r} from {self.command}: {''.join(seen[-20:])}")
            if text in line:
                return line
            seen.append(line)

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)
