"""Runs an exported network: a SavedModel, a LiteRT or an ONNX file, all with one face.

This file stands alone: numpy and the one runtime are all that it imports, so it can be copied to
where a network is used. Started as a program it answers requests, one line of JSON each, for
`tfdistill.export.isolated`.
"""

import argparse
import contextlib
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

OUTPUTS = ("class_id", "logits", "probabilities")
UNMEASURED_CALLS = 3
_SIGNATURE, _IMAGE = "serving_default", "image"


class MissingPackage(ImportError):
    """The package that runs a format is not installed; its text is one line and complete."""


class Runtime:
    """An exported network, opened by `open_model`.

    Attributes:
        kind: `savedmodel`, `litert` or `onnx`.
        input_shape: `(height, width, channels)`; sides are None where any size is taken.
        takes_bytes: Whether `answer_bytes` can be called.
    """

    kind: str
    input_shape: tuple[int | None, int | None, int]
    takes_bytes = False

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the network says of images.

        Args:
            images: `[n, height, width, channels]` uint8, pixels 0..255, n >= 1.

        Returns:
            `logits` and `probabilities`, `[n, classes]` float32, and `class_id`, `[n]` int32; of a
            SavedModel also `class_name`, `[n]` str.

        Raises:
            ValueError: Images of another kind or shape.
        """
        self.check(images)
        return self._run(images)

    def answer_bytes(self, files: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Return what the network says of whole image files; SavedModel alone.

        Raises:
            ValueError: No files, one that cannot be read, or a format that takes no files.
        """
        raise ValueError(f"Only a SavedModel takes image files. Received: a model of {self.kind}.")

    def check(self, images: np.ndarray) -> None:
        """Raise `ValueError` unless the network takes such images."""
        found, expected = np.shape(images), self.input_shape
        sides = zip(found[1:], expected, strict=False)
        fits = len(found) == 4 and all(want in (None, side) for side, want in sides)
        dtype = getattr(images, "dtype", type(images).__name__)
        if not fits or dtype != np.uint8 or not len(images):
            wanted = ", ".join("any" if side is None else str(side) for side in expected)
            raise ValueError(
                f"The model takes images uint8 [n, {wanted}], n >= 1. "
                f"Received: {dtype} {list(found)}."
            )

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        raise NotImplementedError


class _SavedModel(Runtime):
    kind = "savedmodel"

    def __init__(self, path: Path, threads: int | None):
        self._tf = tf = _package("tensorflow", "tensorflow", path)
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        self._model = tf.saved_model.load(str(path))  # its signatures do not keep it alive
        signatures = self._model.signatures
        if _SIGNATURE not in signatures:
            raise ValueError(f"it has no signature `{_SIGNATURE}`.")
        self._pixels, self._files = signatures[_SIGNATURE], signatures.get("bytes")
        self.takes_bytes = self._files is not None
        inputs = self._pixels.structured_input_signature[1]
        _check_names(inputs, self._pixels.structured_outputs)
        self.input_shape = tuple(inputs[_IMAGE].shape[1:])

    def _run(self, images):
        return self._answers(self._pixels, image=images)

    def answer_bytes(self, files):
        if not self.takes_bytes:
            raise ValueError("The SavedModel takes no image files: it has no signature `bytes`.")
        if not len(files):
            raise ValueError("The model takes one or more image files. Received: none.")
        return self._answers(self._files, image_bytes=np.array(files, dtype=object))

    def _answers(self, signature: Callable, **inputs) -> dict[str, np.ndarray]:
        tensors = {name: self._tf.constant(value) for name, value in inputs.items()}
        try:
            found = {name: value.numpy() for name, value in signature(**tensors).items()}
        except self._tf.errors.InvalidArgumentError as error:
            raise ValueError(_refusal(error)) from None
        if "class_name" in found:
            found["class_name"] = np.array([name.decode() for name in found["class_name"]])
        return found


class _LiteRT(Runtime):
    kind = "litert"

    def __init__(self, path: Path, threads: int | None):
        package = _package("ai_edge_litert.interpreter", "ai-edge-litert", path, "litert")
        self._interpreter = package.Interpreter(str(path), num_threads=threads)
        inputs, outputs = self._details()
        _check_names(inputs, outputs)
        self._input = inputs[_IMAGE]["index"]
        self._outputs = {name: detail["index"] for name, detail in outputs.items()}
        self.input_shape = tuple(int(side) for side in inputs[_IMAGE]["shape"][1:])
        self._batch = None
        self._allocate(1)

    def _run(self, images):
        self._allocate(len(images))
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        tensors = self._outputs.items()
        return {name: self._interpreter.get_tensor(index) for name, index in tensors}

    def _details(self) -> tuple[dict, dict]:
        # While a signature runner lives, nothing can be allocated.
        runner = self._interpreter.get_signature_runner(_SIGNATURE)
        return runner.get_input_details(), runner.get_output_details()

    def _allocate(self, batch: int) -> None:
        if batch == self._batch:
            return
        with _quiet():  # LiteRT says here how it computes
            self._interpreter.resize_tensor_input(self._input, (batch, *self.input_shape))
            self._interpreter.allocate_tensors()
        self._batch = batch


