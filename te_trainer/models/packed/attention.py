"""Which computation of attention the hardware is fast at, and a model that has it for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from te_trainer.models.packed import pack
from te_trainer.models.packed.pack import transformers_model

SHORT = 128  # tokens; the memory of the plain computation grows with the square
REPLACED = {"sdpa", "eager", pack.NAME}  # what a model comes with; another attention was somebody's choice


def fast_attention(model: nn.Module, max_length: int, device: torch.device) -> str | None:
    """The attention to compute texts with: on a CPU and for short texts, one without padding.

    PyTorch's fused one is made for long texts there, and falls back to a slower one under dropout; models that cannot
    do without padding take the plain one.

    Args:
        model: one of transformers, or what peft made of it.
        max_length: tokens of the longest text.

    Returns:
        a name for `use_attention`; None for the attention that the model came with.
    """
    plain = transformers_model(model)
    if device.type != "cpu" or max_length > SHORT or plain is None:
        return None
    if plain.config._attn_implementation not in REPLACED:
        return None
    return pack.NAME if pack.can_pack(model) else "eager"


@contextlib.contextmanager
def use_attention(model: nn.Module, name: str | None) -> Iterator[None]:
    """Within the block, compute with the attention of a name; afterwards the model is what it was.

    Blocks may lie within one another.

    Args:
        name: of those that transformers knows; None changes nothing.
    """
    plain = transformers_model(model)
    if name is None or plain is None:
        yield
        return
    # a model may be made of several, each with a configuration of its own
    configs = {id(part.config): part.config for part in plain.modules() if isinstance(part, PreTrainedModel)}
    before = [(config, config._attn_implementation) for config in configs.values()]
    try:
        plain.set_attn_implementation(name)
        with pack.packed(plain) if name == pack.NAME else contextlib.nullcontext():
            yield
    finally:
        for config, attention in before:
            config._attn_implementation = attention
