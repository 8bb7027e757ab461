"""Which process computes what: a file for each part of the work, that only one can create.

Processes may run on several machines that share a folder: a claim is a file made exclusively, and
whoever holds it touches it again and again. One that stays untouched, or whose process has ended
on this host, is taken over by renaming, which one alone can do. Two that do the same part
nevertheless do no harm: what they write is the same.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tfdistill.utils import storage

LEASE = 120.0  # seconds without a touch after which a claim is free; network disks show them late
_TOUCHES = 8  # in a lease


class Claims:
    """Claims of this process in a folder, held until they are released or the block ends.

    Args:
        folder: Of claims alone.

    Example:
        >>> with Claims(folder) as claims:
        ...     if claims.take("v0000.m00-r0000000"):
        ...         work()
        ...         claims.release("v0000.m00-r0000000")
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._owner = storage.temporary_name(Path("claim"))
        self._held: set[str] = set()
        self._seen: dict[str, tuple[int, float]] = {}  # time of the last touch, and when first seen
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._touch, daemon=True)

    def __enter__(self) -> "Claims":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for name in list(self._held):
            self.release(name)

    def take(self, name: str) -> bool:
        """Return whether a part is this process's from now on.

        Raises:
            WriteError: The folder cannot be written.
        """
        path = self._folder / name
        with storage.explained(self._folder):
            for _ in range(3):
                try:
                    with open(path, "x") as file:
                        self._held.add(name)
                        file.write(self._owner)
                    return True
                except FileNotFoundError:  # another one has finished, and removed the folder
                    self._folder.mkdir(parents=True, exist_ok=True)
                except FileExistsError:
                    touched = self._abandoned(path)
                    if touched is None or not self._removed(path, touched):
                        return False
        return False

    def release(self, name: str) -> None:
        """Give a part back; what was to be done of it is done, or may be done by others."""
        self._held.discard(name)
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def clear(self) -> None:
        """Remove what is left of all claims, when nothing is left to do."""
        with contextlib.suppress(OSError, ValueError):
            for path in self._folder.iterdir():
                if path.read_text().startswith(storage.TEMPORARY):
                    path.unlink()
            self._folder.rmdir()

    def _abandoned(self, path: Path) -> int | None:
        """Return when a claim was last touched, if nobody lives who holds it."""
        try:
            touched, owner = path.stat().st_mtime_ns, path.read_text(errors="replace")
        except OSError:
            return None
        if owner != self._owner and storage.is_abandoned(owner):
            return touched
        # By this clock alone: that of the disk may be another.
        before, since = self._seen.get(path.name, (None, 0.0))
        if before != touched:
            self._seen[path.name] = touched, time.monotonic()
            return None
        return touched if time.monotonic() - since > LEASE else None

    def _removed(self, path: Path, touched: int) -> bool:
        """Return whether this process has removed an abandoned claim, and no other one."""
        mine = path.with_name(storage.temporary_name(path))
        try:
            os.rename(path, mine)
            if mine.stat().st_mtime_ns != touched:  # meanwhile it was taken over, and is alive
                os.rename(mine, path)
                return False
            mine.unlink()
        except OSError:
            return False
        return True

    def _touch(self) -> None:
        while not self._ended.wait(LEASE / _TOUCHES):
            for name in list(self._held):
                with contextlib.suppress(OSError):
                    os.utime(self._folder / name)


def pauses(longest: float = 5.0) -> Iterator[float]:
    """Yield how many seconds to wait before looking again, more each time."""
    pause = 0.05
    while True:
        yield pause
        pause = min(2 * pause, longest)
