"""Images, their splits, their views, and the batches that networks train on.

`SOURCES` lists the kinds of `data.source`. Names that need TensorFlow are loaded when first used.
"""

import importlib

from tfdistill.data.examples import Dataset, Examples
from tfdistill.data.sources import SOURCES, from_arrays, load

_LAZY = {
    "BatchSettings": "pipeline",
    "evaluation_batches": "pipeline",
    "steps_per_epoch": "pipeline",
    "training_batches": "pipeline",
    "view_batches": "pipeline",
}

__all__ = ["SOURCES", "Dataset", "Examples", "from_arrays", "load", *_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
