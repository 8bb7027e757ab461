"""How teachers' logits lie on disk: a killed build is resumed, and no damage goes unseen.

A folder holds `logits.npy` `[views, members, examples, classes]`, `ids.npy` (the examples' numbers
in the order of the rows), `manifest.json` (what the logits follow from) and `chunks.json` (the
CRC-32 of every finished chunk, that is of some rows of one view of one member). A chunk is listed
after its bytes have reached the disk. With `top_k` there are also `classes.npy` and `rest.npy`.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import io
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import filelock
import numpy as np

from tfdistill import data
from tfdistill.config import CacheConfig
from tfdistill.utils import checks, storage
from tfdistill.utils.progress import Silent
from tfdistill.utils.storage import digest
from tfdistill.utils.text import disk_space

if TYPE_CHECKING:
    from tfdistill.data.pipeline import BatchSettings

CHUNK_ROWS = 4096
MANIFEST, IDS, CHUNKS, LOCK = "manifest.json", "ids.npy", "chunks.json", ".lock"


class IncompleteError(checks.UsageError):
    """A cache with missing or damaged parts."""


class Chunk(NamedTuple):
    """Some rows of one view of one member; `places` are theirs among the examples, `[rows]`."""

    member: int
    view: int
    places: Sequence[int] | np.ndarray

    @property
    def key(self) -> str:
        """Its name in chunks.json."""
        first, last = self.places[0], self.places[-1]
        return f"view {self.view}, member {self.member}, rows {first} to {last}"

    def rows(self, array: np.ndarray) -> np.ndarray:
        """Return its part of `[views, members, examples, n]`."""
        return array[self.view, self.member, self.places[0] : self.places[-1] + 1]


@dataclass(frozen=True)
class Layout:
    """Sizes of a cache: what lies where in its files follows from them.

    With `top_k` the teachers' average is the only member.
    """

    views: int
    members: int
    examples: int
    classes: int
    dtype: str
    top_k: int | None
    temperatures: list[float]
    batch_size: int

    @classmethod
    def of(
        cls, teachers: int, images: data.Dataset, settings: "BatchSettings", cache: CacheConfig
    ) -> "Layout":
        """Return the layout for so many teachers, the training examples and `BatchSettings`."""
        return cls(
            views=stored_views(settings),
            members=1 if cache.top_k else teachers,
            examples=len(images.train),
            classes=images.num_classes,
            dtype=cache.dtype,
            top_k=cache.top_k,
            temperatures=list(cache.temperatures),
            batch_size=settings.batch_size,
        )

    def arrays(self) -> dict[str, tuple[np.dtype, int]]:
        """Return dtype and numbers per row of every file, by name."""
        dtype = np.dtype(self.dtype)
        if self.top_k is None:
            return {"logits": (dtype, self.classes)}
        number = np.dtype("uint16" if self.classes <= 2**16 else "int32")
        return {
            "logits": (dtype, self.top_k),
            "classes": (number, self.top_k),
            "rest": (np.dtype("float32"), len(self.temperatures)),
        }

    def chunks(self) -> list[Chunk]:
        """Return all chunks, in the order in which they are computed."""
        # Whole batches, so that those after a resume are composed as before.
        step = self.batch_size * max(1, round(CHUNK_ROWS / self.batch_size))
        return [
            Chunk(member, view, range(start, min(start + step, self.examples)))
            for member in range(self.members)
            for view in range(self.views)
            for start in range(0, self.examples, step)
        ]


@dataclass(frozen=True)
class _File:
    """An array in a .npy file, written with seek and write: a full disk would kill a mapping."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, int, int, int]

    @functools.cached_property
    def header(self) -> bytes:
        text = io.BytesIO()
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(text, described)
        return text.getvalue()

    @property
    def size(self) -> int:
        return len(self.header) + math.prod(self.shape) * self.dtype.itemsize

    @property
    def unallocated(self) -> int:
        """Bytes that the disk must still give."""
        taken = self.path.stat().st_blocks * 512 if self.path.exists() else 0
        return max(0, self.size - taken)

    def whole(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size != self.size:
            return False
        with open(self.path, "rb") as file:
            return file.read(len(self.header)) == self.header

    def prepare(self) -> None:
        with open(self.path, "r+b" if self.path.exists() else "x+b") as file:
            file.write(self.header)
            file.truncate(self.size)
            _allocate(file.fileno(), self.size)

    def write(self, chunk: Chunk, rows: np.ndarray) -> None:
        start = (chunk.view, chunk.member, chunk.places[0], 0)
        before = int(np.ravel_multi_index(start, self.shape))
        with open(self.path, "r+b") as file:
            file.seek(len(self.header) + before * self.dtype.itemsize)
            file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())


