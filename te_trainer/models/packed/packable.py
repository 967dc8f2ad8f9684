"""Which models can compute a packed row, and how they count the positions of its tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, PreTrainedModel


def _column_positions(ids: Tensor, padding: int) -> Tensor:
    return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)


def _counted_positions(ids: Tensor, padding: int) -> Tensor:
    real = ids != padding
    return real.cumsum(1) * real + padding


# How models count the positions of a padded batch (n, length), of those whose layers see nothing but tokens.
POSITION_IDS_BY_MODEL_TYPE = {
    "bert": _column_positions,
    "distilbert": _column_positions,
    "electra": _column_positions,
    "roberta": _counted_positions,
    "xlm-roberta": _counted_positions,
    "camembert": _counted_positions,
}


def transformers_model(model: nn.Module) -> PreTrainedModel | None:
    """The model of transformers below what peft has put around it; None where there is none."""
    return next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)


def can_pack(model: nn.Module) -> bool:
    """Whether `pack_rows` is made for a model."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        # vectors in front of every sentence are nothing for a row of all sentences
        return False
    plain = transformers_model(model)
    if plain is None or plain.config.model_type not in POSITION_IDS_BY_MODEL_TYPE:
        return False
    # a repository's own code may call itself by these names
    known: Any = MODEL_MAPPING.get(type(plain.config), ())
    return isinstance(plain.base_model, known) and not getattr(plain.config, "is_decoder", False)
