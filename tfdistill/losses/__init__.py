"""Distillation losses: each a formula with one value per example, and a Keras loss around it."""

from tfdistill.losses.similarity import SimilarityPreserving, similarity_preserving
from tfdistill.losses.soft_targets import SoftTargets, soft_targets
from tfdistill.losses.tempered import TemperedLoss

LOGIT_LOSSES = {"soft_targets": SoftTargets}
FEATURE_LOSSES = {"similarity_preserving": SimilarityPreserving}

__all__ = [
    "FEATURE_LOSSES",
    "LOGIT_LOSSES",
    "SimilarityPreserving",
    "SoftTargets",
    "TemperedLoss",
    "similarity_preserving",
    "soft_targets",
]
