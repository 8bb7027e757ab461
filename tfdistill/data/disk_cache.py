"""Decoded arrays kept on disk, so that the second process that reads a source starts quickly.

An entry is a folder of .npy files under $TFDISTILL_CACHE (default ~/.cache/tfdistill), named by a
hash of everything that it was made from. Its list of file sizes is written last; an entry that does
not fit its list is made again.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tfdistill import records
from tfdistill.config import digest

LIST = "complete.json"


def folder() -> Path:
    """Return where decoded arrays are kept."""
    return Path(os.environ.get("TFDISTILL_CACHE") or "~/.cache/tfdistill").expanduser()


def cached(key: dict, read: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays kept under `key`, or those that `read` makes, which are then kept.

    Args:
        key: What the arrays depend on; must be JSON-able.
        read: Makes the arrays.

    Returns:
        Arrays by name, opened read-only in place where they were kept.

    Example:
        >>> cached({"source": "squares"}, lambda: {"images": np.arange(10) ** 2})["images"]
    """
    entry = folder() / digest(key)
    arrays = _open(entry)
    if arrays is None:
        arrays = read()
        try:
            _keep(entry, arrays)
        except OSError:
            # A full or read-only disk costs the time to decode again, not the run.
            return arrays
    return arrays


def fingerprint(paths: Iterable[Path]) -> list[list]:
    """Return path, size and time of change of files: what a cache key knows of their content."""
    stats = ((path, path.stat()) for path in sorted(paths))
    return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


def _open(entry: Path) -> dict[str, np.ndarray] | None:
    try:
        sizes = json.loads((entry / LIST).read_text())
        if any((entry / name).stat().st_size != size for name, size in sizes.items()):
            return None
        return {Path(name).stem: np.load(entry / name, mmap_mode="r") for name in sizes}
    except (OSError, ValueError):
        return None


def _keep(entry: Path, arrays: dict[str, np.ndarray]) -> None:
    sizes = {}
    for name, array in arrays.items():
        path = entry / f"{name}.npy"
        with records.appearing(path) as temporary:
            np.save(temporary, array)
            sizes[path.name] = temporary.stat().st_size
    records.write_json(entry / LIST, sizes)
