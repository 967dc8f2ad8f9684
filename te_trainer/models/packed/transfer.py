"""Batches on their way to a GPU, which goes on computing meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

ON_CPU = "te_trainer_on_cpu"  # attribute of a mask on a GPU: what it was copied from


def to_device(inputs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch, its tensors on a device. Its mask stays known to the CPU: who reads it there need not wait for a GPU."""
    moved = {name: copied(value, device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
    mask = inputs.get("attention_mask")
    if mask is not None and mask.device.type == "cpu" and device.type != "cpu":
        setattr(moved["attention_mask"], ON_CPU, mask)
    return moved


def mask_on_cpu(mask: Tensor) -> Tensor:
    """A mask as the CPU knows it; it waits for a GPU only where `to_device` has not brought it there."""
    known: Tensor = getattr(mask, ON_CPU, mask)
    return known.cpu()


def copied(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device; from memory that a GPU reads by itself."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
