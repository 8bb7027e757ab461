"""Knowledge distillation for image classification on Keras 3 and TensorFlow.

Public names are loaded when they are first used, so that `import tfdistill` does not wait for
TensorFlow.
"""

from tfdistill.utils.lazy import lazy_names

__version__ = "0.1.0"

_PUBLIC = {
    "distill": "tfdistill.recipes.distill",
    "Distiller": "tfdistill.distillation.distiller",
    "FeatureLoss": "tfdistill.distillation.feature_losses",
    "Ensemble": "tfdistill.distillation.ensembles",
    "average_logits": "tfdistill.distillation.ensembles",
    "Population": "tfdistill.distillation.population",
    "pick_classes": "tfdistill.models.class_choice",
    "prune": "tfdistill.models.pruning",
    "open_teacher": "tfdistill.models.teachers.opening",
    "new_head": "tfdistill.training.heads",
    "TeacherCache": "tfdistill.teacher_cache",
    "SoftTargets": "tfdistill.losses",
    "BinarySoftTargets": "tfdistill.losses",
    "binary_soft_targets": "tfdistill.losses",
    "ActivationLoss": "tfdistill.losses",
    "Decoupled": "tfdistill.losses",
    "Dist": "tfdistill.losses",
    "SimilarityPreserving": "tfdistill.losses",
    "Hints": "tfdistill.losses",
    "AttentionTransfer": "tfdistill.losses",
    "RelationalDistance": "tfdistill.losses",
    "RelationalAngle": "tfdistill.losses",
    "Probabilistic": "tfdistill.losses",
    "grad_cam": "tfdistill.studies.saliency.grad_cam",
    "soft_targets": "tfdistill.losses",
    "similarity_preserving": "tfdistill.losses",
    "LossWeightSchedule": "tfdistill.distillation.schedules",
    "MovingAverage": "tfdistill.distillation.moving_average",
    "export_network": "tfdistill.export.exporter",
    "UsageError": "tfdistill.utils.checks",
}

__all__ = ["__version__", *_PUBLIC]


_OF_KERAS = {
    "LogitsDistillation": ". Give Distiller(temperature=...), or soft_loss=SoftTargets(...)",
    "FeatureDistillation": ". Give features=[FeatureLoss(loss, weight, teacher_layer, ...)]",
    "DistillationLoss": ". Give a keras.losses.Loss as soft_loss, or FeatureLoss(loss, ...)",
}

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC, _OF_KERAS)
