"""Measure what a population gains over training its members one after another, and its memory.

Prints tables; `--output FILE` also writes JSON. Eight Distillers of the `cnn2` network learn from
stored teacher logits on 32x32x3 images, batch 128, padded crops and flips. One epoch of the
population's compiled step is timed against one epoch of each member's own, both warm and in turns;
the median of the paired ratios counts. Target: at least 1.15 on two cores. Then fresh processes
train populations of 1, 4 and 8, and the growth of their peak memory stands beside `member_bytes`.

    python benchmarks/population.py --repeats 15 --output population.json
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np

from tfdistill import Distiller, models
from tfdistill.config import AugmentConfig, ModelConfig
from tfdistill.data import BatchSettings, Examples, steps_per_epoch, training_batches
from tfdistill.distillation.population import Population, member_bytes

BATCH, MEMBERS, CLASSES = 128, 8, 10
MEMORY_SIZES = (1, 4, 8)
MEMORY_STEPS = 30
SETTINGS = BatchSettings(BATCH, augment=AugmentConfig(pad_crop=4, flip=True, views=2))
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def member(place: int, network: ModelConfig) -> Distiller:
    """Return a compiled Distiller with settings of its own."""
    keras.utils.set_random_seed(place)
    student = models.build(network, (32, 32, 3), CLASSES, 127.5, 127.5)
    distiller = Distiller(student, alpha=place / MEMBERS, temperature=1.0 + place)
    distiller.compile("adam", HARD, metrics=["accuracy"])
    return distiller


def batches(images: int, epochs: int):
    """Return an iterator over epochs of random images with random teacher logits."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    train = Examples.numbered(pixels, random.integers(0, CLASSES, images))
    logits = random.normal(size=(2, images, CLASSES)).astype(np.float32)
    return iter(training_batches(train, SETTINGS, epochs=epochs, teacher_logits=logits))


def population_of(count: int, network: ModelConfig) -> Population:
    """Return a compiled population."""
    population = Population([member(place, network) for place in range(count)])
    population.compile()
    return population


def seconds_per_epoch(model, stream, steps: int) -> float:
    """Return how long one epoch of the model's compiled step takes."""
    start = time.perf_counter()
    for _ in range(steps):
        logs = model.train_function(stream)
    float(next(iter(logs.values())))  # waits for the last step
    return time.perf_counter() - start


def speed(images: int, repeats: int, network: ModelConfig) -> dict[str, list[float]]:
    """Return seconds per epoch of the population and of its members in turn, and their ratios."""
    steps = steps_per_epoch(images, BATCH)
    population = population_of(MEMBERS, network)
    alone = [member(place, network) for place in range(MEMBERS)]
    streams = {id(model): batches(images, repeats + 1) for model in (population, *alone)}
    for model in (population, *alone):
        model.make_train_function()

    def epoch(models_in_turn) -> float:
        return sum(seconds_per_epoch(m, streams[id(m)], steps) for m in models_in_turn)

    epoch([population]), epoch(alone)
    pairs = []
    for turn in range(repeats):
        # Who goes first alternates, so that other work on the machine meets both alike.
        order = ([population], alone) if turn % 2 else (alone, [population])
        first, second = map(epoch, order)
        pairs.append((first, second) if turn % 2 else (second, first))
    together, apart = zip(*pairs, strict=True)
    ratios = [a / t for t, a in pairs]
    return {"population": list(together), "one_after_another": list(apart), "ratio": ratios}


def peak_bytes(count: int, network: ModelConfig) -> int:
    """Return the peak memory of this process after some steps of a population."""
    population = population_of(count, network)
    population.make_train_function()
    seconds_per_epoch(population, batches(MEMORY_STEPS * BATCH, 1), MEMORY_STEPS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux


def memory(network: ModelConfig) -> dict:
    """Return the peak memory of fresh processes, and growth per member: measured, estimated."""
    own = [sys.executable, __file__, "--network", network.name, "--width", str(network.width)]
    own += ["--peak-of"]
    peaks = {
        count: int(subprocess.run([*own, str(count)], stdout=subprocess.PIPE, check=True).stdout)
        for count in MEMORY_SIZES
    }
    first, last = MEMORY_SIZES[0], MEMORY_SIZES[-1]
    return {
        "peak_bytes": peaks,
        "measured_per_member": (peaks[last] - peaks[first]) / (last - first),
        "estimated_per_member": member_bytes(member(0, network).student, BATCH),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1_280, help="training images")
    parser.add_argument("--repeats", type=int, default=15, help="timed epochs of each kind")
    parser.add_argument("--network", default="cnn2", help="network of the members")
    parser.add_argument("--width", type=float, default=1.0, help="multiplies its channels")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    network = ModelConfig(options.network, options.width)
    if options.peak_of:
        print(peak_bytes(options.peak_of, network))
        return
    result = {"network": f"{network.name}, width {network.width:g}", "memory": memory(network)}
    result["speed"] = speed(options.images, options.repeats, network)
    result["median_ratio"] = statistics.median(result["speed"]["ratio"])
    report(result)
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def report(result: dict) -> None:
    """Print the tables."""
    ratios, mebibyte = result["speed"]["ratio"], 2**20
    low, _, high = statistics.quantiles(ratios, n=4)
    name = f"{MEMBERS} one after another / population"
    print(result["network"])
    print(f"{name:42} {result['median_ratio']:8.3f}  (quartiles {low:.3f} .. {high:.3f})")
    for kind in ("population", "one_after_another"):
        print(f"{f'seconds per epoch, {kind}':42} {statistics.median(result['speed'][kind]):8.2f}")
    for count, peak in result["memory"]["peak_bytes"].items():
        print(f"{f'peak MiB, population of {count}':42} {peak / mebibyte:8.0f}")
    for kind in ("measured", "estimated"):
        value = result["memory"][f"{kind}_per_member"] / mebibyte
        print(f"{f'MiB per further member, {kind}':42} {value:8.1f}")


if __name__ == "__main__":
    main()
