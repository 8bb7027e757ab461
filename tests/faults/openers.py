"""What may happen when a file is opened, for processes that start no TensorFlow."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from tfdistill.utils.checks import UsageError


def endless(path):
    while True:
        time.sleep(1)


def killed(path):
    os.write(2, b"corrupted\nunsorted chunks")
    os.kill(os.getpid(), signal.SIGABRT)


def hoarder(path):
    parts = []
    while True:
        parts.append(np.empty(2**24))


def wrapped(path):
    try:
        hoarder(path)
    except MemoryError as error:
        raise OSError(f"h5py says: {error}") from None


def unknown(path):
    raise TypeError("Could not locate class 'Mine'. Make sure custom classes are decorated")


def wrong(path):
    raise UsageError(f"{path} takes\ntwo images.")


def good(path):
    assert Path(path).is_file()
    print("what a library says")
