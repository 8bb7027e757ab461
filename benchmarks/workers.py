"""Measure what several workers gain over one process with all cores, and what they cost.

Prints a table and, with `--output FILE`, writes JSON. A study is done by one process whose
operations are spread over all cores, and by as many workers of one thread as there are cores, in
turns, each in a folder of its own. Seconds are only comparable on an idle machine; CPU seconds and
memory always are.

    python benchmarks/workers.py --config configs/mysteries/digits.yaml --output workers.json
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "configs" / "mysteries" / "digits.yaml"


def measured(config: Path, options: list[str]) -> dict[str, float]:
    """Return seconds, CPU seconds and the largest process's memory in MB of one study."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tfdistill", "run", str(config), "--export", "null"]
        subprocess.run(
            [*command, "--output", f"{folder}/out", *options], check=True, stdout=subprocess.DEVNULL
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - began, "cpu": cpu, "peak_mb": after.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    ways = {
        f"one process, {cores} threads": ["--threads", str(cores)],
        f"{cores} workers of one thread": ["--workers", str(cores), "--threads", "1"],
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, given in ways.items():
            found[name].append(measured(options.config, given))
    load = os.getloadavg()[0]
    print(f"{options.config.name} on {cores} cores; load of the machine {load:.1f}")
    print(f"{'':32}{'seconds':>10}{'CPU s':>10}{'peak MB':>10}")
    for name, runs in found.items():
        medians = [statistics.median(run[key] for run in runs) for key in runs[0]]
        print(f"{name:32}" + "".join(f"{value:10.1f}" for value in medians))
    if options.output:
        options.output.write_text(json.dumps({"load": load, **found}, indent=1))


if __name__ == "__main__":
    main()
