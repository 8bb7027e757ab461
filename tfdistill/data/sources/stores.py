"""Where encoded images lie, in files or records; and whether they stay there or are decoded."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.config.data import AUTO, IN_FILES, MEMORY
from tfdistill.data import array_cache, decode, encoded, headers
from tfdistill.data.encoded import EncodedImages


@dataclass(frozen=True)
class Files:
    """Images that are files."""

    paths: Sequence[Path]

    def read(self, place: int) -> bytes:
        return headers.contents(self.paths[place])

    def name(self, place: int) -> str:
        return str(self.paths[place])


@dataclass(frozen=True)
class Records:
    """Images in TFRecord files.

    Args:
        files: The files.
        spans: `[n, 3]` int64: number of the file, offset and length of each record's content.
        image: Returns the encoded image in a record.
        names: What messages call the records, before their places.
    """

    files: Sequence[Path]
    spans: np.ndarray
    image: Callable[[bytes], bytes]
    names: str

    def read(self, place: int) -> bytes:
        number, offset, length = map(int, self.spans[place])
        try:
            with open(self.files[number], "rb") as file:
                return self.image(os.pread(file.fileno(), length, offset))
        except (OSError, ValueError) as error:
            raise headers.ImageError(f"Its record cannot be read: {error}.") from error

    def contents(self) -> Iterator[bytes]:
        """Yield every record whole."""
        for number, path in enumerate(self.files):
            with open(path, "rb") as file:
                for _, offset, length in self.spans[self.spans[:, 0] == number]:
                    file.seek(offset)
                    yield file.read(length)

    def name(self, place: int) -> str:
        return f"{self.names}[{place}]"


def resolved(config: DataConfig, store: encoded.Store, count: int) -> tuple[DataConfig, list[str]]:
    """Return a configuration whose storage is decided, and what is to be told of that.

    Args:
        config: Its `storage` may be `auto`.
        store: The images.
        count: How many.
    """
    if config.storage != AUTO:
        return config, []
    try:
        size = config.image_size
        sides = (size, size) if size else headers.checked(store.read(0), 3).sides
    except headers.ImageError:  # said when all are read
        return dataclasses.replace(config, storage=MEMORY), []
    # Decoded, the chosen part, and as TensorFlow's.
    needed, free = 3 * 3 * count * sides[0] * sides[1], free_memory()
    if needed <= free:
        return dataclasses.replace(config, storage=MEMORY), []
    told = (
        f"{count} images would take {needed / 1e9:.1f} GB of {free / 1e9:.1f} GB of free memory; "
        "they stay in their files and are decoded for each batch (data.storage)"
    )
    return dataclasses.replace(config, storage=IN_FILES), [told]


def free_memory() -> int:
    """Return the bytes that this process may still take, by the machine and its control group."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lines = _lines("/proc/meminfo")
    available = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    free = int(available[0]) * 1024 if available else free
    limits = _lines("/sys/fs/cgroup/memory.max")
    if limits and limits[0].isdigit():
        used = int(_lines("/sys/fs/cgroup/memory.current")[0])
        free = min(free, int(limits[0]) - used)
    return max(free, 0)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # not of this system
        return []


def kept(
    store: encoded.Store, count: int, channels: int, config: DataConfig, key: dict[str, Any]
) -> np.ndarray | EncodedImages:
    """Return the images of a store as `config.storage` has it: an array, or as they are.

    Args:
        store: The images.
        count: How many.
        channels: 1 or 3 (PNG also 4).
        config: Its `storage`, which is decided, and `image_size`.
        key: What the images depend on, under which arrays or the index are kept.

    Raises:
        UsageError: An image cannot be read; or, in memory, sizes differ.
    """
    if config.storage == IN_FILES:

        def looked_at() -> dict[str, np.ndarray]:
            return {"index": encoded.index(store, count, channels, config.image_size)}

        rows = array_cache.cached({**key, "index": 1}, looked_at)["index"]
        return EncodedImages((store,), rows, channels, config.image_size)

    def decoded() -> dict[str, np.ndarray]:
        data = [encoded.contents(store, place) for place in range(count)]
        return {"images": decode.decode(data, store.name, channels, config.image_size)}

    return array_cache.cached(key, decoded)["images"]
