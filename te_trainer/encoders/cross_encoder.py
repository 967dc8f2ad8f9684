"""The cross-encoder: both sentences in one input, one logit out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from te_trainer.encoders.checkpoint import check_weights, checkpoint_kind, load_config, load_model, load_tokenizer
from te_trainer.errors import InputError


@dataclass
class CrossEncoder:
    """A sequence classifier with one logit, and its tokenizer.

    Args:
        model: an `AutoModelForSequenceClassification` with `num_labels=1`; float32.
        tokenizer: the tokenizer of `model`.
        max_length: tokens of a pair beyond this are cut from the longer sentence (64 in the paper, Table 16).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int = 64

    kind = "cross-encoder"

    def __post_init__(self) -> None:
        full_precision_head(self.model)

    @classmethod
    def from_pretrained(cls, name: str, *, max_length: int = 64) -> CrossEncoder:
        """Load from a Hub id, a local folder or `package:folder`.

        A plain PLM gets a new head, drawn from torch's global generator: call `transformers.set_seed` first.

        Raises:
            InputError: no such model, a head of more than one logit, a tokenizer without padding.
        """
        check_cross_encoder(name)
        model = load_model(AutoModelForSequenceClassification, name, num_labels=1)
        return cls(model, load_tokenizer(name), max_length)

    def logits(self, model: nn.Module | None = None, **inputs: Tensor) -> Tensor:
        """Raw logits of a batch of tokenised pairs.

        Args:
            model: the model as a trainer wrapped it; None for the plain one.
            inputs: what the tokenizer gave, each of shape (n, tokens).

        Returns:
            float32, shape (n,).
        """
        return (model or self.model)(**inputs).logits.float().squeeze(-1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save what `sentence_transformers.CrossEncoder(folder)` and transformers load."""
        self.model.save_pretrained(folder)
        self.save_layout(folder)

    def save_layout(self, folder: str | Path) -> None:
        """Everything but the weights; sentence-transformers takes the length from the tokenizer."""
        self.tokenizer.model_max_length = self.max_length
        self.tokenizer.save_pretrained(folder)


def full_precision_head(model: PreTrainedModel) -> None:
    """Compute the last linear layer in float32, also under autocast.

    In bfloat16 a logit has 8 significant bits, so that thousands of pairs share a score; ranks, and with them
    Spearman's rho, would suffer.
    """
    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    if heads:
        heads[-1].register_forward_hook(_in_float32)


def _in_float32(head: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Any:
    if output.dtype == torch.float32:
        return None
    with torch.autocast(output.device.type, enabled=False):
        return F.linear(inputs[0].float(), head.weight.float(), None if head.bias is None else head.bias.float())


def check_cross_encoder(name: str) -> None:
    """Refuse what cannot start a cross-encoder, before anything is loaded."""
    config = load_config(name)
    if checkpoint_kind(config) == "cross-encoder" and config.num_labels != 1:
        raise InputError(
            f"model {name}: a classifier of {config.num_labels} labels where a plain PLM or a cross-encoder with one "
            "logit is expected"
        )
    load_tokenizer(name)
    check_weights(name)
