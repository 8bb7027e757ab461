"""Count how wrong inputs are answered: configurations, options of all commands, images, caches.

Makes wrong configurations of many kinds and runs `tfdistill run FILE --dry-run` on each, gives
every command wrong options, damages image files and the files of a cache of teachers' logits, and
prints one row a kind: how many were tried, and how many were answered otherwise than by one line
that names what is wrong.

    python benchmarks/faults inputs --configurations 420 --options 420
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import small_teachers
from tests.faults import command_options, configurations, hostile_files
from tfdistill import UsageError
from tfdistill.data import decode
from tfdistill.teacher_cache import build, open_cache

FORMATS = ("JPEG", "PNG", "GIF", "BMP")
CACHE_FILES = ("manifest.json", "v0000/*.npy", "ids.npy")


def searched(strategy, count: int, check: Callable[..., str | None]) -> dict:
    """Return how many of `count` drawn inputs were checked, refused and at fault, and examples."""
    found = {"tried": 0, "faults": 0, "slowest_seconds": 0.0, "examples": []}

    @seed(0)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(drawn):
        start = time.perf_counter()
        try:
            fault = check(drawn)
        except Exception as error:
            fault = f"traceback: {type(error).__name__}: {error}"
        found["tried"] += 1
        found["slowest_seconds"] = max(found["slowest_seconds"], time.perf_counter() - start)
        if fault:
            found["faults"] += 1
            found["examples"].append([fault[:300], str(drawn)[:300]])

    one()
    return found | {"examples": found["examples"][:5]}


def wrong(folder: Path, case: configurations.Case) -> str | None:
    """Return what is wrong with the answer to a wrong configuration."""
    return configurations.fault(case, *configurations.answer(folder, case.text, *case.options))


def right(folder: Path, values: dict) -> str | None:
    """Return what is wrong with the answer to a right configuration."""
    status, error, written = configurations.answer(folder, configurations.text_of(values))
    return f"{status}: {error} {written}" if status or error or written else None


def damaged_images(count: int) -> dict:
    """Return the counts of damaged images: refused by name, or decoded."""
    random = np.random.default_rng(0)
    found = {"tried": 0, "refused": 0, "faults": 0, "examples": []}
    for number in range(count):
        data = hostile_files.damaged(hostile_files.encoded(FORMATS[number % 4]), random)
        found["tried"] += 1
        try:
            fault = decode.decode([data], str, 3, 8).shape != (1, 8, 8, 3)
        except UsageError as error:
            found["refused"] += 1
            fault = not str(error).startswith("Cannot read the image 0: ") or "\n" in str(error)
        except Exception as error:
            fault, found["examples"] = True, [*found["examples"], repr(error)[:200]]
        found["faults"] += bool(fault)
    return found


def damaged_caches(folder: Path, count: int) -> dict:
    """Return the counts of damaged caches: refused by name, or with the same logits."""
    random, pictures = np.random.default_rng(0), small_teachers.dataset()
    teacher = small_teachers.Teacher.of(small_teachers.network(1), "one")
    whole, fuzzed = folder / "whole", folder / "fuzzed"
    build(whole, [teacher], pictures, small_teachers.settings())
    stored = open_cache(whole).logits()[0, pictures.train.ids].tobytes()
    found = {"tried": 0, "refused": 0, "faults": 0, "examples": []}
    for number in range(count):
        path = next(whole.glob(CACHE_FILES[number % len(CACHE_FILES)]))
        name = str(path.relative_to(whole))
        shutil.copytree(whole, fuzzed)
        (fuzzed / name).write_bytes(hostile_files.damaged(path.read_bytes(), random))
        found["tried"] += 1
        try:
            fault = open_cache(fuzzed).logits()[0, pictures.train.ids].tobytes() != stored
        except UsageError as error:
            found["refused"] += 1
            fault = str(fuzzed) not in str(error) or "\n" in str(error)
        except Exception as error:
            fault, found["examples"] = True, [*found["examples"], f"{name}: {error!r}"[:200]]
        found["faults"] += bool(fault)
        shutil.rmtree(fuzzed)
    return found


def bomb_memory() -> dict:
    """Return how much the peak of memory grew over images that unpack to gigabytes, in MB."""
    decode.decode([hostile_files.encoded("GIF")], str, 3, 8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decode.decode([hostile_files.gif_of_many_frames()], str, 3, 8)
    for name in ("bomb.png", "narrow.png"):
        try:
            decode.decode([hostile_files.HOSTILE_IMAGES[name]], str, 3, 16)
        except UsageError:
            continue
        raise SystemExit(f"{name} was decoded")
    return {"grown_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3}


def wrong_option(folder: Path, case: command_options.Case) -> str | None:
    """Return what is wrong with the answer to a command with a wrong option or place."""
    return command_options.fault(case, *configurations.ran(folder, list(case.options)))


def kinds(folder: Path, given: argparse.Namespace) -> dict[str, Callable[[], dict]]:
    """Return what counts the inputs of each kind that is to be tried."""
    for name in ("study", "options"):
        (folder / name).mkdir()
    study, options = partial(wrong, folder / "study"), partial(wrong_option, folder / "options")
    found: dict[str, Callable[[], dict]] = {}
    for kind, strategy in configurations.WRONG.items() if given.configurations else ():
        found[kind] = partial(searched, strategy, given.configurations, study)
    if given.configurations:
        found["right configurations, which must be planned"] = partial(
            searched, configurations.right(), given.configurations, partial(right, folder / "study")
        )
    for kind, strategy in command_options.WRONG.items() if given.options else ():
        found[kind] = partial(searched, strategy, given.options, options)
    if given.images:
        found["damaged images"] = partial(damaged_images, given.images)
    if given.caches:
        found["damaged caches"] = partial(damaged_caches, folder, given.caches)
    return found


def main() -> None:
    """Count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configurations", type=int, default=500, help="wrong ones of each kind")
    parser.add_argument("--options", type=int, default=500, help="wrong ones of each kind")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--caches", type=int, default=1200)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        for kind, count in kinds(Path(name), given).items():
            rows[kind] = count()
            shown(kind, rows[kind])
    if given.images:
        rows["images that unpack to gigabytes"] = bomb_memory()
        print(rows["images that unpack to gigabytes"])
    if given.output:
        given.output.write_text(json.dumps(rows, indent=1) + "\n")


def shown(kind: str, row: dict) -> None:
    """Print a row of the table."""
    slowest = f", slowest {row['slowest_seconds']:.2f} s" if "slowest_seconds" in row else ""
    refused = f", {row['refused']} refused" if "refused" in row else ""
    print(
        f"{kind:55} {row['tried']:6} tried{refused}, {row['faults']} at fault{slowest}", flush=True
    )


if __name__ == "__main__":
    main()
