"""Do hundreds of runs in one process and measure what they leave: memory, objects, files, threads.

Each case is a process of its own:

    study     `tfdistill train`: a teacher and networks alone, in the second half students of its
              stored logits; runs of one kind share a compiled step
    changing  alone, taught by stored logits, taught by the live teacher, and an ensemble in turn,
              so that every run is recompiled

Prints slopes in both halves, each without its warm-up (the first step of a kind takes memory once).
Linux only. 20 minutes on two cores.

    python benchmarks/faults long_run --picture long_run.png
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
CASES = ("study", "changing")
FIGURES = {
    "memory": "resident memory, MB",
    "blocks": "Python's blocks, 1000s",
    "files": "open files",
    "threads": "threads",
}


def measured() -> dict[str, float]:
    """Return this process's resident memory in MB, memory blocks that Python's objects take in
    1000s, open files and threads."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    return {
        "memory": resident / 1e6,
        "blocks": sys.getallocatedblocks() / 1e3,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


def tell(values: dict) -> None:
    """Print a line of JSON for the process that started this one."""
    print(json.dumps(values), flush=True)


def configuration(runs: int, output: str):
    """Return a study of about `runs` tiny runs: 64 images, one epoch each."""
    from tfdistill.config import DataConfig, ModelConfig, StudyConfig, TrainingConfig

    return StudyConfig(
        study="single",
        output=output,
        seeds=list(range(runs // 2)),
        data=DataConfig(train_examples=64, validation=64, test_examples=64),
        teacher=ModelConfig("cnn2", width=0.125),
        training=TrainingConfig(epochs=1, batch_size=32),
    )


def study(runs: int, folder: Path) -> None:
    """Do one study."""
    from tfdistill.training import runner
    from tfdistill.utils.progress import Silent

    class Measuring(Silent):
        def end(self, name, outcome):
            tell(measured())

    runner.run_study(configuration(runs - 1, str(folder)), folder, Measuring())


def changing(runs: int, folder: Path) -> None:
    """Do runs that differ in kind from the one before."""
    from tfdistill.training import runner
    from tfdistill.utils import tensorflow

    tensorflow.start()
    from tfdistill.training import train
    from tfdistill.training.session import Session

    session = Session()
    teacher, alone, taught = runner.plan(configuration(2, str(folder)))
    live = dataclasses.replace(taught, cache=None)
    ensemble = dataclasses.replace(
        alone, model=None, trained=False, members=("teacher", "run-1"), row="ensemble"
    )
    kinds = (alone, taught, live, ensemble)
    train.run(teacher, folder, session)
    tell(measured())
    for number in range(1, runs):
        run = dataclasses.replace(kinds[(number - 1) % 4], name=f"run-{number}", seed=number)
        train.run(run, folder, session)
        tell(measured())


def slope(values: list[float]) -> float:
    """Return the least-squares slope of values over their places, 0 of fewer than two."""
    places = [place - (len(values) - 1) / 2 for place in range(len(values))]
    squares = sum(place**2 for place in places)
    return sum(p * v for p, v in zip(places, values, strict=True)) / squares if squares else 0.0


def slopes(values: list[float], warm_up: int) -> list[float]:
    """Return the slopes in both halves of values, each without the first `warm_up`."""
    half = len(values) // 2 + 1
    return [slope(values[warm_up:half]), slope(values[half + warm_up :])]


def child(case: str, runs: int) -> None:
    """Do one case in this process and print its measurements as JSON lines."""
    with tempfile.TemporaryDirectory() as folder:
        {"study": study, "changing": changing}[case](runs, Path(folder) / "study")
        files = sorted({path.name for path in Path(folder).glob("study/runs/*/*")})
    tell({"files_of_a_run": files})


def case_of(name: str, runs: int, warm_up: int) -> dict:
    """Return the measurements of one case, done in a new process."""
    command = [sys.executable, __file__, "--case", name, "--runs", str(runs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *samples, last = map(json.loads, done.stdout.splitlines())
    series = {figure: [sample[figure] for sample in samples] for figure in FIGURES}
    found = {figure: slopes(values, warm_up) for figure, values in series.items()}
    return {"series": series, "slopes_per_run": found, "files_of_a_run": last["files_of_a_run"]}


def draw(cases: dict[str, dict], warm_up: int, path: Path) -> None:
    """Draw what was measured after every run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 9), layout="constrained")
    axes = figure.subplots(len(FIGURES), 1, sharex=True)
    for axis, (name, title) in zip(axes, FIGURES.items(), strict=True):
        for case, found in cases.items():
            values = found["series"][name]
            text = "{}: {:+.3f}, {:+.3f} a run".format(case, *found["slopes_per_run"][name])
            axis.plot(range(1, len(values) + 1), values, linewidth=1.2, label=text)
        for place in (0, len(values) // 2 + 1):
            axis.axvspan(place, place + warm_up, color="0.5", alpha=0.12, linewidth=0)
        axis.set_ylim(bottom=0)
        axis.set_ylabel(title)
        axis.legend(loc="lower right", fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("runs done in one process; slopes are of both halves without the grey")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=300, help="runs of each case")
    parser.add_argument("--warm-up", type=int, default=60, help="left out of each half")
    parser.add_argument("--case", choices=CASES, help="do this case here, and print every run")
    parser.add_argument("--output", type=Path, help="write the measurements as JSON")
    parser.add_argument("--picture", type=Path, help="draw them, as PNG")
    options = parser.parse_args()
    if options.case:
        child(options.case, options.runs)
        return
    cases = {name: case_of(name, options.runs, options.warm_up) for name in CASES}
    print(f"{'case':10} {'figure':22} {'warm-up':>9} {'end':>9} {'slopes a run':>16}")
    for name, found in cases.items():
        for figure, title in FIGURES.items():
            values = found["series"][figure]
            first, last = values[options.warm_up], values[-1]
            rises = "{:8.4f}{:8.4f}".format(*found["slopes_per_run"][figure])
            print(f"{name:10} {title:22} {first:9.1f} {last:9.1f} {rises}")
    if options.output:
        results = {"runs": options.runs, "warm_up": options.warm_up, "cases": cases}
        options.output.write_text(json.dumps(results) + "\n")
    if options.picture:
        draw(cases, options.warm_up, options.picture)


if __name__ == "__main__":
    main()
