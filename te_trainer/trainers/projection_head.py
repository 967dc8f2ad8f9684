"""A head that contrastive training puts on [CLS] and throws away (SimCSE, section 4: train with it, test without)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

NAME = "projection_head"


class ProjectionHead(nn.Module):
    """A linear layer and tanh.

    Args:
        hidden: width of the encoder.
        deviation: standard deviation of the weights; biases begin at 0.
        seed: of the weights.
    """

    def __init__(self, hidden: int, deviation: float = 0.02, seed: int = 0) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        nn.init.normal_(self.dense.weight, std=deviation, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.dense.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        return torch.tanh(self.dense(vectors))


def attach_head(model: PreTrainedModel, seed: int) -> RemovableHandle:
    """Put a new head on an encoder; the answer is what takes it off again.

    The head is a part of the encoder, so that whatever wraps the encoder for training (DDP, ZeRO, FSDP) has it too,
    and it works inside the encoder's forward pass: in training mode `last_hidden_state` is then the head's output, of
    every token, because padding may stand before the first one; that costs less than a percent of a base model.
    """
    head = ProjectionHead(model.config.hidden_size, getattr(model.config, "initializer_range", 0.02), seed)
    model.add_module(NAME, head.to(model.device))
    return model.register_forward_hook(_project)


def detach_head(model: PreTrainedModel, handle: RemovableHandle) -> None:
    """Take the head off again."""
    handle.remove()
    delattr(model, NAME)


def drop_saved_head(folder: Path) -> None:
    """Take the head's weights out of a saved encoder."""
    for path in folder.glob("*.safetensors"):
        weights = load_file(path)
        kept = {name: weight for name, weight in weights.items() if not name.startswith(f"{NAME}.")}
        if len(kept) < len(weights):
            save_file(kept, path, metadata={"format": "pt"})


def _project(model: nn.Module, inputs: Any, output: Any) -> Any:
    if model.training:
        output.last_hidden_state = getattr(model, NAME)(output.last_hidden_state)
    return output
