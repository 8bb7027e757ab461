"""Configurations: frozen dataclasses, read from YAML and written back without loss.

A `StudyConfig` is what a user writes; a study turns it into `RunConfig`s, one per network to train
or ensemble to evaluate. Nothing here imports TensorFlow, so a wrong value is answered at once.
"""

from tfdistill.config.files import check_keys, digest, read_yaml, to_dict
from tfdistill.config.images import NORMALIZATIONS, AugmentConfig, DataConfig
from tfdistill.config.networks import (
    AVERAGES,
    CACHE_DTYPES,
    DIVERGENCES,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    CacheConfig,
    DistillationConfig,
    ModelConfig,
    TrainingConfig,
)
from tfdistill.config.studies import (
    TUNERS,
    GridConfig,
    PopulationConfig,
    RunConfig,
    StudyConfig,
    SweepConfig,
)

__all__ = [
    "AVERAGES",
    "CACHE_DTYPES",
    "DIVERGENCES",
    "NORMALIZATIONS",
    "OPTIMIZERS",
    "PRECISIONS",
    "SCHEDULES",
    "TUNERS",
    "AugmentConfig",
    "CacheConfig",
    "DataConfig",
    "DistillationConfig",
    "GridConfig",
    "ModelConfig",
    "PopulationConfig",
    "RunConfig",
    "StudyConfig",
    "SweepConfig",
    "TrainingConfig",
    "check_keys",
    "digest",
    "read_yaml",
    "to_dict",
]
