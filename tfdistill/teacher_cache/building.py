"""Computing what a cache of teachers' logits lacks, beside other processes that do the same."""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfdistill import data
from tfdistill.config import CacheConfig
from tfdistill.data import pipeline
from tfdistill.teacher_cache import layout, logit_reading, shards
from tfdistill.teacher_cache.claims import Claims, pauses
from tfdistill.teacher_cache.forward import BFLOAT16, Forward
from tfdistill.teacher_cache.layout import CLAIMS, MANIFEST, Chunk
from tfdistill.teacher_cache.shards import Files
from tfdistill.utils import checks, machine
from tfdistill.utils.progress import Silent
from tfdistill.utils.text import disk_space, duration

if TYPE_CHECKING:
    from tfdistill.teacher_cache.cache import Teacher

SPEAK_EVERY = 10.0  # seconds
BLOCK = 4  # shards of a view that are claimed, and shown to a teacher, at a time
COMPARED = 2  # batches


@dataclass(frozen=True)
class How:
    """What is computed, and how: as of `build`."""

    teachers: Sequence["Teacher"]
    images: data.Dataset
    settings: pipeline.BatchSettings
    cache: CacheConfig = field(default_factory=CacheConfig)
    average: str = "probabilities"
    jit: str = "auto"


def fill(folder: Path, new: dict[str, Any], how: How, progress: Silent) -> float | None:
    """Compute what a folder lacks; wait for what other processes compute.

    Args:
        folder: Of the cache.
        new: Its manifest, where it has none yet.
        how: Teachers, images and settings.
        progress: What `say` and `warn` of it are told.

    Returns:
        Images per second that were computed here, None where none were.
    """
    with Claims(folder / CLAIMS) as claims:
        files = _begun(folder, new, claims, progress)
        files.write_ids(how.images.train.ids)
        missing = files.missing()
        files.check_space(missing)
        if missing and how.cache.precision == BFLOAT16:
            _tell_speed(progress)
        batch = dataclasses.replace(how.settings, batch_size=files.layout.batch_size)
        how = dataclasses.replace(how, settings=batch)
        speed = _stored(files, missing, how, claims, progress) if missing else None
        files.clear()
        claims.clear()
    return speed


def _begun(folder: Path, new: dict[str, Any], claims: Claims, progress: Silent) -> Files:
    """Return the files of a cache whose manifest one of the processes has written."""
    waits = pauses()
    while (manifest := layout.agreed_manifest(folder, new["fingerprint"])) is None:
        if claims.take(MANIFEST):
            if layout.read_manifest(folder) is None and shards.begin(folder, new):
                progress.say(
                    f"{folder} has lost its {MANIFEST}, or it was damaged; what is not of these "
                    "teachers and images is computed again"
                )
            claims.release(MANIFEST)
        else:
            time.sleep(next(waits))
    return Files(folder, manifest)


def _stored(
    files: Files, missing: list[Chunk], how: How, claims: Claims, progress: Silent
) -> float | None:
    """Store what is missing, and say how far it is; return the speed, None of nothing."""
    each = len(how.teachers) if how.cache.largest else 1  # with top_k, a chunk is of every teacher
    passes, views = each * _rows(missing), files.layout.views
    precision = f", computed in {BFLOAT16}" if how.cache.precision == BFLOAT16 else ""
    progress.say(
        f"teacher logits: {passes} passes to do of {files.layout.examples} images in "
        f"{views} view{'s' * (views > 1)}, {disk_space(files.size)} in {files.folder}{precision}"
    )
    began = now = spoken = time.monotonic()
    done = 0
    for chunk, logits in computed(how, _blocks(files, claims, progress), progress):
        if how.cache.largest and not done:
            _tell_lost(logits, how, progress)
        files.write(chunk, logit_reading.packed(logits, how.cache, how.average))
        claims.release(_claim(chunk))
        done += logits.shape[0] * logits.shape[1]
        now = time.monotonic()
        if now - spoken >= SPEAK_EVERY and (left := each * _rows(files.missing())):
            spoken, together = now, (passes - left) / (now - began)
            progress.say(
                f"teacher logits: {100 * (1 - left / passes):.0f} %, {together:.0f} images/s, "
                f"about {duration(left / together)} left"
            )
    if not done:
        progress.say("teacher logits: done by other processes")
        return None
    speed = done / (now - began)
    progress.say(f"teacher logits: done in {duration(now - began)}, {speed:.0f} images/s")
    return speed


