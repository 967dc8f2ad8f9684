"""Which computation of attention the hardware is fast at, and a model that has it for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from te_trainer.compat import attention_of, set_attention
from te_trainer.models.packed.batches import packed_batches, padded_batches
from te_trainer.models.packed.dropout import cpu_dropout
from te_trainer.models.packed.pack import ATTENTION_NAME, can_pack, pack_rows, transformers_model

SHORT = 128  # tokens; the memory of the plain computation grows with the square
REPLACEABLE = {"sdpa", "eager", ATTENTION_NAME}  # what a model comes with; another attention was somebody's choice


class AttentionBackend:
    """The model as it came; base of those that compute differently where that is faster."""

    attention: str | None = None  # name among transformers' attentions; None for the model's own
    fast_dropout = False  # whether trainings draw dropout as `cpu_dropout` does
    computes_padding = True  # whether padding costs as much as real tokens

    def fits(self, model: nn.Module, max_length: int, device: torch.device) -> bool:
        """Whether the backend can compute a model, and is fast with texts of so many tokens on a device."""
        return True

    def hooks(self, model: PreTrainedModel) -> contextlib.AbstractContextManager[None]:
        """What the model needs beside the attention's name."""
        return contextlib.nullcontext()

    def batches(self, lengths: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
        """Indices of texts in batches that waste little of what is computed.

        Args:
            lengths: Tokens of each text, shape (n,).
            max_tokens: Tokens that are computed of a batch at most, but a batch holds at least one text.
        """
        return (padded_batches if self.computes_padding else packed_batches)(lengths, max_tokens)


class CPUBackend(AttentionBackend):
    """The model's own attention, with dropout that is fast on a CPU."""

    fast_dropout = True

    def fits(self, model: nn.Module, max_length: int, device: torch.device) -> bool:
        """On a CPU."""
        return device.type == "cpu"


class EagerCPUBackend(CPUBackend):
    """Plain attention: PyTorch's fused one is made for long texts, and falls back to a slower one under dropout."""

    attention = "eager"

    def fits(self, model: nn.Module, max_length: int, device: torch.device) -> bool:
        """On a CPU, for short texts, unless somebody chose an attention for the model."""
        plain = transformers_model(model)
        return (
            super().fits(model, max_length, device)
            and max_length <= SHORT
            and plain is not None
            and attention_of(plain.config) in REPLACEABLE
        )


class PackedCPUBackend(EagerCPUBackend):
    """Rows of real tokens, one text behind another."""

    attention = ATTENTION_NAME
    computes_padding = False

    def fits(self, model: nn.Module, max_length: int, device: torch.device) -> bool:
        """As for the plain attention, if the model can do without padding."""
        return super().fits(model, max_length, device) and can_pack(model)

    def hooks(self, model: PreTrainedModel) -> contextlib.AbstractContextManager[None]:
        """Hooks that pack padded batches and unpack what the model makes of them."""
        return pack_rows(model)


# The first one that fits is chosen. One for GPUs, with unpadded flash attention, would stand in front.
BACKENDS = (PackedCPUBackend(), EagerCPUBackend(), CPUBackend(), AttentionBackend())


def choose_backend(
    model: nn.Module, max_length: int, device: torch.device, *, compiled: bool = False, needs_padding: bool = False
) -> AttentionBackend:
    """The fastest backend for a model on a device.

    Args:
        model: A model of transformers, or what peft made of it.
        max_length: Tokens of the longest text.
        device: The device that computes.
        compiled: Whether `torch.compile` compiles the model, which then stays as it is.
        needs_padding: Whether something between embeddings and layers depends on the shape of the padded batch.
    """
    if compiled:
        return AttentionBackend()
    return next(
        backend
        for backend in BACKENDS
        if backend.fits(model, max_length, device) and (backend.computes_padding or not needs_padding)
    )


@contextlib.contextmanager
def use_backend(model: nn.Module, backend: AttentionBackend, training: bool = False) -> Iterator[AttentionBackend]:
    """Within the block, compute a model with a backend; afterwards the model is what it was.

    Blocks may lie within one another.

    Args:
        model: A model of transformers, or what peft made of it.
        backend: As `choose_backend` gives it.
        training: Whether the model is trained, with dropout.
    """
    with contextlib.ExitStack() as stack:
        plain = transformers_model(model)
        if backend.attention is not None and plain is not None:
            stack.enter_context(_attention(plain, backend.attention))
            stack.enter_context(backend.hooks(plain))
        if training and backend.fast_dropout:
            stack.enter_context(cpu_dropout(model))
        yield backend


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
