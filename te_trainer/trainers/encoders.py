"""The encoder that a trainer's argument `model` stands for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar, cast

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

SENTENCE_TRANSFORMERS_CLASS: dict[type[Any], str] = {BiEncoder: "SentenceTransformer", CrossEncoder: "CrossEncoder"}
AUTO_CLASSES: dict[type[Any], tuple[Any, str]] = {
    BiEncoder: (MODEL_MAPPING, "AutoModel"),
    CrossEncoder: (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, "AutoModelForSequenceClassification with num_labels=1"),
}
ACTIVATIONS: dict[type[nn.Module], Any] = {nn.Sigmoid: "sigmoid", nn.Identity: "identity"}


def as_encoder(model: Any, kind: type[AnyEncoder], tokenizer: Any, seed: int) -> AnyEncoder:
    """The encoder that a user's model stands for. A model object is trained itself; its weights are not copied."""
    theirs: Any = getattr(sys.modules.get("sentence_transformers"), SENTENCE_TRANSFORMERS_CLASS[kind], ())
    if isinstance(model, (str, Path)):
        # a new head is drawn before the Trainer seeds anything
        set_seed(seed)
        encoder: Any = kind.from_pretrained(str(model))
    elif isinstance(model, kind):
        encoder = model
    elif isinstance(model, theirs):
        encoder = _from_sentence_transformer(model) if kind is BiEncoder else _from_their_cross_encoder(model)
    elif isinstance(model, PreTrainedModel):
        return cast(AnyEncoder, _from_transformers(model, kind, tokenizer))
    else:
        raise InputError(
            f"model: a {type(model).__name__} where a {kind.__name__} is expected, or a Hub id, a folder, "
            f"sentence_transformers.{SENTENCE_TRANSFORMERS_CLASS[kind]}, or a model of transformers with its tokenizer "
            "as processing_class; for adapters give the plain model and peft_config"
        )
    if tokenizer is not None and not same_tokenizer(tokenizer, encoder.tokenizer):
        raise InputError(
            "processing_class: it is not the model's tokenizer, and ids of another one mean other tokens; leave it out"
        )
    return cast(AnyEncoder, encoder)


def same_tokenizer(one: Any, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers give the same ids to the same tokens."""
    return one is other or (isinstance(one, PreTrainedTokenizerBase) and one.get_vocab() == other.get_vocab())


def _from_sentence_transformer(model: Any) -> BiEncoder:
    parts = _part_names(model, {"Pooling", "Normalize"}, ", Pooling and perhaps Normalize")
    pooling, normalize = model[1], "Normalize" in parts
    similarity = str(model.similarity_fn_name or "cosine")
    if pooling.pooling_mode not in POOLING_BY_MODE or not pooling.include_prompt:
        raise InputError(
            f"model: the SentenceTransformer pools {pooling.pooling_mode}, include_prompt={pooling.include_prompt}; "
            "only cls, mean and lasttoken of all tokens can be trained"
        )
    if similarity != "cosine" and not (similarity == "dot" and normalize):
        raise InputError(
            f"model: similarity_fn_name is '{similarity}', but te_trainer compares vectors by their cosine; set it to "
            "'cosine' if cosines are wanted"
        )
    if model.truncate_dim is not None:
        raise InputError("model: truncate_dim shortens vectors, which te_trainer does not; set it to None")
    layout = SentenceLayout(
        model={
            "prompts": dict(model.prompts or {}),
            "default_prompt_name": model.default_prompt_name,
            "similarity_fn_name": similarity,
        },
        transformer={"do_lower_case": bool(getattr(model[0], "do_lower_case", False))},
        modules={"Normalize": ""} if normalize else {},
    )
    plm, pooled = _float32(model[0].auto_model), POOLING_BY_MODE[pooling.pooling_mode]
    return BiEncoder(plm, model.tokenizer, pooled, prompt=_prompt(model), layout=layout, **_max_length(model))


def _from_their_cross_encoder(model: Any) -> CrossEncoder:
    _part_names(model, set(), "")
    plm, activation = model[0].auto_model, ACTIVATIONS.get(type(model.activation_fn))
    if plm.config.num_labels != 1 or activation is None:
        raise InputError(
            f"model: a CrossEncoder of {plm.config.num_labels} labels and the activation "
            f"{type(model.activation_fn).__name__}, where one label and Sigmoid or Identity are expected"
        )
    if prompt := _prompt(model):
        raise InputError(
            f"model: the CrossEncoder puts '{prompt}' in front of texts, which te_trainer does not; set its "
            "default_prompt_name to None"
        )
    return CrossEncoder(_float32(plm), model.tokenizer, activation=activation, **_max_length(model))


def _part_names(model: Any, optional: set[str], optional_text: str) -> list[str]:
    """Class names of the modules of an object of sentence-transformers, if it can be trained."""
    names = [type(module).__name__ for module in model]
    if names[0] != "Transformer" or not set(names[1:]) <= optional or len(names) < min(2, 1 + len(optional)):
        raise InputError(
            f"model: the {type(model).__name__} consists of {', '.join(names)}; only one that is a Transformer"
            f"{optional_text} can be trained"
        )
    if not isinstance(plm := model[0].auto_model, PreTrainedModel):
        raise InputError(f"model: the {type(model).__name__} holds a {type(plm).__name__}; give one that runs in torch")
    return names


def _prompt(model: Any) -> str:
    return (model.prompts or {}).get(model.default_prompt_name) or ""


def _max_length(model: Any) -> dict[str, Any]:
    return {} if model.max_seq_length is None else {"max_length": model.max_seq_length}


def _from_transformers(model: PreTrainedModel, kind: type[Any], tokenizer: Any) -> Any:
    mapping, auto_class = AUTO_CLASSES[kind]
    config = model.config
    wrong_head = kind is CrossEncoder and config.num_labels != 1
    if config.is_encoder_decoder or wrong_head or not isinstance(model, mapping.get(type(config), ())):
        raise InputError(
            f"model: a {type(model).__name__} where one of {auto_class} is expected; load it so, or give its name"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(
            f"processing_class: a {type(model).__name__} needs its tokenizer; give processing_class=tokenizer"
        )
    if is_decoder(config):
        prepare_tokenizer(tokenizer, type(model).__name__)
        prepare_model(model, tokenizer)
    if tokenizer.pad_token_id is None:
        raise InputError("processing_class: the tokenizer has no padding token, without which there are no batches")
    if kind is BiEncoder:
        return BiEncoder(_float32(model), tokenizer, "last" if is_decoder(config) else "cls")
    return CrossEncoder(_float32(model), tokenizer)


def _float32(model: PreTrainedModel) -> PreTrainedModel:
    """Weights are learnt in float32, whatever the arithmetic of the forward pass."""
    return model if model.dtype == torch.float32 else nn.Module.float(model)
