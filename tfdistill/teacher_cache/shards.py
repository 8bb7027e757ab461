"""How teachers' logits lie on disk: in shards, which several processes write at once.

A folder holds `manifest.json` (what the logits follow from), `ids.npy` (the examples' numbers in
the order of the rows) and a file for some rows of one view of one member:

    v0003/m00-r0004096-0008192.5d1f93a0.npy

Its name ends in the CRC-32 of the manifest's digest and its bytes. It appears whole, and a list of
the folders is all that tells what is finished; so a build that was killed is resumed, and a shard
of another cache, or a damaged one, is none of this. Shards are records of `logits` and, with
`top_k`, also of `classes` and `rest`.
"""

import contextlib
import functools
import io
import os
import shutil
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdistill.teacher_cache.layout import IDS, MANIFEST, Chunk, Layout, all_shards, array_hash
from tfdistill.utils import checks, storage
from tfdistill.utils.text import disk_space

OPEN = 400  # shards; each is an open file, of which a process may usually have 1,024


class IncompleteError(checks.UsageError):
    """A cache with missing parts."""


class ShardError(storage.DamagedError):
    """A shard that is missing, or not as it was written; it is computed again by a build."""


class Files:
    """The files of a cache.

    Args:
        folder: Where they are.
        manifest: As of `new_manifest`.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder = folder
        self.layout = Layout(**manifest["layout"])
        self._split = manifest["fingerprint"].get("split")
        self._first_sum = zlib.crc32(manifest["check"].encode())

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        layout = self.layout
        return layout.views * layout.members * layout.examples * layout.record.itemsize

    def ids(self) -> np.ndarray:
        """Return the examples' ids in the order of the rows, `[examples]` int64.

        Raises:
            IncompleteError: They, or any shard, are missing; no shard is read.
        """
        if self._has_ids() and not self.missing():
            return np.load(self.folder / IDS)
        raise IncompleteError(
            f"The teacher logits in {self.folder} are unfinished or damaged. Build them again: "
            "only what is missing is computed."
        )

    def write_ids(self, ids: np.ndarray) -> None:
        """Store the examples' ids, `[examples]` int64, unless they are there."""
        if not self._has_ids():
            with storage.appearing(self.folder / IDS) as temporary:
                np.save(temporary, ids)

    def shards(self, views: Iterable[int] | None = None) -> dict[tuple[str, str], Path]:
        """Return the files of the finished chunks, by their folders and names.

        Of two that were written for the same rows, on other machines, the first in order is taken:
        they are the same to rounding.

        Args:
            views: Of which; None means all.
        """
        found: dict[tuple[str, str], Path] = {}
        for view in range(self.layout.views) if views is None else views:
            folder = f"v{view:04}"
            try:
                names = sorted(os.listdir(self.folder / folder))
            except OSError:
                continue
            for name in names:
                chunk, *rest = name.split(".")
                if len(rest) == 2 and rest[1] == "npy":
                    found.setdefault((folder, chunk), self.folder / folder / name)
        return found

    def missing(self, among: Sequence[Chunk] | None = None) -> list[Chunk]:
        """Return the chunks without a shard.

        Args:
            among: Those that are looked for; None means all.
        """
        chunks = self.layout.chunks() if among is None else among
        there = self.shards(None if among is None else {chunk.view for chunk in chunks})
        return [chunk for chunk in chunks if (chunk.folder, chunk.name) not in there]

    def write(self, chunk: Chunk, parts: Sequence[np.ndarray]) -> None:
        """Store the rows of a chunk, `[rows, n]` for each field of the records."""
        rows = np.empty(len(chunk.places), self.layout.record)
        for name, part in zip(rows.dtype.names or (), parts, strict=True):
            rows[name] = part
        whole = io.BytesIO()
        np.save(whole, rows)
        content = whole.getbuffer()
        name = f"{chunk.name}.{zlib.crc32(content, self._first_sum):08x}.npy"
        with storage.appearing(self.folder / chunk.folder / name) as temporary:
            temporary.write_bytes(content)

    def read(self, path: Path) -> np.ndarray:
        """Return the records of a shard, `[rows]`, after checking every byte.

        Raises:
            ShardError: It is damaged, and has been removed; or it cannot be read.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise ShardError(path, "is missing") from None
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
            raise ShardError(path, problem, "Remove it and give the command again.") from None
        if f"{zlib.crc32(content, self._first_sum):08x}" != path.name.split(".")[1]:
            self._remove_damaged(path)
            raise ShardError(path, "is damaged (its checksum is another)")
        return np.load(io.BytesIO(content))

    def _remove_damaged(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            problem = f"is damaged (its checksum is another) and cannot be removed ({error})"
            raise ShardError(path, problem, "Remove it and give the command again.") from None

    def clear(self) -> None:
        """Remove what killed processes of this host have left."""
        for folder in (self.folder, *self.folder.glob("v[0-9]*")):
            for left in storage.abandoned(folder):
                with contextlib.suppress(OSError):  # as of a folder of that name
                    left.unlink()

    def check_space(self, missing: Sequence[Chunk]) -> None:
        """Raise unless the disk has room for the missing chunks."""
        needed = sum(len(chunk.places) for chunk in missing) * self.layout.record.itemsize
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise checks.UsageError(
                f"Storing the teachers' logits needs {disk_space(needed)} in {self.folder}, but "
                f"{disk_space(free)} are free. Free some, choose another cache.folder, or set "
                "cache.dtype to float16, cache.top_k, or fewer data.augment.views."
            )

    def _has_ids(self) -> bool:
        try:
            return array_hash(np.load(self.folder / IDS)) == self._split
        except Exception:  # damaged headers raise what they please
            return False


class Rows:
    """The stored records, by view, member and row; safe to share between threads.

    A shard is opened, and checked, at its first read.

    Args:
        files: Of a complete cache.
    """

    def __init__(self, files: Files):
        self._layout = files.layout
        self._shards = files.shards()
        self._checked: set[Path] = set()
        # Without a reference to this object, which would keep files open until it is collected.
        opened = functools.partial(_opened, files, self._shards, self._checked)
        self._open = functools.lru_cache(OPEN)(opened)

    def __call__(self, view: int, member: int, places: np.ndarray) -> np.ndarray:
        """Return the records `[b]` of examples at `places`, `[b]`.

        Raises:
            ShardError: A shard is damaged.
        """
        size = self._layout.record.itemsize
        found = np.empty((len(places), size), np.uint8)
        numbers, rows = np.divmod(places, self._layout.shard_rows)
        for number in np.unique(numbers):
            at = np.flatnonzero(numbers == number)
            found[at] = self._open(member, view, int(number)).take(rows[at], axis=0)
        return found.view(self._layout.record)[:, 0]

    def check(self) -> None:
        """Read all that has not been read yet.

        Raises:
            ShardError: Some is damaged.
        """
        for chunk in self._layout.chunks():
            self._open(chunk.member, chunk.view, chunk.places[0] // self._layout.shard_rows)


def _opened(
    files: Files,
    shards: dict[tuple[str, str], Path],
    checked: set[Path],
    member: int,
    view: int,
    number: int,
) -> np.ndarray:
    """Return the bytes of a shard's records, `[rows, bytes]`, read-only in place."""
    chunk = files.layout.chunk(member, view, number)
    key = chunk.folder, chunk.name
    if not shards[key].exists():  # written anew by another machine
        shards |= files.shards([view])
    path = shards[key]
    if path not in checked or not path.exists():
        rows = files.read(path)
        if rows.dtype != files.layout.record or rows.shape != (len(chunk.places),):
            raise ShardError(path, "is damaged (it has other rows)", "Remove it.")
        checked.add(path)
    rows = np.asarray(np.load(path, mmap_mode="r"))
    return rows.view(np.uint8).reshape(len(rows), -1)


def begin(folder: Path, manifest: dict[str, Any]) -> bool:
    """Write the manifest of a cache, after removing shards that are not of it.

    Returns:
        Whether there were shards before, whose manifest was lost or damaged.
    """
    files, before = Files(folder, manifest), list(all_shards(folder))
    for path in before:
        try:
            files.read(path)
        except ShardError:
            path.unlink(missing_ok=True)
    storage.write_json(folder / MANIFEST, manifest)
    return bool(before)
