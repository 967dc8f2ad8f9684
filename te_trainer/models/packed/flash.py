"""Attention of a packed row on a GPU: torch's own unpadded flash attention, which knows where each sentence begins."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from te_trainer.compat import flash_attention
from te_trainer.models.packed.packing import Packing

LENGTHS = (5, 1, 12)  # of the sentences that the check computes
TOLERANCE = 0.02  # of the norm; bfloat16 has 8 significant bits


@cache
def has_flash_attention(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether unpadded flash attention, with heads of this width, gives what plain attention gives.

    It is computed once, forward and backward: no program can ask which GPUs, types, widths and versions of torch have
    it.
    """
    if dtype == torch.float32:
        return False
    generator = torch.Generator().manual_seed(0)
    shape = (3, sum(LENGTHS), 2, width)  # of query, key and value: tokens, heads, width
    values, weights = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2))
    offsets = torch.tensor([0, *LENGTHS], device=device).cumsum(0).to(torch.int32)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        flash, plain = values.clone().requires_grad_(), values.float().requires_grad_()
        query, key, value = flash
        try:
            found = flash_attention(query, key, value, offsets, max(LENGTHS), 0.0, width**-0.5)
            found.backward(weights[0])
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AttributeError):
            return False
        expected = torch.cat([_plain(part) for part in plain.split(LENGTHS, dim=1)])
        expected.backward(weights[0].float())
    pairs: Any = ((found, expected), (flash.grad, plain.grad))
    return all(bool((one.float() - two).norm() < TOLERANCE * two.norm()) for one, two in pairs)


def _plain(sentence: Tensor) -> Tensor:
    query, key, value = (each.transpose(0, 1) for each in sentence)
    return F.scaled_dot_product_attention(query, key, value).transpose(0, 1)


def unpadded_attention(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float, dropout: float
) -> Tensor:
    """softmax(Q K^T * scaling) V with dropout, sentence by sentence; all of shape (tokens, heads, d).

    Flash attention has no float32; there, sentences are padded for attention alone.
    """
    if query.dtype != torch.float32:
        return flash_attention(query, key, value, packing.offsets, packing.longest, dropout, scaling)
    heads = query.shape[1]
    query, key, value = (
        packing.unpack(row.flatten(1).unsqueeze(0)).unflatten(-1, (heads, -1)).transpose(1, 2)
        for row in (query, key, value)
    )
    real = packing.real[:, None, None]
    result = F.scaled_dot_product_attention(query, key, value, real, dropout_p=dropout, scale=scaling)
    return packing.pack(result.transpose(1, 2)).squeeze(0)
