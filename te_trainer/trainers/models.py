"""What may be given as the model of a trainer, and the encoder that it becomes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from te_trainer.errors import InputError
from te_trainer.models import BiEncoder, CrossEncoder, Encoder
from te_trainer.models.decoders import is_decoder, prepare_model, prepare_tokenizer
from te_trainer.models.sentence_files import POOLING_BY_MODE, SentenceLayout

AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)

ACTIVATIONS = {nn.Sigmoid: "sigmoid", nn.Identity: "identity"}


def as_encoder(model: Any, kind: type[AnyEncoder], tokenizer: Any, seed: int) -> AnyEncoder:
    """The encoder that a user's model stands for. Weights of a model object are not copied: it is trained itself.

    Args:
        model: An encoder; a Hub id, folder, `package:folder` or `Path`; an object of sentence-transformers of the same
            kind; or a model of transformers with its tokenizer.
        kind: `BiEncoder` or `CrossEncoder`.
        tokenizer: The trainer's `processing_class`.
        seed: A new head of a cross-encoder is drawn from it.

    Raises:
        InputError: it stands for none, or `tokenizer` belongs to another model.
    """
    if isinstance(model, (str, Path)):
        # before the Trainer seeds anything
        set_seed(seed)
        encoder: Any = kind.from_pretrained(str(model))
    elif isinstance(model, kind):
        encoder = model
    elif theirs := _of_sentence_transformers(model, kind):
        encoder = theirs
    elif isinstance(model, PreTrainedModel):
        return _of_transformers(model, kind, tokenizer)
    else:
        raise InputError(
            f"model: a {type(model).__name__} where a {kind.__name__} is expected, or a Hub id, a folder, "
            f"sentence_transformers.{_THEIR_NAMES[kind.__name__]}, or a model of transformers with its tokenizer as "
            "processing_class; for adapters give the plain model and peft_config"
        )
    if tokenizer is not None and not same_tokenizer(tokenizer, encoder.tokenizer):
        raise InputError(
            "processing_class: it is not the model's tokenizer, and ids of another one mean other words; leave it out"
        )
    return encoder


def same_tokenizer(one: Any, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers give the same ids to the same tokens."""
    return one is other or (isinstance(one, PreTrainedTokenizerBase) and one.get_vocab() == other.get_vocab())


_THEIR_NAMES = {"BiEncoder": "SentenceTransformer", "CrossEncoder": "CrossEncoder"}


def _of_sentence_transformers(model: Any, kind: type[Any]) -> Encoder | None:
    library: Any = sys.modules.get("sentence_transformers")
    if library is None or not isinstance(model, getattr(library, _THEIR_NAMES[kind.__name__])):
        return None
    parts = [type(module).__name__ for module in model]
    allowed = {"Pooling", "Normalize"} if kind is BiEncoder else set()
    if parts[0] != "Transformer" or not set(parts[1:]) <= allowed or len(model) < (2 if kind is BiEncoder else 1):
        raise InputError(
            f"model: the {type(model).__name__} consists of {', '.join(parts)}; only one that is a Transformer"
            f"{', Pooling and perhaps Normalize' if kind is BiEncoder else ''} can be trained"
        )
    plm, tokenizer, length = model[0].auto_model, model.tokenizer, model.max_seq_length
    if not isinstance(plm, PreTrainedModel):
        raise InputError(f"model: the {type(model).__name__} holds a {type(plm).__name__}; give one that runs in torch")
    prompt = (model.prompts or {}).get(model.default_prompt_name) or ""
    lengths = {} if length is None else {"max_length": length}
    if kind is CrossEncoder:
        activation = ACTIVATIONS.get(type(model.activation_fn))
        if plm.config.num_labels != 1 or activation is None:
            raise InputError(
                f"model: a CrossEncoder of {plm.config.num_labels} labels and the activation "
                f"{type(model.activation_fn).__name__}, where one label and Sigmoid or Identity are expected"
            )
        if prompt:
            raise InputError(
                f"model: the CrossEncoder puts '{prompt}' in front of texts, which te_trainer does not; set its "
                "default_prompt_name to None"
            )
        _float32(plm)
        return CrossEncoder(plm, tokenizer, activation=activation, **lengths)  # type: ignore[arg-type]
    mode = model[1].pooling_mode
    if mode not in POOLING_BY_MODE or not model[1].include_prompt:
        raise InputError(
            f"model: the SentenceTransformer pools {mode}, include_prompt={model[1].include_prompt}; only cls, mean and"
            " lasttoken of all tokens can be trained"
        )
    normalize, similarity = "Normalize" in parts, str(model.similarity_fn_name or "cosine")
    if similarity != "cosine" and not (similarity == "dot" and normalize):
        raise InputError(
            f"model: similarity_fn_name is '{similarity}', but te_trainer compares vectors by their cosine; set it to "
            "'cosine' if cosines are wanted"
        )
    if model.truncate_dim is not None:
        raise InputError(
            "model: truncate_dim shortens vectors, which te_trainer does not; set it to None if whole vectors are "
            "wanted"
        )
    layout = SentenceLayout(
        prompts=dict(model.prompts or {}),
        default_prompt_name=model.default_prompt_name,
        normalize=normalize,
        similarity=similarity,
        lower_case=bool(getattr(model[0], "do_lower_case", False)),
    )
    _float32(plm)
    return BiEncoder(plm, tokenizer, POOLING_BY_MODE[mode], prompt=prompt, layout=layout, **lengths)


def _of_transformers(model: PreTrainedModel, kind: type[AnyEncoder], tokenizer: Any) -> Any:
    mapping: Any = MODEL_MAPPING if kind is BiEncoder else MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    auto = "AutoModel" if kind is BiEncoder else "AutoModelForSequenceClassification with num_labels=1"
    config = model.config
    classes = mapping.get(type(config), ())
    if config.is_encoder_decoder or not isinstance(model, classes) or (kind is CrossEncoder and config.num_labels != 1):
        raise InputError(
            f"model: a {type(model).__name__} where one of {auto} is expected; load it so, or give its name"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(
            f"processing_class: a {type(model).__name__} needs its tokenizer; give processing_class=tokenizer"
        )
    _float32(model)
    if is_decoder(config):
        prepare_tokenizer(tokenizer, type(model).__name__)
        prepare_model(model, tokenizer)
    if tokenizer.pad_token_id is None:
        raise InputError("processing_class: the tokenizer has no padding token, without which there are no batches")
    if kind is BiEncoder:
        return BiEncoder(model, tokenizer, "last" if is_decoder(config) else "cls")
    return CrossEncoder(model, tokenizer)


def _float32(model: PreTrainedModel) -> None:
    """Weights are learnt in float32, whatever the arithmetic of the forward pass."""
    if model.dtype != torch.float32:
        model.float()
