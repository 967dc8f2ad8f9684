"""The encoder that a trainer's argument `model` stands for."""

from __future__ import annotations

import copy
import sys
import tempfile
from dataclasses import replace
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
from te_trainer.models.bi_encoder import check_texts, resolve_pooling
from te_trainer.models.checkpoint import Checkpoint, give_plain_outputs
from te_trainer.models.checkpoint_files import CheckpointFiles
from te_trainer.models.cross_encoder import refuse_blind_classifier, resolve_activation
from te_trainer.models.decoders import is_decoder, keep_backend, prepare_model, prepare_tokenizer
from te_trainer.models.limits import check_config, check_length, check_vocabulary, position_limit
from te_trainer.models.sentence_files import SUPPORTED_MODULES, read_layout
from te_trainer.models.tokenizer import fit_to_model, refuse_lost_ids

AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)

SENTENCE_TRANSFORMERS_CLASS: dict[type[Any], str] = {BiEncoder: "SentenceTransformer", CrossEncoder: "CrossEncoder"}
AUTO_CLASSES: dict[type[Any], tuple[Any, str]] = {
    BiEncoder: (MODEL_MAPPING, "AutoModel"),
    CrossEncoder: (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, "AutoModelForSequenceClassification with num_labels=1"),
}


def as_encoder(model: Any, kind: type[AnyEncoder], tokenizer: Any, seed: int) -> AnyEncoder:
    """The encoder that a user's model stands for. A model object is trained itself; its weights are not copied."""
    theirs: Any = getattr(sys.modules.get("sentence_transformers"), SENTENCE_TRANSFORMERS_CLASS[kind], ())
    if isinstance(model, (str, Path)):
        # a new head is drawn before the Trainer seeds anything
        set_seed(seed)
        encoder: Any = kind.from_pretrained(str(model))
    elif isinstance(model, kind):
        encoder = model
        encoder.model = _float32(encoder.model)
    elif isinstance(model, theirs):
        encoder = _from_sentence_transformers(model, kind)
    elif isinstance(model, PreTrainedModel):
        encoder = _from_transformers(model, kind, tokenizer)
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
    name = str(model) if isinstance(model, (str, Path)) else type(encoder.model).__name__
    refuse_lost_ids(encoder.tokenizer, name)
    if not isinstance(model, (str, Path)):  # of which loading has made sure
        sides = 1 if kind is BiEncoder else 2
        give_plain_outputs(encoder.model.config)
        check_vocabulary(CheckpointFiles(name, Path()), encoder.model, encoder.tokenizer)
        check_length(name, encoder.model, encoder.tokenizer, encoder.max_length, "the encoder's max_length", sides)
    return cast(AnyEncoder, encoder)


def same_tokenizer(one: Any, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers give the same ids to the same tokens."""
    return one is other or (isinstance(one, PreTrainedTokenizerBase) and one.get_vocab() == other.get_vocab())


def _from_sentence_transformers(model: Any, kind: type[Any]) -> Any:
    """What sentence-transformers saves of its object, but for the weights, says what a folder's files would say."""
    modules = [type(module).__name__ for module in model]
    plm: Any = getattr(model[0], "auto_model", None)
    runs_in_torch = isinstance(plm, PreTrainedModel)
    if modules != SUPPORTED_MODULES[: len(modules)] or not runs_in_torch:
        raise InputError(
            f"model: the {type(model).__name__} consists of {', '.join(modules)} with a {type(plm).__name__}; only "
            f"{', '.join(SUPPORTED_MODULES)} of a model that runs in torch can be trained"
        )
    give_plain_outputs(plm.config)
    with tempfile.TemporaryDirectory() as folder:
        # the weights are not read
        plm.save_pretrained = plm.config.save_pretrained
        try:
            model.save_pretrained(folder, create_model_card=False)
        finally:
            del plm.save_pretrained
        files, config = CheckpointFiles(f"of the {type(model).__name__}", Path(folder)), copy.copy(plm.config)
        check_config(files, config)
        config.architectures = [type(plm).__name__]
        layout = read_layout(files)
        lower_case = bool(getattr(model[0], "do_lower_case", False))
        layout = replace(layout, transformer=layout.transformer | {"do_lower_case": lower_case})
        if lower_case and model.tokenizer.is_fast:  # of which sentence-transformers has changed the backend
            keep_backend(model.tokenizer)
        checkpoint = Checkpoint(files.name, None, files, layout, config)
        if is_decoder(config):
            prepare_tokenizer(model.tokenizer, files.name, kind.kind)
            prepare_model(plm, model.tokenizer)
        if model.tokenizer.pad_token_id is None:
            raise files.refusal("its tokenizer has no padding token, without which there are no batches")
        fit_to_model(model.tokenizer, config)
        length = {} if model.max_seq_length is None else {"max_length": min(model.max_seq_length, position_limit(plm))}
        if kind is CrossEncoder:
            activation = resolve_activation(checkpoint)
            return CrossEncoder(_float32(plm), model.tokenizer, activation=activation, shared_with=model, **length)
        pooling = resolve_pooling(checkpoint)
        check_texts(checkpoint, layout, pooling, layout.prompt)
    return BiEncoder(_float32(plm), model.tokenizer, pooling, prompt=layout.prompt, layout=layout, **length)


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
    fit_to_model(tokenizer, config)
    files, limit = CheckpointFiles(type(model).__name__, Path()), position_limit(model)
    if kind is BiEncoder:
        pooling: Any = "last" if is_decoder(config) else "cls"
        return BiEncoder(_float32(model), tokenizer, pooling, max_length=min(BiEncoder.max_length, limit))
    refuse_blind_classifier(files, config)
    return CrossEncoder(_float32(model), tokenizer, max_length=min(CrossEncoder.max_length, limit))


def _float32(model: PreTrainedModel) -> PreTrainedModel:
    """Weights are learnt in float32, whatever the arithmetic of the forward pass."""
    return model if {weight.dtype for weight in model.parameters()} == {torch.float32} else nn.Module.float(model)
