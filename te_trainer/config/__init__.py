"""Configuration of the main job: one dataclass per YAML section, parsed from a file and dotted overrides."""

from te_trainer.config.parser import parse
from te_trainer.config.schema import DataConfig, DistillationConfig, LoraConfig, ModelConfig, RunConfig

__all__ = ["DataConfig", "DistillationConfig", "LoraConfig", "ModelConfig", "RunConfig", "parse"]
