"""An exported network in a process of its own, where this package cannot be imported.

What is measured there, answers, times and memory, is what a user of the export gets. This file is
both ends: a `Probe` starts it as a program and asks it by lines of JSON; arrays go through a
temporary folder. So what only the `Probe` needs is imported there: the package, and what would add
to the memory of the program.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

UNMEASURED_CALLS = 3


class ProbeError(RuntimeError):
    """The process cannot run the model or take what it was given; the text is one line."""


class Probe:
    """A fresh process that runs one exported network on the CPU.

    `with` starts it and ends it.

    Args:
        path: A SavedModel's folder, or a file of another format.
        threads: CPU threads that it may use.

    Raises:
        ProbeError: From `with` and from all methods: the model cannot be run, the input does not
            fit, or the process was killed.

    Example:
        >>> with Probe("saved_models/digits/1/model.onnx") as probe:
        ...     predicted = probe.answer(data.test.images)["class_id"]
        ...     seconds = probe.time(data.test.images, batch_size=1, calls=100)
    """

    def __init__(self, path: str | Path, threads: int = 1):
        self.path = Path(path)
        self.threads = threads

    def __enter__(self) -> "Probe":
        import tempfile

        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._process = stack.enter_context(self._started())
            stack.callback(self._process.kill)
            self._reply()
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
        """Return what a SavedModel says of whole image files, as `answer` does.

        Args:
            files: n contents of JPEG or PNG files.
            batch_size: Files in each call.

        Returns:
            `logits` and `probabilities`, `[n, classes]` float32, and `class_id`, `[n]` int32.
        """
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

    def _started(self):
        import subprocess

        # -I keeps the working folder, PYTHONPATH and the user's own packages out.
        command = [sys.executable, "-I", __file__, str(self.path), self._runtime()]
        with open(self._errors, "wb") as errors:
            return subprocess.Popen(
                [*command, "--threads", str(self.threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env=self._environment(),
            )

    def _runtime(self) -> str:
        """Return what runs the model as `FILE:CLASS`."""
        from tfdistill.export import format
        from tfdistill.utils import checks

        try:
            runtime = format.runtime_of(self.path)
        except checks.UsageError as error:
            raise ProbeError(str(error)) from None
        return f"{sys.modules[runtime.__module__].__file__}:{runtime.__name__}"

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
        ended = f"The process that ran {self.path} has ended:"
        if status == -signal.SIGKILL:
            why = "as the system does when memory runs out. Free some, and give the command again."
            return f"{ended} killed by signal 9, {why}"
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        printed = " ".join(self._errors.read_text(errors="replace").split())
        return f"{ended} {how}. It printed: ...{printed[-300:]}" if printed else f"{ended} {how}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer requests from stdin on stdout, each a line of JSON, until stdin ends."""
    parser = argparse.ArgumentParser(
        description="Run an exported network for a Probe of tfdistill.export.isolated."
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("runtime", help="what runs it: FILE:CLASS")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(arguments)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    try:
        model = _loaded(options.runtime).opened(options.model, options.threads)
    except (ValueError, ImportError) as error:
        _reply(replies, {"error": str(error)})
        return 1
    _reply(replies, {})
    for line in sys.stdin:
        _reply(replies, _answered(model, json.loads(line)))
    return 0


def _end_with_parent(parent: int) -> None:
    # Loading a model takes long, and only afterwards is it seen that nobody asks any more.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _loaded(place: str):
    """Return the class FILE:CLASS; of this package, its file can import `format` alone."""
    file, _, name = place.rpartition(":")
    sys.modules["tfdistill"] = None  # type: ignore[assignment]  # so it cannot be imported
    _run_file("tfdistill.export.format", Path(__file__).with_name("format.py"))
    runtime = getattr(_run_file("runtime", file), name)
    sys.modules.update(dict.fromkeys(runtime.without))  # None cannot be imported
    return runtime


def _run_file(name: str, file: str | Path):
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no file of Python.")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _reply(replies, fields: dict) -> None:
    replies.write(json.dumps(fields) + "\n")
    replies.flush()


def _answered(model, request: dict) -> dict:
    try:
        return _WORK[request["do"]](model, request)
    except (ValueError, ImportError) as error:
        return {"error": str(error)}


def _answer(model, request: dict) -> dict:
    images = np.load(request["images"], allow_pickle=False)
    model.check(images)
    _save(request, model, images)
    return {}


def _answer_bytes(model, request: dict) -> dict:
    with np.load(request["files"], allow_pickle=False) as stored:
        whole, ends = stored["bytes"].tobytes(), stored["ends"].tolist()
    files = [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    _save(request, model.answer_bytes, files)
    return {}


def _save(request: dict, answer: Callable, inputs: Sequence) -> None:
    size = request["batch_size"]
    starts = range(0, max(len(inputs), 1), size)  # one call without inputs, for its error
    parts = [answer(inputs[at : at + size]) for at in starts]
    whole: dict = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.savez(request["answers"], **whole)


def _time(model, request: dict) -> dict:
    images = np.load(request["images"], allow_pickle=False)
    model.check(images)
    batch = np.resize(images, (request["batch_size"], *images.shape[1:]))
    seconds = []
    for _ in range(UNMEASURED_CALLS + request["calls"]):
        start = time.perf_counter()
        model(batch)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[UNMEASURED_CALLS:]}


def _peak(model, request: dict) -> dict:
    # getrusage would count the process that started this one, too.
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return {"bytes": 1024 * int(kilobytes)}


_WORK = {"answer": _answer, "answer_bytes": _answer_bytes, "time": _time, "peak": _peak}


if __name__ == "__main__":
    sys.exit(main())
