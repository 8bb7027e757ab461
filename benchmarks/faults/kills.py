"""Kill studies, searches and exports at random moments, and compare what they end with.

Each campaign starts a command in an empty folder (an export: in a copy of a finished study), stops
it after a random time of computing, starts it again, and so on until it is done. The result must be
that of an uninterrupted run, and no finished work may be written twice. SIGTERM and Ctrl-C must end
the process within 5 seconds, with one line, status 143 or 130, and no child left. Every second
campaign moves the times of all files three days into the future between two starts, as if the clock
had been set back. Prints a table. Linux only.

    python benchmarks/faults kills --kills 50 --signals 20 --scratch /tmp/kills
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from outcomes import differences, finished_work, results

STUDY = {
    "study": "single",
    "seeds": [0],
    "data": {"source": "digits", "validation": 100, "train_examples": 200},
    "teacher": {"name": "cnn2", "width": 0.25},
    "student": {"name": "cnn2", "width": 0.125},
    "training": {"epochs": 4, "batch_size": 32},
}
SWEEP = {"sweep": {"space": {"distillation.alpha": [0.1, 0.9]}, "confirm_seeds": [7]}}
EXPORT = {"export": {"formats": ["litert-int8"], "name": "net", "check_images": 100}}
COMMANDS = {"study": "run", "sweep": "sweep", "export": "run"}
SHARES = {"study": 0.4, "sweep": 0.2, "export": 0.4}
DAYS = 3 * 86400.0
# What the last line of the output tells about where a process was.
STAGES = (
    ("Starting TensorFlow", "start of TensorFlow"),
    ("runs in", "training"),
    ("[", "training"),
    ("Exporting", "writing an export"),
    ("same class as", "checking an export"),
    ("is in place", "between exports"),
    ("Measuring", "measuring exports"),
    ("Classifying", "measuring exports"),
)


@dataclass
class Kill:
    """One stop: how, where, and what was seen.

    Args:
        kind: `study`, `sweep` or `export`.
        signal: Name of the signal.
        group: Whether the whole process group got it, as at Ctrl-C, or the main process alone.
        after: Seconds of computing, of all processes, from the start to the signal.
        stage: What the process was doing.
        seconds: Until the main process had ended.
        child_seconds: Until its last child had ended.
        problems: What was not as it must be.
    """

    kind: str
    signal: str
    group: bool
    after: float
    stage: str
    seconds: float = 0.0
    child_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class Process:
    """A command in a process group of its own, with its output in files."""

    def __init__(self, command: list[str], folder: Path):
        self.output, self.errors = folder / "output.txt", folder / "errors.txt"
        with open(self.output, "w") as output, open(self.errors, "w") as errors:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tfdistill", *command],
                cwd=folder,
                stdout=output,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def ends_within(self, seconds: float) -> bool:
        """Wait for so much computing, and return whether the process has ended before."""
        while self.popen.poll() is None:
            if computed(self.popen.pid) >= seconds:
                return False
            time.sleep(0.02)
        return True

    def stop(self, kill: Kill) -> None:
        """Send a kill's signal, wait for the end and note what was seen."""
        number, children = signal.Signals[kill.signal], children_of(self.popen.pid)
        kill.stage = self.stage()
        start = time.monotonic()
        (os.killpg if kill.group else os.kill)(self.popen.pid, number)
        status = self.popen.wait()
        kill.seconds = time.monotonic() - start
        while any(map(lives, children)):
            time.sleep(0.02)
        kill.child_seconds = time.monotonic() - start
        if number != signal.SIGKILL:
            kill.problems += self._wrong_ending(status, 128 + number, kill)

    def stage(self) -> str:
        """Return what the process is doing, by its last line."""
        lines = self.output.read_text().splitlines()
        last = lines[-1] if lines else ""
        known = (stage for start, stage in STAGES if start in last)
        return next(known, "report and tables") if lines else "start of Python"

    def _wrong_ending(self, status: int, expected: int, kill: Kill) -> list[str]:
        found = []
        # Before Python has read this package, a signal does what it does to any process.
        early = kill.stage == "start of Python" and status in (expected - 128, 128 - expected, 1)
        errors = self.errors.read_text()
        if status != expected and status != 0 and not early:
            found.append(f"status {status}: {errors[-300:]}")
        if status == expected and (errors.count("\n") != 1 or "goes on" not in errors):
            found.append(f"not one line: {errors[-300:]}")
        if "Traceback" in errors and not early:
            found.append("traceback")
        if kill.seconds > 5 or kill.child_seconds > 5:
            found.append(f"{kill.seconds:.1f} s, children {kill.child_seconds:.1f} s")
        return found


