"""Versions of a model on disk: `FOLDER/NAME/1`, `2`, ..., each appearing whole by one rename.

TensorFlow Serving watches FOLDER/NAME and loads every folder there whose name is a number, so a
version is written under a hidden name beside it, flushed to disk, and only then renamed. A version
is never written again.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from tfdistill.config.registry import EXPORT_FORMATS
from tfdistill.utils import checks, storage
from tfdistill.utils.storage import sha256

FULL = "Make room, or name another folder with --folder."
DENIED = "Name another folder with --folder."
REMEDY = "Export the network again: it becomes a new version."
HIDDEN = "export"
CARD = "model_card"
LOCK = ".lock"


def versions(model: Path) -> list[int]:
    """Return the numbers of a model's versions, in order; none where there is no such folder."""
    if not Path(model).is_dir():
        return []
    return sorted(int(path.name) for path in Path(model).iterdir() if _is_version(path))


def latest(model: Path) -> Path | None:
    """Return the folder of a model's newest version, None where there is none."""
    found = versions(model)
    return Path(model) / str(found[-1]) if found else None


@dataclass
class NewVersion:
    """A version that is being written.

    Args:
        folder: The hidden folder that it is written into.
        target: The folder of the version.
        placed: Whether it is in place there.
    """

    folder: Path
    target: Path
    placed: bool = False

    @property
    def number(self) -> int:
        """The number of the version."""
        return int(self.target.name)


@contextlib.contextmanager
def new_version(model: Path) -> Iterator[NewVersion]:
    """Yield a hidden folder to write into; on success it becomes the model's next version.

    Args:
        model: `FOLDER/NAME`; made where it is missing.

    Yields:
        A `NewVersion`.

    Raises:
        UsageError: No room on the disk, a folder that cannot be written, or another process that
            exports the same model. Nothing is left behind.
    """
    model = Path(model)
    made = _first_missing(model)
    with storage.explained(model, "for the export", FULL, DENIED):
        model.mkdir(parents=True, exist_ok=True)
        with _alone(model):
            _remove_abandoned(model)
            hidden = storage.temporary_name(Path(HIDDEN))
            target = model / str(_next(model))
            new = NewVersion(Path(tempfile.mkdtemp(prefix=hidden, dir=model)), target)
            try:
                yield new
                _place(new)
            finally:
                shutil.rmtree(new.folder, ignore_errors=True)
                if made and not new.placed:
                    (model / LOCK).unlink()
                    _remove_empty(model, made)


def files_of(folder: Path) -> dict[str, dict]:
    """Return size and SHA-256 of every file of a version but its card, by relative path."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): facts_of(path)
        for path in paths
        if not path.name.startswith(CARD)
    }


def facts_of(file: Path) -> dict:
    """Return size and SHA-256 of one file, as a card lists it."""
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def card_of(folder: Path) -> dict | None:
    """Return the card of a version, None where there is none that is as it was written."""
    try:
        return storage.read_checked(Path(folder) / f"{CARD}.json")
    except storage.DamagedError:
        return None


def intact(folder: Path) -> dict | None:
    """Return the card of a version if its files are those that the card lists, else None."""
    card = card_of(folder)
    if not card or card.get("files") != files_of(folder):
        return None
    page = Path(folder) / f"{CARD}.md"
    whole = page.is_file() and card.get("page") in (None, sha256(page))
    return card if whole else None


def check(path: Path) -> None:
    """Raise if an exported model is not what was exported, where a card beside it tells.

    Args:
        path: A SavedModel's folder, whose other formats may be missing, or one file of an export.

    Raises:
        DamagedError: One line that names the file.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    card = folder / f"{CARD}.json"
    if not card.exists():
        return
    try:
        listed = storage.read_checked(card).get("files", {})
    except storage.DamagedError as error:
        raise checks.UsageError(f"{error.problem}. {REMEDY}") from None
    others = [format.file for format in EXPORT_FORMATS.values() if not format.parts]
    own = [path.name] if path != folder else [name for name in listed if name not in others]
    for name in own:
        there = folder / name
        if name in listed and not (there.is_file() and sha256(there) == listed[name]["sha256"]):
            raise storage.DamagedError(there, "is not what was exported", REMEDY)


def _is_version(path: Path) -> bool:
    return path.is_dir() and path.name.isascii() and path.name.isdigit()


def _next(model: Path) -> int:
    # Files and broken links count too: a number once used is not used for something else.
    numbers = [int(path.name) for path in model.iterdir() if path.name.isdecimal()]
    return max(numbers, default=0) + 1


def _place(new: NewVersion) -> None:
    # Servers run as other users; mkdtemp lets only its own user in.
    new.folder.chmod(0o755)
    _flush(new.folder)
    os.rename(new.folder, new.target)  # fails where somebody put files of their own meanwhile
    _flush_folder(new.target.parent)
    new.placed = True


@contextlib.contextmanager
def _alone(model: Path) -> Iterator[None]:
    try:
        held = filelock.FileLock(model / LOCK).acquire(timeout=0)
    except filelock.Timeout:
        raise checks.UsageError(
            f"Another process is exporting to {model}. Wait for it, or choose another --name."
        ) from None
    with held:
        yield


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        else:
            _flush_folder(path)
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(model: Path) -> None:
    """Remove what killed exports of this host left; nobody else is writing here now."""
    for folder in storage.abandoned(model, f"{HIDDEN}*"):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)


def _first_missing(folder: Path) -> Path | None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove the folders that were made for an export that failed."""
    for path in (folder, *folder.parents):
        try:
            path.rmdir()
        except OSError:
            return
        if path == top:
            return
