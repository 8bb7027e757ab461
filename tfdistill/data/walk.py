"""Image files below a folder, and what of it is left out: never without a word."""

import os
from collections.abc import Iterator
from pathlib import Path

from tfdistill.utils.text import printable

ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
NAMED = 3

# What is found in a folder: images and folders, and, as it is told, what is left out.
IMAGE, FOLDER = "image", "folder"
OTHER = f"without an image's ending ({' '.join(ENDINGS)})"
HIDDEN = "hidden"
LOST = "a link that leads nowhere"
AGAIN = "a folder that was read already"
NO_TEXT = "a name that is no UTF-8"
LOOSE = "in no class's folder"


class Skipped:
    """What was left out: how many of each kind, and the first of their names.

    Example:
        >>> skipped = Skipped()
        >>> skipped.add(HIDDEN, Path("photos/.DS_Store"))
        >>> skipped.lines()
        ['Skipped 1 (hidden): photos/.DS_Store']
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return sum(self._counts.values())

    def add(self, kind: str, path: Path) -> None:
        """Count one more of a kind."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        names = self._names.setdefault(kind, [])
        if len(names) < NAMED:
            names.append(name_of(path))

    def lines(self) -> list[str]:
        """Return a line for each kind."""
        return [
            f"Skipped {count} ({kind}): {', '.join(map(printable, self._names[kind]))}"
            f"{', ...' * (count > len(self._names[kind]))}"
            for kind, count in self._counts.items()
        ]


def name_of(path: Path) -> str:
    """Return a path as text that can be written anywhere, bytes that are no text escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_text(path: Path) -> bool:
    """Return whether a path is UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def identity(folder: Path) -> tuple[int, int]:
    """Return what is the same for a folder and all links to it."""
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def listed(folder: Path) -> list[tuple[Path, str]]:
    """Return what lies in a folder, in the order of names, and what each is.

    Raises:
        OSError: The folder cannot be read.
    """
    paths = [folder / name for name in sorted(os.listdir(folder))]
    return [(path, _kind(path)) for path in paths]


def below(
    root: Path, known: set[tuple[int, int]] | None = None
) -> Iterator[tuple[Path, str | OSError]]:
    """Yield all that lies below a folder, files before sub-folders, and what each is.

    Links are followed. Hidden folders are not entered, and none twice, so that links that lead
    round in circles end.

    Args:
        root: The folder.
        known: Identities of folders that are not entered, to which those that are entered are
            added.

    Yields:
        Path, and `IMAGE` or why it is left out; of a folder that cannot be read, the error.
    """
    known = set() if known is None else known
    known.add(identity(root))
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            inside = listed(folder)
        except OSError as error:
            yield folder, error
            continue
        entered = []
        for path, kind in inside:
            if kind != FOLDER:
                yield path, kind
            elif identity(path) in known:
                yield path, AGAIN
            else:
                known.add(identity(path))
                entered.append(path)
        folders += reversed(entered)


def _kind(path: Path) -> str:
    if path.name.startswith("."):
        return HIDDEN
    # Unlike those of Path, these raise nothing where links lead round in circles.
    if os.path.isdir(path):
        return FOLDER
    if os.path.islink(path) and not os.path.exists(path):
        return LOST
    return IMAGE if path.suffix.lower() in ENDINGS else OTHER
