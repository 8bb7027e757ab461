"""Damage one file of a study, give its command again, and compare what comes out.

Each injection takes a copy of a study that is finished or was stopped half-way (or of a search, or
of a study with exports), flips one bit of one file, cuts the file short or removes it, and gives
the same command again. Then either the result is that of the undisturbed study, or the command
refuses in one line. Whatever else happens is counted as used silently. Prints a table.

    python benchmarks/faults storage --each 10 --scratch /tmp/storage
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import logging
import os
import random
import shutil
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import yaml

STUDY = {
    "study": "single",
    "data": {"validation": 24},
    "teacher": {"name": "cnn2", "width": 0.125},
    "training": {"epochs": 2, "batch_size": 32, "learning_rate": 0.02},
}
PLACES = (
    "bit in the header",
    "bit in the middle",
    "bit at the end",
    "cut short",
    "emptied",
    "gone",
)
# A line that tells of a fault holds one of these.
NOTICED = ("damaged", "is missing", "cannot be loaded", "other weights", "done again")
OUTCOMES = ("rebuilt", "refused", "harmless", "used silently", "crashed")
# What is damaged: the state of the study, the kind of file, where it lies.
TARGETS = (
    ("finished", "record", "out/runs/*/record.json"),
    ("finished", "weights", "out/runs/*/last.keras"),
    ("finished", "weights", "out/runs/*/best.keras"),
    ("finished", "config.yaml", "out/config.yaml"),
    ("finished", "results.csv", "out/results.csv"),
    ("finished", "report.html", "out/report.html"),
    ("finished", "logits of a finished study", "out/cache/*/v*/*.npy"),
    ("half", "training state", "out/runs/*/state.npz"),
    ("half", "best weights so far", "out/runs/*/best-0.npz"),
    ("half", "record of a teacher", "out/runs/teacher/record.json"),
    ("half", "weights of a teacher", "out/runs/teacher/last.keras"),
    ("half", "logits", "out/cache/*/v*/*.npy"),
    ("half", "ids of logits", "out/cache/*/ids.npy"),
    ("half", "manifest of logits", "out/cache/*/manifest.json"),
    ("half", "decoded images", "decoded/*/images.npy"),
    ("half", "list of decoded images", "decoded/*/complete.json"),
    ("search", "trial.json", "out/tuner/trial_*/trial.json"),
    ("search", "oracle.json", "out/tuner/oracle.json"),
    ("search", "record of a trial", "out/runs/trial-*/record.json"),
    ("search", "weights of a trial", "out/runs/trial-*/last.keras"),
    ("exported", "deployment.json", "out/deployment.json"),
    ("exported", "exported model", "saved/*/1/**/*"),
)
# An export is checked in processes of its own, which takes as long as many trainings.
SLOW = ("exported",)


@dataclass(frozen=True)
class Injection:
    """One fault and what came of it."""

    state: str
    kind: str
    file: str
    place: str
    outcome: str
    seconds: float
    said: str


class Base:
    """A study in one state, kept as a copy that is never touched.

    Args:
        scratch: A folder of its own, emptied.
        state: `finished`, `half`, `search` or `exported`.
    """

    def __init__(self, scratch: Path, state: str):
        self.state = state
        self.live, self.kept = scratch / state / "live", scratch / state / "kept"
        shutil.rmtree(scratch / state, ignore_errors=True)
        self.live.mkdir(parents=True)
        write_images(self.live / "images")
        self.command = ["sweep" if state == "search" else "run", str(self.live / "study.yaml")]
        (self.live / "study.yaml").write_text(yaml.safe_dump(self._config()))
        if state == "half":
            self._stop_half_way()
            shutil.copytree(self.live, self.kept)
        self._must_succeed()
        self.expected = results(self.live)
        if state != "half":
            shutil.copytree(self.live, self.kept)

    def _config(self) -> dict:
        config = {**STUDY, "seeds": [0] if self.state == "search" else [0, 1]}
        config["data"] = {**STUDY["data"], "source": f"folder:{self.live / 'images'}"}
        config["output"] = str(self.live / "out")
        if self.state == "search":
            config["sweep"] = {"space": {"distillation.alpha": [0.1, 0.9]}, "confirm_seeds": [7]}
        if self.state == "exported":
            config["export"] = {"folder": str(self.live / "saved"), "name": "net"}
        return config

    def _must_succeed(self) -> None:
        status, said, _ = self.again()
        if status != 0:
            raise RuntimeError(f"The undisturbed study failed: {said}")

    def _stop_half_way(self) -> None:
        """Stop after the first epoch of the last student."""
        from tfdistill.cli import options
        from tfdistill.training import runner
        from tfdistill.utils.progress import Silent

        class Stopping(Silent):
            def begin(self, names):
                self.last = names == ["distilled-1"]

            def epoch(self, epoch, epochs, logs):
                if self.last:
                    raise KeyboardInterrupt

        with self.environment():
            config = options.study_config(self.command[1:])
            with contextlib.suppress(KeyboardInterrupt):
                runner.run_study(config, self.live / "out", Stopping())

    @contextlib.contextmanager
    def environment(self):
        """Let decoded images lie beside the study."""
        os.environ["TFDISTILL_CACHE"] = str(self.live / "decoded")
        yield

    def restore(self) -> None:
        """Put the study back into its state."""
        shutil.rmtree(self.live)
        shutil.copytree(self.kept, self.live, copy_function=shutil.copy2)

    def again(self) -> tuple[int, str, str]:
        """Give the command; return its status, what it said, and a traceback if there was one."""
        from tfdistill.cli.main import main

        said, failure = io.StringIO(), ""
        with (
            self.environment(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            logging_to(said),
        ):
            try:
                status = main(self.command)
            except Exception:
                status, failure = 70, traceback.format_exc()
        return status, said.getvalue(), failure


@contextlib.contextmanager
def logging_to(stream):
    """Send warnings to a stream, as the command line shows them."""
    logger, handler = logging.getLogger("tfdistill"), logging.StreamHandler(stream)
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


def write_images(folder: Path) -> None:
    """Write 160 images of 4 classes as PNG files."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(4):
        (folder / str(label)).mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == label][:40]):
            path = folder / str(label) / f"{number:02d}.png"
            Image.fromarray((image * 15).astype("uint8")).save(path)


