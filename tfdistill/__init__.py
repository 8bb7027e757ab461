"""Knowledge distillation for image classification on Keras 3 and TensorFlow.

Public names are loaded when they are first used, so that `import tfdistill` does not wait for
TensorFlow.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "Distiller": "tfdistill.distiller",
    "FeatureLoss": "tfdistill.distiller",
    "Ensemble": "tfdistill.ensembles",
    "average_logits": "tfdistill.ensembles",
    "Population": "tfdistill.population",
    "TeacherCache": "tfdistill.teacher_cache",
    "SoftTargets": "tfdistill.losses",
    "ActivationLoss": "tfdistill.losses",
    "Decoupled": "tfdistill.losses",
    "Dist": "tfdistill.losses",
    "SimilarityPreserving": "tfdistill.losses",
    "Hints": "tfdistill.losses",
    "AttentionTransfer": "tfdistill.losses",
    "RelationalDistance": "tfdistill.losses",
    "RelationalAngle": "tfdistill.losses",
    "Probabilistic": "tfdistill.losses",
    "grad_cam": "tfdistill.saliency",
    "soft_targets": "tfdistill.losses",
    "similarity_preserving": "tfdistill.losses",
    "LossWeightSchedule": "tfdistill.schedules",
    "export_network": "tfdistill.exporting",
    "UsageError": "tfdistill.checks",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tfdistill' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__():
    return sorted(__all__)
