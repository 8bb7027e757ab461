"""What a user calls images or a network, as a configuration can name it: a source, a file.

Arrays and networks in memory are written into the output folder, so that what was begun can be
resumed, reported and reproduced from there.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdistill.config.registry import SOURCES
from tfdistill.data import walk
from tfdistill.records import RECORD_FILE, read
from tfdistill.training.study_folder import CONFIG_FILE
from tfdistill.utils import checks, foreign, storage

IMAGES_FILE, UNLABELLED_FILE = "images.npz", "unlabelled.npz"
GIVEN_TEACHER_FILE, GIVEN_STUDENT_FILE = "given_teacher.keras", "given_student.keras"
# Files that say how large images are.
LOOKED_AT = 100
PUBLISHED = ("keras", "hub")
NETWORK_ENDINGS = (".keras", ".h5", ".hdf5")
UNLABELLED_FORMS = "a folder of images, a text file of paths, a .npz file, tfds:NAME SPLIT"
TEACHER_FORMS = "a .keras file, a SavedModel, a finished run, keras:NAME, hub:PRESET or train:NAME"


def source_of(photos: Any, output: Path) -> str:
    """Return a `data.source` for what a user calls images.

    Args:
        photos: A folder, a CSV or .npz file, a source such as `tfds:NAME`; or (images, labels)
            arrays or a `tf.data.Dataset` of such pairs, which are written into `output`.

    Raises:
        UsageError: There is no such folder or file, it is no source, or arrays do not fit.
    """
    if not isinstance(photos, str | Path):
        x, y = _arrays(photos)
        return f"npz:{_written(output / IMAGES_FILE, x_train=x, y_train=y)}"
    path = Path(photos).expanduser()
    if path.is_dir() and str(photos):
        return f"folder:{path.resolve()}"
    kind = {".csv": "csv", ".npz": "npz"}.get(path.suffix.lower())
    if kind and path.is_file():
        return f"{kind}:{path.resolve()}"
    if str(photos).partition(":")[0] in SOURCES:
        return str(photos)
    raise checks.UsageError(
        "Images must be a folder with a sub-folder for each class, a CSV file of path,label, a "
        f".npz file of x_train and y_train, or a source such as tfds:NAME. Received: {photos!r}."
    )


def unlabelled_of(more: Any, output: Path) -> str | None:
    """Return a `data.unlabelled` for what a user calls images without labels."""
    if str(more).startswith("tfds:"):
        return str(more)
    if more is None:
        return None
    if isinstance(more, str | Path):
        if not str(more):
            raise checks.UsageError(f"unlabelled must be {UNLABELLED_FORMS}. Received: ''.")
        return str(Path(more).expanduser().resolve())
    return str(_written(output / UNLABELLED_FILE, x=_unlabelled_array(more)))


def _unlabelled_array(more: Any) -> np.ndarray:
    """Return images without labels, `[n, height, width, channels]`, of an array or a data set."""
    wrong = checks.UsageError(
        f"unlabelled must be {UNLABELLED_FORMS}, an array of images or a tf.data.Dataset of them. "
        f"Received: {getattr(more, 'element_spec', type(more).__name__)}."
    )
    if not _is_dataset(more):
        try:
            return np.asarray(more)
        except ValueError:  # of images and labels, or of images of several sizes
            raise wrong from None
    _check_ends(more)
    rank = getattr(getattr(more.element_spec, "shape", None), "rank", None)
    if rank not in (3, 4):
        raise wrong
    return _together(list(more.as_numpy_iterator()), np.stack if rank == 3 else np.concatenate)


def network_file(network: Any, output: Path, name: str) -> Path | str:
    """Return the file of a network that is given in memory, and what is none as it is."""
    if isinstance(network, str | Path):
        return network
    import keras

    if not isinstance(network, keras.Model):
        raise checks.UsageError(
            "A network must be a keras.Model, or the name or file of one. Received: "
            f"{type(network).__name__}."
        )
    from tfdistill.models import saved
    from tfdistill.models.fingerprint import architecture_hash, weights_hash

    path = output / name
    if path.exists():  # written again it would be another file, and what was begun with it lost
        try:
            before = saved.whole(path)
        except checks.UsageError:  # one that is damaged is written again
            before = None
        if before is not None:
            prints = [(weights_hash(each), architecture_hash(each)) for each in (before, network)]
            if prints[0] == prints[1]:
                return path
            _check_begun(path)
    with storage.appearing(path) as temporary:
        network.save(temporary)
        foreign.know(storage.sha256(temporary))
    return path


def finished_run(path: Path) -> Path:
    """Return the selected weights' file of a finished run's folder; another path as it is."""
    if not (path / RECORD_FILE).is_file():
        return path
    record = read(path)
    file = path / f"{record.select}.keras" if record else path
    if not file.is_file():
        raise checks.UsageError(f"{path} holds no finished network. Finish the run first.")
    return file


def no_network(path: Path) -> str:
    """Return why a file or folder holds no network, and where one is; empty where it may be one."""
    if path.is_file():
        return "" if path.suffix.lower() in NETWORK_ENDINGS else "another kind of file"
    for places, what in (("*/saved_model.pb", "SavedModels"), ("runs/*/record.json", "runs")):
        if found := sorted(path.glob(places)):
            return f"a folder of {what}: give one, such as {found[-1].parent}"
    return ""


def loose_images(photos: Any) -> list[Path]:
    """Return the images of a folder in which none lies in a class's folder; else nothing."""
    path = Path(photos).expanduser() if isinstance(photos, str | Path) else None
    if path is None or not path.is_dir():
        return []
    inside = walk.listed(path)
    if any(kind == walk.FOLDER for _, kind in inside):
        return []
    return [each for each, kind in inside if kind == walk.IMAGE and walk.is_text(each)]


