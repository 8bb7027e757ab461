"""Network files from outside are opened first in a process of its own, with bounds.

A file of some kB can say that it holds gigabytes, and a network can compute without end. So a file
that this machine has not opened or written before is opened, and asked once, where memory and time
are bounded; only then does this process open it. What was opened well is known by its SHA-256 in
`known_networks` under $TFDISTILL_CACHE, so a file costs that once. It bounds what a file takes and
is no proof that it does no harm.

This file is both ends: `try_out` starts it as a program.
"""

import contextlib
import hashlib
import importlib
import json
import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from tfdistill.utils import checks, storage, tensorflow

# Seconds until a file is refused; 0 opens all files at once.
SECONDS, USUAL_SECONDS = "TFDISTILL_OPEN_SECONDS", 120
KNOWN = "known_networks"
# Bytes that opening and asking may take beyond those of an empty process: so many, and so many for
# each of the file's. Keras holds a network's weights up to three times while it reads them.
BASE_MEMORY, SHARE_MEMORY = 2 * 2**30, 8
# Classes of a program's own are known to that program alone.
_UNKNOWN_CLASS = ("Could not locate", "Unknown layer", "Unknown object")
_TRUST = "If you trust its maker, take it with --allow-unsafe (allow_unsafe=True)."


def try_out(path: str | Path, opens: Callable[[str], object], keep: bool = True) -> None:
    """Have a file opened in a process with bounds on memory and time, if it is not known.

    Args:
        path: The file, or the folder of a SavedModel.
        opens: A function of a module of this package, given the path: opens the file and asks the
            network once.
        keep: Remember the file, of which all has been opened then.

    Raises:
        UsageError: It takes too much memory or time, ended the process or cannot be opened. One
            line that names the file.

    Example:
        >>> try_out("teacher.keras", saved.open_once)
    """
    seconds = _seconds()
    if not seconds or not Path(path).exists():
        return
    sums = sum_of(path)
    if sums in _known():
        return
    problem = _problem(Path(path), opens, seconds)
    problem = problem and " ".join(problem.split())
    if problem is None and keep:
        know(sums)
    elif problem and not any(text in problem for text in _UNKNOWN_CLASS):
        raise checks.UsageError(problem)


def know(sums: str) -> None:
    """Let a network with this `sum_of` be opened at once from now on: this machine has made it."""
    with contextlib.suppress(OSError):  # nowhere to keep it; it is tried again then
        path = storage.cache_folder() / KNOWN
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            file.write(f"{sums}\n")


def sum_of(path: str | Path) -> str:
    """Return the SHA-256 of a file, or one of what TensorFlow reads of a SavedModel's folder."""
    path = Path(path)
    if path.is_file():
        return storage.sha256(path)
    found = hashlib.sha256()
    for pattern in ("*.pb", "variables/*", "assets/**/*"):
        for file in sorted(path.glob(pattern)):
            if file.is_file():
                found.update(f"{file.relative_to(path)} {storage.sha256(file)}\n".encode())
    return found.hexdigest()


def _seconds() -> float:
    given = os.environ.get(SECONDS, str(USUAL_SECONDS))
    try:
        return checks.non_negative(SECONDS, float(given))
    except ValueError:
        raise checks.UsageError(
            f"The environment's {SECONDS} must be a number of seconds, 0 for no trial. "
            f"Received: {given!r}."
        ) from None


def _known() -> set[str]:
    with contextlib.suppress(OSError, ValueError):
        return set((storage.cache_folder() / KNOWN).read_text().split())
    return set()


def _problem(path: Path, opens: Callable[[str], object], seconds: float) -> str | None:
    """Return one line: what happened when a file was opened; None if all went well."""
    place = f"{opens.__module__}:{opens.__qualname__}"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "MALLOC_ARENA_MAX": "2"}
    # It imports what this process would import, and nothing from the working folder.
    own = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(path), place, str(seconds)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **quiet, **own, SECONDS: "0"},
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return (
            f"{path} was not open and asked once after {seconds:g} seconds. {_TRUST} "
            f"{SECONDS} sets the seconds."
        )
    with contextlib.suppress(ValueError, IndexError):
        return json.loads(done.stdout.splitlines()[-1])["problem"]
    ended = " ".join(done.stderr.split())[-300:] or f"exit status {done.returncode}"
    return f"{path} ended the process that opened it, of bounded memory: {ended}. {_TRUST}"


def main() -> None:
    """Open the file that the command line names, as `opens` does; print what went wrong."""
    path, place, seconds = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    bound = BASE_MEMORY + SHARE_MEMORY * _size(Path(path))
    time = int(float(seconds) * (os.cpu_count() or 1)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (time, time))  # where nobody waits any more
    print(json.dumps({"problem": _opened(path, place, bound)}), file=replies, flush=True)
    os._exit(0)


def _opened(path: str, place: str, bound: int) -> str | None:
    too_much = (
        f"{path} takes more memory than {bound / 2**30:.1f} GiB, far more than its size. {_TRUST}"
    )
    _limit_memory(bound)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > bound:
                    return too_much
    except Exception as error:  # of a damaged list of members
        return f"{path} cannot be read: {checks.first_line(error)}"
    _limit_memory(None)
    module, _, name = place.partition(":")
    opens = getattr(importlib.import_module(module), name)
    if "keras" in sys.modules:
        tensorflow.start()
    _limit_memory(bound)
    try:
        opens(path)
    except MemoryError:
        return too_much
    except Exception as error:  # each library raises its own kinds
        _limit_memory(None)
        if out_of_memory(error):
            return too_much
        return str(error) if isinstance(error, checks.UsageError) else f"{path}: {error}"
    return None


def out_of_memory(error: Exception) -> bool:
    """Return whether an error, each library's own, is of memory that was not to be had."""
    text = f"{type(error).__name__} {error}"
    return any(word in text for word in ("MemoryError", "alloc", "OOM", "ResourceExhausted"))


def _limit_memory(more: int | None) -> None:
    """Let this process take so many bytes more than it has; None takes any."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    bound = hard
    if more is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + more
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


if __name__ == "__main__":
    main()
