"""What a cache of teachers' logits is of, and its sizes: its manifest and its layout."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfdistill import data
from tfdistill.config import CacheConfig
from tfdistill.utils import checks
from tfdistill.utils.storage import digest

if TYPE_CHECKING:
    from tfdistill.data.pipeline import BatchSettings

FORMAT = 2  # of the files
SHARD_ROWS = 4096
MANIFEST, IDS, CLAIMS = "manifest.json", "ids.npy", "claims"


class Chunk(NamedTuple):
    """Some rows of one view of one member; `places` are theirs among the examples, `[rows]`."""

    member: int
    view: int
    places: Sequence[int] | np.ndarray

    @property
    def folder(self) -> str:
        """Name of the folder of its view."""
        return f"v{self.view:04}"

    @property
    def name(self) -> str:
        """Name of its file, without the checksum."""
        return f"m{self.member:02}-r{self.places[0]:07}-{self.places[-1] + 1:07}"


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
    shard_rows: int

    @classmethod
    def of(
        cls, teachers: int, images: data.Dataset, settings: "BatchSettings", cache: CacheConfig
    ) -> "Layout":
        """Return the layout for so many teachers, the training examples and `BatchSettings`."""
        batch = settings.batch_size
        return cls(
            views=stored_views(settings),
            members=1 if cache.largest else teachers,
            examples=len(images.train),
            classes=images.num_classes,
            dtype=cache.dtype,
            top_k=cache.largest,
            temperatures=list(cache.temperatures),
            batch_size=batch,
            # Whole batches: they are composed as if one process computed all of them in order.
            shard_rows=batch * max(1, round(SHARD_ROWS / batch)),
        )

    @functools.cached_property
    def record(self) -> np.dtype:
        """What is stored of an image: `logits` and, with `top_k`, `classes` and `rest`."""
        if self.top_k is None:
            return np.dtype([("logits", self.dtype, (self.classes,))])
        number = "uint16" if self.classes <= 2**16 else "int32"
        return np.dtype(
            [
                ("logits", self.dtype, (self.top_k,)),
                ("classes", number, (self.top_k,)),
                ("rest", "float32", (len(self.temperatures),)),
            ]
        )

    def chunk(self, member: int, view: int, number: int) -> Chunk:
        """Return the chunk `number` of a view of a member."""
        start = number * self.shard_rows
        return Chunk(member, view, range(start, min(start + self.shard_rows, self.examples)))

    def chunks(self) -> list[Chunk]:
        """Return all chunks, in the order in which they are computed."""
        numbers = range(-(-self.examples // self.shard_rows))
        members, views = range(self.members), range(self.views)
        return [self.chunk(m, v, number) for m in members for v in views for number in numbers]


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


def check_format(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise unless this version of the package reads what lies beside a manifest."""
    found = manifest["fingerprint"].get("format")
    if found != FORMAT:
        raise checks.UsageError(
            f"{folder} holds teacher logits of format {checks.shown(found)}, and this version of "
            f"tfdistill reads format {FORMAT}. Remove the folder: they are computed again."
        )


def agreed_manifest(folder: Path, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
    """Return a folder's manifest, None without one.

    Raises:
        UsageError: It is of another fingerprint; the differences are named.
    """
    manifest = read_manifest(folder)
    if manifest:
        check_format(folder, manifest)
    stored = manifest["fingerprint"] if manifest else fingerprint
    if stored != fingerprint:
        changed = [
            f"the {key}"
            for key in {**fingerprint, **stored}
            if stored.get(key) != fingerprint.get(key)
        ]
        raise checks.UsageError(
            f"The teacher logits in {folder} belong to something else: {' and '.join(changed)} "
            "changed. Remove the folder, or choose another cache.folder."
        )
    return manifest


def check_own(folder: Path) -> None:
    """Raise at files of a cache's names that no cache has written; they are somebody's."""
    try:
        written = json.loads((folder / MANIFEST).read_text())
        own = isinstance(written, dict) and not {"fingerprint", "layout"}.isdisjoint(written)
    except (OSError, ValueError, RecursionError):  # none, or a damaged one
        own = (folder / MANIFEST).exists() or any(all_shards(folder))
    there = [name for name in (MANIFEST, IDS) if (folder / name).exists()]
    if there and not own:
        raise checks.UsageError(
            f"{folder} holds files that are not of teacher logits: {', '.join(there)}. "
            "Move them, or choose another cache.folder."
        )


def all_shards(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder that have the names of shards."""
    return folder.glob("v[0-9]*/m[0-9]*-r[0-9]*-[0-9]*.*.npy")


def array_hash(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's dtype, shape `[...]` and numbers."""
    found = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