def counted(photos: str) -> str:
    """Return, at once, how many files a folder holds, in words; empty for what is no folder."""
    path = Path(photos).expanduser()
    if not path.is_dir():
        return ""
    found = [each for each, kind in walk.below(path) if kind == walk.IMAGE]
    folders = {each.parent for each in found}
    return f"{len(found)} images in {len(folders)} folder{'s' * (len(folders) != 1)}"


def smaller(photos: Any, size: int) -> str:
    """Return, in words, whether a folder's images are smaller than a network sees them.

    Args:
        photos: Of a folder, a hundred files at most are looked at.
        size: Side in pixels.
    """
    path = Path(photos).expanduser() if isinstance(photos, str | Path) else None
    if path is None or not path.is_dir():
        return ""
    from PIL import Image

    every = [each for each, kind in walk.below(path) if kind == walk.IMAGE]
    sides = []
    for each in every[:: max(1, len(every) // LOOKED_AT)]:
        try:
            with Image.open(each) as image:
                sides.append(min(image.size))
        except Exception:  # whoever reads the images says what is wrong with them
            continue
    few = [side for side in sides if side < size]
    if not few:
        return ""
    return (
        f"{len(few)} of {len(sides)} images that were looked at are smaller than the {size} pixels "
        f"that the teacher sees, the smallest {min(few)}: they are enlarged, and it may know less "
        "of them"
    )


def _arrays(photos: Any) -> tuple[np.ndarray, np.ndarray]:
    if _is_dataset(photos):
        photos = _unbatched(photos)
    if not isinstance(photos, Sequence) or len(photos) != 2:
        raise checks.UsageError(
            "Images must be a folder, a file, a source, a pair of arrays (images, labels) or a "
            f"tf.data.Dataset of such pairs. Received: {type(photos).__name__}."
        )
    return np.asarray(photos[0]), np.asarray(photos[1])


def _is_dataset(value: Any) -> bool:
    return hasattr(value, "as_numpy_iterator")


def _unbatched(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of a data set of pairs, batched or not."""
    _check_ends(dataset)
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2 or isinstance(spec[0], (dict, tuple)):
        raise checks.UsageError(
            "A tf.data.Dataset of images must give pairs (image, label). Received elements: "
            f"{spec}."
        )
    pairs = list(dataset.as_numpy_iterator())
    if not pairs:
        raise checks.UsageError("Images are needed. Received: a tf.data.Dataset without any.")
    image, label = (np.shape(each) for each in pairs[0])
    batched = len(image) == 4
    if len(image) not in (3, 4) or label[batched:] not in ((), (1,)):
        raise checks.UsageError(
            "A tf.data.Dataset must give images [height, width, channels] and the number of each "
            f"one's class, batched or not. Received: {image} and {label}."
        )
    join = np.concatenate if batched else np.stack
    return _together([x for x, _ in pairs], join), join([y for _, y in pairs])


def _together(images: list[np.ndarray], join: Callable) -> np.ndarray:
    """Return images as one array, which they are only if all have one size."""
    try:
        return join(images)
    except ValueError:
        shapes = sorted({str(image.shape) for image in images})
        raise checks.UsageError(
            "Images of a tf.data.Dataset must be some, of one size. Received: "
            f"{' and '.join(shapes[:2]) or 'none'}. Resize them, as with tf.image.resize, to uint8."
        ) from None


def _check_ends(dataset: Any) -> None:
    import tensorflow as tf

    size = tf.data.experimental.cardinality(dataset)
    if size == tf.data.INFINITE_CARDINALITY:
        raise checks.UsageError("Images must end. Received: a tf.data.Dataset that repeats.")


def _written(path: Path, **arrays: np.ndarray) -> Path:
    with instead_of(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # one keyword for each array
    return path.resolve()


@contextlib.contextmanager
def instead_of(path: Path) -> Iterator[Path]:
    """Yield where to write a file again that a study in its folder may have been begun with.

    Raises:
        UsageError: It has become another one.
    """
    with storage.appearing(path) as temporary:
        yield temporary
        if path.exists() and storage.sha256(path) != storage.sha256(temporary):
            _check_begun(path)


def _check_begun(path: Path) -> None:
    """Raise if there is a study beside a file that another one was to replace."""
    if (path.parent / CONFIG_FILE).exists():
        raise checks.UsageError(
            f"{path.parent} holds a study that was begun with another {path.name}. Name another "
            f"output folder; of the same study, remove {path.name}."
        )
