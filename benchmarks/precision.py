"""Measure a step of distillation with and without XLA, in float32 and in mixed precision.

Prints a table and, with `--output FILE`, writes JSON. The student sees random 32x32 images and
stored logits, in batches that lie in memory; all ways take turns, the median of the ratios to
float32 without XLA counts. Compiling is timed apart: it is what a short training pays.

With `--teacher FILE` also what mixed precision does to accuracy: five students alone and five that
are taught, on 5,000 images of CIFAR-10, in both precisions.

    python benchmarks/precision.py --output precision.json
    python benchmarks/precision.py --networks --teacher teacher.keras --output accuracy.json
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfdistill import Distiller, models
from tfdistill.config import (
    AugmentConfig,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
)
from tfdistill.records import accuracy_by_seed, by_row
from tfdistill.reporting.significance import paired
from tfdistill.training import runner
from tfdistill.utils import machine
from tfdistill.utils.progress import display

CLASSES = 10
NETWORKS = ("cnn2", "resnet8", "resnet18")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
BASE = "float32"
SECONDS = 1.5  # of each timing


class Way:
    """A student that is trained in one precision, with or without XLA.

    Args:
        name: Of the network.
        precision: Keras's policy.
        xla: Whether to compile with XLA.
        batches: What it is trained on, without an end.
    """

    def __init__(self, name: str, precision: str, xla: bool, batches: tf.data.Dataset):
        self.name = precision + (", XLA" if xla else "")
        self.batches = batches
        with machine.precision(precision):
            keras.utils.set_random_seed(0)
            student = models.build(ModelConfig(name), (32, 32, 3), CLASSES, 127.5, 64.0)
            self.model = Distiller(student, alpha=0.9, temperature=4.0)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            self.model.compile("adam", loss, metrics=["accuracy"], jit_compile=xla)
            self.compiling = self.seconds(1)
        self.steps = max(1, round(SECONDS / self.seconds(1)))

    def seconds(self, steps: int) -> float:
        """Return the seconds of some steps."""
        start = time.perf_counter()
        self.model.fit(self.batches, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
        return time.perf_counter() - start

    def step(self) -> float:
        """Return the seconds of one of many steps."""
        return self.seconds(self.steps) / self.steps


def endless(batch_size: int) -> tf.data.Dataset:
    """Return the same batch of random images, labels and logits again and again."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch_size, 32, 32, 3), dtype=np.uint8)
    labels = random.integers(0, CLASSES, batch_size)
    logits = random.normal(size=(batch_size, CLASSES)).astype("float32")
    one = tf.data.Dataset.from_tensors((images, {"label": labels, "teacher_logits": logits}))
    return one.repeat()


def measured(name: str, precisions: list[str], batch_size: int, turns: int) -> dict[str, dict]:
    """Return the figures of every way to train one network."""
    batches = endless(batch_size)
    ways = [Way(name, precision, xla, batches) for precision in precisions for xla in (False, True)]
    steps: dict[str, list[float]] = {way.name: [] for way in ways}
    for turn in range(turns):
        for way in ways if turn % 2 else reversed(ways):
            steps[way.name].append(way.step())
    found = {}
    for way in ways:
        ratios = [a / b for a, b in zip(steps[BASE], steps[way.name], strict=True)]
        found[way.name] = {
            "step": statistics.median(steps[way.name]),
            "faster": statistics.median(ratios),
            "range": [min(ratios), max(ratios)],
            "compiling": way.compiling,
        }
    return found


def accuracies(teacher: Path) -> dict[str, dict]:
    """Return test accuracies of students, in 0..1, and what bfloat16 adds to them, in points."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for precision in ("float32", "mixed_bfloat16"):
        study = StudyConfig(
            study="single",
            seeds=[0, 1, 2, 3, 4],
            data=DataConfig(
                "tfds:cifar10",
                validation=1000,
                split_seed=42,
                train_examples=5000,
                augment=AugmentConfig(resized_crop=0.5, flip=True),
            ),
            teacher=ModelConfig("saved", path=str(teacher.resolve()), input_size=96),
            student=ModelConfig("cnn2"),
            training=TrainingConfig(
                epochs=12,
                learning_rate=0.002,
                schedule="cosine",
                select="last",
                precision=precision,
            ),
            distillation=DistillationConfig(0.9, 4.0, teacher_view="fixed"),
        )
        with tempfile.TemporaryDirectory() as folder:
            records = runner.run_study(study, Path(folder) / "out", display())
        for row, runs in by_row(records).items():
            if len(runs) > 1:
                found.setdefault(row, {})[precision] = accuracy_by_seed(runs)
    result = {}
    for row, by_precision in found.items():
        before, after = ([each[seed] for seed in sorted(each)] for each in by_precision.values())
        compared = paired(before, after)
        result[row] = {
            "float32": before,
            "mixed_bfloat16": after,
            "difference": 100 * compared.difference,
            "interval": [100 * compared.low, 100 * compared.high],
        }
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--teacher", type=Path, help="of CIFAR-10, seen at 96 pixels")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    result = {"machine": {"device": machine.device(), **machine.versions()}}
    result["load"] = os.getloadavg()
    result["batch_size"] = options.batch_size
    for name in options.networks:
        result[name] = measured(name, options.precisions, options.batch_size, options.turns)
        print(f"{name:24}{'ms a step':>12}{'times as fast':>28}{'first step, s':>16}")
        for way, found in result[name].items():
            spread = "({:.2f} to {:.2f})".format(*found["range"])
            step, first = 1000 * found["step"], found["compiling"]
            print(f"  {way:22}{step:12.1f}{found['faster']:12.2f} {spread:>15}{first:16.1f}")
        _write(options.output, result)
    if options.teacher:
        result["accuracy"] = accuracies(options.teacher)
        for row, found in result["accuracy"].items():
            means = ", ".join(
                f"{100 * statistics.mean(found[each]):.2f} %" for each in PRECISIONS[:2]
            )
            ends = "{:+.2f} to {:+.2f}".format(*found["interval"])
            print(f"{row}: {means}; difference {found['difference']:+.2f} ({ends}) points")
        _write(options.output, result)


def _write(path: Path | None, result: dict) -> None:
    if path:
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
