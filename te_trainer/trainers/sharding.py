"""What accelerate must be told where FSDP2 or ZeRO-3 shards an encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch


def gather_weights(config: dict[str, Any]) -> None:
    """Let ZeRO-3 save an encoder's weights, which DeepSpeed's own default leaves out; `config` is DeepSpeed's."""
    zero = config.get("zero_optimization", {})
    if zero.get("stage") == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True


def fit_fsdp2(plugin: Any, model: Any) -> None:
    """Let FSDP2 shard an encoder, give its outputs as the model gives them, and save whole weights.

    accelerate shards the modules of a model's `_no_split_modules`, and then the table of its word embeddings, which
    fails where one of them holds the table, as BERT's embeddings do. It also rounds what a model gives to 16 bits, in
    which logits would be alike, and averages gradients in them.
    """
    # in shards, accelerate's default, a Trainer saves no weights; the configurations are those of the type
    plugin.state_dict_config = plugin.optim_state_dict_config = None
    plugin.set_state_dict_type("FULL_STATE_DICT")
    if plugin.fsdp_version != 2:
        return
    if plugin.transformer_cls_names_to_wrap is None:
        table, parts = model.get_input_embeddings(), list(model.modules())
        around = {type(part).__name__ for part in parts if any(module is table for module in part.modules())}
        others = {type(part).__name__ for part in parts} - around
        plugin.transformer_cls_names_to_wrap = sorted(others.intersection(model._no_split_modules or ()))
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy, output_dtype=None, reduce_dtype=torch.float32
        )