class Files:
    """The files of a cache.

    Args:
        folder: Where they are.
        layout: Their sizes.
    """

    def __init__(self, folder: Path, layout: Layout):
        self.folder = folder
        self.layout = layout
        rows = (layout.views, layout.members, layout.examples)
        self._files = [
            _File(folder / f"{name}.npy", dtype, (*rows, numbers))
            for name, (dtype, numbers) in layout.arrays().items()
        ]
        self._listed: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        return sum(file.size for file in self._files)

    def complete_ids(self, split: str) -> np.ndarray:
        """Return the examples' ids in the order of the rows, after checking every byte.

        Args:
            split: Their `array_hash`.

        Returns:
            `[examples]` int64.

        Raises:
            IncompleteError: Something is missing or damaged.
        """
        whole = self._has_ids(split) and all(file.whole() for file in self._files)
        if whole and not self.missing():
            return np.load(self.folder / IDS)
        raise IncompleteError(
            f"The teacher logits in {self.folder} are unfinished or damaged. Build them again: "
            "only what is missing is computed."
        )

    def map(self) -> tuple[np.ndarray, ...]:
        """Return the arrays, `[views, members, examples, n]`, read-only in place."""
        return tuple(np.asarray(np.load(file.path, mmap_mode="r")) for file in self._files)

    def prepare(self, manifest: dict[str, Any], ids: np.ndarray) -> None:
        """Make room for all rows; what is stored of another or an unreadable manifest goes.

        Args:
            manifest: As of `new_manifest`.
            ids: `[examples]` int64, the examples' numbers in the order of the rows.
        """
        if read_manifest(self.folder) != manifest:
            self._check_own()
            for path in (self.folder / CHUNKS, *(file.path for file in self._files)):
                path.unlink(missing_ok=True)
        self._check_space()
        with storage.explained(self.folder):
            storage.write_json(self.folder / MANIFEST, manifest)
            with storage.appearing(self.folder / IDS) as temporary:
                np.save(temporary, ids)
            for file in self._files:
                file.prepare()

    def _check_own(self) -> None:
        """Raise at files of a cache's names that no cache has written; they are somebody's."""
        try:
            written = json.loads((self.folder / MANIFEST).read_text())
            own = isinstance(written, dict) and not {"fingerprint", "layout"}.isdisjoint(written)
        except (OSError, ValueError, RecursionError):  # none, or a damaged one
            own = (self.folder / MANIFEST).exists() or (self.folder / CHUNKS).exists()
        names = (MANIFEST, CHUNKS, IDS, *(file.path.name for file in self._files))
        there = [name for name in names if (self.folder / name).exists()]
        if there and not own:
            raise checks.UsageError(
                f"{self.folder} holds files that are not of teacher logits: {', '.join(there)}. "
                "Move them, or choose another cache.folder."
            )

    def missing(self) -> list[Chunk]:
        """Return the chunks that are not listed or whose bytes are not those listed."""
        listed = read_list(self.folder)
        arrays = self.map()
        chunks = self.layout.chunks()
        sums = {chunk.key: _checksum(chunk.rows(each) for each in arrays) for chunk in chunks}
        self._listed = {key: crc for key, crc in sums.items() if listed.get(key) == crc}
        return [chunk for chunk in chunks if chunk.key not in self._listed]

    def lost(self, split: str) -> bool:
        """Return whether rows that were finished, or the ids, are not as they were written."""
        if not (self.folder / CHUNKS).exists():
            return False
        listed = read_list(self.folder)
        if not listed or not self._has_ids(split) or not all(file.whole() for file in self._files):
            return True
        return any(chunk.key in listed for chunk in self.missing())

    def write(self, chunk: Chunk, parts: Sequence[np.ndarray]) -> None:
        """Store the rows of a chunk, `[rows, n]` for each file, and then list it."""
        dtypes = [file.dtype for file in self._files]
        written = list(map(np.ascontiguousarray, parts, dtypes))
        with storage.explained(self.folder):
            for file, rows in zip(self._files, written, strict=True):
                file.write(chunk, rows)
            self._listed[chunk.key] = _checksum(written)
            storage.write_json(self.folder / CHUNKS, self._listed)

    def _has_ids(self, split: str) -> bool:
        try:
            return array_hash(np.load(self.folder / IDS)) == split
        except Exception:  # damaged headers raise what they please
            return False

    def _check_space(self) -> None:
        needed = sum(file.unallocated for file in self._files)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise checks.UsageError(
                f"Storing the teachers' logits needs {disk_space(needed)} in {self.folder}, but "
                f"{disk_space(free)} are free. Free some, choose another cache.folder, or set "
                "cache.dtype to float16, cache.top_k, or fewer data.augment.views."
            )


