"""Tiny encoders that tell sentences apart, and pairs to score by them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from conftest import sample_pairs, save_tiny
from torch import nn
from transformers import AutoModel, set_seed

from te_trainer.models import CrossEncoder


def enlarge_weights(model: nn.Module) -> None:
    """Make random weights large enough that [CLS] vectors and logits of different sentences lie far apart."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(12)


def save_telling(folder: Path, kind: str) -> str:
    """A tiny PLM that tells sentences apart by either pooling."""
    save_tiny(folder, kind)
    model = AutoModel.from_pretrained(folder)
    enlarge_weights(model)
    model.save_pretrained(folder)
    return str(folder)


def columns(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"sentence1": [pair[0] for pair in pairs], "sentence2": [pair[1] for pair in pairs]}


def pairs_with_repeats(count: int) -> list[tuple[str, str]]:
    """Sample pairs, and among them the same sentences in other pairs, on other sides and with themselves."""
    plain = sample_pairs(count)
    crossed = [(plain[number][0], plain[-number][0]) for number in range(0, count, 3)]
    swapped = [(two, one) for one, two in plain[::5]]
    return [*plain, *crossed, *swapped, (plain[0][0], plain[0][0]), *plain[:4]]


def new_cross_encoder(start: str, max_length: int | None = None) -> CrossEncoder:
    """A cross-encoder with a new head."""
    set_seed(0)
    encoder = CrossEncoder.from_pretrained(start, max_length=max_length)
    enlarge_weights(encoder.model.classifier)
    return encoder