def children_of(process: int) -> list[int]:
    """Return the ids of a process's children, as Linux tells them."""
    try:
        texts = [p.read_text() for p in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:
        return []
    return [int(number) for text in texts for number in text.split()]


def computed(process: int) -> float:
    """Return the seconds that a process and its children have kept a processor busy."""
    total = 0
    for number in (process, *children_of(process)):
        try:
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def lives(process: int) -> bool:
    """Return whether a process is there and not a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Campaign:
    """One kind of command, as often as asked for.

    Args:
        kind: `study`, `sweep` or `export`.
        scratch: Folder for everything; emptied first.
        draws: Where moments and signals come from.
    """

    def __init__(self, kind: str, scratch: Path, draws: random.Random):
        self.kind, self.scratch, self.draws = kind, scratch, draws
        self.made = 0
        shutil.rmtree(scratch, ignore_errors=True)
        self.reference = self._new("reference")
        before = _computed_by_children()
        self._finish(self.reference)
        self.seconds = _computed_by_children() - before
        self.expected = results(self.reference)

    def run(self, signals: list[str], limit: int) -> tuple[list[Kill], list[str]]:
        """Stop one study at most `limit` times, let it end, return the kills and what is wrong."""
        self.made += 1
        folder, kills, problems = self._new(f"campaign-{self.made}"), [], []
        written: dict = {}
        while len(kills) < limit:
            name = self.draws.choice(signals)
            after = self.draws.uniform(0.0, self.seconds)
            # Ctrl-C in a terminal goes to the whole group.
            group = name == "SIGINT" or self.draws.random() < 0.5
            process = Process(self._command(), folder)
            if process.ends_within(after):
                break
            kill = Kill(self.kind, name, group, after, "")
            process.stop(kill)
            kills.append(kill)
            problems += changed(written, folder)
            if self.made % 2:
                into_the_future(folder)
            written = finished_work(folder)
        self._finish(folder)
        problems += changed(written, folder)
        problems += differences(self.expected, results(folder))
        return kills, [f"{folder.name}: {problem}" for problem in problems]

    def _command(self) -> list[str]:
        return [COMMANDS[self.kind], "config.yaml", "--output", "out"]

    def _finish(self, folder: Path) -> None:
        process = Process(self._command(), folder)
        if process.popen.wait() != 0:
            raise SystemExit(f"{folder}: {process.errors.read_text()}")

    def _new(self, name: str) -> Path:
        folder = self.scratch / name
        folder.mkdir(parents=True)
        if self.kind == "export":
            done = self.scratch / "done"
            if not done.exists():
                done.mkdir()
                write_config(done, STUDY)
                self._finish(done)
            shutil.copytree(done / "out", folder / "out")
        write_config(folder, STUDY | {"sweep": SWEEP, "export": EXPORT}.get(self.kind, {}))
        return folder


def _computed_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_config(folder: Path, values: dict) -> None:
    """Write a study's configuration into a folder."""
    (folder / "config.yaml").write_text(yaml.safe_dump(values))


def into_the_future(folder: Path) -> None:
    """Move the times of all files three days on."""
    for path in folder.rglob("*"):
        later = path.stat().st_mtime + DAYS
        os.utime(path, (later, later))


def changed(written: dict, folder: Path) -> list[str]:
    """Return what was finished before and has been written again or is gone."""
    now = finished_work(folder)
    return [f"{path} was written again" for path in written if now.get(path) != written[path]]


def main() -> int:
    """Run the campaigns; return 1 where anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="stops by SIGKILL")
    parser.add_argument("--signals", type=int, default=20, help="stops by SIGTERM and Ctrl-C")
    parser.add_argument("--kinds", nargs="+", default=list(SHARES), choices=list(SHARES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=Path("kills"), help="an empty folder")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    # A shell starts what is in the background with Ctrl-C ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    whole, known = sum(SHARES[kind] for kind in given.kinds), {}
    for kind in given.kinds:
        share = SHARES[kind] / whole
        campaign = Campaign(kind, given.scratch / kind, random.Random(f"{given.seed} {kind}"))
        found = campaigns(campaign, round(given.kills * share), round(given.signals * share))
        for known[kind] in found:
            if given.output:
                given.output.write_text(json.dumps(known, indent=1) + "\n")
    print(table([Kill(**kill) for found in known.values() for kill in found["kills"]]))
    problems = [problem for found in known.values() for problem in found["problems"]]
    print("\n".join(problems))
    return 1 if problems else 0


def campaigns(campaign: Campaign, kills: int, signals: int) -> Iterator[dict]:
    """Stop so many commands of one kind, and yield what is known after each campaign."""
    found = {
        "uninterrupted_seconds": campaign.seconds,
        "commands": 0,
        "wrong_results": 0,
        "problems": [],
        "kills": [],
    }
    for names, left in ((["SIGKILL"], kills), (["SIGTERM", "SIGINT"], signals)):
        while left > 0:
            stopped, problems = campaign.run(names, left)
            left -= len(stopped)
            found["commands"] += 1
            found["wrong_results"] += bool(problems)
            found["problems"] += problems + [line for kill in stopped for line in kill.problems]
            found["kills"] += map(vars, stopped)
            yield found


def table(kills: list[Kill]) -> str:
    """Return how many stops there were of each kind in each stage, and the longest ending."""
    lines = [f"{'':8} {'stage':22} {'SIGKILL':>8} {'SIGTERM':>8} {'SIGINT':>8} {'longest':>8}"]
    for kind, stage in sorted({(kill.kind, kill.stage) for kill in kills}):
        here = [kill for kill in kills if (kill.kind, kill.stage) == (kind, stage)]
        counts = [
            sum(kill.signal == name for kill in here) for name in ("SIGKILL", "SIGTERM", "SIGINT")
        ]
        longest = max((kill.seconds for kill in here if kill.signal != "SIGKILL"), default=0.0)
        numbers = " ".join(f"{count:8}" for count in counts)
        lines.append(f"{kind:8} {stage:22} {numbers} {longest:8.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
