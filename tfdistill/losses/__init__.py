"""Distillation losses: each a formula with one value per example, and a Keras loss around it.

Their names in a configuration are in `tfdistill.config.registry`.
"""

from tfdistill.losses.attention import AttentionTransfer, attention_transfer
from tfdistill.losses.binary import BinarySoftTargets, binary_soft_targets
from tfdistill.losses.decoupled import Decoupled, decoupled
from tfdistill.losses.dist import Dist, dist
from tfdistill.losses.feature_loss import ActivationLoss
from tfdistill.losses.hints import Hints, hints
from tfdistill.losses.logit_loss import TemperedLoss
from tfdistill.losses.probabilistic import Probabilistic, probabilistic
from tfdistill.losses.relational import (
    RelationalAngle,
    RelationalDistance,
    relational_angle,
    relational_distance,
)
from tfdistill.losses.similarity import SimilarityPreserving, similarity_preserving
from tfdistill.losses.soft_targets import SoftTargets, soft_targets

__all__ = [
    "ActivationLoss",
    "AttentionTransfer",
    "BinarySoftTargets",
    "Decoupled",
    "Dist",
    "Hints",
    "Probabilistic",
    "RelationalAngle",
    "RelationalDistance",
    "SimilarityPreserving",
    "SoftTargets",
    "TemperedLoss",
    "attention_transfer",
    "binary_soft_targets",
    "decoupled",
    "dist",
    "hints",
    "probabilistic",
    "relational_angle",
    "relational_distance",
    "similarity_preserving",
    "soft_targets",
]
