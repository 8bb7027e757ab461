"""Measure what a user waits for: help, a wrong configuration, and the quickstart with its memory.

Prints a table and, with `--output FILE`, writes JSON. The command's times stand beside those of a
bare Python in the same run, because the machine's speed drifts. Targets: under 1 second for help
and errors; the quickstart at most a minute and 2 GB on two cores. Beside its time stand that of
its runs, as their records have it, and what its steps alone take, on a batch that lies in memory.

    python benchmarks/startup.py --repeats 5 --quickstart --output startup.json
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tfdistill.records import read_all

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
TFDISTILL = [sys.executable, "-m", "tfdistill"]
COMMANDS = {
    "bare Python": [sys.executable, "-c", "pass"],
    "--help": [*TFDISTILL, "--help"],
    "run --help": [*TFDISTILL, "run", "--help"],
    "a wrong value": [*TFDISTILL, "run", str(QUICKSTART), "--distillation.alpha=3"],
    "an unknown key": [*TFDISTILL, "run", str(QUICKSTART), "--data.sorce=digits"],
}


def seconds(command: list[str]) -> float:
    """Return how long a command takes, whatever it answers."""
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    return time.perf_counter() - start


def medians(repeats: int) -> dict[str, float]:
    """Return the median time of every command, the commands taken in turns."""
    times = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    return {name: statistics.median(values) for name, values in times.items()}


def quickstart() -> dict[str, float]:
    """Return seconds and peak memory in GB of one quickstart, and of what it consists."""
    with tempfile.TemporaryDirectory() as folder:
        models = str(Path(folder, "models"))
        given = ["--output", str(Path(folder, "out")), "--export.folder", models]
        taken = seconds([*TFDISTILL, "run", str(QUICKSTART), *given])
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of the largest, in kB
        records = read_all(Path(folder, "out"))
    trained = [record for record in records if record.config["trained"]]
    steps = sum(steps_of(record.config["training"]) for record in trained)
    return {
        "seconds": taken,
        "runs": sum(record.seconds for record in records),
        "steps": steps,
        "steps_alone": steps * step(),
        "peak_gb": peak / 1e6,
    }


def steps_of(training: dict) -> int:
    """Return the optimiser steps of a run, of 900 images where none are given."""
    return training["steps"] or training["epochs"] * -(-900 // training["batch_size"])


def step(count: int = 800) -> float:
    """Return the seconds of a step of the quickstart's student, taught, 20 in one call."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfdistill import Distiller, models
    from tfdistill.config import ModelConfig

    student = models.build(ModelConfig("cnn2", 0.125), (8, 8, 1), 10, 127.5, 64.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller = Distiller(student, alpha=0.9, temperature=4.0)
    distiller.compile("adam", loss, metrics=["accuracy"], steps_per_execution=20)
    images, labels = np.zeros((50, 8, 8, 1), "uint8"), np.arange(50) % 10
    targets = {"label": labels, "teacher_logits": np.zeros((50, 10), "float32")}
    batches = tf.data.Dataset.from_tensors((images, targets)).repeat()
    times = []
    for _ in range(4):
        start = time.perf_counter()
        distiller.fit(batches, steps_per_epoch=count, shuffle=False, verbose=0)
        times.append((time.perf_counter() - start) / count)
    return statistics.median(times[1:])  # the first compiles


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quickstart", action="store_true", help="also run the quickstart")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    found = medians(options.repeats)
    bare = found["bare Python"]
    print(f"{'command':16} {'seconds':>8} {'x bare':>7}")
    for name, value in found.items():
        print(f"{name:16} {value:8.2f} {value / bare:7.1f}")
    results = {"seconds": found}
    if options.quickstart:
        results["quickstart"] = quickstart()
        text = (
            "quickstart: {seconds:.0f} s, of it {runs:.0f} s in runs, whose {steps} steps alone "
            "take {steps_alone:.0f} s; peak {peak_gb:.2f} GB"
        )
        print(text.format(**results["quickstart"]))
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
