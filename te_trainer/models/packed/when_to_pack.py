"""For which models and texts no padding is computed, and with which attention a model is computed otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, PreTrainedModel

from te_trainer.compat import attention_of
from te_trainer.models.packed.batches import packed_batches, padded_batches
from te_trainer.models.packed.flash import has_flash_attention
from te_trainer.models.precision import Precision

# among transformers' attentions, for CPUs and for GPUs; "flash" in a name has a meaning there
ATTENTION_NAME, UNPADDED_NAME = PACKED_NAMES = ("te_trainer_packed", "te_trainer_unpadded")
# Tokens. Beyond, the memory of the plain computation grows with the square, and attention without a mask is worth the
# look into a batch.
SHORT = 128
REPLACEABLE = {"sdpa", "eager", *PACKED_NAMES}  # what a model comes with; another attention was somebody's choice


def _column_positions(ids: Tensor, padding: int) -> Tensor:
    return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)


def _counted_positions(ids: Tensor, padding: int) -> Tensor:
    real = ids != padding
    return real.cumsum(1) * real + padding


# How models count the positions of a padded batch (n, length), of those whose layers see nothing but tokens.
POSITION_IDS_BY_MODEL_TYPE = {
    "bert": _column_positions,
    "distilbert": _column_positions,
    "electra": _column_positions,
    "roberta": _counted_positions,
    "xlm-roberta": _counted_positions,
    "camembert": _counted_positions,
}


def transformers_model(model: nn.Module) -> PreTrainedModel | None:
    """The model of transformers below what peft has put around it; None where there is none."""
    return next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)


def can_pack(model: nn.Module) -> bool:
    """Whether `pack_rows` is made for a model."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        # vectors in front of every sentence are nothing for a row of all sentences
        return False
    plain = transformers_model(model)
    if plain is None or plain.config.model_type not in POSITION_IDS_BY_MODEL_TYPE:
        return False
    # a repository's own code may call itself by these names
    known: Any = MODEL_MAPPING.get(type(plain.config), ())
    return isinstance(plain.base_model, known) and not getattr(plain.config, "is_decoder", False)


@dataclass(frozen=True)
class AttentionBackend:
    """How a model is computed; by default as it is."""

    attention: str | None = None  # among transformers' attentions; None for the model's own
    fast_dropout: bool = False  # whether trainings draw dropout as `cpu_dropout` does
    computes_padding: bool = True  # at the cost of real tokens
    unread_masks: bool = False  # whether nobody looks into a batch for padding

    def batches(self, lengths: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
        """Indices of texts in batches of at most `max_tokens` computed tokens, or of one text."""
        return (padded_batches if self.computes_padding else packed_batches)(lengths, max_tokens)


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
