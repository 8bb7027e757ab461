"""Reads all of a file of weights for a process of bounded memory, `utils.foreign`: no Keras here.

The h5py that TensorFlow takes has known weaknesses, and a dataset can say that it is of any
size: docs/reliability/supply_chain.md.
"""

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import h5py

WEIGHTS_MEMBER = "model.weights.h5"


@contextlib.contextmanager
def opened(path: str | Path):
    """Yield the HDF5 groups of a `.weights.h5` or `.keras` file."""
    with contextlib.ExitStack() as stack:
        file: Any = path
        if zipfile.is_zipfile(path):  # .keras
            file = stack.enter_context(zipfile.ZipFile(path)).open(WEIGHTS_MEMBER)
        yield stack.enter_context(h5py.File(file, "r"))


def read_once(path: str) -> None:
    """Read every array of a file, one after the other."""
    with opened(path) as groups:
        groups.visititems(_read)


def _read(name: str, item: h5py.Group | h5py.Dataset) -> None:
    if isinstance(item, h5py.Dataset):
        item[()]
