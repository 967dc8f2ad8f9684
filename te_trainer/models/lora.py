"""Low-rank adapters (LoRA, Hu et al., 2022) through peft: put on an encoder, counted, merged into plain weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from te_trainer.config.schema import Kind, LoraConfig
from te_trainer.errors import InputError, first_line
from te_trainer.models import Encoder


def peft_config(model: PreTrainedModel, kind: Kind, settings: LoraConfig) -> peft.LoraConfig:
    """The configuration of adapters for an encoder's model; a cross-encoder's head is trained in full."""
    rank, targets = int(settings.rank or 0), settings.target_modules
    return peft.LoraConfig(
        task_type=peft.TaskType.SEQ_CLS if kind == "cross-encoder" else peft.TaskType.FEATURE_EXTRACTION,
        r=rank,
        lora_alpha=settings.alpha or 2 * rank,
        lora_dropout=settings.dropout,
        # peft would read any other string as a regular expression
        target_modules=[targets] if isinstance(targets, str) and targets != "all-linear" else targets,
        modules_to_save=_head(model) if kind == "cross-encoder" else None,
    )


def put_adapters(model: PreTrainedModel, kind: Kind, settings: LoraConfig, name: str) -> peft.PeftModel:
    """Put adapters on an encoder's model, which may have no weights; `name` is the checkpoint's."""
    linear = {
        path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    try:
        return peft.get_peft_model(model, peft_config(model, kind, settings))
    except ValueError as error:
        wanted = settings.target_modules
        raise InputError(
            f"lora.target_modules: {wanted if isinstance(wanted, str) else ', '.join(wanted)} names no layer of model "
            f"{name} that can have an adapter ({first_line(error)}); take all-linear, or some of "
            f"{', '.join(sorted(linear))}"
        ) from None


def merge_saved(encoder: Encoder, folder: Path) -> None:
    """Merge a saved adapter, and a cross-encoder's trained head, into the encoder that its training started from."""
    adapted: Any = peft.PeftModel.from_pretrained(encoder.model, str(folder), torch_device="cpu")
    encoder.model = adapted.merge_and_unload()


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """How many parameters a model trains, and how many it has; also of a model that ZeRO-3 has partitioned."""
    sizes = [
        (weight.requires_grad, getattr(weight, "ds_numel", weight.numel()))
        for name, weight in model.named_parameters()
        # peft keeps the original of a module that is trained in full
        if ".original_module." not in name
    ]
    return sum(size for trains, size in sizes if trains), sum(size for _, size in sizes)


def _head(model: PreTrainedModel) -> list[str]:
    """The modules between a cross-encoder's last layer and its logit, of which a plain PLM lacks some or all."""
    base = model.base_model_prefix
    modules = {name: module for name, module in model.named_children() if name != base}
    if isinstance(pooler := getattr(model.base_model, "pooler", None), nn.Module):
        modules[f"{base}.pooler"] = pooler
    return [name for name, module in modules.items() if next(module.parameters(), None) is not None]
