"""A folder of image files, one sub-folder for each class.

Either `PATH/<class>/*`, where a stratified fifth is the test set, or `PATH/<part>/<class>/*` with
parts as `parts` names them. Classes are numbered in the order of their names, examples in the order
of their paths.
"""

from pathlib import Path

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.data import walk
from tfdistill.data.dataset import Examples, Reader, Source
from tfdistill.data.sources import parts
from tfdistill.utils import checks


def read(config: DataConfig, name: str) -> Source:
    """Return the images under the folder `name`.

    Raises:
        UsageError: The folder is missing; what its sub-folders are is unclear; a class is empty or
            missing in a part; a file cannot be read; or sizes differ and `config.image_size` is
            None.
    """
    root = Path(name).expanduser()
    if not root.is_dir():
        raise checks.UsageError(
            f"data.source 'folder:PATH' needs a folder of images. Received: {name!r}, which is no "
            f"folder."
        )
    skipped = walk.Skipped()
    folders = _folders(root, skipped)
    roots = _parts(folders, root) or {parts.TRAIN: root}
    classes = {
        part: folders if place == root else _folders(place, skipped)
        for part, place in roots.items()
    }
    names = _class_names(roots, classes, root)
    alike = _alike(classes[parts.TRAIN], root)
    inner = [folder for some in classes.values() for folder in some]
    known = _different([root, *(place for place in roots.values() if place != root), *inner])
    files = {part: _files(some, names, known, skipped) for part, some in classes.items()}
    every = [path for groups in files.values() for group in groups for path in group]
    config, told = parts.resolved(config, every)
    found = {part: _examples(roots[part], files[part], config) for part in roots}
    notes = skipped.lines() + alike + parts.kinds(every) + told
    if len(roots) == 1 and roots[parts.TRAIN] != root:
        notes.append(f"{root} holds only {roots[parts.TRAIN].name}; all parts are taken from it")
    return parts.source(names, found, config.split_seed, lambda part: f"{roots[part].name}/", notes)


def _folders(root: Path, skipped: walk.Skipped) -> list[Path]:
    """Return the sub-folders of a folder, and count what lies beside them as left out."""
    try:
        inside = walk.listed(root)
    except OSError as error:
        raise checks.UsageError(f"Cannot read the folder {root}: {error.strerror}.") from None
    for path, kind in inside:
        if kind != walk.FOLDER:
            skipped.add(walk.LOOSE if kind == walk.IMAGE else kind, path)
    found = [path for path, kind in inside if kind == walk.FOLDER]
    for path in found:
        if not walk.is_text(Path(path.name)):
            raise checks.UsageError(
                "The name of a class must be UTF-8. Received: the folder "
                f"{walk.name_of(path)}. Rename it."
            )
    return found


def _parts(folders: list[Path], root: Path) -> dict[str, Path] | None:
    """Return the folders of parts, None where there are those of classes."""
    found: dict[str, Path] = {}
    named = [folder for folder in folders if parts.part_of(folder.name)]
    others = [folder.name for folder in folders if folder not in named]
    if not named:
        return None
    if others:
        raise checks.UsageError(
            f"{root} must hold either classes or parts ({parts.words()}). Received: "
            f"{_few([folder.name for folder in named])} beside {_few(others)}. Move away what is "
            "neither, rename the class, or list the images in a file: data.source csv:FILE."
        )
    for folder in named:
        part = str(parts.part_of(folder.name))
        if part in found:
            raise checks.UsageError(
                f"{root} must hold one folder for each part. Received: {found[part].name} and "
                f"{folder.name}. Put the images of both into one."
            )
        found[part] = folder
    if parts.TRAIN not in found:
        raise checks.UsageError(
            f"{root} needs a folder of training images (train or training). Received: "
            f"{_few([folder.name for folder in named])} alone. Add it, or rename the class."
        )
    # The order in which parts are read and told.
    return {part: found[part] for part in parts.WORDS if part in found}


def _class_names(
    roots: dict[str, Path], classes: dict[str, list[Path]], root: Path
) -> tuple[str, ...]:
    for part, folders in classes.items():
        if len(folders) < 2:
            raise checks.UsageError(
                f"{roots[part]} needs one sub-folder for each of at least 2 classes. Received: "
                f"{len(folders)}. Sort the images into such folders, or move this one away."
            )
    names = {part: {folder.name for folder in folders} for part, folders in classes.items()}
    parts.same_classes({roots[part].name: some for part, some in names.items()}, str(root))
    return tuple(sorted(names[parts.TRAIN]))


def _alike(folders: list[Path], root: Path) -> list[str]:
    """Return what is told of classes that all hold the same folders: they may be no classes.

    Raises:
        UsageError: These folders are called as parts are.
    """
    inner = [
        {path.name for path, kind in walk.listed(folder) if kind == walk.FOLDER}
        for folder in folders
    ]
    common = sorted(set.intersection(*inner))
    if len(common) < 2 or any(names != set(common) for names in inner):
        return []
    classes = _few([folder.name for folder in folders])
    if all(map(parts.part_of, common)):
        raise checks.UsageError(
            f"{root} must hold parts above classes, as train/cat. Received: classes ({classes}) "
            f"that each hold {_few(common)}. Put the folders in this order, or list the images "
            "in a file: data.source csv:FILE."
        )
    return [
        f"Each of {classes} holds the folders {_few(common)}; they are taken as classes. If they "
        "are parts of the images, rename them train, val and test"
    ]


def _different(folders: list[Path]) -> set[tuple[int, int]]:
    """Return the identities of folders, which must not be the same one under two names."""
    known: dict[tuple[int, int], Path] = {}
    for folder in folders:
        other = known.setdefault(walk.identity(folder), folder)
        if other != folder:
            raise checks.UsageError(
                f"Parts and classes must be different folders. Received: {other} and {folder}, "
                "which are the same. Remove the link."
            )
    return set(known)


def _files(
    folders: list[Path],
    names: tuple[str, ...],
    known: set[tuple[int, int]],
    skipped: walk.Skipped,
) -> list[list[Path]]:
    """Return the image files of each class."""
    by_name = {folder.name: folder for folder in folders}
    files = [_images(by_name[name], known, skipped) for name in names]
    of = f"{folders[0].parent.name} (files {' '.join(walk.ENDINGS)})"
    checks.no_empty_class(map(len, files), names, of)
    return files


def _images(folder: Path, known: set[tuple[int, int]], skipped: walk.Skipped) -> list[Path]:
    found = []
    for path, kind in walk.below(folder, known):
        if isinstance(kind, OSError):
            raise checks.UsageError(f"Cannot read the folder {path}: {kind.strerror}.")
        if kind == walk.IMAGE and not walk.is_text(path.relative_to(folder)):
            skipped.add(walk.NO_TEXT, path)
        elif kind == walk.IMAGE:
            found.append(path)
        else:
            skipped.add(kind, path)
    return sorted(found)


def _examples(root: Path, files: list[list[Path]], config: DataConfig) -> Examples:
    labels = np.repeat(np.arange(len(files)), list(map(len, files)))
    paths = [path for group in files for path in group]
    return parts.examples(paths, labels, config, str(root.resolve()))


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)


READER = Reader(read, argument="PATH")
