"""Give networks made to do harm to `predict`: files that unpack to gigabytes, graphs without end.

Writes a few small files (tests/faults/hostile_networks.py), asks `tfdistill predict` about an image
with each, and prints what came, the seconds and the most memory of a process. All but the good ones
must be refused with status 2 and one line that names the file, with less than 3 GiB.

    python benchmarks/faults networks
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from PIL import Image

from tests.faults import hostile_networks

MOST_KILOBYTES = 3 * 2**20


def asked(path: Path, image: Path, environment: dict) -> tuple[subprocess.CompletedProcess, str]:
    """Return how `predict` ended, and the seconds and memory that it took."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tfdistill", "predict", str(path), str(image)],
        env=environment,
        capture_output=True,
        text=True,
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of all so far
    return done, f"{time.perf_counter() - start:.1f} s, at most {peak / 2**20:.2f} GiB"


def main() -> int:
    """Write the files, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", default="120", help="until a network is refused")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        scratch, image = Path(folder), Path(folder) / "black.png"
        found = hostile_networks.write(scratch) | hostile_networks.write_saved_models(scratch)
        Image.new("L", hostile_networks.SHAPE[:2]).save(image)
        cache = {"TFDISTILL_CACHE": str(scratch / "cache"), "TFDISTILL_OPEN_SECONDS": seconds}
        networks = {name: path for name, path in found.items() if ".weights." not in name}
        faults = 0
        for name, path in {**networks, "good.keras again": networks["good.keras"]}.items():
            done, cost = asked(path, image, os.environ | cache)
            said = done.stderr.strip().splitlines()
            refused = done.returncode == 2 and len(said) == 1 and str(path) in said[0]
            right = done.returncode == 0 if name.startswith("good") else refused
            faults += not right
            print(f"{name}: status {done.returncode}, {cost}. {' '.join(said)[:300]}", flush=True)
            if not right:
                print("WRONG", done.stderr[-2000:], flush=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{len(networks) + 1} networks, {faults} answered wrongly")
    return 1 if faults or peak > MOST_KILOBYTES else 0


if __name__ == "__main__":
    sys.exit(main())