def results(live: Path) -> dict:
    """Return all that must come out the same: records but for times, and weights as they lie."""
    import keras

    from tfdistill import records
    from tfdistill.models.fingerprint import weights_hash

    found = {}
    for record in records.read_all(live / "out"):
        values = dataclasses.asdict(record)
        # The archive of a network holds the time at which it was written.
        for name in ("seconds", "files"):
            del values[name]
        folder = records.run_folder(live / "out", record.name)
        for part in ("best", "last"):
            network = keras.saving.load_model(folder / f"{part}.keras", compile=False)
            values[f"{part} weights"] = weights_hash(network)
        found[record.name] = values
    table = (live / "out" / "results.csv").read_text()
    found["rows of results.csv"] = table.count("\n")
    page = (live / "out" / "report.html").read_text()
    found["tables of the report"] = page.count("<table")
    return found


def damage(path: Path, place: str, draw: random.Random) -> None:
    """Put one fault into a file."""
    data = bytearray(path.read_bytes())
    if place == "gone":
        path.unlink()
        return
    if place == "emptied":
        data = data[:0]
    elif place == "cut short":
        data = data[: draw.randrange(1, max(2, len(data)))]
    elif data:
        edge = min(64, len(data))
        low, high = {
            "bit in the header": (0, edge),
            "bit in the middle": (0, len(data)),
            "bit at the end": (len(data) - edge, len(data)),
        }[place]
        data[draw.randrange(low, high)] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def inject(base: Base, kind: str, pattern: str, place: str, draw: random.Random) -> Injection:
    """Damage one file, give the command again and judge."""
    base.restore()
    path = draw.choice(sorted(path for path in base.live.glob(pattern) if path.is_file()))
    name = str(path.relative_to(base.live))
    damage(path, place, draw)
    began = time.monotonic()
    status, said, failure = base.again()
    seconds = time.monotonic() - began
    errors = [line for line in said.splitlines() if line.startswith("tfdistill: error:")]
    if failure:
        outcome, said = "crashed", failure
    elif status == 0:
        outcome = outcome_of(base, any(word in said for word in NOTICED))
    else:
        one = len(errors) == 1
        outcome = "refused" if one else "crashed"
    return Injection(base.state, kind, name, place, outcome, round(seconds, 1), said[-600:])


def outcome_of(base: Base, noticed: bool) -> str:
    """Return what a command that succeeded has made of a fault."""
    try:
        same = results(base.live) == base.expected
    except Exception:
        return "used silently"  # what it left cannot be read
    if not same:
        return "used silently"
    return "rebuilt" if noticed else "harmless"


def summary(done: list[Injection]) -> list[dict]:
    """Return one row for each kind of file, with the counts of what came of it."""
    rows = {}
    for one in done:
        rows.setdefault((one.state, one.kind), collections.Counter())[one.outcome] += 1
    return [
        {"state": state, "file": kind, "faults": sum(counts.values())}
        | {outcome: counts[outcome] for outcome in OUTCOMES}
        for (state, kind), counts in rows.items()
    ]


def write(path: Path, done: list[Injection], seed: int) -> None:
    """Write the counts, and every fault that was used or crashed."""
    rows = summary(done)
    wrong = [dataclasses.asdict(o) for o in done if o.outcome in ("used silently", "crashed")]
    total = {name: sum(row[name] for row in rows) for name in ("faults", *OUTCOMES)}
    found = {"seed": seed, **total, "by kind": rows, "wrong": wrong}
    path.write_text(json.dumps(found, indent=1) + "\n")


def print_table(done: list[Injection]) -> None:
    """Print the counts."""
    print(f"{'state':10} {'file':28} {'faults':>6} " + " ".join(f"{o:>13}" for o in OUTCOMES))
    for row in summary(done):
        cells = " ".join(f"{row[outcome]:13}" for outcome in OUTCOMES)
        print(f"{row['state']:10} {row['file']:28} {row['faults']:6} {cells}")
    total = collections.Counter(one.outcome for one in done)
    print(f"{len(done)} faults: " + ", ".join(f"{total[name]} {name}" for name in OUTCOMES))


def main() -> None:
    """Read the command line, inject, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=14, help="faults for each kind of file")
    parser.add_argument("--slow", type=int, default=6, help="the same, where exports are checked")
    parser.add_argument("--states", nargs="+", default=["finished", "half", "search", "exported"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for the studies")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    from tfdistill.utils import tensorflow

    tensorflow.start()
    done = []
    for state in given.states:
        draw = random.Random(f"{given.seed} {state}")
        base = Base(given.scratch.resolve(), state)
        for _, kind, pattern in (target for target in TARGETS if target[0] == state):
            for number in range(given.slow if state in SLOW else given.each):
                place = PLACES[number % len(PLACES)]
                one = inject(base, kind, pattern, place, draw)
                done.append(one)
                print(f"{one.state}: {one.file}: {one.place}: {one.outcome} {one.seconds} s")
                if one.outcome in ("used silently", "crashed"):
                    print(one.said)
                if given.output:
                    write(given.output, done, given.seed)
    print_table(done)


if __name__ == "__main__":
    main()
