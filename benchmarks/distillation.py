"""Measure what stored teacher logits save: an epoch, a grid of 45 cells, and what storing costs.

Prints a table of ratios; `--output FILE` also writes JSON. Images are random, 32x32x3, in batches
of 128 with padded crops and flips in views; the student is `cnn2`, the teacher `resnet18`. All is
timed in turns in one process, and the median of the paired ratios counts. Targets:

* `epoch`: distillation from the cache takes at most 1.05 times plain supervised training;
* `live`: it is at least 10 times faster than our Distiller, `keras.distillation.Distiller` and a
  tight hand-written loop with the live teacher;
* `grid`: 5 alphas x 9 temperatures, 10 epochs each, building of the cache included, are at least 14
  times faster than 45 runs of `keras.distillation.Distiller` (one is run, its time times 45), also
  where both are in bfloat16, and ours in bfloat16 19 times faster than theirs in float32;
* `build`: user CPU time of storing logits, in float32 at most 0.85 and in bfloat16 at most 0.5 of
  that of the teacher's bare `predict`, beyond the first batches of both, which compile.

    python benchmarks/distillation.py --output distillation.json
"""

import argparse
import functools
import itertools
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfdistill import Distiller, models
from tfdistill.config import AugmentConfig, CacheConfig, DataConfig, ModelConfig
from tfdistill.data import BatchSettings, Dataset, from_arrays, steps_per_epoch, training_batches
from tfdistill.distillation.population import Population
from tfdistill.studies.alpha_temperature.study import Settings as Grid
from tfdistill.teacher_cache import Teacher, build
from tfdistill.training.learners import Learners
from tfdistill.utils import machine
from tfdistill.utils.progress import Silent

BATCH, CLASSES, EPOCHS = 128, 10, 10
WARM = 2 * BATCH  # images
CACHED_EPOCHS = 20  # timed together, because one is short
ALPHA, TEMPERATURE, GRID = 0.5, 4.0, Grid()
JIT = machine.uses_xla("auto")
PEER = (
    "keras.distillation computes (1 - alpha) CE + alpha T^2 KL(teacher || student), probabilities "
    "clipped at 1e-7, because its loss is an instance of KLDivergence; the same loss given by name "
    "would be the KL of clipped raw logits, without T^2."
)


def random_images(count: int) -> Dataset:
    """Return a data set with `count` random training images."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count + CLASSES, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(count + CLASSES) % CLASSES
    return from_arrays((pixels, labels), (pixels, labels), DataConfig("arrays", validation=CLASSES))


def settings(views: int) -> BatchSettings:
    """Return how images become batches."""
    return BatchSettings(BATCH, augment=AugmentConfig(pad_crop=4, flip=True, views=views))


def network(name: str, images: Dataset, seed: int = 0, width: float = 1.0) -> keras.Model:
    """Return a new network for the images."""
    keras.utils.set_random_seed(seed)
    mean, std = images.mean, images.std
    return models.build(ModelConfig(name, width), images.input_shape, CLASSES, mean, std)


def new_student(images: Dataset, options) -> keras.Model:
    """Return a new student."""
    return network("cnn2", images, width=options.width)


def compiled(model: keras.Model) -> keras.Model:
    """Return the model, compiled alike for every way of training."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=JIT)
    return model


def ours(student: keras.Model, teacher=None, alpha=ALPHA, temperature=TEMPERATURE) -> Distiller:
    """Return our compiled Distiller."""
    return compiled(Distiller(student, teacher, alpha=alpha, temperature=temperature))


def peer(student: keras.Model, teacher, alpha=ALPHA, temperature=TEMPERATURE) -> keras.Model:
    """Return the compiled Distiller that Keras ships, with the divergence that it applies well."""
    kl = keras.losses.KLDivergence()
    soft = keras.distillation.LogitsDistillation(temperature=temperature, loss=kl)
    return compiled(keras.distillation.Distiller(teacher, student, soft, None, 1 - alpha))


def hand_written(student: keras.Model, teacher) -> Callable:
    """Return one compiled step with nothing in it but what distillation needs."""
    optimizer = keras.optimizers.Adam()
    optimizer.build(student.trainable_variables)

    @tf.function(jit_compile=JIT, reduce_retracing=True)
    def step(images, labels):
        taught = teacher(images, training=False) / TEMPERATURE
        with tf.GradientTape() as tape:
            logits = student(images, training=True)
            hard = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            gap = tf.nn.log_softmax(taught) - tf.nn.log_softmax(logits / TEMPERATURE)
            soft = TEMPERATURE**2 * tf.reduce_sum(tf.nn.softmax(taught) * gap, axis=-1)
            loss = tf.reduce_mean((1 - ALPHA) * hard + ALPHA * soft)
        gradients = tape.gradient(loss, student.trainable_variables)
        optimizer.apply(gradients, student.trainable_variables)
        return loss

    return step