def stored_views(settings: "BatchSettings") -> int:
    """Return the number of views of the augmented images.

    Raises:
        UsageError: They have none: every epoch has its own.
    """
    views = settings.augment.num_views
    if views is None:
        raise checks.UsageError(
            "Storing teachers' logits needs a number of views of the augmented images. Received: "
            "views=None. Set augment.views, for example to 10."
        )
    return views


def new_manifest(fingerprint: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """Return what `manifest.json` of a new cache holds."""
    manifest = {"fingerprint": fingerprint, "layout": dataclasses.asdict(layout)}
    return manifest | {"check": digest(manifest)}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return a folder's manifest, None where there is none or not as it was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        written = {key: manifest[key] for key in ("fingerprint", "layout")}
        return manifest if manifest["check"] == digest(written) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def is_damaged(folder: Path) -> bool:
    """Return whether a folder has lost something; one that was only begun has not."""
    manifest = read_manifest(folder)
    if not manifest:
        return (folder / MANIFEST).exists() or (folder / CHUNKS).exists()
    return Files(folder, Layout(**manifest["layout"])).lost(manifest["fingerprint"]["split"])


def read_list(folder: Path) -> dict[str, int]:
    """Return the CRC-32 of the finished chunks, by their keys; empty where it cannot be read."""
    try:
        listed = json.loads((folder / CHUNKS).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return listed if isinstance(listed, dict) else {}


def agreed_manifest(folder: Path, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
    """Return a folder's manifest, None without one.

    Raises:
        UsageError: It is of another fingerprint; the differences are named.
    """
    manifest = read_manifest(folder)
    stored = manifest["fingerprint"] if manifest else fingerprint
    if stored != fingerprint:
        changed = [
            f"the {key}" for key in fingerprint if key in stored and stored[key] != fingerprint[key]
        ]
        raise checks.UsageError(
            f"The teacher logits in {folder} belong to something else: {' and '.join(changed)} "
            "changed. Remove the folder, or choose another cache.folder."
        )
    return manifest


@contextlib.contextmanager
def held(folder: Path, progress: Silent) -> Iterator[None]:
    """Keep other processes from building in a folder, or wait for one that does."""
    lock = filelock.FileLock(folder / LOCK)
    try:
        with storage.explained(folder):
            lock.acquire(timeout=0)
    except filelock.Timeout:
        progress.say(f"waiting for another process that builds the teacher logits in {folder}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def array_hash(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's dtype, shape `[...]` and numbers."""
    found = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _checksum(parts: Iterable[np.ndarray]) -> int:
    return functools.reduce(lambda crc, part: zlib.crc32(part.data, crc), parts, 0)


def _allocate(descriptor: int, size: int) -> None:
    """Take the disk's blocks now, where the system can, rather than find it full later."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except AttributeError:
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
