"""Damage a study's own files by hand, checksums right, and give them to what reads them.

Makes a small study, then gives `report`, `run --dry-run`, `export` and `reproduce` copies of it in
which config.yaml or a run's record.json has one thing wrong (tests/faults/study_files.py). All must
refuse it with status 1 or 2 and one line that names the file; `run --dry-run` may also say that a
damaged run is to be done again. Prints what was answered otherwise, and the slowest answer.

    python benchmarks/faults study_files
"""

import argparse
import contextlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.faults import study_files
from tfdistill.cli.main import main as tfdistill

STUDY = """\
study: mysteries
seeds: [0]
data: {source: digits, validation: 100, train_examples: 100}
teacher: {name: cnn2, width: 0.125}
training: {epochs: 2, batch_size: 32}
"""
RUN = "distilled-0"


def fault(arguments: list[str], named: Path, may_be_done_again: bool) -> tuple[str, float]:
    """Return what is wrong with the answer to a command, empty if nothing is, and its seconds."""
    said, errors, start = io.StringIO(), io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        try:
            status = tfdistill(arguments)
        except BaseException as error:  # whatever it is, it is a traceback for the user
            place = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})", 0.0
    seconds, lines = time.perf_counter() - start, errors.getvalue().splitlines()
    if status == 0 and may_be_done_again and "to do" in said.getvalue():
        return "", seconds
    if status not in (1, 2):
        return f"status {status}", seconds
    if len(lines) != 1:
        return f"{len(lines)} lines: {lines}", seconds
    return "" if named.name in lines[0] or str(named.parent) in lines[0] else lines[0], seconds


def tried(study: Path, user: Path, named: Path, contents: bytes, scratch: Path) -> dict:
    """Return what was wrong, by command, with the answers about one damaged file; and the times."""
    whole = named.read_bytes()
    named.write_bytes(contents)
    is_record = named.name == "record.json"
    commands = {
        "report": ["report", str(study)],
        "run --dry-run": ["run", str(user), "--output", str(study), "--dry-run"],
        "export": ["export", str(study), "--folder", str(scratch / "models")],
        "reproduce": ["reproduce", str(named.parent), "--output", str(scratch / "again")],
    }
    if not is_record:
        del commands["reproduce"]
    found = {}
    for name, arguments in commands.items():
        found[name] = fault(arguments, named, is_record and name == "run --dry-run")
        for made in ("models", "again"):
            shutil.rmtree(scratch / made, ignore_errors=True)
    named.write_bytes(whole)
    return found


def main() -> int:
    """Make the study, damage it in every way, print what was answered wrongly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as folder:
        scratch, study = Path(folder), Path(folder) / "study"
        user = scratch / "user.yaml"
        user.write_text(STUDY)
        command = [sys.executable, "-m", "tfdistill", "run", str(user), "--output", str(study)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        config, record = study / "config.yaml", study / "runs" / RUN / "record.json"
        cases = [
            (config, name, contents)
            for name, contents in study_files.configurations(config.read_text()).items()
        ]
        cases += [
            (record, name, contents)
            for name, contents in study_files.records(json.loads(record.read_text())).items()
        ]
        faults, slowest, count = 0, (0.0, ""), 0
        for named, name, contents in cases:
            if only not in name:
                continue
            for asked, (wrong, seconds) in tried(study, user, named, contents, scratch).items():
                count += 1
                slowest = max(slowest, (seconds, f"{asked}: {name}"))
                if wrong:
                    faults += 1
                    print(f"{named.name}: {name}: {asked}: {wrong[:300]}", flush=True)
    print(f"{count} commands, {faults} answered wrongly; slowest {slowest[0]:.1f} s, {slowest[1]}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
