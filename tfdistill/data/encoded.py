"""Images that stay in their files, or in records of larger files, and are decoded for each batch.

What is known of each beforehand (its size, how it is turned, a checksum of its bytes) is a row of
an index, which is made once. A training crop of a JPEG decodes only what it keeps.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tfdistill.data import array_cache, decode, headers
from tfdistill.utils import checks
from tfdistill.utils.storage import digest

if TYPE_CHECKING:
    import tensorflow as tf

INDEX = np.dtype(
    [
        ("store", np.uint8),  # in which of the stores, and where there
        ("place", np.int64),
        ("sum", np.uint32),  # CRC-32 of the encoded bytes
        ("height", np.int32),  # upright, before anything is reduced
        ("width", np.int32),
        ("orientation", np.uint8),  # as Exif counts
        ("ratio", np.uint8),  # by which a large JPEG is reduced while it is decoded
        ("jpeg", np.bool_),
        ("prepared", np.bool_),  # whether the decoder is given other bytes: of WebP, TIFF and GIF
    ]
)
# Images that are read at once where all are looked at.
STEP = 64
# Seconds after which a look at all images tells how far it is.
TELL_AFTER = 30
# Pixels beside a part of a JPEG of which its own colours at the border are made.
MARGIN = 2


class Store(Protocol):
    """Encoded images by their places 0, 1, ..."""

    def read(self, place: int) -> bytes:
        """Return the bytes of a file.

        Raises:
            ImageError: It cannot be read.
        """
        ...

    def name(self, place: int) -> str:
        """Return what messages call it."""
        ...


def contents(store: Store, place: int) -> bytes:
    """Return the bytes of an image, or raise the error that names it."""
    try:
        return store.read(place)
    except headers.ImageError as error:
        raise decode.unreadable(store.name(place), str(error)) from None


def index(store: Store, count: int, channels: int, size: int | None) -> np.ndarray:
    """Read every image of a store once and return what has to be known of it, `[count]` of `INDEX`.

    Args:
        store: The images.
        count: How many.
        channels: 1 or 3 (PNG also 4).
        size: What their shorter sides are to be brought to; None keeps them.

    Raises:
        UsageError: A file cannot be read, or its header says that it may not be decoded.
    """
    rows = np.zeros(count, INDEX)
    for place, row in enumerate(rows):
        data = contents(store, place)
        try:
            file = headers.checked(data, channels, size)
            if size is not None:
                headers.check_sides(file.sides, size)
        except headers.ImageError as error:
            raise decode.unreadable(store.name(place), str(error)) from None
        row["place"], row["sum"] = place, zlib.crc32(data)
        row["width"], row["height"] = _upright(file)
        row["orientation"], row["ratio"] = file.orientation, file.ratio
        row["jpeg"] = file.format == "JPEG"
        row["prepared"] = file.foreign or file.data is not data
    return rows


def add(found: Any, array: np.ndarray) -> None:
    """Add dtype, shape and values of an array to a hash."""
    found.update(f"{array.dtype.str} {array.shape}".encode())
    found.update(np.ascontiguousarray(array).data)


def _sha256(array: np.ndarray) -> Any:
    found = hashlib.sha256()
    add(found, array)
    return found


def sums(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of pixels `[..., width, channels]` uint8 and of their squares, exactly.

    Returns:
        Two arrays `[channels]` uint64.
    """
    width, channels = pixels.shape[-2:]
    rows = pixels.reshape(-1, width * channels)
    total = rows.sum(axis=0, dtype=np.uint64)
    squares = np.square(rows, dtype=np.uint16).sum(axis=0, dtype=np.uint64)
    return tuple(each.reshape(-1, channels).sum(axis=0) for each in (total, squares))


