"""Damage files of a study many times and let only what reads them judge: quick, so thousands.

The study was stopped half-way. Each time one fault is put into one file, and its reader must refuse
it, make it again, or give exactly what it gave before. Prints a table.

    python benchmarks/faults readers --each 300 --scratch /tmp/readers
"""

import argparse
import collections
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from storage import PLACES, Base, damage

from tfdistill.utils import storage


def readers(base: Base) -> dict[str, tuple[str, Callable]]:
    """Return for each kind of file where it lies and what reads it, to a comparable value."""
    from tfdistill import records, teacher_cache
    from tfdistill.models.fingerprint import weights_hash
    from tfdistill.training import evaluation, study_folder
    from tfdistill.tuners import oracles

    out = base.live / "out"

    def network(path: Path) -> str:
        return weights_hash(evaluation.load_network(out, path.parent.name, None, path.stem))

    def logits(path: Path) -> str:
        cache = teacher_cache.open_cache(path.parent)
        rows = cache.logits()[0, cache._ids]
        return f"{rows.tobytes().hex()} {cache.manifest}"

    return {
        "record.json": ("out/runs/*/record.json", lambda path: records.read(path.parent)),
        "weights": ("out/runs/*/*.keras", network),
        "config.yaml": ("out/config.yaml", study_folder._written_config),
        "training state": ("out/runs/*/state.npz", lambda path: _state(path)),
        "best weights so far": ("out/runs/*/best-0.npz", lambda path: _state(path)),
        "logits": ("out/cache/*/v*/*.npy", logits),
        "ids of logits": ("out/cache/*/ids.npy", logits),
        "manifest of logits": ("out/cache/*/manifest.json", logits),
        "decoded images": ("decoded/*/images.npy", lambda path: _decoded(path)),
        "list of decoded images": ("decoded/*/complete.json", lambda path: _decoded(path)),
        "files of a search": ("search/trial.json", oracles.read),
    }


def _state(path: Path) -> str:
    from tfdistill.training import resume

    return resume._sum(resume._load(path))


def _decoded(path: Path) -> str | None:
    from tfdistill.data import array_cache

    found = array_cache._open(path.parent)
    return found and {name: np.asarray(array).tobytes() for name, array in found.items()}


def judged(path: Path, read: Callable, expected) -> str:
    """Return what came of a fault."""
    from tfdistill.utils import checks

    try:
        found = read(path)
    except checks.UsageError as error:
        return "refused" if "\n" not in str(error) else "crashed"
    except Exception as error:
        print(f"{path.name}: {type(error).__name__}: {error}")
        return "crashed"
    if found is None:
        return "made again"
    return "harmless" if found == expected else "used silently"


def main() -> None:
    """Read the command line, inject, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=300, help="faults for each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for the study")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    from tfdistill.utils import tensorflow

    tensorflow.start()
    base = Base(given.scratch.resolve(), "half")
    base.restore()
    values = {"alpha": 0.1, "temperature": 4.0}
    storage.write_checked(base.live / "search/trial.json", {"trial_id": "0000", "values": values})
    draw, rows = random.Random(given.seed), []
    outcomes = ("refused", "made again", "harmless", "used silently", "crashed")
    for kind, (pattern, read) in readers(base).items():
        counts: collections.Counter = collections.Counter()
        known: dict[Path, object] = {}
        for number in range(given.each):
            path = draw.choice(sorted(base.live.glob(pattern)))
            whole = path.read_bytes()
            if path not in known:
                known[path] = read(path)
            damage(path, PLACES[number % len(PLACES)], draw)
            counts[judged(path, read, known[path])] += 1
            path.write_bytes(whole)
        rows.append(
            {"file": kind, "faults": given.each, **{name: counts[name] for name in outcomes}}
        )
        print(f"{kind:24} " + ", ".join(f"{counts[name]} {name}" for name in outcomes), flush=True)
    total = {name: sum(row[name] for row in rows) for name in ("faults", *outcomes)}
    print(total)
    if given.output:
        figures = {"seed": given.seed, **total, "by file": rows}
        given.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
