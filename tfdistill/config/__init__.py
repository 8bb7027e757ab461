"""Configurations: frozen dataclasses, read from YAML and written back without loss.

A `StudyConfig` is what a user writes; a study turns it into `RunConfig`s, one per network to train
or ensemble to evaluate. Nothing here imports TensorFlow, so a wrong value is answered at once.
"""

from tfdistill.config.building import build, check_keys, settings_of, to_dict, with_option
from tfdistill.config.data import NORMALIZATIONS, AugmentConfig, DataConfig
from tfdistill.config.distillation import (
    AVERAGES,
    CACHE_DTYPES,
    CACHE_PRECISIONS,
    DIVERGENCES,
    TEACHER_VIEWS,
    CacheConfig,
    DistillationConfig,
    FeatureConfig,
)
from tfdistill.config.export import ExportConfig, export_name
from tfdistill.config.study import (
    NETWORK,
    TUNERS,
    ChannelSplitConfig,
    PopulationConfig,
    PruneConfig,
    QuantizeConfig,
    RunConfig,
    StudyConfig,
    SweepConfig,
)
from tfdistill.config.training import OPTIMIZERS, PRECISIONS, SCHEDULES, ModelConfig, TrainingConfig
from tfdistill.config.yaml_files import read_yaml

__all__ = [
    "AVERAGES",
    "CACHE_DTYPES",
    "CACHE_PRECISIONS",
    "DIVERGENCES",
    "NETWORK",
    "NORMALIZATIONS",
    "OPTIMIZERS",
    "PRECISIONS",
    "SCHEDULES",
    "TEACHER_VIEWS",
    "TUNERS",
    "AugmentConfig",
    "CacheConfig",
    "ChannelSplitConfig",
    "DataConfig",
    "DistillationConfig",
    "ExportConfig",
    "FeatureConfig",
    "ModelConfig",
    "PopulationConfig",
    "PruneConfig",
    "QuantizeConfig",
    "RunConfig",
    "StudyConfig",
    "SweepConfig",
    "TrainingConfig",
    "build",
    "check_keys",
    "export_name",
    "read_yaml",
    "settings_of",
    "to_dict",
    "with_option",
]
