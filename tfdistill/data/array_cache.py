"""Decoded arrays kept on disk, so that the second process that reads a source starts quickly.

An entry is a folder of .npy files under $TFDISTILL_CACHE (default ~/.cache/tfdistill), named by a
hash of everything that it was made from. Its list with the files' SHA-256 is written last; an entry
that does not fit its list is made again.
"""

import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tfdistill.utils import storage
from tfdistill.utils.storage import digest

LIST = "complete.json"
LOGGER = logging.getLogger("tfdistill")


def cached(key: dict, read: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays kept under `key`, or those that `read` makes, which are then kept.

    Args:
        key: What the arrays depend on; must be JSON-able.
        read: Makes the arrays.

    Returns:
        Arrays by name, of the shapes that `read` gives (`[n, height, width, channels]` for images),
        opened read-only in place where they were kept.

    Example:
        >>> cached({"source": "squares"}, lambda: {"images": np.arange(10) ** 2})["images"]
    """
    entry = storage.cache_folder() / digest(key)
    arrays = _open(entry)
    if arrays is None:
        arrays = read()
        try:
            _keep(entry, arrays)
        except (OSError, storage.WriteError) as error:
            # A full or read-only disk costs the time to decode again, not the run.
            shutil.rmtree(entry, ignore_errors=True)
            LOGGER.warning("Decoded images are not kept, only used: %s", error)
    return arrays


def is_kept(key: dict) -> bool:
    """Return whether there are arrays under a key; they are not checked."""
    return (storage.cache_folder() / digest(key) / LIST).exists()


def fingerprint(paths: Iterable[Path]) -> list[list]:
    """Return what a cache key knows of files: path, size, times of change, and place on the disk.

    A file that is replaced by one of its size and time of change has another inode, and one that is
    written to another time of status, which nothing but the system's clock sets.
    """
    stats = ((path, path.stat()) for path in sorted(paths))
    return [
        [str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        for path, stat in stats
    ]


def _open(entry: Path) -> dict[str, np.ndarray] | None:
    if not (entry / LIST).exists():
        return None
    try:
        listed = storage.read_checked(entry / LIST)
        for name, known in listed.items():
            _check(entry / name, known)
        return {Path(name).stem: np.load(entry / name, mmap_mode="r") for name in listed}
    except (OSError, ValueError, TypeError, KeyError) as error:
        problem = getattr(error, "problem", f"{entry} is damaged")
        LOGGER.warning("%s; the images are decoded again.", problem)
        return None


def _check(path: Path, known: int | dict) -> None:
    if isinstance(known, dict):
        storage.check_file(path, known["sha256"])
    elif path.stat().st_size != known:  # of an earlier version, which noted sizes alone
        raise storage.DamagedError(path, "is damaged (it has another size)")


def _keep(entry: Path, arrays: dict[str, np.ndarray]) -> None:
    listed = {}
    for name, array in arrays.items():
        path = entry / f"{name}.npy"
        with storage.appearing(path) as temporary:
            np.save(temporary, array)
            listed[path.name] = {"sha256": storage.sha256(temporary)}
    storage.write_checked(entry / LIST, listed)
