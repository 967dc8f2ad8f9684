"""Vectors of all ranks on every rank, with the gradients that one rank with the whole batch would have."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_with_gradient(vectors: Tensor) -> tuple[Tensor, int]:
    """All ranks' vectors in the order of the ranks.

    Backward, the gradients that all ranks give to a vector are summed on the rank it came from. With a loss that is a
    mean over each rank's own anchors, and an engine that averages gradients over ranks, weights then get the gradient
    of the whole batch on one rank.

    Args:
        vectors: shape (n, hidden), the same n on all ranks.

    Returns:
        shape (ranks * n, hidden), and the row at which this rank's vectors begin.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return vectors, 0
    return _AllGather.apply(vectors), dist.get_rank() * len(vectors)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        parts = [torch.empty_like(vectors) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, vectors.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]
