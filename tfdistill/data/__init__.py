"""Images, their splits, their views, and the batches that networks train on.

`SOURCES` lists the kinds of `data.source`. Names that need TensorFlow are loaded when first used.
"""

from tfdistill.data.dataset import Dataset, Examples
from tfdistill.data.loading import SOURCES, from_arrays, load
from tfdistill.utils.lazy import lazy_names

_LAZY = {
    "BatchSettings": "tfdistill.data.pipeline",
    "evaluation_batches": "tfdistill.data.pipeline",
    "steps_per_epoch": "tfdistill.data.pipeline",
    "training_batches": "tfdistill.data.pipeline",
    "view_batches": "tfdistill.data.pipeline",
}

__all__ = ["SOURCES", "Dataset", "Examples", "from_arrays", "load", *_LAZY]


__getattr__, __dir__ = lazy_names(__name__, _LAZY)
