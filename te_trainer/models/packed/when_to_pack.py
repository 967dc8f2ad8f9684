"""For which models and texts no padding is computed, and with which attention a model is computed otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from te_trainer.compat import attention_of
from te_trainer.models.packed.backend import AttentionBackend
from te_trainer.models.packed.flash import has_flash_attention
from te_trainer.models.packed.pack import ATTENTION_NAME, PACKED_NAMES, UNPADDED_NAME
from te_trainer.models.packed.packable import can_pack, transformers_model
from te_trainer.models.precision import Precision

# Tokens. Beyond, the memory of the plain computation grows with the square, and attention without a mask is worth the
# look into a batch.
SHORT = 128
REPLACEABLE = {"sdpa", "eager", *PACKED_NAMES}  # what a model comes with; another attention was somebody's choice

PACKED = AttentionBackend(ATTENTION_NAME, fast_dropout=True, computes_padding=False)
PACKED_ON_GPU = AttentionBackend(UNPADDED_NAME, computes_padding=False)


def choose_backend(
    model: nn.Module,
    max_length: int,
    device: torch.device,
    precision: Precision = "float32",
    *,
    compiled: bool = False,
    needs_padding: bool = False,
    attention: str | None = None,
) -> AttentionBackend:
    """The fastest backend for a model with texts of at most `max_length` tokens.

    What is `compiled` is the whole model, but on a GPU where the backend packs; there, it may be the layers. With
    `needs_padding`, something between embeddings and layers depends on the shape of the padded batch. An `attention`
    that is named is used, but for a flash attention in float32, which it does not have.
    """
    on_cpu = device.type == "cpu"
    unread_masks = not on_cpu and max_length <= SHORT
    if attention is not None and not ("flash" in attention and precision == "float32"):
        return AttentionBackend(attention, fast_dropout=on_cpu and not compiled, unread_masks=unread_masks)
    plain: Any = transformers_model(model)
    replaceable = plain is not None and attention_of(plain.config) in REPLACEABLE
    packs = replaceable and not needs_padding and can_pack(model)
    if packs and not on_cpu:
        width = plain.config.hidden_size // plain.config.num_attention_heads
        if has_flash_attention(device, getattr(torch, precision), width):
            return PACKED_ON_GPU
    if compiled or not on_cpu:
        return AttentionBackend(unread_masks=unread_masks)
    if max_length > SHORT or not replaceable:
        return AttentionBackend(fast_dropout=True)
    if packs:
        return PACKED
    # PyTorch's fused attention is made for long texts, and falls back to a slower one under dropout
    return AttentionBackend("eager", fast_dropout=True)
