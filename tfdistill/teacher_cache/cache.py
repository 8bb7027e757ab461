"""Teachers' logits, computed once for every view of every training example, read by many students.

`build` leaves them in a folder, `open_cache` finds them there, and `TeacherCache.logits` gives what
`training_batches` reads. A cache is complete, checked and of the very teachers, images and views
that are asked for, or it is refused. Files: `logit_files`; averages and `top_k`: `logit_reading`.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdistill import data
from tfdistill.config import AVERAGES, AugmentConfig, CacheConfig, formats
from tfdistill.data import pipeline, views
from tfdistill.models.fingerprint import architecture_hash, given_name, weights_hash
from tfdistill.teacher_cache import logit_files, logit_reading
from tfdistill.teacher_cache.logit_files import Chunk, Files, Layout, array_hash
from tfdistill.teacher_cache.logit_reading import Reader, Verification
from tfdistill.utils import checks, machine, storage, tensorflow
from tfdistill.utils.progress import Silent
from tfdistill.utils.text import disk_space, duration
from tfdistill.utils.types import Tensor

FORMAT = 1
SPEAK_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class Teacher:
    """A trained network and how to get it.

    Args:
        name: Unique among the teachers of a cache.
        weights: SHA-256 of its weights, of `models.fingerprint.weights_hash`.
        architecture: SHA-256 of its configuration, of `models.fingerprint.architecture_hash`.
        load: Returns the network; called only when rows must be computed.
    """

    name: str
    weights: str
    architecture: str
    load: Callable[[], keras.Model]

    @classmethod
    def of(cls, network: keras.Model, name: str | None = None) -> "Teacher":
        """Return a network in memory as a teacher.

        Example:
            >>> teachers = [Teacher.of(first, "first"), Teacher.of(second, "second")]
        """
        hashes = weights_hash(network), architecture_hash(network)
        return cls(name or given_name(network), *hashes, lambda: network)


def fingerprint(
    teachers: Sequence[Teacher],
    images: data.Dataset,
    settings: pipeline.BatchSettings,
    cache: CacheConfig,
    average: str,
) -> dict[str, Any]:
    """Return all that stored logits follow from, by readable names, as JSON values.

    Args: as of `build`. Batch size and the run's own seed change no logits; `average` counts only
    with `top_k`.

    Raises:
        UsageError: Two teachers of one name, augmentation without a number of views, or a `top_k`
            that keeps all classes.
    """
    _check_asked(teachers, images, settings, cache, average)
    augmentation = settings.augment
    return {
        "format": FORMAT,
        "tfdistill version": machine.version("tfdistill"),
        "teachers": [teacher.name for teacher in teachers],
        **{f"weights of teacher {each.name}": each.weights for each in teachers},
        **{f"architecture of teacher {each.name}": each.architecture for each in teachers},
        "source": images.name,
        "class names": list(images.class_names),
        "training images": images.train.images_sha256,
        "split": array_hash(images.train.ids),
        "input size": settings.input_size,
        "augmentation": _augmentation(augmentation),
        "number of views": augmentation.num_views,
        "view seed": augmentation.view_seed if augmentation.active else None,
        "dtype": cache.dtype,
        "top_k": cache.top_k,
        "temperatures": list(cache.temperatures),
        "average": average if cache.top_k else None,
    }


def _augmentation(config: AugmentConfig) -> dict[str, Any]:
    plain = dataclasses.replace(config, views=None, view_seed=0)
    settings = formats.hashed(dataclasses.asdict(plain))
    version = views.version(config)
    if version > 1:
        return {**settings, "version": version}
    # As before there were these settings, which do nothing here.
    later = ("crop_ratio", "antialias", "rotation_fill")
    return {name: value for name, value in settings.items() if name not in later}


def build(
    folder: str | Path,
    teachers: Sequence[Teacher],
    images: data.Dataset,
    settings: pipeline.BatchSettings,
    cache: CacheConfig | None = None,
    average: str = "probabilities",
    progress: Silent | None = None,
    jit: str = "auto",
) -> "TeacherCache":
    """Return the cache in a folder, after computing what it lacks or what is damaged.

    Only one process builds; another one waits and then finds the cache complete. One teacher at a
    time is in memory; all of them with `top_k`.

    Args:
        folder: Of this cache alone.
        teachers: Networks from raw pixels to logits `[batch, classes]`.
        images: Its training examples are shown to them.
        settings: Their augmentation, size and batch size.
        cache: dtype and top_k.
        average: With `top_k`, how the members are averaged before they are stored.
        progress: What `say` of it is told.
        jit: Whether to compile with XLA: `auto`, `on` or `off`.

    Raises:
        UsageError: The folder holds logits of something else, the disk is too small, or a teacher
            gives NaN, infinite logits or other classes.

    Example:
        >>> cache = build("logits", [Teacher.of(teacher)], images, settings)
        >>> training_batches(images.train, settings, epochs=9, teacher_logits=cache.logits())
    """
    tensorflow.needed("A TeacherCache")
    folder, cache, progress = Path(folder), cache or CacheConfig(), progress or Silent()
    asked = fingerprint(teachers, images, settings, cache, average)
    if (manifest := logit_files.agreed_manifest(folder, asked)) is not None:
        with contextlib.suppress(logit_files.IncompleteError):
            return TeacherCache(folder, manifest)
    with storage.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with logit_files.held(folder, progress):
        if logit_files.is_damaged(folder):
            progress.say(f"{folder} has lost or damaged files; their logits are computed again")
        layout = Layout.of(len(teachers), images, settings, cache)
        new = logit_files.new_manifest(asked, layout)
        manifest = logit_files.agreed_manifest(folder, asked) or new
        files = Files(folder, Layout(**manifest["layout"]))
        files.prepare(manifest, images.train.ids)
        missing = files.missing()
        passes = sum(len(chunk.places) for chunk in missing)
        passes *= len(teachers) if cache.top_k else 1  # with top_k, a chunk is of every teacher
        settings = dataclasses.replace(settings, batch_size=files.layout.batch_size)
        computed = _computed(teachers, images, settings, missing, cache.top_k, jit)
        speed = _fill(files, computed, passes, cache, average, progress)
        return TeacherCache(folder, manifest, speed)


def open_cache(folder: str | Path) -> "TeacherCache":
    """Return the complete cache in a folder.

    Raises:
        UsageError: There is none, or it is unfinished or damaged.
    """
    manifest = logit_files.read_manifest(Path(folder))
    if manifest is None:
        raise checks.UsageError(
            f"{folder} holds no teacher logits with a readable manifest.json. Build them first."
        )
    return TeacherCache(Path(folder), manifest)


class TeacherCache:
    """Complete, checked teacher logits; `build` and `open_cache` give it.

    Args:
        folder: Where the files are.
        manifest: What they follow from and how they are laid out.
        images_per_second: Speed of the teachers when this cache was built, over all members; None
            where nothing had to be computed.

    Raises:
        UsageError: It is unfinished or damaged.
    """

    def __init__(
        self, folder: Path, manifest: dict[str, Any], images_per_second: float | None = None
    ):
        self.folder = folder
        self.manifest = manifest
        self.images_per_second = images_per_second
        self._layout = Layout(**manifest["layout"])
        files = Files(folder, self._layout)
        self._ids = files.complete_ids(manifest["fingerprint"]["split"])
        self._arrays = files.map()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(views, members, examples, classes)`; with `top_k` the average is the only member."""
        layout = self._layout
        return layout.views, layout.members, layout.examples, layout.classes

    def logits(
        self,
        average: str = "probabilities",
        members: Sequence[str] | None = None,
        temperature: float | None = None,
    ) -> Reader:
        """Return averaged logits to read by view and example ids: `[b, classes]` float32 of `[b]`.

        Args:
            average: As in `average_logits`; one member alone keeps its own logits.
            members: Names of the teachers to average; None means all.
            temperature: At which a student is taught; needed with `top_k`, and only there.

        Raises:
            UsageError: An unknown member, or with `top_k` a temperature, members or an average
                that were not stored.

        Example:
            >>> cache.logits()[3, np.array([17, 4])].shape
            (2, 10)
        """
        checks.one_of("average", average, (*AVERAGES, "sigmoid"))
        names = self.manifest["fingerprint"]["teachers"]
        places = [names.index(checks.one_of("members", name, names)) for name in members or names]
        lookup: logit_reading.MemberRows | logit_reading.TopRows
        if self._layout.top_k is None:
            lookup = logit_reading.MemberRows(self._arrays[0], places, average)
        else:
            temperature = self._stored(average, members, temperature)
            values, numbers, rests = self._arrays
            rest = rests[..., self._layout.temperatures.index(temperature)]
            classes = self._layout.classes
            lookup = logit_reading.TopRows(values, numbers, rest, temperature, classes)
        return Reader(lookup, self._ids, self._layout.views, self._layout.classes)

    def verify(
        self,
        teachers: Sequence[Teacher],
        images: data.Dataset,
        settings: pipeline.BatchSettings,
        rows: int = 256,
    ) -> Verification:
        """Run the teachers again on random (view, example) pairs and compare.

        Args:
            teachers: In the order of the members.
            images: As of `build`.
            settings: As of `build`.
            rows: Number of pairs; all of them where there are fewer.
        """
        tensorflow.needed("The check of a TeacherCache")
        views, members, examples, _ = self.shape
        rows = min(rows, views * examples)
        drawn = np.random.default_rng(0).choice(views * examples, rows, replace=False)
        places = [np.sort(drawn[drawn // examples == view]) % examples for view in range(views)]
        shown = [view for view in range(views) if len(places[view])]
        chunks = [Chunk(each, view, places[view]) for each in range(members) for view in shown]
        answers: dict[int, list[np.ndarray]] = {view: [] for view in shown}
        top_k = self._layout.top_k
        for chunk, logits in _computed(teachers, images, settings, chunks, top_k, "auto"):
            answers[chunk.view].append(logits)
        live = [np.concatenate(answers[view]) for view in shown]
        stored = [[array[view][:, places[view]] for array in self._arrays] for view in shown]
        average = self.manifest["fingerprint"]["average"] or "probabilities"
        average = "sigmoid" if images.multi_label else average
        return logit_reading.compared(stored, live, average)

    def _stored(
        self, average: str, members: Sequence[str] | None, temperature: float | None
    ) -> float:
        """Return the temperature; raise unless logits are stored for it and of what is asked."""
        stored = self.manifest["fingerprint"]["average"]
        if average != stored or members is not None:
            raise checks.UsageError(
                f"With cache.top_k only the average of all teachers' {stored} is stored. Received: "
                f"average={average!r}, members={members!r}. Build a cache without top_k."
            )
        if temperature is None or temperature not in self._layout.temperatures:
            known = ", ".join(map(str, self._layout.temperatures))
            raise checks.UsageError(
                f"temperature must be one of cache.temperatures: {known}. Received: "
                f"temperature={temperature!r}. Build a cache with it, or without top_k."
            )
        return temperature


def _check_asked(
    teachers: Sequence[Teacher],
    images: data.Dataset,
    settings: pipeline.BatchSettings,
    cache: CacheConfig,
    average: str,
) -> None:
    checks.different("names of the teachers", [teacher.name for teacher in teachers])
    checks.one_of("average", average, AVERAGES)
    logit_files.stored_views(settings)
    if cache.top_k is not None and cache.top_k >= images.num_classes:
        raise checks.UsageError(
            f"cache.top_k must be less than the number of classes, {images.num_classes}. "
            f"Received: top_k={cache.top_k}. Leave it out to keep all classes."
        )


def _fill(
    files: Files,
    computed: Iterable[tuple[Chunk, np.ndarray]],
    passes: int,
    cache: CacheConfig,
    average: str,
    progress: Silent,
) -> float | None:
    """Store what is computed, and say how far it is; return its speed, None of no `passes`."""
    if not passes:
        return None
    layout = files.layout
    progress.say(
        f"teacher logits: {passes} passes to do of {layout.examples} images in {layout.views} "
        f"views, {disk_space(files.size)} in {files.folder}"
    )
    began = spoken = time.monotonic()
    done = 0
    for chunk, logits in computed:
        files.write(chunk, logit_reading.packed(logits, cache, average))
        done += logits.shape[0] * logits.shape[1]
        now = time.monotonic()
        speed = done / (now - began)
        if done < passes and now - spoken >= SPEAK_EVERY:
            spoken = now
            progress.say(
                f"teacher logits: {100 * done / passes:.0f} %, {speed:.0f} images/s, "
                f"about {duration((passes - done) / speed)} left"
            )
    progress.say(f"teacher logits: done in {duration(now - began)}, {speed:.0f} images/s")
    return speed


def _computed(
    teachers: Sequence[Teacher],
    images: data.Dataset,
    settings: pipeline.BatchSettings,
    chunks: list[Chunk],
    top_k: int | None,
    jit: str,
) -> Iterator[tuple[Chunk, np.ndarray]]:
    """Yield every chunk with its logits, `[members, rows, classes]` float32.

    The chunks stand in the order of members and views, and each is of its member's teacher, or
    with `top_k` of all. All but a view's last hold whole batches.
    """
    for member, of_member in itertools.groupby(chunks, lambda chunk: chunk.member):
        shown = list(teachers) if top_k else [teachers[member]]
        names = [teacher.name for teacher in shown]
        forward = _forward([teacher.load() for teacher in shown], images, settings, jit)
        for view, of_view in itertools.groupby(of_member, lambda chunk: chunk.view):
            part = list(of_view)
            places = np.concatenate([np.asarray(chunk.places) for chunk in part])
            batches = iter(pipeline.view_batches(images.train, settings, view, places))
            for chunk in part:
                steps = -(-len(chunk.places) // settings.batch_size)
                outputs = [forward(batch) for batch in itertools.islice(batches, steps)]
                logits = tf.concat(outputs, axis=1).numpy()
                logit_reading.check(logits, names, images.num_classes, view)
                yield chunk, logits


def _forward(
    networks: list[keras.Model], images: data.Dataset, settings: pipeline.BatchSettings, jit: str
) -> Callable[..., Any]:
    """Return the compiled function from images to logits, `[members, b, classes]` float32."""
    height, width, channels = images.at(settings.input_size).input_shape
    spec = tf.TensorSpec([None, height, width, channels], tf.uint8)

    def forward(batch: Tensor) -> Tensor:
        return tf.stack([tf.cast(each(batch, training=False), tf.float32) for each in networks])

    return tf.function(forward, input_signature=[spec], jit_compile=machine.uses_xla(jit))
