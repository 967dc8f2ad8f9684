"""Where the tokens of a padded batch lie in one row, and the way there and back."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from te_trainer.models.packed.batches import row_length, split_by_size
from te_trainer.models.packed.transfer import copied, mask_on_cpu

# torch's softmax is slow over fewer than 16 values; sizes are rounded, because each is compiled on its own.
MIN_SOFTMAX_WIDTH = 16
LENGTH_MULTIPLE = 8
GROUP_COST = 5_000  # products of a query and a key that cost as much as one more group of sentences


class AttentionGroup(NamedTuple):
    """Sentences of similar length, of a packed row, as attention's heads see them."""

    sentences: int  # padding ones included
    length: int  # tokens of the longest sentence, rounded up
    vectors: Tensor  # indices among those of all tokens' heads, shape (sentences * heads * length,)
    bias: Tensor  # added to scores: 0 for tokens, float32's least for padding, shape (sentences, 1, 1, length)


class Packing:
    """Where the tokens of a padded batch lie in a row, and where attention finds its sentences there.

    The row ends with at least one filler, which is what padding is replaced by: no gradient reaches it.
    """

    def __init__(self, attention_mask: Tensor) -> None:
        mask = mask_on_cpu(attention_mask).numpy().astype(bool)
        self.shape = attention_mask.shape
        self.device = attention_mask.device
        self.lengths = mask.sum(1)
        real = np.flatnonzero(mask)
        self.num_tokens = len(real)
        self.row_length = row_length(self.num_tokens)
        in_batch = np.zeros(self.row_length, dtype=np.int64)
        in_batch[: self.num_tokens] = real
        self.in_batch = self._indices(in_batch)  # of each token of the row in the padded batch
        in_row = np.full(mask.size, self.row_length - 1)
        in_row[real] = np.arange(self.num_tokens)
        self.in_row = self._indices(in_row)  # of each token of the padded batch in the row
        # plain attributes, which Dynamo makes inputs of a graph: it would look into a property, and find numpy
        self.longest = max(int(self.lengths.max()), self.row_length - self.num_tokens)  # the fillers are a sentence
        offsets = np.zeros(len(mask) + 2, dtype=np.int32)
        self.lengths.cumsum(out=offsets[1:-1], dtype=np.int32)
        offsets[-1] = self.row_length
        self.offsets = self._indices(offsets)  # where each sentence begins, the fillers, and where the row ends
        self._groups: dict[int, tuple[list[AttentionGroup], Tensor]] = {}

    def _indices(self, values: np.ndarray) -> Tensor:
        return copied(torch.from_numpy(values), self.device)

    def pack(self, batch: Tensor) -> Tensor:
        """From shape (n, length, ...) to (1, row length, ...)."""
        return batch.flatten(0, 1)[self.in_batch].unsqueeze(0)

    def unpack(self, row: Tensor) -> Tensor:
        """From shape (1, row length, hidden) to (n, length, hidden); padding becomes the filler's vector."""
        batch: Tensor = _Unpack.apply(row.squeeze(0), self)
        return batch

    @cached_property
    def real(self) -> Tensor:
        """Which positions of the padded batch hold tokens; bool, shape (n, length)."""
        return (self.in_row < self.num_tokens).view(self.shape)

    def attention_groups(self, num_heads: int) -> tuple[list[AttentionGroup], Tensor]:
        """All sentences in groups, and each token's heads' indices (row length * heads,) in the groups' vectors."""
        if num_heads in self._groups:
            return self._groups[num_heads]
        starts = np.cumsum(self.lengths) - self.lengths
        rounded = np.maximum(MIN_SOFTMAX_WIDTH, -(-self.lengths // LENGTH_MULTIPLE) * LENGTH_MULTIPLE)
        head = np.arange(num_heads)
        groups, offset = [], 0
        back = np.zeros((self.row_length, num_heads), dtype=np.int64)
        for group in split_by_size(rounded**2, GROUP_COST):
            length, sentences = int(rounded[group[0]]), _round_up(len(group))
            position = np.arange(length)
            real = np.zeros((sentences, length), dtype=bool)
            real[: len(group)] = position < self.lengths[group][:, None]
            tokens = np.full((sentences, length), self.row_length - 1)
            tokens[real] = (starts[group][:, None] + position)[real[: len(group)]]
            vectors = tokens[:, None] * num_heads + head[:, None]
            sentence, column = np.nonzero(real)
            back[tokens[real]] = offset + (sentence[:, None] * num_heads + head) * length + column[:, None]
            offset += vectors.size
            bias = np.where(real, np.float32(0), np.finfo(np.float32).min)[:, None, None]
            groups.append(AttentionGroup(sentences, length, torch.from_numpy(vectors.ravel()), torch.from_numpy(bias)))
        self._groups[num_heads] = groups, torch.from_numpy(back.ravel())
        return self._groups[num_heads]


class _Unpack(torch.autograd.Function):
    """A padded batch, shape (n, length, hidden), of a packed one; both ways are a look-up.

    The batch is no view of its rows: FSDP2 warns of views, as if gradients were wrong.
    """

    @staticmethod
    def forward(ctx: Any, row: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return nn.functional.embedding(packing.in_row.view(packing.shape), row)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        packing = ctx.packing
        row = gradients[0].flatten(0, 1).index_select(0, packing.in_batch)
        row[packing.num_tokens :] = 0
        return row, None


def _round_up(number: int) -> int:
    """To three significant bits."""
    step = 1 << max(0, number.bit_length() - 3)
    return -(-number // step) * step
