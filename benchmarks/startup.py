"""Measure what a user waits for: help, a wrong configuration, and the quickstart with its memory.

Prints a table and, with `--output FILE`, writes JSON. The command's times stand beside those of a
bare Python in the same run, because the machine's speed drifts. Targets: under 1 second for help
and errors; the quickstart at most 4 minutes and 2 GB on two cores.

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
    """Return time in seconds and peak memory in GB of one quickstart in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        taken = seconds([*TFDISTILL, "run", str(QUICKSTART), "--output", folder])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of the largest child, in kB
    return {"seconds": taken, "peak_gb": peak / 1e6}


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
        print("quickstart: {seconds:.0f} s, peak {peak_gb:.2f} GB".format(**results["quickstart"]))
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
