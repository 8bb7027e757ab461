"""Let a real disk (tmpfs) be full when a command writes, make room, and give the command again.

    kinds   the disk becomes full at the moment when Python opens a file of one kind to write it:
            once for each kind of file that the command writes
    pages   the disk has not a free byte at the beginning, and a few kilobytes are set free after
            every attempt: so native code (networks, logs, SavedModels) runs out of room, too

Every time the command must say so in one line, with status 2, and leave no half-written file, or go
on without the file and say that. In the end the results must be those of a disk with room. Cases: a
study, one that writes logs for TensorBoard (each attempt leaves some), a search, a study with
exports. Prints what had no room. Linux, as root (it mounts the disk).

    python benchmarks/faults full_disk --scratch /tmp/full
    python benchmarks/faults full_disk --cases study search --pages 4 --scratch /tmp/full
    python benchmarks/faults full_disk --cases logs exports --pages 16 --scratch /tmp/full
"""

import argparse
import collections
import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from outcomes import left_behind
from storage import Base, results

from tfdistill.utils.storage import TEMPORARY

CASES = {"study": "finished", "logs": "finished", "search": "search", "exports": "exported"}
LOGS = ["--tensorboard", "true"]
SPARE = 2**22
# What stands for the names of runs, caches, trials, exports and processes.
NAMES = (
    (r"runs/[^/]+", "runs/*"),
    (r"cache/[^/]+", "cache/*"),
    (r"decoded/[^/]+", "decoded/*"),
    (r"trial_[^/]+", "trial_*"),
    (r"saved/[^/]+", "saved/*"),
    (re.escape(TEMPORARY) + r"[\w-]+\.\d+\.", ""),
)
WRITING = os.O_WRONLY | os.O_RDWR


class Disk:
    """A small disk over a study's folder, and a file that fills it.

    Args:
        base: The study; its folder is emptied.
    """

    def __init__(self, base: Base):
        self.base, self.filler = base, base.live / "filler"

    def __enter__(self) -> "Disk":
        live = self.base.live
        size = sum(path.stat().st_size for path in live.rglob("*") if path.is_file())
        shutil.rmtree(live)
        live.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={4 * size + SPARE}", "tmpfs", live]
        subprocess.run(command, check=True)
        self.begin()
        return self

    def __exit__(self, *error) -> None:
        subprocess.run(["umount", self.base.live], check=True)

    def begin(self) -> None:
        """Leave nothing but the study's images and configuration."""
        for path in self.base.live.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.base.kept / "images", self.base.live / "images")
        shutil.copy(self.base.kept / "study.yaml", self.base.live)

    def fill(self) -> None:
        """Take all room."""
        with contextlib.suppress(OSError), self.filler.open("ab", buffering=0) as file:
            while file.write(bytes(2**12)):
                pass

    def free(self, size: int) -> bool:
        """Make some room, in bytes; return whether there was less before."""
        taken = self.filler.stat().st_size
        os.truncate(self.filler, max(0, taken - size))
        return taken > 0


class Writes:
    """Hears which files Python opens to write them, and fills the disk at one of them."""

    def __init__(self):
        self.kinds: collections.Counter = collections.Counter()
        self.last = ""
        self._disk: Disk | None = None
        self._full_at = ("", 0)
        sys.addaudithook(self._hear)

    def listen(self, disk: Disk, full_at: tuple[str, int] = ("", 0)) -> None:
        """Begin anew; let the disk be full at the n-th file of a kind, n = 1, 2, ..."""
        self._disk, self._full_at = disk, full_at
        self.kinds, self.last = collections.Counter(), "nothing"

    def _hear(self, event: str, details: tuple) -> None:
        if event != "open" or self._disk is None or not isinstance(details[0], str | Path):
            return
        path = os.path.abspath(details[0])
        live = str(self._disk.base.live)
        if not (details[2] & WRITING and path.startswith(live)) or path.endswith("lock"):
            return
        if path == str(self._disk.filler):
            return
        self.last = kind_of(path.removeprefix(live))
        self.kinds[self.last] += 1
        if (self.last, self.kinds[self.last]) == self._full_at:
            self._disk.fill()


