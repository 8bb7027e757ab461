"""Do the same study several times, each in a process of its own, and compare all that it leaves.

Weights, records, stored logits, tables and exports must be the same to the bit; times of day and
durations are left out, and so is the order in which Keras writes the variables of a SavedModel. The
processes have other hash seeds, other folders and no decoded images to begin with. Prints how much
was compared; exit status 1 where anything differs.

    python benchmarks/faults repeat configs/quickstart.yaml --scratch /tmp/repeat
"""

import argparse
import collections
import os
import subprocess
import sys
from pathlib import Path

from outcomes import differences, results


def once(config: Path, folder: Path, more: list[str], number: int) -> dict[str, object]:
    """Do the study in a new process and return what it left."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "tfdistill", "run", str(config), "--output", "out", *more]
    cache = str(folder / "decoded")
    environment = {**os.environ, "PYTHONHASHSEED": str(number), "TFDISTILL_CACHE": cache}
    with open(folder / "output.txt", "w") as output:
        subprocess.run(command, cwd=folder, env=environment, stdout=output, check=True)
    return results(folder)


def main() -> int:
    """Do, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="the study's YAML file")
    parser.add_argument("--times", type=int, default=2, help="how often")
    parser.add_argument("--scratch", type=Path, required=True, help="a folder without results")
    given, more = parser.parse_known_args()
    config, scratch = given.config.resolve(), given.scratch.resolve()
    first, *others = (
        once(config, scratch / str(number), more, number) for number in range(given.times)
    )
    kinds = collections.Counter(Path(name).suffix or Path(name).name for name in first)
    print(f"compared, of each of {given.times}: {dict(kinds)}")
    found = [line for other in others for line in differences(first, other)]
    print("\n".join(found) or "all the same")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
