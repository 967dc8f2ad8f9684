"""Padded batches whose tokens go through a model one behind another, so that no padding is computed.

Only attention looks at more than one token at a time. All else in a BERT sees one long row of tokens. On a CPU,
attention takes sentences of similar length out of it, and puts its outputs back; on a GPU it is that of flash.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from inspect import signature
from itertools import islice
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from te_trainer.compat import attention_of, set_attention, softmax_backward, uncompile
from te_trainer.models.packed.batches import row_length, split_by_size
from te_trainer.models.packed.dropout import cpu_dropout, dropout_mask
from te_trainer.models.packed.flash import unpadded_attention
from te_trainer.models.packed.masks import masks_unread
from te_trainer.models.packed.transfer import copied, mask_on_cpu
from te_trainer.models.packed.when_to_pack import (
    ATTENTION_NAME,
    PACKED_NAMES,
    POSITION_IDS_BY_MODEL_TYPE,
    UNPADDED_NAME,
    AttentionBackend,
    transformers_model,
)

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
        """Which places of the padded batch hold tokens; bool, shape (n, length)."""
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


class _Attention(torch.autograd.Function):
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


def _for_transformers(attend: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, None]]:
    """For `AttentionInterface`: shapes (1, heads, tokens, d) in, (1, tokens, heads, d) out; padded batches as ever."""

    def attention(
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
        if packing is None:
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
            )
        rows = (each.squeeze(0).transpose(0, 1) for each in (query, key, value))
        return attend(*rows, packing, scaling, dropout).unsqueeze(0), None

    return attention


def _mask(attention_mask: Tensor | None = None, **rest: Any) -> Tensor | None:
    """For `AttentionMaskInterface`: a packed row has no mask, its packing knows which tokens belong together."""
    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **rest)


def _round_up(number: int) -> int:
    """To three significant bits."""
    step = 1 << max(0, number.bit_length() - 3)
    return -(-number // step) * step


for name, attend in ((ATTENTION_NAME, _Attention.apply), (UNPADDED_NAME, unpadded_attention)):
    AttentionInterface.register(name, _for_transformers(attend))
    AttentionMaskInterface.register(name, _mask)

# With these, a caller gives or sees every token of a padded batch.
PADDED_ARGUMENTS = (
    "inputs_embeds",
    "past_key_values",
    "encoder_hidden_states",
    "output_hidden_states",
    "output_attentions",
)

_packing_models: WeakSet[nn.Module] = WeakSet()


@contextlib.contextmanager
def pack_rows(model: PreTrainedModel, compiler: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Within the block, a model of which `can_pack` holds, with an attention of `PACKED_NAMES`, packs its batches.

    It takes padded batches of `input_ids`, and gives what it gives of them otherwise. Passes that ask for more than
    the last layer, or give other inputs, are computed with their padding. With a `compiler`, arguments of
    `torch.compile`, layers are compiled: packing itself cannot be, and one graph serves all layers and rows.
    """
    if is_packing(model):
        yield
        return
    base: Any = model.base_model
    distilbert = base.config.model_type == "distilbert"
    encoder = base.transformer if distilbert else base.encoder
    attentions = [layer.attention if distilbert else layer.attention.self for layer in encoder.layer]
    handles = [
        base.register_forward_pre_hook(_pack, with_kwargs=True),
        encoder.register_forward_hook(_unpack, with_kwargs=True),
        *(attention.register_forward_pre_hook(_cast_once) for attention in attentions),
    ]
    _packing_models.add(base)
    if compiler is not None:
        for layer in encoder.layer:
            layer.compile(**{"dynamic": True, **compiler})
    try:
        yield
    finally:
        _packing_models.discard(base)
        for handle in handles:
            handle.remove()
        if compiler is not None:
            for layer in encoder.layer:
                uncompile(layer)


def is_packing(model: nn.Module) -> bool:
    """Whether a model computes no padding at the moment."""
    plain = transformers_model(model)
    return plain is not None and plain.base_model in _packing_models


def _pack(base: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
    if args:
        inputs = {**dict(zip(signature(base.forward).parameters, args, strict=False)), **inputs}
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    asked = [inputs.get(name) for name in PADDED_ARGUMENTS]
    asked += [base.config.output_hidden_states, base.config.output_attentions]
    if ids is None or any(value is not None and value is not False for value in asked):
        return None
    if mask is not None and mask.dim() != 2:
        return None
    packing = Packing(torch.ones_like(ids) if mask is None else mask)
    packed = {name: inputs[name] for name in ("token_type_ids", "position_ids") if inputs.get(name) is not None}
    if "position_ids" not in packed:
        packed["position_ids"] = POSITION_IDS_BY_MODEL_TYPE[base.config.model_type](ids, base.config.pad_token_id)
    packed = {name: packing.pack(value) for name, value in packed.items()}
    rest = {name: value for name, value in inputs.items() if name not in {"input_ids", "attention_mask", *packed}}
    return (), {"input_ids": packing.pack(ids), **packed, **rest, "packing": packing}


def _unpack(encoder: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any], output: Any) -> Any:
    if "packing" not in inputs:
        return None
    output["last_hidden_state"] = inputs["packing"].unpack(output["last_hidden_state"])
    return output


def _cast_once(module: nn.Module, args: tuple[Any, ...]) -> Any:
    # autocast would do it for query, key and value each, and keep three copies for the backward pass
    hidden, *rest = args
    device = hidden.device.type
    if not torch.is_autocast_enabled(device):
        return None
    return hidden.to(torch.get_autocast_dtype(device)), *rest


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
