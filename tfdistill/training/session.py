"""What the runs of one process share, as one object that is handed from run to run."""

import dataclasses
from collections.abc import Callable

import numpy as np

from tfdistill import data
from tfdistill.config import DataConfig, to_dict
from tfdistill.training.learners import Workbench
from tfdistill.utils.progress import Silent
from tfdistill.utils.storage import digest

# Those of students and of teachers, and smaller ones of a rehearsal.
KEPT_DATASETS = 4
KEPT_LOGITS = 32


class Session:
    """Runs that follow each other with the same session do nothing twice that need not be.

    Images are read once, learners that differ only in alpha, temperature and seed are compiled
    once, and a teacher's logits on the test images are computed once.

    Args:
        progress: Where to show progress; None shows nothing.
        tensorboard: Also write TensorBoard logs into the runs' folders.
        reading: Its `storage` and `workers` hold for all images that are read.

    Example:
        >>> session = Session()
        >>> records = [train.run(config, folder, session) for config in configs]
    """

    def __init__(
        self,
        progress: Silent | None = None,
        tensorboard: bool = False,
        reading: DataConfig | None = None,
    ):
        self.progress = progress or Silent()
        self.tensorboard = tensorboard
        reading = reading or DataConfig()
        self._storage, self._workers = reading.storage, reading.workers
        self.bench = Workbench()
        self._images: dict[str, data.Dataset] = {}
        self.told: set[str] = set()  # of the images, what need not be told again
        self._logits: dict[str, np.ndarray] = {}

    def images(self, config: DataConfig) -> data.Dataset:
        """Return a configured data set, read and told about at the first call."""
        key = digest(to_dict(config) | {"augment": None, "input_size": None})
        images = _kept(self._images, key, KEPT_DATASETS, lambda: self._read(config))
        return images.at(config.input_size)

    def _read(self, config: DataConfig) -> data.Dataset:
        config = dataclasses.replace(config, storage=self._storage, workers=self._workers)
        images = data.load(config, lambda note: self._tell(note, self.progress.warn))
        self._tell(images.summary, self.progress.say)
        return images

    def _tell(self, text: str, tell: Callable[[str], None]) -> None:
        """Tell once, however often it is so."""
        if text not in self.told:
            self.told.add(text)
            tell(text)

    def logits(self, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the logits of a network on test images, computed at the first call.

        Args:
            key: Of the network and the images.
            compute: Returns them, `[n, classes]` float32.
        """
        return _kept(self._logits, key, KEPT_LOGITS, compute)


def _kept(known: dict, key: str, most: int, make: Callable):
    if key not in known:
        value = make()
        while len(known) >= most:
            del known[next(iter(known))]
        known[key] = value
    return known[key]
