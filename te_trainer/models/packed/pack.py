"""Padded batches whose tokens go through a model one after another, so that no padding is computed.

Only attention looks at more than one token at a time. All else in a BERT sees one long row of tokens. On a CPU,
attention takes sentences of similar length out of it, and puts its outputs back; on a GPU it is that of flash.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from te_trainer.compat import uncompile
from te_trainer.models.packed.cpu_attention import CPUAttention
from te_trainer.models.packed.flash import unpadded_attention
from te_trainer.models.packed.packable import POSITION_IDS_BY_MODEL_TYPE, transformers_model
from te_trainer.models.packed.packing import Packing

# among transformers' attentions, for CPUs and for GPUs; "flash" in a name has a meaning there
ATTENTION_NAME, UNPADDED_NAME = PACKED_NAMES = ("te_trainer_packed", "te_trainer_unpadded")


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


for name, attend in ((ATTENTION_NAME, CPUAttention.apply), (UNPADDED_NAME, unpadded_attention)):
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
