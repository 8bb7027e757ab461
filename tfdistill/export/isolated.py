"""An exported network in a process of its own, where nothing of this package can be imported.

What is measured there, answers, times and memory, is what a user of the export gets. The process
runs the file `runtimes.py` and is asked by lines of JSON; arrays go through a temporary folder.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfdistill.export import runtimes


class ProbeError(RuntimeError):
    """The process cannot run the model or take what it was given; the text is one line."""


class Probe:
    """A fresh process that runs one exported network on the CPU.

    `with` starts it and ends it.

    Args:
        path: A folder with `saved_model.pb`, or a file `*.tflite` or `*.onnx`.
        threads: CPU threads that it may use.

    Attributes:
        startup_seconds: From the start of Python to the loaded network.

    Raises:
        ProbeError: From `with` and from all methods: the model cannot be run, the input does not
            fit, or the process was killed.

    Example:
        >>> with Probe("saved_models/digits/1/model.onnx") as probe:
        ...     predicted = probe.answer(data.test.images)["class_id"]
        ...     seconds = probe.time(data.test.images, batch_size=1, calls=100)
    """

    startup_seconds: float

    def __init__(self, path: str | Path, threads: int = 1):
        self.path = Path(path)
        self.threads = threads

    def __enter__(self) -> "Probe":
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            start = time.perf_counter()
            self._process = stack.enter_context(self._started())
            stack.callback(self._process.kill)
            self._reply()
            self.startup_seconds = time.perf_counter() - start
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self._open.close()

    def answer(self, images: np.ndarray, batch_size: int = 64) -> dict[str, np.ndarray]:
        """Return what the network says of images.

        Args:
            images: `[n, height, width, channels]` uint8, n >= 1.
            batch_size: How many go through it at a time.

        Returns:
            `logits` and `probabilities`, `[n, classes]` float32, and `class_id`, `[n]` int32; of a
            SavedModel also `class_name`, `[n]` str.
        """
        return self._answers("answer", images=self._stored(images), batch_size=batch_size)

    def answer_bytes(self, files: Sequence[bytes], batch_size: int = 64) -> dict[str, np.ndarray]:
        """Return what a SavedModel says of whole image files, as `answer` does."""
        path = self._folder / "files.npz"
        whole = np.frombuffer(b"".join(files), np.uint8)
        np.savez(path, bytes=whole, ends=np.cumsum([len(file) for file in files], dtype=np.int64))
        return self._answers("answer_bytes", files=str(path), batch_size=batch_size)

    def time(self, images: np.ndarray, batch_size: int, calls: int) -> list[float]:
        """Return the seconds that each of `calls` calls takes, after a few that are not measured.

        Args:
            images: `[n, height, width, channels]` uint8; repeated where fewer than a batch.
            batch_size: Images in each call.
            calls: How many calls are measured.
        """
        given = {"images": self._stored(images), "batch_size": batch_size, "calls": calls}
        return self._ask("time", **given)["seconds"]

    def peak_bytes(self) -> int:
        """Return the most memory that the process has held so far, as Linux counts it."""
        return self._ask("peak")["bytes"]

    def _started(self) -> subprocess.Popen:
        # -I keeps the working folder, PYTHONPATH and the user's own packages out.
        command = [sys.executable, "-I", runtimes.__file__, str(self.path)]
        with open(self._errors, "wb") as errors:
            return subprocess.Popen(
                [*command, "--threads", str(self.threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env=self._environment(),
            )

    def _environment(self) -> dict[str, str]:
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        return {**os.environ, **quiet, "OMP_NUM_THREADS": str(self.threads)}

    @property
    def _errors(self) -> Path:
        return self._folder / "errors"

    def _stored(self, images: np.ndarray) -> str:
        path = self._folder / "images.npy"
        np.save(path, images, allow_pickle=False)
        return str(path)

    def _answers(self, do: str, **given) -> dict[str, np.ndarray]:
        path = self._folder / "answers.npz"
        self._ask(do, answers=str(path), **given)
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)

    def _ask(self, do: str, **given) -> dict:
        # A process that has ended takes nothing; what it last said is read below.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **given}).encode() + b"\n")
        return self._reply()

    def _reply(self) -> dict:
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise ProbeError(self._last_words())
        reply = json.loads(line)
        if "error" in reply:
            raise ProbeError(reply["error"])
        return reply

    def _last_words(self) -> str:
        status = self._process.wait()
        lines = self._errors.read_text(errors="replace").strip().splitlines()
        ended = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        return lines[-1] if lines else f"The process that ran {self.path} has ended: {ended}."
