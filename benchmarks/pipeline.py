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
import tensorflow as tf

from tfdistill.config import AugmentConfig, DataConfig
from tfdistill.data import (
    BatchSettings,
    Examples,
    augment,
    evaluation_batches,
    load,
    steps_per_epoch,
    training_batches,
    views,
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


def rendering() -> dict[str, float]:
    """Return CPU microseconds of one thread for a 224-pixel crop of a stored 256-pixel image.

    `two resamplings` is what version 1 of the views did: an affine transform, then a second resize.
    """
    random = np.random.default_rng(0)
    images = tf.constant(random.integers(0, 256, (32, 256, 256, 3), dtype=np.uint8))
    config = AugmentConfig(resized_crop=0.08, flip=True)
    windows = views.windows(0, 0, len(images), config, (256, 256))

    @tf.function
    def twice() -> tf.Tensor:
        top, left, height, width, _, _ = tf.unstack(windows, axis=1)
        zero, high, wide = tf.zeros_like(top), height / 256, width / 256
        rows = [wide, zero, left + wide / 2 - 0.5, zero, high, top + high / 2 - 0.5, zero, zero]
        moved = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(images, tf.float32),
            transforms=tf.stack(rows, axis=1),
            output_shape=[256, 256],
            interpolation="BILINEAR",
            fill_mode="REFLECT",
            fill_value=0.0,
        )
        return augment.to_uint8(tf.image.resize(augment.to_uint8(moved), (224, 224)))

    sides = (224, 224)
    ways = {
        "two resamplings": twice,
        "one window": tf.function(lambda: augment.render(images, windows, sides)),
        "one window, antialiased": tf.function(
            lambda: augment.render(images, windows, sides, True)
        ),
    }
    found = {}
    for name, way in ways.items():
        way()
        times = []
        for _ in range(7):
            start = time.process_time()
            way()
            times.append(time.process_time() - start)
        found[name] = 1e6 * min(times) / len(images)
    return found


def crops(smallest: float, count: int = 20_000) -> dict[str, float]:
    """Return the share of crops that span a side of a square: ours, and torchvision's rule.

    The rule: area uniform in (smallest, 1), aspect ratio log-uniform in (3/4, 4/3), up to ten
    draws until both sides fit, else the centre.
    """
    config = AugmentConfig(resized_crop=smallest)
    ours = views.windows(0, 0, count, config, (256, 256)).numpy()
    random = np.random.default_rng(0)
    spanning = 0
    for _ in range(count):
        for _ in range(10):
            area = 256**2 * random.uniform(smallest, 1)
            ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
            width, height = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if 0 < width <= 256 and 0 < height <= 256:
                break
        else:
            width = height = 256
        spanning += width == 256 or height == 256
    spans = (ours[:, 2:4] == 256).any(axis=1).mean()
    return {"ours": float(spans), "the rule": spanning / count}


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
    result["crop_to_224_cpu_us"] = rendering()
    result["crops_that_span_a_side"] = {str(low): crops(low) for low in (0.08, 0.8)}
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
    once = result["crop_to_224_cpu_us"]
    for name, value in once.items():
        ratio = value / once["two resamplings"]
        print(f"{'crop 256 to 224, CPU us, ' + name:48} {value:8,.0f}  {ratio:.2f}")
    for low, shares in result["crops_that_span_a_side"].items():
        both = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
        print(f"{'crops of area >= ' + low + ' that span a side':42} {both}")
    for process, value in result["load_seconds"].items():
        print(f"{'load CIFAR-10, ' + process + ' process, seconds':42} {value:8.2f}")


if __name__ == "__main__":
    main()