def _upright(file: headers.Encoded) -> tuple[int, int]:
    """Return width and height of an image once it is turned as it was taken."""
    if file.foreign:  # only what is decoded tells
        return struct.unpack(">II", decode.ready(file)[16:24] or bytes(8))
    return file.sides if file.orientation <= 4 else file.sides[::-1]


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images that are decoded when they are asked for; of one size or of many.

    It stands in `Examples.images` for an array: it has a `shape`, of which height and width are
    None where sizes differ, and `decoded()` returns that array.

    Args:
        stores: Where they lie.
        rows: `[n]` of `INDEX`.
        channels: 1 or 3 (PNG also 4).
        size: Side of the square that each is brought to when it is decoded; None keeps its size.
        mixed: Whether they are some of images of several sizes.
    """

    stores: tuple[Store, ...]
    rows: np.ndarray
    channels: int
    size: int | None
    mixed: bool = False

    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sides(self) -> np.ndarray:
        """Height and width of each, `[n, 2]` int32."""
        if self.size:
            return np.full((len(self), 2), self.size, np.int32)
        return np.stack([self.rows["height"], self.rows["width"]], axis=1)

    @cached_property
    def shape(self) -> tuple[int, int | None, int | None, int]:
        """`(n, height, width, channels)`; height and width are None where sizes differ."""
        sides = self.sides
        mixed = self.mixed or (sides != sides[0]).any()
        height, width = (None, None) if mixed else map(int, sides[0])
        return (len(self), height, width, self.channels)

    @property
    def identity(self) -> str:
        """Hash of all that the pixels follow from: bytes, how they are read, and by what."""
        import tensorflow as tf

        found = hashlib.sha256()
        for name in ("sum", "height", "width", "orientation", "ratio"):
            found.update(self.rows[name].tobytes())
        about = [self.channels, self.size, decode.RULES, tf.__version__]
        return digest(found.hexdigest(), about)

    def take(self, indices: np.ndarray | slice) -> EncodedImages:
        """Return the images at `indices`, `[m]` int or a slice."""
        return dataclasses.replace(self, rows=self.rows[indices], mixed=None in self.shape)

    def and_(self, others: EncodedImages) -> EncodedImages:
        """Return these images and, after them, others of the same channels and size."""
        rows = others.rows.copy()
        rows["store"] += len(self.stores)
        return dataclasses.replace(
            self,
            stores=self.stores + others.stores,
            rows=np.concatenate([self.rows, rows]),
            mixed=self.mixed or others.mixed,
        )

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.each()

    def decoded(self) -> np.ndarray:
        """Return them as an array, `[n, height, width, channels]` uint8.

        Raises:
            UsageError: Their sizes differ, or a file is not what it was.
        """
        self.check_sizes()
        images = np.empty((len(self), *self.sides[0], self.channels), np.uint8)
        for place, image in enumerate(self.each()):
            images[place] = image
        return images

    def check_sizes(self) -> None:
        """Raise if the images have several sizes, where one is needed.

        Raises:
            UsageError: It says what to set.
        """
        if None not in self.shape:
            return
        _, first = np.unique(self.sides, axis=0, return_index=True)
        found = ", ".join(
            f"{row['height']}x{row['width']} ({self._name(row)})"
            for row in self.rows[np.sort(first)[:2]]
        )
        raise checks.UsageError(
            f"All images must have one size. Received: {found}. Set data.image_size to bring them "
            "to one square size, or data.input_size to have each brought to it when it is seen."
        )

    def each(self) -> Iterator[np.ndarray]:
        """Yield every image, `[height, width, channels]` uint8, in order.

        Raises:
            UsageError: A file is damaged, or is not what it was.
        """
        import tensorflow as tf

        options = tf.data.Options()
        options.autotune.enabled = False
        as_written = tf.autograph.experimental.do_not_convert
        with tf.device("CPU"):
            images = (
                tf.data.Dataset.range(0, len(self), STEP)
                .map(
                    as_written(
                        lambda start: self.encoded(
                            tf.range(start, tf.minimum(start + STEP, len(self)), dtype=tf.int64)
                        )
                    ),
                    num_parallel_calls=decode.workers(),
                    deterministic=True,
                )
                .unbatch()
                .map(
                    as_written(self.whole),
                    num_parallel_calls=decode.workers(),
                    deterministic=True,
                )
                .prefetch(2)
                .with_options(options)
            )
            place = 0
            try:
                for image in images.as_numpy_iterator():
                    yield image
                    place += 1
            except tf.errors.OpError as error:
                row = self.rows[place]
                kind = "JPEG" if row["jpeg"] else "file"
                damaged = decode.unreadable(self._name(row), f"The {kind} is damaged or cut short.")
                raise (checks.of_reader(error) or damaged) from None

    def sha256(self, *others: np.ndarray) -> str:
        """Return the SHA-256 of the images and, after them, of other arrays.

        It is that of the same images as an array. It needs a look at all of them, once: it is kept.
        """
        key = {"sha256 of": self.identity, "and": [_sha256(each).hexdigest() for each in others]}

        def looked() -> dict[str, np.ndarray]:
            found = self._looked[0].copy()
            for array in others:
                add(found, array)
            return {"sha256": np.frombuffer(found.digest(), np.uint8)}

        return array_cache.cached(key, looked)["sha256"].tobytes().hex()

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Sum of all pixels and of their squares, `[channels]` uint64, and number of pixels."""
        found = array_cache.cached(
            self._moments_key, lambda: {"moments": np.stack(self._looked[1:])}
        )["moments"]
        heights, widths = self.sides.astype(np.int64).T
        return found[0], found[1], int((heights * widths).sum())

    @property
    def _moments_key(self) -> dict[str, str]:
        return {"moments of": self.identity}

    def look(self, tell: Callable[[str], None]) -> None:
        """Look at all images, unless that was done before; where it lasts, tell how far it is."""
        if not array_cache.is_kept(self._moments_key):
            self.__dict__["_looked"] = self._look(tell)
            assert self.moments  # which keeps them, and with them that all were looked at

    @cached_property
    def _looked(self) -> tuple[Any, np.ndarray, np.ndarray]:
        return self._look(lambda line: None)

    def _look(self, tell: Callable[[str], None]) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return SHA-256, sum and sum of squares of all pixels."""
        found = hashlib.sha256(f"{self.dtype.str} {self.shape}".encode())
        total = squares = np.zeros(self.channels, np.uint64)
        told = time.monotonic()
        for place, image in enumerate(self.each()):
            if time.monotonic() - told > TELL_AFTER:
                told = time.monotonic()
                tell(f"Looking at {len(self)} images for the first time: {place} done")
            if None in self.shape:
                found.update(f"{image.shape}".encode())
            found.update(image.data)
            added = sums(image)
            total, squares = total + added[0], squares + added[1]
        return found, total, squares

    def encoded(self, places: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return what has to be known to decode images, in a graph.

        Args:
            places: `[b]` int64.

        Returns:
            `data`, the bytes as the decoder takes them, `[b]` strings; and of each image, if not
            all are alike in it, `orientation` and `ratio`, `[b]` int32, and `alone`, `[b]` bool,
            whether a part of it can be decoded alone; and its `width`, `[b]` int32, where it can.
        """
        import tensorflow as tf

        def read(wanted: np.ndarray) -> np.ndarray:
            return np.array([self._read(row) for row in self.rows[wanted]], object)

        found = {
            name: tf.gather(tf.constant(column), places)
            for name, column in self._columns.items()
            if (column != column[0]).any()
        }
        data = tf.numpy_function(read, [places], tf.string, stateful=False)
        return {**found, "data": tf.ensure_shape(data, (None,))}

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        """What is known of each image, `[n]`."""
        upright = self.rows["orientation"] == 1
        alone = self.rows["jpeg"] & upright & (self.rows["ratio"] == 1) & (self.size is None)
        turned = np.where(self.rows["prepared"], 1, self.rows["orientation"])
        return {
            "orientation": turned.astype(np.int32),
            "ratio": self.rows["ratio"].astype(np.int32),
            "width": self.rows["width"],
            "alone": alone,
        }

    def _of(self, one: dict[str, tf.Tensor], name: str) -> Any:
        """Return what is known of an image: a tensor, or what is the same of all."""
        return one[name] if name in one else self._columns[name][0].item()

    def whole(self, one: dict[str, tf.Tensor]) -> tf.Tensor:
        """Decode one image of `encoded`, `[height, width, channels]` uint8, in a graph."""
        orientation, ratio = self._of(one, "orientation"), self._of(one, "ratio")
        image = decode.pixels(one["data"], self.channels, orientation, ratio)
        image = image if self.size is None else decode.squared(image, self.size)
        image.set_shape((*self.shape[1:3], self.channels))
        return image

    def part(self, one: dict[str, tf.Tensor], box: tf.Tensor) -> tf.Tensor:
        """Decode a part of one image of `encoded`, in a graph.

        Args:
            one: The image.
            box: `[4]` int32: top, left, height and width, in whole pixels.

        Returns:
            `[height, width, channels]` uint8, the same bits as those of the whole image there.
        """
        import tensorflow as tf

        top, left, height, width = tf.unstack(box)

        def by_itself() -> tf.Tensor:
            before = tf.minimum(left, MARGIN)
            after = tf.minimum(self._of(one, "width") - left - width, MARGIN)
            wide = before + width + after
            found = tf.image.decode_and_crop_jpeg(
                one["data"], [top, left - before, height, wide], channels=self.channels
            )
            return found[:, before : before + width]

        def of_whole() -> tf.Tensor:
            return self.whole(one)[top : top + height, left : left + width]

        alone = self._of(one, "alone")
        if isinstance(alone, bool):
            return by_itself() if alone else of_whole()
        return tf.cond(alone, by_itself, of_whole)

    def _read(self, row: Any) -> bytes:
        store, place = self.stores[row["store"]], int(row["place"])
        try:
            data = store.read(place)
            if zlib.crc32(data) != row["sum"]:
                raise headers.ImageError("It has changed since it was first read.")
            if not row["prepared"]:
                return data
            file = headers.checked(data, self.channels, self.size)
            return decode.ready(file)
        except headers.ImageError as error:
            raise checks.UsageError(
                f"The image {store.name(place)} is no longer what it was: {error} Put it back, or "
                "start again with the images as they are now."
            ) from None

    def _name(self, row: Any) -> str:
        return self.stores[row["store"]].name(int(row["place"]))
