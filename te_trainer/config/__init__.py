"""Configuration of the recipes: one dataclass per YAML section, parsed from a file and dotted overrides."""

from te_trainer.config.contrastive import parse_contrastive
from te_trainer.config.distil import parse
from te_trainer.config.evaluation import parse_evaluation
from te_trainer.config.push import parse_push
from te_trainer.config.schema import (
    ContrastiveConfig,
    ContrastiveDataConfig,
    DataConfig,
    DistillationConfig,
    EvaluationConfig,
    HubConfig,
    LoraConfig,
    ModelConfig,
    RunConfig,
    ScoreConfig,
    ScoreDataConfig,
)
from te_trainer.config.score import parse_score

__all__ = [
    "ContrastiveConfig",
    "ContrastiveDataConfig",
    "DataConfig",
    "DistillationConfig",
    "HubConfig",
    "EvaluationConfig",
    "LoraConfig",
    "ModelConfig",
    "RunConfig",
    "ScoreConfig",
    "ScoreDataConfig",
    "parse",
    "parse_contrastive",
    "parse_evaluation",
    "parse_score",
    "parse_push",
]
