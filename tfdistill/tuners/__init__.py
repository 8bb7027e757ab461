"""Tuners: Keras Tuner for distillation, with several seeds, exact resume and one compiled step."""

from typing import Any

from tfdistill.utils import checks
from tfdistill.utils.lazy import lazy_names

_PUBLIC = {
    **dict.fromkeys(
        ("BayesianOptimization", "GridSearch", "Hyperband", "RandomSearch"),
        "tfdistill.tuners.tuners",
    ),
    "DistillationHyperModel": "tfdistill.tuners.hypermodels",
    "DistillationTuner": "tfdistill.tuners.base_tuner",
}

__all__ = [*_PUBLIC]

_named, __dir__ = lazy_names(__name__, _PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        checks.installed(["keras_tuner"], "tune", f"tfdistill.tuners.{name}")
    return _named(name)
