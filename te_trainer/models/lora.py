"""Low-rank adapters (LoRA, Hu et al., 2022) through peft: put on an encoder, counted, merged into plain weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import peft
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from te_trainer.config.schema import LoraConfig
from te_trainer.config.types import Kind
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
    layers = _layers(model)
    try:
        adapted = peft.get_peft_model(model, peft_config(model, kind, settings))
        if (paths := adapted.targeted_module_names) and all(map(_in_pooler, paths)):
            raise ValueError("the pooler alone would have one, and no score depends on it")
    except ValueError as error:
        reason, wanted = first_line(error), settings.target_modules
        if "lora_dropout" in reason:  # layers of experts
            raise InputError(
                f"lora.dropout: {settings.dropout:g}, where adapters of model {name} cannot have any ({reason}); set "
                "lora.dropout to 0"
            ) from None
        fix = f"take all-linear, or some of {', '.join(layers)}" if layers else "leave lora.rank out"
        raise InputError(
            f"lora.target_modules: {wanted if isinstance(wanted, str) else ', '.join(wanted)} names no layer of model "
            f"{name} that can have an adapter ({reason}); {fix}"
        ) from None
    return adapted


def check_targets(models: Iterable[PreTrainedModel], settings: LoraConfig) -> None:
    """Refuse a name of layers that none of a run's models has; peft passes over it where another name is found."""
    if isinstance(settings.target_modules, str):
        return
    models = list(models)
    paths = [f".{path}" for model in models for path, _ in model.named_modules()]
    for target in settings.target_modules:
        if not any(path.endswith(f".{target}") for path in paths):
            layers = sorted({layer for model in models for layer in _layers(model)})
            raise InputError(
                f"lora.target_modules: no model has a layer '{target}'; take all-linear, or some of {', '.join(layers)}"
            )


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


def _layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers that make token vectors."""
    modules = model.base_model.named_modules()
    paths = [path for path, module in modules if isinstance(module, nn.Linear | Conv1D) and not _in_pooler(path)]
    return sorted({path.rpartition(".")[2] for path in paths})


def _in_pooler(path: str) -> bool:
    return "pooler" in path.split(".")


def _head(model: PreTrainedModel) -> list[str]:
    """The modules between a cross-encoder's last layer and its logit, of which a plain PLM lacks some or all."""
    base = model.base_model_prefix
    modules = {name: module for name, module in model.named_children() if name != base}
    if isinstance(pooler := getattr(model.base_model, "pooler", None), nn.Module):
        modules[f"{base}.pooler"] = pooler
    return [name for name, module in modules.items() if next(module.parameters(), None) is not None]