def seconds(run: Callable) -> float:
    """Return how long `run()` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def fit(model: keras.Model) -> Callable:
    """Return the training of a Keras model, as the library does it."""

    def train(batches, epochs: int, steps: int) -> dict:
        how = {"epochs": epochs, "steps_per_epoch": steps, "shuffle": False, "verbose": 0}
        return model.fit(batches, **how).history

    return train


def loop(step: Callable) -> Callable:
    """Return the training of a hand-written step."""

    def train(batches, epochs: int, steps: int) -> dict:
        for images, labels in batches.take(epochs * steps):
            loss = step(images, labels)
        return {"loss": [float(loss)]}  # waits for the last step

    return train


def epoch(train: Callable, batches, steps: int, epochs: int = 1) -> Callable:
    """Return what trains for some epochs and returns the seconds of one."""
    return lambda: seconds(lambda: train(batches, epochs, steps)) / epochs


def in_turns(ways: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Return what every way gives, `repeats` times; who goes first changes."""
    found = {name: [] for name in ways}
    for turn in range(repeats):
        for name in ways if turn % 2 else reversed(ways):
            found[name].append(ways[name]())
    return found


def ratio(found: dict, above: str, below: str, target: str = "") -> dict:
    """Return the paired ratios of two ways."""
    ratios = [a / b for a, b in zip(found[above], found[below], strict=True)]
    spread = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return {"name": f"{above} / {below}", **spread, "target": target, "ratios": ratios}