def kind_of(path: str) -> str:
    """Return a path with `*` for the names of runs, caches, trials and exports."""
    for pattern, name in NAMES:
        path = re.sub(pattern, name, path)
    return path.strip("/")


def attempt(base: Base) -> tuple[bool, list[str], str]:
    """Give the command; return whether it was done, what is wrong, and what it said."""
    status, said, failure = base.again()
    if status == 0 and not failure:
        return True, [], said
    problems = []
    errors = [line for line in said.splitlines() if line.startswith("tfdistill: error:")]
    if failure or status != 2 or len(errors) != 1 or "no room" not in errors[0]:
        problems.append(f"status {status}, {len(errors)} lines: {failure or said}"[-600:])
    # The state of an unfinished training is to stay, and the lock's file; nothing else may.
    for path in left_behind(base.live):
        if not path.endswith("lock") and ("/." in path or not path.endswith(".npz")):
            problems.append(f"left behind: {path}")
    return False, problems, said


def by_kinds(name: str, base: Base, writes: Writes, draw: random.Random) -> dict:
    """Fill the disk once for each kind of file that the command writes."""
    outcomes, problems = {}, []
    with Disk(base) as disk:
        writes.listen(disk)
        _, problems, _ = attempt(base)
        for kind, count in sorted(writes.kinds.items()):
            disk.begin()
            writes.listen(disk, (kind, draw.randint(1, count)))
            done, wrong, said = attempt(base)
            writes.listen(disk)
            outcomes[kind] = "went on without" if done else "refused"
            if done and "no room" not in said:
                outcomes[kind] = "not reached" if not disk.filler.exists() else "said nothing"
                wrong.append(outcomes[kind])
            if disk.filler.exists():
                disk.filler.unlink()
            finished, again, _ = attempt(base)
            wrong += again + ([] if finished else ["fails with room"])
            if finished and results(base.live) != base.expected:
                wrong.append("other results than on a disk with room")
            print(f"{name}: full at {kind}: {outcomes[kind]} {wrong or ''}", flush=True)
            problems += [f"{kind}: {problem}" for problem in wrong]
    return {"kinds": outcomes, "problems": problems}


def by_pages(name: str, base: Base, writes: Writes, step: int) -> dict:
    """Begin on a full disk and make a little room after every attempt."""
    places: collections.Counter = collections.Counter()
    problems, began = [], time.monotonic()
    with Disk(base) as disk:
        disk.fill()
        while True:
            writes.listen(disk)
            done, wrong, said = attempt(base)
            problems += wrong
            if done:
                break
            places[writes.last] += 1
            print(f"{name}: {places.total()}: no room after {writes.last}", flush=True)
            if not disk.free(step):
                problems.append(f"fails with room: {said[-600:]}")
                break
        if results(base.live) != base.expected:
            problems.append("other results than on a disk with room")
    seconds = round(time.monotonic() - began)
    found = {"step_kB": step // 2**10, "attempts": places.total(), "seconds": seconds}
    return {**found, "opened_last": dict(places), "problems": problems}


def main() -> int:
    """Fill, print, write; return 1 where anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=0, help="kB set free each time; 0: by kinds")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for the studies")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    from tfdistill.utils import tensorflow

    tensorflow.start()
    writes, draw, known, wrong = Writes(), random.Random(given.seed), {}, []
    for name in given.cases:
        base = Base(given.scratch.resolve(), CASES[name])
        base.command += LOGS if name == "logs" else []
        if given.pages:
            mode, found = "pages", by_pages(name, base, writes, given.pages * 2**10)
        else:
            mode, found = "kinds", by_kinds(name, base, writes, draw)
        known[name] = found
        if given.output:
            given.output.write_text(json.dumps({mode: known}, indent=1) + "\n")
        wrong += [f"{name}: {problem}" for problem in found["problems"]]
        counts = found.get("opened_last") or collections.Counter(found["kinds"].values())
        print(f"{name}, by {mode}: {sum(counts.values())} times without room, {dict(counts)}")
    print("\n".join(wrong) or "nothing went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
