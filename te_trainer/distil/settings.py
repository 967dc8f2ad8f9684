"""What a configuration means for a stage: cycles, metric, training arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from te_trainer.config.defaults import CYCLES, paper_arguments
from te_trainer.config.parsing import key_types
from te_trainer.config.schema import (
    BiEncoderConfig,
    CrossEncoderConfig,
    Kind,
    ModelConfig,
    RunConfig,
)
from te_trainer.metrics import TASK_METRICS, Metric
from te_trainer.models import resolve_checkpoint
from te_trainer.runs.checks import check_section

ENCODER_KEYS = {"pooling", "max_length", "prompt"}  # of a section, but of the encoder and not of its training
KINDS: tuple[Kind, Kind] = ("bi-encoder", "cross-encoder")


def cycles_of(config: RunConfig) -> int:
    """Number of cycles: as configured, else the paper's for the task."""
    return config.distillation.cycles or CYCLES[config.distillation.task]


def kinds_of(config: RunConfig) -> tuple[Kind, ...]:
    """The kinds of encoders that a cycle trains."""
    return KINDS if config.distillation.students == "both" else ("bi-encoder",)


def start_of(model: ModelConfig, kind: Kind) -> str:
    """The checkpoint that a PLM's encoder of a kind starts from."""
    return model.bi_encoder if kind == "bi-encoder" else str(model.cross_encoder)


def stage_seed(seed: int, cycle: int, kind: Kind, model: int) -> int:
    """The seed of one training: head, order and dropout are drawn independently of all other trainings.

    A sum would meet that of another run: 2021 and a later cycle, 2023 and an earlier one.

    Args:
        seed: of the run.
        cycle: 0 is step 0.
        model: which of the run's `models`, from 0; so one that is added changes nothing for those before it.

    Returns:
        0 to 2^31 - 1.
    """
    words = np.random.SeedSequence((seed, cycle, KINDS.index(kind), model)).generate_state(1)
    return int(words[0]) >> 1


def keeps_all_cycles(config: RunConfig) -> bool:
    """Whether the encoders of all cycles stay until the run ends: agreement chooses only when it has seen them all."""
    return config.distillation.keep_cycles or config.distillation.selection == "agreement"


def metric_of(config: RunConfig) -> Metric:
    """The task's metric."""
    return TASK_METRICS[config.distillation.task][0]


def max_length_of(config: RunConfig, kind: Kind) -> int:
    """Tokens of a sentence or of a pair beyond which it is cut: as configured, else the paper's (Table 16)."""
    return section_of(config, kind).max_length


def section_of(config: RunConfig, kind: Kind) -> BiEncoderConfig | CrossEncoderConfig:
    """The section of one kind of encoder."""
    return config.bi_encoder if kind == "bi-encoder" else config.cross_encoder


def training_values(config: RunConfig, model: ModelConfig, kind: Kind, world_size: int = 1) -> dict[str, Any]:
    """Keyword arguments of an encoder's training arguments: the paper's, and over them what the user gave.

    The paper's batch size is the global one; it is divided among the ranks.
    """
    size = config.distillation.size
    if size == "auto":
        size = "large" if getattr(resolve_checkpoint(model.bi_encoder).config, "hidden_size", 0) >= 1024 else "base"
    values = paper_arguments(kind, config.distillation.task, size)
    values["per_device_train_batch_size"] = max(1, values["per_device_train_batch_size"] // world_size)
    values["precision"] = config.distillation.precision
    section = section_of(config, kind)
    if section.training.get("bf16") is False or section.training.get("fp16") is False:
        values["precision"] = "float32"
    schema: Any = type(section)
    own = {name: getattr(section, name) for name in key_types(schema) if name not in ENCODER_KEYS}
    return values | own | section.training


def check_training_values(config: RunConfig) -> None:
    """Refuse values of training keys that would only be noticed in the middle of a run.

    Raises:
        InputError: names the key.
    """
    for kind in KINDS:
        check_section(kind.replace("-", "_"), section_of(config, kind))