def _blocks(files: Files, claims: Claims, progress: Silent) -> Iterator[list[Chunk]]:
    """Yield chunks of one view that this process has claimed, until none is missing anywhere."""
    waits = pauses()
    while missing := files.missing():
        found = False
        for _, of_view in itertools.groupby(missing, lambda chunk: (chunk.member, chunk.view)):
            part = list(of_view)
            while block := list(itertools.islice(_claimed(part, claims), BLOCK)):
                # What another process has finished since it was missing.
                left = files.missing(block)
                for chunk in block:
                    if chunk not in left:
                        claims.release(_claim(chunk))
                if left:
                    found = True
                    yield left
        if found:
            waits = pauses()
            continue
        pause = next(waits)
        if pause == next(pauses()):
            progress.say(
                f"waiting for other processes that compute the last {len(missing)} parts of the "
                f"teacher logits in {files.folder}"
            )
        time.sleep(pause)


def _claimed(chunks: list[Chunk], claims: Claims) -> Iterator[Chunk]:
    """Yield those of chunks that nobody else works on, and take them from the list."""
    while chunks:
        chunk = chunks.pop(0)
        if claims.take(_claim(chunk)):
            yield chunk


def _claim(chunk: Chunk) -> str:
    return f"{chunk.folder}.{chunk.name}"


def computed(
    how: How, blocks: Iterable[list[Chunk]], progress: Silent | None = None
) -> Iterator[tuple[Chunk, np.ndarray]]:
    """Yield every chunk with its logits, `[members, rows, classes]` float32.

    Args:
        how: Teachers, images and settings.
        blocks: Chunks of one view of one member each; of the same member follow each other. Each is
            of its member's teacher, or with `top_k` of all. All but the last of a block hold whole
            batches.
        progress: Is told how far bfloat16 is from float32; None tells nobody.
    """
    images, size = how.images, how.settings.batch_size
    for member, of_member in itertools.groupby(blocks, lambda block: block[0].member):
        shown = list(how.teachers) if how.cache.largest else [how.teachers[member]]
        names = [teacher.name for teacher in shown]
        networks = [teacher.load() for teacher in shown]
        forward = Forward(
            networks, names, images, how.settings.input_size, how.cache.precision, how.jit
        )
        told = progress if how.cache.precision == BFLOAT16 else None
        for block in of_member:
            places = np.concatenate([np.asarray(chunk.places) for chunk in block])
            view = block[0].view
            batches = iter(pipeline.view_batches(images.train, how.settings, view, places))
            for chunk in block:
                part: Iterator[Any] = itertools.islice(batches, -(-len(chunk.places) // size))
                if told is not None:
                    first = list(itertools.islice(part, COMPARED))
                    forward.tell(first, images.multi_label, told)
                    part, told = itertools.chain(first, part), None
                logits = tf.concat([forward(batch) for batch in part], axis=1).numpy()
                logit_reading.check(logits, names, images.num_classes, view)
                yield chunk, logits


def _rows(chunks: list[Chunk]) -> int:
    return sum(len(chunk.places) for chunk in chunks)


def _tell_lost(logits: np.ndarray, how: How, progress: Silent) -> None:
    """Tell what of the teachers' answers the largest classes hold, by the first shard."""
    found = logit_reading.lost(logits, how.cache, how.average)
    shares = [
        f"{100 * kept:.4g} % at {temperature:g}"
        for temperature, (kept, _) in zip(how.cache.temperatures, found, strict=True)
    ]
    progress.say(
        f"teacher logits: of {how.images.num_classes} classes the {how.cache.largest} largest are "
        f"stored, in {how.cache.dtype}; they hold of the probability, by temperature, "
        f"{', '.join(shares)}; even shares for the others cost a KL divergence of at most "
        f"{max(divergence for _, divergence in found):.2g} (cache.top_k: all stores all)"
    )


def _tell_speed(progress: Silent) -> None:
    """Tell whether bfloat16 is faster here than float32.

    Raises:
        UsageError: It cannot be computed.
    """
    try:
        speed = machine.speed_of_bfloat16()
    except tf.errors.OpError as error:
        raise checks.UsageError(
            f"cache.precision: bfloat16 cannot be computed on {machine.device()}. Received: "
            f"{checks.first_line(error)} Set cache.precision: float32."
        ) from None
    if speed >= 1 and machine.has_bfloat16() is not False:
        progress.say(f"cache.precision: bfloat16 is {machine.bfloat16_here()}")
    else:
        progress.warn(
            f"cache.precision: bfloat16 is {machine.bfloat16_here()}. Set cache.precision: float32."
        )
