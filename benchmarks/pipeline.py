"""Measure what the input pipeline adds to training, against steps on one batch in memory.

Prints a table of ratios; `--output FILE` also writes JSON. One epoch of a two-convolution network
on 32x32x3 images, batch 128, padded crops and flips, is timed against the same number of steps of
the same compiled step on a batch that is already there; both repeat in turns, and the median of the
ratios counts. Target: at most 1.10.

    python benchmarks/pipeline.py --repeats 5 --output pipeline.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from tfdistill.config import AugmentConfig, DataConfig
from tfdistill.data import (
    BatchSettings,
    Examples,
    evaluation_batches,
    load,
    steps_per_epoch,
    training_batches,
)
from tfdistill.utils.checks import UsageError

BATCH = 128
AUGMENT = AugmentConfig(pad_crop=4, flip=True)
LOADING = """
import time
from tfdistill.config import DataConfig
from tfdistill.data import load
start = time.perf_counter()
load(DataConfig(source="tfds:cifar10"))
print(time.perf_counter() - start)
"""


def network() -> keras.Model:
    """Return a compiled network of two convolutions."""
    model = keras.Sequential(
        [
            keras.layers.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def examples(count: int) -> Examples:
    """Return CIFAR-10 training images where they are prepared, else random ones."""
    try:
        train = load(DataConfig(source="tfds:cifar10")).train
        return train.take(np.arange(min(count, len(train))))
    except UsageError:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return Examples.numbered(images, random.integers(0, 10, count))


def seconds(run) -> float:
    """Return how long `run()` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def training_ratios(train: Examples, repeats: int) -> dict[str, list[float]]:
    """Return seconds per epoch from the pipeline and from memory, and their ratios."""
    model, steps = network(), steps_per_epoch(len(train), BATCH)
    settings = BatchSettings(BATCH, augment=AUGMENT)
    stream = iter(training_batches(train, settings, epochs=repeats + 1))
    model.make_train_function()
    step = model.train_function
    in_memory = next(iter(evaluation_batches(train, BATCH)))

    def from_pipeline():
        for _ in range(steps):
            step(stream)

    def from_memory():
        same = (in_memory for _ in range(steps))
        for _ in range(steps):
            step(same)

    from_pipeline(), from_memory()
    pairs = [(seconds(from_pipeline), seconds(from_memory)) for _ in range(repeats)]
    ratios = [pipeline / memory for pipeline, memory in pairs]
    return {"pipeline": [p for p, _ in pairs], "memory": [m for _, m in pairs], "ratio": ratios}


def images_per_second(train: Examples, augment: AugmentConfig, repeats: int) -> float:
    """Return the pipeline's own speed, with nothing to train."""
    settings = BatchSettings(BATCH, augment=augment, num_classes=10)
    steps = steps_per_epoch(len(train), BATCH)
    stream = iter(training_batches(train, settings, epochs=repeats + 1))

    def epoch():
        for _ in range(steps):
            next(stream)

    epoch()
    return len(train) / statistics.median(seconds(epoch) for _ in range(repeats))


def loading_seconds() -> dict[str, float]:
    """Return how long a first and a second process need for CIFAR-10; empty where it is missing."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"TFDISTILL_CACHE": cache}
        runs = [
            subprocess.run(
                [sys.executable, "-c", LOADING], env=environment, capture_output=True, text=True
            )
            for _ in range(2)
        ]
    if any(run.returncode for run in runs):
        return {}
    return dict(zip(("first", "second"), (float(run.stdout) for run in runs), strict=True))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=25_600, help="training images")
    parser.add_argument("--repeats", type=int, default=5, help="timed epochs of each kind")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    train = examples(options.images)
    result = {"training": training_ratios(train, options.repeats)}
    result["median_ratio"] = statistics.median(result["training"]["ratio"])
    kinds = {
        "none": AugmentConfig(),
        "pad_crop + flip": AUGMENT,
        "resized_crop + rotation": AugmentConfig(resized_crop=0.5, rotation=15),
        "pad_crop + flip + cutout + mixup": AugmentConfig(4, True, cutout=8, mixup=0.2),
    }
    result["images_per_second"] = {
        name: images_per_second(train, kind, min(options.repeats, 3))
        for name, kind in kinds.items()
    }
    result["load_seconds"] = loading_seconds()
    report(result)
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def report(result: dict) -> None:
    """Print the table."""
    ratios = result["training"]["ratio"]
    spread = f"({min(ratios):.3f} .. {max(ratios):.3f})"
    print(f"{'epoch / same steps in memory':42} {result['median_ratio']:8.3f}  {spread}")
    for name, speed in result["images_per_second"].items():
        print(f"{'images/s, ' + name:42} {speed:8,.0f}")
    for process, value in result["load_seconds"].items():
        print(f"{'load CIFAR-10, ' + process + ' process, seconds':42} {value:8.2f}")


if __name__ == "__main__":
    main()