def stored(
    name: str, images: Dataset, views: int, teacher: keras.Model, precision: str = "float32"
):
    """Return the teacher's logits from a new cache."""
    how = CacheConfig(precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        cache = build(folder, [Teacher.of(teacher, name)], images, settings(views), how)
        cache.check()  # opens its files, which stay readable while they are open
        return cache.logits()


def epoch_part(options) -> dict:
    """Time epochs of distillation from the cache against epochs of supervised training."""
    images, how = random_images(options.images), settings(options.views)
    logits = stored("cnn2", images, options.views, network("cnn2", images, seed=1))
    steps = steps_per_epoch(len(images.train), BATCH)
    plain = training_batches(images.train, how, epochs=1)
    taught = training_batches(images.train, how, epochs=1, teacher_logits=logits)
    student, supervised = ours(new_student(images, options)), compiled(new_student(images, options))
    ways = {
        "distillation from the cache": epoch(fit(student), taught, steps),
        "supervised training": epoch(fit(supervised), plain, steps),
    }
    in_turns(ways, 1)
    found = in_turns(ways, 2 * options.repeats)
    return {"seconds": found, "ratios": [ratio(found, *ways, target="target: at most 1.05")]}


def live_part(options) -> dict:
    """Time epochs from the cache against epochs with the live teacher."""
    images, how = random_images(options.live_images), settings(1)
    teacher = network("resnet18", images, seed=1)
    logits = stored("resnet18", images, 1, teacher)
    steps = steps_per_epoch(len(images.train), BATCH)
    shown = functools.partial(training_batches, images.train, how)
    cached, plain = shown(epochs=CACHED_EPOCHS, teacher_logits=logits), shown(epochs=1)
    trains = {
        "cache": fit(ours(new_student(images, options))),
        "our live Distiller": fit(ours(new_student(images, options), teacher)),
        "keras.distillation": fit(peer(new_student(images, options), teacher)),
        "hand-written loop": loop(hand_written(new_student(images, options), teacher)),
    }
    batches = {name: cached if name == "cache" else plain for name in trains}
    # The first step compiles; all start with the same weights and see the same batch.
    losses = {name: train(batches[name].take(1), 1, 1)["loss"][0] for name, train in trains.items()}
    if not np.allclose(list(losses.values()), losses["cache"], rtol=1e-4):
        raise SystemExit(f"The first losses should be equal: {losses}")
    ways = {name: epoch(train, plain, steps) for name, train in trains.items()}
    ways["cache"] = epoch(trains["cache"], cached, steps, CACHED_EPOCHS)
    found = in_turns(ways, options.repeats)
    ratios = [
        ratio(found, name, "cache", "target: at least 10") for name in ways if name != "cache"
    ]
    return {"seconds": found, "first_losses": losses, "ratios": ratios}


def peer_cell(images: Dataset, teacher: keras.Model, policy: str, options) -> None:
    """Do one cell of the grid with `keras.distillation`, the student under a Keras policy."""
    with machine.precision(policy):
        train = fit(peer(new_student(images, options), teacher))
    batches = training_batches(images.train, settings(options.views), epochs=EPOCHS)
    train(batches, EPOCHS, steps_per_epoch(len(images.train), BATCH))


def our_grid(images: Dataset, teacher: keras.Model, options, ways: tuple[str, str]) -> dict:
    """Return the seconds of the cache and of all cells of the grid, all included.

    Args:
        images: Random ones.
        teacher: In float32.
        options: The command's.
        ways: Precision of the teacher's pass, and the students' policy.
    """
    precision, policy = ways
    start, how = time.perf_counter(), settings(options.views)
    logits = stored("resnet18", images, options.views, teacher, precision)
    built = time.perf_counter()
    size, cells = options.together, list(itertools.product(GRID.alphas, GRID.temperatures))

    def together() -> Population:
        population = Population(each)
        population.compile(jit_compile=JIT)
        return population

    with machine.precision(policy):
        each = [ours(new_student(images, options)) for _ in range(size)]
        learners = Learners(each, together if size > 1 else None)
        steps = steps_per_epoch(len(images.train), BATCH)
        for first in range(0, len(cells), size):
            learners.restart([new_student(images, options) for _ in each])
            for learner, cell in zip(learners.each, cells[first : first + size], strict=True):
                learner.alpha, learner.temperature = cell
            batches = training_batches(images.train, how, epochs=EPOCHS, teacher_logits=logits)
            fit(learners.fitted)(batches, EPOCHS, steps)
    end = time.perf_counter()
    return {"cache": built - start, "cells": end - built, "whole": end - start}


def grid_part(options) -> dict:
    """Time the grid against 45 times one cell of `keras.distillation`, run before and after it."""
    images = random_images(options.grid_images)
    count = len(GRID.alphas) * len(GRID.temperatures)
    policies = ["float32"] + ["mixed_bfloat16"] * bool(machine.has_bfloat16())
    mine = {"our grid, float32": ("float32", "float32")}
    if machine.has_bfloat16():
        mine["our grid, teacher in bfloat16"] = ("bfloat16", "float32")
        mine["our grid, mixed_bfloat16"] = ("bfloat16", "mixed_bfloat16")
    found: dict[str, list[float]] = {}
    shares: dict[str, list[dict]] = {name: [] for name in mine}
    teachers = {}
    for policy in policies:
        with machine.precision(policy):
            teachers[policy] = network("resnet18", images, seed=1)
        few = random_images(BATCH)  # what only the first use in a process costs
        peer_cell(few, teachers[policy], policy, options)

    def their_seconds() -> dict[str, float]:
        return {
            policy: seconds(functools.partial(peer_cell, images, teacher, policy, options))
            for policy, teacher in teachers.items()
        }

    for _ in range(options.grid_repeats):
        before = their_seconds()
        for name, ways in mine.items():
            shares[name].append(our_grid(images, teachers["float32"], options, ways))
            found.setdefault(name, []).append(shares[name][-1]["whole"])
        after = their_seconds()
        for policy in policies:
            theirs = found.setdefault(_theirs(count, policy), [])
            theirs.append(count * (before[policy] + after[policy]) / 2)
    note = f"keras.distillation: the mean of two whole runs of one cell, multiplied by {count}."
    targets = dict(zip(mine, (14, 14, 19), strict=False))
    ratios = [
        ratio(found, _theirs(count, "float32"), name, f"target: at least {targets[name]}")
        for name in mine
    ]
    for policy in policies[1:]:
        target = "target: at least 14"
        ratios.append(ratio(found, _theirs(count, policy), f"our grid, {policy}", target))
    return {"seconds": found, "our_shares": shares, "note": note, "ratios": ratios}


def _theirs(count: int, policy: str) -> str:
    return f"{count} x one keras.distillation run, {policy}"


def build_part(options) -> dict:
    """Time storing the logits of one view against `predict` on as many images."""
    part = {"seconds": {}, "ratios": []}
    shown = {
        "resnet18": options.build_images,
        "resnet20": 2 * options.build_images,
        "cnn2": options.images,
    }
    for name, count in shown.items():
        found = build_seconds(name, count, options.repeats)
        predicted = f"predict, {name}"
        for precision, most in (("float32", 0.85), ("bfloat16", 0.5)):
            whole, beyond = (f"{way} in {precision}, {name}" for way in ("storing", "more storing"))
            target = f"target: at most {most}"
            part["ratios"] += [ratio(found, beyond, predicted, target)]
            part["ratios"] += [ratio(found, whole, predicted)]
        part["seconds"] |= found
    part["note"] = (
        f"User CPU seconds an image; `more` is beyond the first {WARM} images, which compile the "
        "teacher and compare bfloat16 with float32."
    )
    return part


def build_seconds(name: str, count: int, repeats: int) -> dict[str, list[float]]:
    """Return user CPU seconds per image of storing in both precisions and of predicting."""
    images, few = random_images(count), random_images(WARM)
    teacher, pixels = compiled(network(name, images, seed=1)), images.train.images
    ways = {"predict": lambda: cpu_seconds(lambda: teacher.predict(pixels, BATCH, verbose=0))}
    for precision in ("float32", "bfloat16"):
        for kind, shown in (("whole", images), ("first", few)):
            store = functools.partial(storing, name, shown, teacher, precision)
            ways[f"{kind} {precision}"] = functools.partial(cpu_seconds, store)
    in_turns(ways, 1)
    found = in_turns(ways, repeats)
    seconds_of = {f"predict, {name}": [taken / count for taken in found["predict"]]}
    for precision in ("float32", "bfloat16"):
        whole, first = found[f"whole {precision}"], found[f"first {precision}"]
        seconds_of[f"storing in {precision}, {name}"] = [taken / count for taken in whole]
        seconds_of[f"more storing in {precision}, {name}"] = [
            (all_of_it - begin) / (count - WARM)
            for all_of_it, begin in zip(whole, first, strict=True)
        ]
    return seconds_of


def storing(name: str, images: Dataset, teacher: keras.Model, precision: str) -> None:
    """Store the logits of one view."""
    with tempfile.TemporaryDirectory() as folder:
        how = CacheConfig(precision=precision)
        build(folder, [Teacher.of(teacher, name)], images, settings(1), how, progress=Silent())


def cpu_seconds(run: Callable) -> float:
    """Return the user CPU time of all threads that `run()` takes."""
    start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime - start


PARTS = {"epoch": epoch_part, "live": live_part, "grid": grid_part, "build": build_part}


def parsed() -> argparse.Namespace:
    """Return the command's options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    for name, default, what in (
        ("images", 12_800, "images of an epoch"),
        ("live-images", 640, "images where the teacher is run in every epoch"),
        ("grid-images", 640, "images of the grid"),
        ("build-images", 1_280, "images whose logits are stored"),
        ("views", 10, "views of every image"),
        ("repeats", 5, "timings of each kind"),
        ("grid-repeats", 1, "timings of the whole grid"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} ({default})")
    parser.add_argument("--width", type=float, default=1.0, help="of the student (1.0)")
    parser.add_argument(
        "--together", type=int, choices=(1, 3, 5, 9), default=9, help="cells trained in one step"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    options = parsed()
    result = {
        "machine": {"device": machine.device(), **machine.versions(), "load": os.getloadavg()},
        "settings": vars(options) | {"output": None},
        "peer": PEER,
    }
    print(*(f"{key} {value}" for key, value in result["machine"].items()), sep=", ")
    for name in options.parts:
        result[name] = PARTS[name](options)
        report(result[name])
        if options.output:
            options.output.write_text(json.dumps(result, indent=1) + "\n")


def report(part: dict) -> None:
    """Print the table of a part."""
    for found in part["ratios"]:
        spread = f"({found['min']:.3f} .. {found['max']:.3f})"
        print(f"{found['name']:58} {found['median']:8.3f}  {spread} {found['target']}")
    for name, values in part["seconds"].items():
        print(f"  {f'seconds, {name}':56} {statistics.median(values):10.6f}")
    for name, loss in part.get("first_losses", {}).items():
        print(f"  {f'first loss, {name}':56} {loss:10.6f}")
    for name, shares in part.get("our_shares", {}).items():
        for share in shares:
            print(f"  seconds of {name}: cache {share['cache']:.1f}, cells {share['cells']:.1f}")
    print(part.get("note", ""))


if __name__ == "__main__":
    main()
