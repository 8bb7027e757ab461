"""A study's folder: its configuration, its lock, and which of its runs need not be done again.

Nothing here starts TensorFlow, so that a plan and an error are answered at once; what finished runs
were done with is compared in `check_records`, when TensorFlow is there.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from tfdistill import records
from tfdistill.config import RunConfig, StudyConfig, build, formats, to_dict
from tfdistill.config.registry import STUDIES
from tfdistill.config.yaml_files import parse_yaml, yaml_text
from tfdistill.records import Record
from tfdistill.utils import checks, storage
from tfdistill.utils.storage import digest

if TYPE_CHECKING:
    from tfdistill.training.session import Session

CONFIG_FILE = "config.yaml"
# Its keys are the user's: those of the default do not belong to it.
_SPACE = "sweep.space"
LOCK = ".lock"
# What a study writes again at its end.
_PAGES = ("report.html", "results.csv", "deployment.json")
# Where images are kept, where results go and what is logged beside them change no result; other
# threads change bits, as another machine does, and are told by `check_records`.
_FREE_KEYS = {"output", "tensorboard", "note", "population", "export", "threads"}
_FREE_KEYS |= {"data.storage", "data.workers", "teacher_data.storage", "teacher_data.workers"}
# What may add runs to a study, and change none.
_ADDING_KEYS = {"seeds", "settings"}


def check_folder(config: StudyConfig, folder: Path, grows: bool = True) -> None:
    """Raise if a folder holds the results of another configuration.

    Args:
        config: What is to be done there.
        folder: Where.
        grows: Whether seeds and settings may differ where they only add runs: every run that was
            planned before is planned now, and as it was.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        return _check_free(folder)
    written = _written_config(path)
    there, here, different = _compared(written, config)
    if not different:
        return
    different.sort(key=lambda key: key.split(".")[0] in _ADDING_KEYS)  # told is what decides
    adds = grows and different[0].split(".")[0] in _ADDING_KEYS
    lost = _lost(written, config) if adds else None
    if lost != "":
        key = different[0]
        more = f" and {len(different) - 1} more" if len(different) > 1 else ""
        why = f": the run {lost} would be another or left out" if lost else ""
        raise checks.UsageError(
            f"{folder} holds the results of another configuration: {key} is {there.get(key)!r} "
            f"there and {here.get(key)!r} here{more}{why}. Choose another --output or remove it."
        )


def with_seeds_of(config: StudyConfig, folder: Path) -> StudyConfig:
    """Return a study with the seeds of the same study in another folder before its own.

    Raises:
        UsageError: That folder holds another study.
    """
    there, here, different = _compared(_written_config(folder / CONFIG_FILE), config)
    if others := [key for key in different if key != "seeds"]:
        key = others[0]
        raise checks.UsageError(
            f"{folder} holds another study: {key} is {there.get(key)!r} there and "
            f"{here.get(key)!r} here. Give a new folder."
        )
    seeds = dict.fromkeys([*there["seeds"], *config.seeds])
    return dataclasses.replace(config, seeds=list(seeds))


def _compared(written: dict, config: StudyConfig) -> tuple[dict, dict, list[str]]:
    """Return what was written and a study by dotted keys, and those that differ and matter."""
    # A key that an older version did not write had its default.
    there = _flat(_comparable(StudyConfig())) | _flat(written)
    here = _flat(_comparable(config))
    different = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    free = {key for key in different if {key, key.split(".")[0]} & _FREE_KEYS}
    return there, here, [key for key in different if key not in free]


def _lost(written: dict, config: StudyConfig) -> str | None:
    """Return the first run of what was written that is not planned as it was, "" without one.

    None means that what was written cannot be planned.
    """
    runs = STUDIES[config.study].runs
    known = {key: written[key] for key in _ADDING_KEYS & written.keys()}
    try:
        before = runs(build(StudyConfig, to_dict(config) | known))
    except checks.UsageError:  # settings of another version
        return None
    now = {run.name: run for run in runs(config)}
    return next((run.name for run in before if now.get(run.name) != run), "")


def _check_free(folder: Path) -> None:
    """Raise if files of a study's names lie where no study was: they are somebody's."""
    there = [name for name in _PAGES if (folder / name).exists()]
    if there and not (folder / "runs").is_dir():
        raise checks.UsageError(
            f"{folder} holds no study, but would lose its {' and '.join(there)}. Move what is "
            "there, or choose another --output."
        )


@contextlib.contextmanager
def alone(folder: Path, name: str = LOCK, wait: bool = False) -> Iterator[None]:
    """Hold a lock of a study's folder; where another process has it, raise, or wait for it."""
    try:
        with storage.explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held = filelock.FileLock(folder / name).acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        raise checks.UsageError(
            f"Another process is working in {folder}. Wait for it, or choose another --output."
        ) from None
    with held:
        yield


