"""How a model is computed, and the block within which it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from te_trainer.compat import attention_of, set_attention
from te_trainer.models.packed.batches import packed_batches, padded_batches
from te_trainer.models.packed.dropout import cpu_dropout
from te_trainer.models.packed.masks import masks_unread
from te_trainer.models.packed.pack import PACKED_NAMES, pack_rows
from te_trainer.models.packed.packable import transformers_model


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


@contextlib.contextmanager
def use_backend(
    model: nn.Module, backend: AttentionBackend, training: bool = False, compiler: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Within the block, compute a model with a backend; afterwards the model is what it was.

    Blocks may lie within one another. A `compiler` is one of `pack_rows`.
    """
    with contextlib.ExitStack() as stack:
        plain = transformers_model(model)
        if backend.attention is not None and plain is not None:
            stack.enter_context(_attention(plain, backend.attention))
            if backend.attention in PACKED_NAMES:
                stack.enter_context(pack_rows(plain, compiler))
        if training and backend.fast_dropout:
            stack.enter_context(cpu_dropout(model))
        if backend.unread_masks:
            stack.enter_context(masks_unread())
        yield


@contextlib.contextmanager
def _attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    # a model may be made of several, each with a configuration of its own
    configs = {id(part.config): part.config for part in model.modules() if isinstance(part, PreTrainedModel)}
    before = [(config, attention_of(config)) for config in configs.values()]
    try:
        model.set_attn_implementation(name)
        yield
    finally:
        for config, attention in before:
            set_attention(config, attention)
