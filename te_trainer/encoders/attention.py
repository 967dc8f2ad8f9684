"""Which computation of attention the hardware is fast at."""

from __future__ import annotations

import torch

SHORT = 128  # tokens; the plain computation's memory grows with the square


def attention(max_length: int) -> dict[str, str]:
    """What `from_pretrained` must be told: on a CPU and for short texts, the plain computation.

    PyTorch's fused one is made for long texts there, and falls back to a slower one under dropout.
    """
    if torch.accelerator.is_available() or max_length > SHORT:
        return {}
    return {"attn_implementation": "eager"}
