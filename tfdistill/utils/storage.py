"""Files on a disk that fills up, cannot be written or loses bytes: what is said, what is noticed.

Every file that a later command relies on carries the SHA-256 of its content, or stands with it in
one that does. A file of an earlier version, without one, is taken as it is.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import platform
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfdistill.utils import checks

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
# Where something was to be written; elsewhere they have other causes.
_UNWRITABLE = (errno.ENOENT, errno.EISDIR, errno.ELOOP, errno.EIO, errno.ESTALE)
# The last is how NumPy words it, without a number.
_FULL_TEXTS = ("No space left", "Disk quota exceeded", "File too large", " requested and ")
_DENIED_TEXTS = ("Read-only file system", "Permission denied")
CHECKSUM = "checksum"
# Characters of a text that this package has written.
MAX_TEXT = 2**20
MARK = "# sha256 of what follows: "
TEMPORARY = ".tfdistill."
# Seconds after which a temporary file that nobody wrote to is taken for one that was left behind;
# far more than the clocks of machines that share a disk differ.
ABANDONED_AFTER = 86400.0
_OWN_TEMPORARY = re.compile(r"\.tfdistill\.(?P<host>[\w-]+)\.(?P<process>[0-9]{1,18})\..+")


# What to do where a study's command makes again what is damaged.
AGAIN = "Give the study's command again: what is damaged is made again."


class WriteError(checks.UsageError):
    """A folder without room, or one that cannot be written."""


class DamagedError(checks.UsageError):
    """A file that is missing or not as it was written.

    Args:
        path: The file.
        problem: What is wrong with it, to stand after its name.
        remedy: A sentence that says what to do.
    """

    def __init__(self, path: Path, problem: str, remedy: str = AGAIN):
        self.path = path
        self.problem = f"{path} {problem}"
        super().__init__(f"{self.problem}. {remedy}")


class LaterError(checks.UsageError):
    """A file of a later version of this package: it is neither damaged nor written over.

    Args:
        path: The file.
        reason: What tells that it is.
    """

    def __init__(self, path: Path, reason: str):
        super().__init__(
            f"{path} was written by a later version of tfdistill ({reason}). Update tfdistill, or "
            "choose another folder."
        )


@contextlib.contextmanager
def explained(
    place: Path,
    content: str = "",
    full: str = "Make room and give the same command again: it resumes.",
    denied: str = "Make it writable, or choose another folder.",
) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into one line for the user.

    Args:
        place: The folder that is written into.
        content: For what there is no room, as `for the export`.
        full: A sentence: what to do where there is no room.
        denied: A sentence: what to do where nothing can be written.

    Raises:
        WriteError: Instead of the system's error.

    Example:
        >>> with explained(folder):
        ...     (folder / "figures.txt").write_text(text)
    """
    try:
        yield
    except checks.UsageError:
        raise
    except Exception as error:  # TensorFlow and HDF5 wrap the system's errors in their own
        line = problem(error, place, content, full, denied)
        if line is None:
            raise
        raise WriteError(line) from error


def problem(
    error: Exception, place: Path | None = None, content: str = "", full: str = "", denied: str = ""
) -> str | None:
    """Return one line about an error of the disk, None of any other error.

    Args:
        error: What was raised.
        place, content, full, denied: As of `explained`; without a place, the error's own.
    """
    if not isinstance(error, OSError) and place is None:
        return None
    number, text = getattr(error, "errno", None), str(error)
    where = (
        place or getattr(error, "filename", None) or "the file of the output or a temporary folder"
    )
    received = f"{where}. Received: {checks.first_line(error)}"
    if number in FULL or any(part in text for part in _FULL_TEXTS):
        wanted = f"{content} " if content else ""
        return f"There is no room {wanted}in {received} {full or 'Make room.'}"
    denied_here = DENIED + (_UNWRITABLE if place else ())
    if number in denied_here or any(part in text for part in _DENIED_TEXTS):
        return f"Cannot write to {received} {denied or 'Make it writable.'}"
    return None


def cache_folder() -> Path:
    """Return where what can be made again is kept: $TFDISTILL_CACHE or ~/.cache/tfdistill."""
    return Path(os.environ.get("TFDISTILL_CACHE") or "~/.cache/tfdistill").expanduser()


