"""Where a study goes on: what must be as it was for its finished runs, and what is told if not.

Its configuration is compared before TensorFlow is started, in `runner.check_folder`.
"""

from collections.abc import Iterator
from pathlib import Path

from tfdistill import data, records
from tfdistill.config import RunConfig, to_dict
from tfdistill.records import Record
from tfdistill.utils import checks, machine, storage
from tfdistill.utils.progress import Silent
from tfdistill.utils.storage import digest


def check(runs: list[RunConfig], folder: Path, progress: Silent) -> None:
    """Raise if records are of other images; tell if they are of other versions or another device.

    Args:
        runs: The runs that are planned; of records on other images than theirs nothing is said.
        folder: The study's folder.
        progress: Where to tell.

    Raises:
        UsageError: Results on changed images would stand in one table with those before.
    """
    found = list(_readable(folder))
    _check_images(runs, found, folder)
    changed = []
    now = _circumstances(machine.versions(), machine.device(), machine.threads())
    for name, value in now.items():
        others = sorted({_of(record).get(name, value) for record in found} - {value})
        changed += [f"{name} {' and '.join(others)} (now {value})"] if others else []
    if changed:
        progress.say(f"Runs that are finished were done with {', '.join(changed)}: bits may differ")


def _check_images(runs: list[RunConfig], found: list[Record], folder: Path) -> None:
    known = {digest(to_dict(run.data)): run.data for run in runs}
    for record in found:
        images = known.get(digest(record.config.get("data")))
        if images is None or not record.images:
            continue
        here = data.load(images).hashes
        changed = [part for part in here if here[part] != record.images.get(part)]
        if changed:
            raise checks.UsageError(
                f"The images of {images.source} ({', '.join(changed)}) have changed since "
                f"{record.name} was done in {folder}. Put them back, or choose another --output."
            )


def _readable(folder: Path) -> Iterator[Record]:
    """Yield the records that are whole; what is damaged is done again."""
    for path in sorted(folder.glob("runs/*/")):
        try:
            record = records.read(path)
        except storage.DamagedError:
            continue
        if record:
            yield record


def _of(record: Record) -> dict[str, str]:
    return _circumstances(record.versions, record.device, record.environment.get("threads"))


def _circumstances(versions: dict, device: str, threads: int | None) -> dict[str, str]:
    """Return what bits follow from, by name; nothing of what is not known."""
    found = {**versions, "device": device, "threads": threads}
    return {name: str(value) for name, value in found.items() if value}
