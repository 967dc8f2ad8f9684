"""Padded batches whose tokens go through a model one behind another, so that a CPU computes no padding.

Only attention looks at more than one token at a time. All else in a BERT sees one long row of tokens; attention takes
sentences of similar length out of it, and puts what it found back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from te_trainer.models.packed.batches import row_size, split_by_size
from te_trainer.models.packed.dropout import dropout_mask

NAME = "te_trainer_packed"  # of the attention, among those of transformers

# torch's softmax is slow over fewer than 16 values; sizes are rounded, because each is compiled on its own.
SHORTEST = 16
LENGTH = 8
GROUP = 5_000  # products of a query and a key that cost as much as one more group of sentences


class Sentences(NamedTuple):
    """Sentences of similar length, of a packed row, as attention's heads see them."""

    number: int
    length: int
    vectors: Tensor  # where vectors lie among all tokens' heads, shape (number * heads * length,)
    mask: Tensor  # added to scores: 0 for tokens, float32's least number for padding, shape (number, 1, 1, length)


class Packing:
    """Where the tokens of a padded batch lie in a row, and where attention finds its sentences there.

    The row ends with at least one filler, which is what padding is replaced by: no gradient reaches it.

    Args:
        attention_mask: shape (n, length), 1 for real tokens; at most 128 of them a sentence.
    """

    def __init__(self, attention_mask: Tensor) -> None:
        mask = attention_mask.numpy().astype(bool)
        self.shape = attention_mask.shape
        self.lengths = mask.sum(1)
        real = np.flatnonzero(mask)
        self.real = len(real)
        self.total = row_size(self.real)
        tokens = np.zeros(self.total, dtype=np.int64)
        tokens[: self.real] = real
        self.tokens = torch.from_numpy(tokens)
        places = np.full(mask.size, self.total - 1)
        places[real] = np.arange(self.real)
        self.places = torch.from_numpy(places)
        self._heads: dict[int, tuple[list[Sentences], Tensor]] = {}

    def pack(self, batch: Tensor) -> Tensor:
        """From shape (n, length) to (1, total)."""
        return batch.reshape(-1)[self.tokens].unsqueeze(0)

    def unpack(self, row: Tensor) -> Tensor:
        """From shape (1, total, hidden) to (n, length, hidden); padding becomes the filler's vector."""
        return _Unpack.apply(row.squeeze(0), self).view(*self.shape, -1)

    def heads(self, heads: int) -> tuple[list[Sentences], Tensor]:
        """All sentences in groups, and where each token's heads lie behind one another in the groups' vectors.

        Returns:
            groups, and an index of shape (total * heads,).
        """
        if heads not in self._heads:
            self._heads[heads] = self._group(heads)
        return self._heads[heads]

    def _group(self, heads: int) -> tuple[list[Sentences], Tensor]:
        starts = np.cumsum(self.lengths) - self.lengths
        rounded = np.maximum(SHORTEST, -(-self.lengths // LENGTH) * LENGTH)
        head = np.arange(heads)
        groups, offset = [], 0
        back = np.zeros((self.total, heads), dtype=np.int64)
        for group in split_by_size(rounded**2, GROUP):
            length, number = int(rounded[group[0]]), _round_up(len(group))
            position = np.arange(length)
            real = np.zeros((number, length), dtype=bool)
            real[: len(group)] = position < self.lengths[group][:, None]
            places = np.full((number, length), self.total - 1)
            places[real] = (starts[group][:, None] + position)[real[: len(group)]]
            vectors = places[:, None] * heads + head[:, None]
            sentence, column = np.nonzero(real)
            back[places[real]] = offset + (sentence[:, None] * heads + head) * length + column[:, None]
            offset += vectors.size
            mask = np.where(real, np.float32(0), np.finfo(np.float32).min)[:, None, None]
            groups.append(Sentences(number, length, torch.from_numpy(vectors.ravel()), torch.from_numpy(mask)))
        return groups, torch.from_numpy(back.ravel())


class _Unpack(torch.autograd.Function):
    """Rows of a batch out of a packed one; both ways are a look-up."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return row.index_select(0, packing.places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        packing = ctx.packing
        row = gradients[0].index_select(0, packing.tokens)
        row[packing.real :] = 0
        return row, None


class _Attention(torch.autograd.Function):
    """softmax(Q K^T * scaling) V with dropout, sentence by sentence; query, key and value of shape (total, heads, d).

    Scores are normalised in float32: 16 bits take five times as long on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float, dropout: float
    ) -> Tensor:
        total, heads, width = query.shape
        groups, back = packing.heads(heads)
        rows = [each.reshape(-1, width) for each in (query, key, value)]
        outputs, kept = [], []
        for group in groups:
            q, k, v = (row.index_select(0, group.vectors).view(-1, group.length, width) for row in rows)
            scores = torch.bmm(q, k.transpose(1, 2)).view(group.number, heads, group.length, group.length)
            shares = torch.add(group.mask, scores, alpha=scaling).softmax(-1)
            mask = dropout_mask(shares.shape, dropout, q.dtype)
            kept += [q, k, v, shares, mask]
            outputs.append(torch.bmm(_dropped(shares, mask, q.dtype), v).view(-1, width))
        ctx.packing, ctx.scaling = packing, scaling
        ctx.save_for_backward(*kept)
        return torch.cat(outputs).index_select(0, back).view(total, heads, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        total, heads, width = gradient.shape
        groups, back = ctx.packing.heads(heads)
        rows, kept = gradient.reshape(-1, width), iter(ctx.saved_tensors)
        found: tuple[list[Tensor], ...] = ([], [], [])
        for group in groups:
            q, k, v, shares, mask = islice(kept, 5)
            g = rows.index_select(0, group.vectors).view(-1, group.length, width)
            found[2].append(torch.bmm(_dropped(shares, mask, q.dtype).transpose(1, 2), g))
            of_shares = torch.bmm(g, v.transpose(1, 2)).view(shares.shape)
            if mask is not None:
                of_shares *= mask
            of_shares = of_shares.to(shares.dtype)
            of_scores = torch._softmax_backward_data(of_shares, shares, -1, shares.dtype).mul_(ctx.scaling)
            of_scores = of_scores.to(q.dtype).view(-1, group.length, group.length)
            found[0].append(torch.bmm(of_scores, k))
            found[1].append(torch.bmm(of_scores.transpose(1, 2), q))
        packed = [torch.cat([part.view(-1, width) for part in parts]).index_select(0, back) for parts in found]
        for each in packed:
            each[ctx.packing.real * heads :] = 0
        return (*(each.view(total, heads, width) for each in packed), None, None, None)


def _dropped(shares: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    shares = shares.to(dtype)
    return (shares if mask is None else shares * mask).view(-1, *shares.shape[-2:])


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    packing: Packing | None = None,
    dropout: float = 0.0,
    **rest: Any,
) -> tuple[Tensor, None]:
    """For `AttentionInterface`: shapes (1, heads, total, d) in, (1, total, heads, d) out; padded batches as ever."""
    if packing is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
    rows = (each.squeeze(0).transpose(0, 1) for each in (query, key, value))
    return _Attention.apply(*rows, packing, scaling, dropout).unsqueeze(0), None


def _mask(attention_mask: Tensor | None = None, **rest: Any) -> Tensor | None:
    """For `AttentionMaskInterface`: a packed row has no mask, its packing knows which tokens belong together."""
    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **rest)


def _round_up(number: int) -> int:
    """To three significant bits."""
    step = 1 << max(0, number.bit_length() - 3)
    return -(-number // step) * step


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _mask)


# What all models of `POSITIONS` take, in their order.
ARGUMENTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
# Who gives or asks for these sees every token of a padded batch.
PADDED = ("inputs_embeds", "past_key_values", "encoder_hidden_states", "output_hidden_states", "output_attentions")


def transformers_model(model: nn.Module) -> PreTrainedModel | None:
    """The model of transformers below what peft has put around it; None where there is none."""
    return next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)