def digest(*parts: object) -> str:
    """Return a short stable hash of JSON-able parts."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(path: Path, value: object) -> None:
    """Write JSON so that the file appears whole or not at all."""
    with appearing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


def write_checked(path: Path, value: dict[str, Any]) -> None:
    """Write JSON as `write_json`, with a checksum of its content under `checksum`."""
    plain = json.loads(json.dumps(value))
    write_json(path, {**plain, CHECKSUM: digest(plain)})


def read_checked(path: Path, remedy: str = AGAIN) -> dict[str, Any]:
    """Return what `write_checked` was given; of an earlier version's file, all that it holds.

    Args:
        path: The file.
        remedy: A sentence that says what to do where it is damaged.

    Raises:
        DamagedError: The file cannot be read, or is not what was written.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        line = checks.first_line(error).rstrip(".")
        raise DamagedError(path, f"is damaged ({line})", remedy) from None
    if not isinstance(value, dict):
        raise DamagedError(path, "is damaged (it holds no keys and values)", remedy)
    # It is the last key, also where a damaged byte gave it another name.
    name = next(reversed(value), "")
    content = {key: kept for key, kept in value.items() if key != name}
    if (value.get(name) == digest(content)) != (name == CHECKSUM) or CHECKSUM in content:
        raise DamagedError(path, "is damaged (its checksum is not that of its content)", remedy)
    return content if name == CHECKSUM else value


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    What killed processes left of the same file is removed first.

    Raises:
        WriteError: There is no room, or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    temporary = path.with_name(temporary_name(path))
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> str:
    """Return the hidden name under which this process writes what is to appear as `path`.

    It is `.tfdistill.HOST.PROCESS.NAME`; of a long name the first 40 characters and the suffix.
    HOST tells apart all whose numbers of processes may be the same: machines, containers of one
    name on a shared disk, and a machine before and after it was started again.
    """
    return f"{TEMPORARY}{_host()}.{os.getpid()}.{path.stem[:40]}{path.suffix}"


def abandoned(folder: Path, name: str = "*") -> Iterator[Path]:
    """Yield what killed processes left in a folder under names of `temporary_name`.

    Of another host, whose processes cannot be seen from here, it is what was not written to for a
    day; of this one also whatever belongs to no living process.

    Args:
        folder: Looked at alone, without the folders in it.
        name: Pattern of the names that were to appear.
    """
    for path in folder.glob(f"{TEMPORARY}*.{name}"):
        if is_abandoned(path.name) or _is_idle(path):
            yield path


def is_abandoned(name: str) -> bool:
    """Return whether a name of `temporary_name` is of a process of this host that has ended."""
    found = _OWN_TEMPORARY.fullmatch(name)
    return bool(found and found["host"] == _host() and not _lives(int(found["process"])))


def remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of a file that was to appear as `path`."""
    pattern = _literal(f"{path.stem[:40]}{path.suffix}")
    for left in abandoned(path.parent, pattern):
        with contextlib.suppress(OSError):
            if stat.S_ISREG(left.lstat().st_mode):
                left.unlink()


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


@functools.cache
def _host() -> str:
    name = re.sub(r"[^\w-]", "_", platform.node()) or "host"
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return name
    return f"{name}-{digest(boot, processes)[:8]}"


def _is_idle(path: Path) -> bool:
    """Return whether a file is a temporary one to which nobody has written for a day."""
    if not _OWN_TEMPORARY.fullmatch(path.name):
        return False
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED_AFTER
    except OSError:  # removed meanwhile
        return False


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            found.update(part)
    return found.hexdigest()


def check_file(path: Path, expected: str) -> None:
    """Raise `DamagedError` unless a file's SHA-256 is `expected`."""
    try:
        found = path.stat()
        same = _sum_of(str(path), found.st_size, found.st_mtime_ns, found.st_ino) == expected
    except FileNotFoundError:
        raise DamagedError(path, "is missing") from None
    except OSError as error:
        raise DamagedError(path, f"cannot be read ({error.strerror})") from None
    if not same:
        raise DamagedError(path, "is damaged (its SHA-256 is another)")


def marked(text: str) -> str:
    """Return a text with its SHA-256 in a comment before it."""
    return f"{MARK}{_sum_of_text(text)}\n{text}"


def unmarked(path: Path) -> str:
    """Return a text file's content without the comment of `marked`.

    Raises:
        DamagedError: It is not the text that was written, or no text.
    """
    remedy = "Remove it and give the study's command again: it is written again."
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_TEXT + 1)
    except (OSError, ValueError) as error:
        line = checks.first_line(error).rstrip(".")
        raise DamagedError(path, f"cannot be read ({line})", remedy) from None
    if len(text) > MAX_TEXT:
        raise DamagedError(path, "is too large for what was written", remedy)
    if all(not line or line.startswith("#") for line in text.splitlines()):
        raise DamagedError(path, "is damaged (it is cut off)", remedy)
    if not text.startswith(MARK):
        return text
    mark, _, content = text.partition("\n")
    if mark != MARK + _sum_of_text(content):
        raise DamagedError(path, "is damaged (it is not what was written)", remedy)
    return content


@functools.lru_cache(maxsize=4096)
def _sum_of(path: str, size: int, changed: int, number: int) -> str:
    # A study looks at each of its files several times.
    return sha256(Path(path))


def _sum_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