def write_config(config: StudyConfig, folder: Path) -> None:
    """Write the configuration into the study's folder."""
    with storage.appearing(folder / CONFIG_FILE) as path:
        values = {formats.KEY: formats.FORMAT, **_comparable(config)}
        text = yaml_text(values)
        path.write_text(storage.marked(text), encoding="utf-8")


def _written_config(path: Path) -> dict:
    values = parse_yaml(storage.unmarked(path), str(path))
    if not isinstance(values, dict):
        raise storage.DamagedError(path, "is damaged (it holds no keys and values)")
    return formats.current(values, formats.number(path, values))


def _comparable(config: StudyConfig) -> dict:
    return to_dict(dataclasses.replace(config, output=None))


def _flat(values: dict, prefix: str = "") -> dict:
    flat: dict = {}
    for key, value in values.items():
        inner = isinstance(value, dict) and prefix + key != _SPACE
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


def finished(run: RunConfig, folder: Path) -> Record | None:
    """Return the record of a run that need not be done again."""
    try:
        record = record_of(run, folder)
        needed = records.read_runs(folder, run.needs)
        if record is None or not records.is_of(record, to_dict(run), needed):
            return None
        records.check_files(records.run_folder(folder, run.name), record)
    except storage.DamagedError:
        return None
    return record


def damage(run: RunConfig, folder: Path) -> str:
    """Return what is damaged of a run that was finished; empty, if nothing is."""
    place = records.run_folder(folder, run.name)
    try:
        record = records.read(place)
        if record:
            records.check_files(place, record)
    except storage.DamagedError as error:
        return error.problem
    return ""


def recorded(run: RunConfig, folder: Path) -> bool:
    """Return whether a run has a record, of whatever state."""
    return (records.run_folder(folder, run.name) / records.RECORD_FILE).exists()


def record_of(run: RunConfig, folder: Path) -> Record | None:
    return records.read(records.run_folder(folder, run.name))


def check_records(
    runs: list[RunConfig], folder: Path, session: "Session", threads: int = 0
) -> None:
    """Raise if records are of other images; tell if they are of other versions or another device.

    Args:
        runs: The runs that are planned; of records on other images than theirs nothing is said.
        folder: The study's folder.
        session: Where to tell, and the images.
        threads: Of what will do the runs; 0: those of this process.

    Raises:
        UsageError: Results on changed images would stand in one table with those before.
    """
    from tfdistill.utils import machine

    found = list(readable(folder))
    _check_images(runs, found, folder, session)
    changed = []
    environment = machine.environment()
    environment["threads"] = threads or environment["threads"]
    for name in {run.training.strategy for run in runs} - {"none"}:
        environment["replicas"] = machine.strategy(name).num_replicas_in_sync
    now = _circumstances(machine.versions(), machine.device(), environment)
    for name, value in now.items():
        others = sorted({_of(record).get(name, value) for record in found} - {value})
        changed += [f"{name} {' and '.join(others)} (now {value})"] if others else []
    if changed:
        session.progress.say(
            f"Runs that are finished were done with {', '.join(changed)}: bits may differ"
        )


def _check_images(
    runs: list[RunConfig], found: list[Record], folder: Path, session: "Session"
) -> None:
    known = {digest(to_dict(run.data)): run.data for run in runs}
    for record in found:
        images = known.get(digest(record.config.get("data")))
        if images is None or not record.images:
            continue
        here = session.images(images).hashes
        changed = [part for part in here if here[part] != record.images.get(part)]
        if changed:
            raise checks.UsageError(
                f"The images of {images.source} ({', '.join(changed)}) have changed since "
                f"{record.name} was done in {folder}. Put them back, or choose another --output."
            )


def readable(folder: Path) -> Iterator[Record]:
    """Yield the records of a study that are whole; what is damaged is done again."""
    for path in sorted(folder.glob("runs/*/")):
        try:
            record = records.read(path)
        except storage.DamagedError:
            continue
        if record:
            yield record


def _of(record: Record) -> dict[str, str]:
    return _circumstances(record.versions, record.device, record.environment)


def _circumstances(versions: dict, device: str, environment: dict) -> dict[str, str]:
    """Return what bits follow from, by name; nothing of what is not known."""
    counts = {name: environment.get(name) for name in ("threads", "replicas")}
    found = {**versions, "device": device, **counts}
    found["code"] = str(environment.get("code", ""))[:12]
    return {name: str(value) for name, value in found.items() if value}
