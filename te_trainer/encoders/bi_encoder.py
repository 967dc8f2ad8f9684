"""The bi-encoder: two sentences, one encoder, and the cosine of their vectors."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import MODEL_MAPPING, AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from te_trainer.config.schema import Kind, Pooling
from te_trainer.encoders.checkpoint import (
    check_weights,
    checkpoint_kind,
    load_config,
    load_model,
    load_tokenizer,
    refuse_other_modules,
    saved_pooling,
    saved_prompt,
)
from te_trainer.encoders.decoders import is_decoder, prepare_model
from te_trainer.encoders.locate import with_revision
from te_trainer.errors import InputError
from te_trainer.run_folder import give_umask_mode


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a sentence out of its token vectors.

    Args:
        hidden: shape (n, tokens, hidden), any floating dtype.
        attention_mask: shape (n, tokens), 1 for real tokens.
        pooling: `cls` takes the first real token (the paper's representation), `last` the last one, `mean` averages
            them.

    Returns:
        float32, shape (n, hidden): 16-bit sums would make many cosines equal.
    """
    if pooling == "mean":
        mask = attention_mask.unsqueeze(-1).float()
        return (hidden.float() * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    # Of equals, argmax finds the first: padding may be on either side.
    place = attention_mask.argmax(1) if pooling == "cls" else attention_mask.cumsum(1).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place].float()


@dataclass
class BiEncoder:
    """A Hugging Face encoder, its tokenizer, and how to make a sentence's vector with them.

    Args:
        model: any encoder or decoder with `last_hidden_state`; float32.
        tokenizer: the tokenizer of `model`.
        pooling: `cls`, `mean` or `last`.
        max_length: tokens of a sentence beyond this are cut (32 in the paper, Table 16); those of the prompt count.
        prompt: text in front of every sentence.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pooling: Pooling = "cls"
    max_length: int = 32
    prompt: str = ""

    kind: ClassVar[Kind] = "bi-encoder"

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        revision: str | None = None,
        pooling: Pooling | None = None,
        max_length: int = 32,
        prompt: str | None = None,
        from_cross_encoder: bool = False,
    ) -> BiEncoder:
        """Load from a Hub id, a local folder or `package:folder`.

        Args:
            revision: of a Hub id, a branch, a tag or a commit; `owner/name@revision` says the same. Default: `main`, as
                it is at the first load in this process.
            pooling: None takes what the checkpoint says, else `last` for decoders and `cls` for encoders.
            prompt: None takes what the checkpoint says, else no text.
            from_cross_encoder: take the encoder below a cross-encoder's head (sequential distillation).

        Raises:
            InputError: no such model, a cross-encoder where none is expected, a tokenizer without padding.
        """
        name = with_revision(name, revision)
        pooling = check_bi_encoder(name, pooling, from_cross_encoder)
        model = load_model(AutoModel, name, **without_pooler(load_config(name)))
        tokenizer = load_tokenizer(name)
        if is_decoder(model.config):
            prepare_model(model, tokenizer)
        return cls(model, tokenizer, pooling, max_length, saved_prompt(name) if prompt is None else prompt)

    def embed(self, input_ids: Tensor, attention_mask: Tensor, model: torch.nn.Module | None = None) -> Tensor:
        """Vectors of a batch of tokenised sentences.

        Args:
            input_ids, attention_mask: shape (n, tokens).
            model: the model as a trainer wrapped it; None for the plain one.

        Returns:
            float32, shape (n, hidden).
        """
        # a compiled model has a length that raises, so that it has no truth value
        model = self.model if model is None else model
        output = model(input_ids=input_ids, attention_mask=attention_mask)
        return pool(output.last_hidden_state, attention_mask, self.pooling)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save what `SentenceTransformer(folder)` and `AutoModel.from_pretrained(folder)` load."""
        self.model.save_pretrained(folder)
        self.save_layout(folder)

    def save_layout(self, folder: str | Path) -> None:
        """Everything but the weights: tokenizer, pooling and the list of modules.

        The files follow the layout that sentence-transformers has read since version 2.
        """
        folder = Path(folder)
        self.tokenizer.model_max_length = self.max_length
        self.tokenizer.save_pretrained(folder)
        give_umask_mode(Path(folder))
        hidden = self.model.config.hidden_size
        files = {
            "modules.json": [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ],
            "sentence_bert_config.json": {"max_seq_length": self.max_length, "do_lower_case": False},
            "config_sentence_transformers.json": {
                "similarity_fn_name": "cosine",
                "prompts": {"default": self.prompt} if self.prompt else {},
                "default_prompt_name": "default" if self.prompt else None,
            },
            "1_Pooling/config.json": {
                "word_embedding_dimension": hidden,
                "pooling_mode_cls_token": self.pooling == "cls",
                "pooling_mode_mean_tokens": self.pooling == "mean",
                "pooling_mode_max_tokens": False,
                "pooling_mode_mean_sqrt_len_tokens": False,
                "pooling_mode_lasttoken": self.pooling == "last",
            },
        }
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def without_pooler(config: PretrainedConfig) -> dict[str, Any]:
    """What `AutoModel` must be told: BERT's own pooler is no part of a sentence's vector, and would stay unused."""
    model_class: Any = MODEL_MAPPING[type(config)]
    takes = inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


def check_bi_encoder(
    name: str, pooling: Pooling | None = None, from_cross_encoder: bool = False, key: str = "pooling"
) -> Pooling:
    """Refuse what cannot start a bi-encoder, before anything is loaded; give the pooling it will have.

    Args:
        key: of the configuration, that chooses the pooling.
    """
    config = load_config(name)
    if checkpoint_kind(config) == "cross-encoder" and not from_cross_encoder:
        raise InputError(
            f"model {name}: a cross-encoder (it has a classification head) where a bi-encoder's start is expected; "
            "its sentence vectors would mean nothing"
        )
    load_tokenizer(name)
    if not from_cross_encoder:
        refuse_other_modules(name)
        pooling = pooling or saved_pooling(name, key)
    # last: the weights of a Hub model are large, and may have to be downloaded first
    check_weights(name)
    return pooling or ("last" if is_decoder(config) else "cls")
