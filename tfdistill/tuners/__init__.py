"""Tuners: Keras Tuner for distillation, with several seeds, exact resume and one compiled step."""

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

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
