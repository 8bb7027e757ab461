"""Measures exported forms side by side: accuracy, size, speed and memory, each in its own process.

The forms take turns in short rounds, so that whatever else the machine does meets all of them
alike. Every form's process stays open from the first round to the last: a SavedModel's holds about
600 MB, so measure some eight forms at once rather than dozens.
"""

import contextlib
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfdistill.export.format import export_format
from tfdistill.export.isolated import Probe
from tfdistill.records import Table
from tfdistill.utils.progress import Silent
from tfdistill.utils.text import file_size, three_digits

# Of the rows; what was measured under another number is measured again.
FORMAT = 1
BATCHES = (1, 32)
ROUNDS = 10
# Of one form at one batch size; a slow one is called as often as fits in, yet not too seldom for a
# percentile, and a fast one not more often than brings anything.
SECONDS, FEWEST_CALLS, MOST_CALLS = 3.0, 5, 2000
# In one turn; the probe makes a few calls that do not count before them.
FEWEST_IN_TURN = 3
ACCURACY_BATCH = 64


@dataclass(frozen=True)
class Form:
    """One exported form of a network.

    Args:
        label: What stands in the table, e.g. `student, LiteRT int8`.
        model: What the network is: `student`, `teacher`, `ensemble` or `network`.
        format: A name of `EXPORT_FORMATS`.
        path: A SavedModel's folder, or the file of another format.
    """

    label: str
    model: str
    format: str
    path: Path


def measure(
    forms: Sequence[Form],
    images: Sequence[np.ndarray],
    labels: np.ndarray,
    progress: Silent | None = None,
) -> list[dict]:
    """Return what was measured of every form, on one thread of the CPU.

    Args:
        forms: The forms, all of the same classes.
        images: The same images for each form at the size that it takes,
            `[n, height, width, channels]` uint8, n >= 1; used again where a batch needs more.
        labels: `[n]` int.
        progress: Where to say what is being done; None says nothing.

    Returns:
        A JSON-able row for each form: label, model, format, accuracy (0..1), images (number
        classified), bytes (what one would ship), latency (for each batch size as text: `median`
        and `p95` of a call in seconds, and `calls`), peak_bytes (of the whole process, runtime
        included, at batches of up to 32), cpu.

    Raises:
        ProbeError: A form cannot be loaded or does not answer.

    Example:
        >>> rows = measure([Form("student", "student", "savedmodel", folder)], [images], labels)
        >>> rows[0]["latency"]["1"]["median"]
        0.00051
    """
    progress = progress or Silent()
    with contextlib.ExitStack() as stack:
        progress.say(f"Measuring {len(forms)} forms, each in a process of its own")
        probes = [stack.enter_context(Probe(form.path, threads=1)) for form in forms]
        latencies = _latencies(probes, images)
        peaks = [probe.peak_bytes() for probe in probes]
        progress.say(f"Classifying {len(labels)} test images with each form")
        accuracies = [_accuracy(*each, labels) for each in zip(probes, images, strict=True)]
    return [
        {
            "label": form.label,
            "model": form.model,
            "format": form.format,
            "accuracy": accuracy,
            "images": len(labels),
            "bytes": _size(form),
            "latency": latency,
            "peak_bytes": int(peak),
            "cpu": cpu_name(),
        }
        for form, accuracy, latency, peak in zip(forms, accuracies, latencies, peaks, strict=True)
    ]


def table(rows: Sequence[dict]) -> Table:
    """Return the rows of `measure` as a table; its note says how they were measured.

    Example:
        >>> table(rows).rows[0]
        ('student', '95.86', '138 kB', '0.512 / 0.634', '2.05 / 2.31', '598')
    """
    columns = (
        "form",
        "accuracy %",
        "size",
        *(f"{_images(size)}, ms median / p95" for size in BATCHES),
        "memory MB",
    )
    return Table("Deployment", columns, tuple(_cells(row) for row in rows), _note(rows))