def can_pack(model: nn.Module) -> bool:
    """Whether `packed` is made for a model."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        # vectors in front of every sentence are nothing for a row of all sentences
        return False
    plain = transformers_model(model)
    if plain is None or plain.config.model_type not in POSITIONS or getattr(plain.config, "is_decoder", False):
        return False
    # a repository's own code may call itself by these names
    known: Any = MODEL_MAPPING.get(type(plain.config), ())
    return isinstance(plain.base_model, known)


@contextlib.contextmanager
def packed(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, a model of which `can_pack` holds, and whose attention is `NAME`, computes packed rows.

    It takes padded batches of `input_ids`, and gives what it gives of them otherwise. Passes that ask for more than
    the last layer, or give other inputs, are computed with their padding.
    """
    if is_packed(model):
        yield
        return
    base: Any = model.base_model
    handles = [
        base.register_forward_pre_hook(_pack, with_kwargs=True),
        base.encoder.register_forward_hook(_unpack, with_kwargs=True),
        *(layer.attention.self.register_forward_pre_hook(_cast_once) for layer in base.encoder.layer),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_packed(model: nn.Module) -> bool:
    """Whether a model computes no padding at the moment."""
    plain = transformers_model(model)
    return plain is not None and _pack in plain.base_model._forward_pre_hooks.values()


def _pack(base: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
    inputs = {**dict(zip(ARGUMENTS, args, strict=False)), **inputs}
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    asked = [inputs.get(name) for name in PADDED] + [base.config.output_hidden_states, base.config.output_attentions]
    if ids is None or any(value is not None and value is not False for value in asked):
        return None
    if mask is not None and mask.dim() != 2:
        return None
    packing = Packing(torch.ones_like(ids) if mask is None else mask)
    packed = {name: inputs.get(name) for name in ("token_type_ids", "position_ids")}
    if packed["position_ids"] is None:
        packed["position_ids"] = POSITIONS[base.config.model_type](ids, base.config.pad_token_id)
    packed = {name: value if value is None else packing.pack(value) for name, value in packed.items()}
    rest = {name: value for name, value in inputs.items() if name not in {"input_ids", "attention_mask", *packed}}
    return (), {"input_ids": packing.pack(ids), **packed, **rest, "packing": packing}


def _unpack(encoder: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any], output: Any) -> Any:
    if "packing" not in inputs:
        return None
    output["last_hidden_state"] = inputs["packing"].unpack(output["last_hidden_state"])
    return output


def _cast_once(module: nn.Module, args: tuple[Any, ...]) -> Any:
    # autocast would do it for query, key and value each, and keep three copies for the backward pass
    if not torch.is_autocast_enabled("cpu"):
        return None
    hidden, *rest = args
    return hidden.to(torch.get_autocast_dtype("cpu")), *rest


def _columns(ids: Tensor, padding: int) -> Tensor:
    return torch.arange(ids.shape[1]).expand_as(ids)


def _counted(ids: Tensor, padding: int) -> Tensor:
    real = ids != padding
    return real.cumsum(1) * real + padding


# How models count the positions of a padded batch (n, length), of those whose layers see nothing but tokens.
POSITIONS = {
    "bert": _columns,
    "electra": _columns,
    "roberta": _counted,
    "xlm-roberta": _counted,
    "camembert": _counted,
}
