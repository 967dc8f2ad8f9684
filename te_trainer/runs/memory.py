"""How much memory a training takes on a process, said before it begins."""

from __future__ import annotations

from typing import Any

import torch

from te_trainer.config.schema import LoraConfig
from te_trainer.config.types import Kind
from te_trainer.distributed import device_type, process_state
from te_trainer.models import Checkpoint
from te_trainer.models.lora import parameter_counts, put_adapters

STATES = 4 + 4 + 8  # bytes of a trained parameter in float32: the weight, its gradient, AdamW's two moments
FROZEN = 4  # bytes of any other
# Korthikanti et al. (arXiv 2205.05198, equation 1) count 16-bit activations; float32 takes twice as much, and autocast
# keeps a part of them in float32 (docs/performance.md).
ACTIVATIONS = 2


def describe_training_memory(
    title: str, start: Checkpoint, kind: Kind, batch: int, max_length: int, lora: LoraConfig | None = None
) -> str:
    """What a training takes on a process whose batch holds so many pairs, or sentences of which it makes pairs."""
    model = start.empty_model(kind)
    adapted = put_adapters(model, kind, lora, start.name) if lora and lora.rank else model
    trained, parameters = parameter_counts(adapted)
    weights = f"{(STATES * trained + FROZEN * (parameters - trained)) / 1e9:.2f} GB of memory"
    texts = batch * (2 if kind == "bi-encoder" else 1)
    activations = activation_bytes(start.config, texts, max_length)
    more = "" if activations is None else f", and {activations / 1e9:.2f} GB for a batch of texts of full length"
    return f"{title} takes about {weights} for weights, gradients and AdamW{more}"


def describe_gpus() -> list[str]:
    """What memory the device has, if it is a GPU, and whether others have nothing to do."""
    if device_type() != "cuda":
        return []
    lines = [f"The GPU has {torch.cuda.get_device_properties(0).total_memory / 1e9:.1f} GB"]
    if (devices := torch.cuda.device_count()) > 1 and process_state().num_processes == 1:
        lines.append(f"The run computes on one of {devices} GPUs; accelerate_configs/multi_gpu.yaml is for all of them")
    return lines


def activation_bytes(config: Any, texts: int, length: int) -> int | None:
    """Bytes of a micro-batch's activations, all its texts of that many tokens; None of a model with other sizes."""
    try:
        hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    except AttributeError:
        return None
    return int(ACTIVATIONS * texts * length * layers * (34 * hidden + 5 * heads * length))