class _Onnx(Runtime):
    kind = "onnx"

    def __init__(self, path: Path, threads: int | None):
        package = _package("onnxruntime", "onnxruntime", path, "onnx")
        options = package.SessionOptions()
        options.log_severity_level = 4  # what is wrong is raised as well
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        self._session = package.InferenceSession(str(path), options, providers=providers)
        inputs = {value.name: value for value in self._session.get_inputs()}
        self._names = [value.name for value in self._session.get_outputs()]
        _check_names(inputs, self._names)
        self.input_shape = tuple(inputs[_IMAGE].shape[1:])

    def _run(self, images):
        found = self._session.run(self._names, {_IMAGE: images})
        return dict(zip(self._names, found, strict=True))


def open_model(path: str | Path, threads: int | None = None) -> Runtime:
    """Open an exported network.

    Args:
        path: A folder with `saved_model.pb`, or a file `*.tflite` or `*.onnx`.
        threads: CPU threads that it may use; None leaves them to the runtime. TensorFlow takes
            a number only before it has computed anything in this process.

    Raises:
        ValueError: No such model, a damaged one, or one that is no exported network.
        MissingPackage: The format's runtime is not installed.

    Example:
        >>> model = open_model("saved_models/digits/1/model.int8.tflite")
        >>> model(images)["class_id"]
    """
    path = Path(path)
    runtimes = {".tflite": _LiteRT, ".onnx": _Onnx}
    if (path / "saved_model.pb").is_file():
        runtime = _SavedModel
    elif path.suffix in runtimes and path.is_file():
        runtime = runtimes[path.suffix]
    else:
        raise ValueError(
            f"There is no model {path}. Give a folder with saved_model.pb, or a file *.tflite or "
            "*.onnx."
        )
    try:
        with _quiet():
            return runtime(path, threads)
    except MissingPackage:
        raise
    except Exception as error:  # each runtime has its own classes for a file that it cannot read
        raise ValueError(f"Cannot read the model {path}: {_reason(error)}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer requests from stdin on stdout, each a line of JSON, until stdin ends."""
    parser = argparse.ArgumentParser(
        description="Run an exported network for tfdistill.export.isolated."
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(arguments)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    _forbid(options.model)
    try:
        model = open_model(options.model, options.threads)
    except (ValueError, MissingPackage) as error:
        print(error, file=sys.stderr)
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


def _forbid(path: Path) -> None:
    # An export must run where these are not installed.
    needless = () if path.is_dir() else ("tensorflow", "keras")
    for package in ("tfdistill", *needless):
        sys.modules[package] = None


def _reply(replies, fields: dict) -> None:
    replies.write(json.dumps(fields) + "\n")
    replies.flush()


def _answered(model: Runtime, request: dict) -> dict:
    try:
        return _WORK[request["do"]](model, request)
    except (ValueError, ImportError) as error:
        return {"error": str(error)}


def _answer(model: Runtime, request: dict) -> dict:
    images = np.load(request["images"], allow_pickle=False)
    model.check(images)
    _save(request, model, images)
    return {}


def _answer_bytes(model: Runtime, request: dict) -> dict:
    with np.load(request["files"], allow_pickle=False) as stored:
        whole, ends = stored["bytes"].tobytes(), stored["ends"].tolist()
    files = [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    _save(request, model.answer_bytes, files)
    return {}


def _save(request: dict, answer: Callable, inputs: Sequence) -> None:
    size = request["batch_size"]
    starts = range(0, max(len(inputs), 1), size)  # one call without inputs, for its error
    parts = [answer(inputs[at : at + size]) for at in starts]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.savez(request["answers"], **whole)


def _time(model: Runtime, request: dict) -> dict:
    images = np.load(request["images"], allow_pickle=False)
    model.check(images)
    batch = np.resize(images, (request["batch_size"], *images.shape[1:]))
    seconds = []
    for _ in range(UNMEASURED_CALLS + request["calls"]):
        start = time.perf_counter()
        model(batch)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[UNMEASURED_CALLS:]}


def _peak(model: Runtime, request: dict) -> dict:
    # getrusage would count the process that started this one, too.
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return {"bytes": 1024 * int(kilobytes)}


_WORK = {"answer": _answer, "answer_bytes": _answer_bytes, "time": _time, "peak": _peak}


def _package(name: str, package: str, path: Path, extra: str | None = None):
    try:
        return importlib.import_module(name)
    except ImportError:
        wanted = f'"tfdistill[{extra}]"' if extra else package
        raise MissingPackage(
            f"Running {path} needs {package}, which is not installed. Run: pip install {wanted}"
        ) from None


def _check_names(inputs, outputs) -> None:
    if list(inputs) != [_IMAGE] or not set(OUTPUTS) <= set(outputs):
        raise ValueError(
            f"it must take `{_IMAGE}` and return {', '.join(OUTPUTS)}. "
            f"Received: a model from {', '.join(inputs)} to {', '.join(sorted(outputs))}."
        )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0][:300] if lines else type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _refusal(error: Exception) -> str:
    """Return what an operation of a SavedModel says of its input."""
    before_node = str(error).split("[[{{node")[0].strip().splitlines() or [""]
    text = before_node[-1].strip().removeprefix("assertion failed: [").removesuffix("]")
    return f"The SavedModel refuses its input: {text[:300]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what native code writes to stderr past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    sys.exit(main())