def cpu_name() -> str:
    """Return the name of this machine's processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass
class _Series:
    """The calls of one form at one batch size, spread over the rounds."""

    probe: Probe
    images: np.ndarray
    batch_size: int
    calls: int = 0
    seconds: list[float] = field(default_factory=list)

    def plan(self) -> None:
        """Choose the number of calls."""
        [first] = self._time(1)
        self.calls = max(FEWEST_CALLS, min(MOST_CALLS, int(SECONDS / first)))

    def turn(self, number: int) -> None:
        """Do the calls of one round; few calls are done in the first rounds."""
        turns = min(ROUNDS, self.calls // FEWEST_IN_TURN)
        if number < turns:
            share = self.calls * (number + 1) // turns - self.calls * number // turns
            self.seconds += self._time(share)

    def _time(self, calls: int) -> list[float]:
        return self.probe.time(self.images, self.batch_size, calls)


def _latencies(probes: Sequence[Probe], images: Sequence[np.ndarray]) -> list[dict]:
    series = [
        {size: _Series(probe, shown[:size], size) for size in BATCHES}
        for probe, shown in zip(probes, images, strict=True)
    ]
    in_turn = [of_form[size] for size in BATCHES for of_form in series]
    for one in in_turn:
        one.plan()
    for number in range(ROUNDS):
        for one in in_turn:
            one.turn(number)
    return [{str(size): _latency(one.seconds) for size, one in s.items()} for s in series]


def _latency(seconds: Sequence[float]) -> dict:
    median, p95 = np.percentile(seconds, (50, 95))
    return {"median": float(median), "p95": float(p95), "calls": len(seconds)}


def _size(form: Form) -> int:
    files = export_format(form.format).shipped(form.path)
    return sum(file.stat().st_size for file in files)


def _accuracy(probe: Probe, images: np.ndarray, labels: np.ndarray) -> float:
    from tfdistill.training import tasks  # with Keras, which a table of what was measured needs not

    chosen = tasks.of_labels(labels).chosen(probe.answer(images, ACCURACY_BATCH))
    return float(np.mean(chosen == np.asarray(labels)))


def _cells(row: dict) -> tuple[str, ...]:
    times = [_times(row["latency"][str(size)]) for size in BATCHES]
    accuracy, memory = f"{100 * row['accuracy']:.2f}", f"{row['peak_bytes'] / 1e6:.0f}"
    return (row["label"], accuracy, file_size(row["bytes"]), *times, memory)


def _times(latency: dict) -> str:
    return " / ".join(three_digits(1000 * latency[key]) for key in ("median", "p95"))


def _note(rows: Sequence[dict]) -> str:
    if not rows:
        return ""
    parts = (
        f"Measured on {_listed(row['cpu'] for row in rows)} with one thread, every form in a "
        f"process of its own, all taking turns. Times are of one call with 1 image and with a "
        f"batch of {BATCHES[-1]}: median / 95th percentile.",
        f"Accuracy on {_listed(row['images'] for row in rows)} test images. Size: what one would "
        "ship. Memory: the peak of the whole process, runtime included.",
        "All forms were checked against their network: floats by their logits, int8 by its "
        "accuracy.",
        _gain(rows),
    )
    return " ".join(part for part in parts if part)


def _gain(rows: Sequence[dict]) -> str:
    """Return what students have over the first form that is not a student, if there is one."""
    students = [row for row in rows if row["model"] == "student"]
    base = next((row for row in rows if row["model"] != "student"), None)
    if not students or base is None:
        return ""
    told = [row for row in students if row["format"] == base["format"]]
    told += [min(students, key=lambda row: row["bytes"]), min(students, key=_median)]
    gains = {row["label"]: _against(base, row) for row in told}
    text = "; ".join(f"{label} {gain}" for label, gain in gains.items())
    sizes = ", ".join(map(_images, BATCHES))
    other = any(row["format"] != base["format"] for row in told)
    return (
        f"Space and speed ({sizes}) against {base['label']}: {text}."
        + other * " Between formats the runtimes differ, too."
    )


def _against(base: dict, row: dict) -> str:
    share = three_digits(100 * row["bytes"] / base["bytes"])
    speeds = (three_digits(_median(base, size) / _median(row, size)) for size in BATCHES)
    return ", ".join((f"{share} %", *(f"{speed}x" for speed in speeds)))


def _median(row: dict, size: int = 1) -> float:
    return row["latency"][str(size)]["median"]


def _images(size: int) -> str:
    return "1 image" if size == 1 else f"{size} images"


def _listed(values: Iterable) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
