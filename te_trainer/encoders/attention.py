"""Which computation of attention the hardware is fast at."""

from __future__ import annotations

from transformers import PretrainedConfig, PreTrainedModel

from te_trainer.encoders import packing
from te_trainer.processes import device_type

SHORT = 128  # tokens; the memory of the plain computation grows with the square


def attention(config: PretrainedConfig, max_length: int) -> dict[str, str]:
    """What `from_pretrained` must be told: on a CPU and for short texts, a computation without padding.

    PyTorch's fused one is made for long texts there, and falls back to a slower one under dropout; models that cannot
    do without padding take the plain one.
    """
    if device_type() != "cpu" or max_length > SHORT:
        return {}
    packed = config.model_type in packing.POSITIONS and not getattr(config, "is_decoder", False)
    return {"attn_implementation": packing.NAME if packed else "eager"}


def prepare_attention(model: PreTrainedModel) -> None:
    """What a model needs besides, once it is loaded."""
    if packing.is_packed(model):
        packing.pack(model)
