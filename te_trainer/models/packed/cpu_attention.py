"""Attention of a packed row on a CPU: sentences of similar length at a time, taken out of the row and put back."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from te_trainer.compat import softmax_backward
from te_trainer.models.packed.dropout import dropout_mask
from te_trainer.models.packed.packing import Packing


class CPUAttention(torch.autograd.Function):
    """softmax(Q K^T * scaling) V with dropout, sentence by sentence; query, key and value of shape (tokens, heads, d).

    Scores are normalised in float32: 16 bits take five times as long on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float, dropout: float
    ) -> Tensor:
        tokens, heads, width = query.shape
        groups, back = packing.attention_groups(heads)
        rows = [each.reshape(-1, width) for each in (query, key, value)]
        outputs, kept = [], []
        for group in groups:
            q, k, v = (row.index_select(0, group.vectors).view(-1, group.length, width) for row in rows)
            scores = torch.bmm(q, k.transpose(1, 2)).view(group.sentences, heads, group.length, group.length)
            probabilities = torch.add(group.bias, scores, alpha=scaling).softmax(-1)
            mask = dropout_mask(probabilities.shape, dropout, q.dtype)
            kept += [q, k, v, probabilities, mask]
            outputs.append(torch.bmm(_dropped(probabilities, mask, q.dtype), v).view(-1, width))
        ctx.packing, ctx.scaling = packing, scaling
        ctx.save_for_backward(*kept)
        return torch.cat(outputs).index_select(0, back).view(tokens, heads, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        tokens, heads, width = gradient.shape
        groups, back = ctx.packing.attention_groups(heads)
        rows, kept = gradient.reshape(-1, width), iter(ctx.saved_tensors)
        parts: tuple[list[Tensor], ...] = ([], [], [])  # of query, key and value
        for group in groups:
            q, k, v, probabilities, mask = islice(kept, 5)
            g = rows.index_select(0, group.vectors).view(-1, group.length, width)
            parts[2].append(torch.bmm(_dropped(probabilities, mask, q.dtype).transpose(1, 2), g))
            of_probabilities = torch.bmm(g, v.transpose(1, 2)).view(probabilities.shape)
            if mask is not None:
                of_probabilities *= mask
            of_scores = softmax_backward(of_probabilities.to(probabilities.dtype), probabilities).mul_(ctx.scaling)
            of_scores = of_scores.to(q.dtype).view(-1, group.length, group.length)
            parts[0].append(torch.bmm(of_scores, k))
            parts[1].append(torch.bmm(of_scores.transpose(1, 2), q))
        packed = [torch.cat([part.view(-1, width) for part in each]).index_select(0, back) for each in parts]
        for each in packed:
            each[ctx.packing.num_tokens * heads :] = 0
        return (*(each.view(tokens, heads, width) for each in packed), None, None, None)


def _dropped(probabilities: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    probabilities = probabilities.to(dtype)
    return (probabilities if mask is None else probabilities * mask).view(-1, *probabilities.shape[-2:])
