"""What a run is: typed settings from the stage's row, then a YAML file, then `--set key=value`."""

from .clips import BatchConfig, ClipConfig, DataConfig
from .curation import CurateConfig, LimitsConfig, MeasureConfig, resolve_curation
from .resolve import merge, parse, resolve, stage_in
from .same_run import flat_settings, require_same_run
from .sections import (
    DistilConfig,
    LoraConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SaveConfig,
    ValidationConfig,
)
from .stored import relocated, stored_settings

__all__ = [
    "BatchConfig",
    "ClipConfig",
    "CurateConfig",
    "DataConfig",
    "DistilConfig",
    "LimitsConfig",
    "LoraConfig",
    "LossConfig",
    "MeasureConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "SaveConfig",
    "ValidationConfig",
    "flat_settings",
    "merge",
    "parse",
    "relocated",
    "require_same_run",
    "resolve",
    "resolve_curation",
    "stage_in",
    "stored_settings",
]
