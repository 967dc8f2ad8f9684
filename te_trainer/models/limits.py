"""What a model can read: families, tokens of a text, token types, ids."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

from torch import nn
from transformers import MODEL_MAPPING, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from te_trainer.errors import InputError
from te_trainer.models.checkpoint_files import CheckpointFiles
from te_trainer.models.decoders import is_decoder

VERY_LONG = 1_000_000  # tokens, where nothing bounds a text
# Families without vectors of tokens that follow from one text: they change with padding, whatever the attention mask
# says, by a convolution, a Fourier transform, random hashes or pooling; read more than text; or give one vector a text.
UNUSABLE_FAMILIES = {
    *("canine", "convbert", "cpmant", "fnet", "funnel", "nystromformer", "reformer", "yoso"),
    *("bros", "layoutlmv2", "layoutlmv3", "lilt", "lxmert", "markuplm", "tapas"),
    "dpr",
}


def check_config(files: CheckpointFiles, config: PretrainedConfig) -> None:
    """Refuse models that make no token vectors, whose scores depend on their batch, or that need more than text."""
    if config.is_encoder_decoder or type(config) not in MODEL_MAPPING:
        raise files.refusal(
            f"{(config.architectures or [config.model_type])[0]} is neither an encoder nor a decoder alone; start from "
            "one such as bert-base-uncased"
        )
    family, reason = config.model_type, ""
    if family == "xmod" and config.default_language is None:
        reason = "reads texts of the language that default_language in config.json names, and it names none (set it)"
    elif family in UNUSABLE_FAMILIES or reads_more_than_text(config):
        reason = "makes no vectors of tokens that depend on one text alone"
    elif "decoder_input_ids" in forward_arguments(config):  # a T5EncoderModel, which AutoModel makes a T5Model of
        reason = "is loaded with a decoder beside its encoder, which te_trainer cannot use"
    if reason:
        raise files.refusal(f"a {family} {reason}; start from another model")


def reads_more_than_text(config: PretrainedConfig) -> bool:
    """Whether a model reads pictures or sounds, beside a text (Gemma 3; CLIP, whose loss compares them) or instead."""
    main_input = cast(Any, MODEL_MAPPING[type(config)]).main_input_name
    has_parts = config.get_text_config() is not config
    arguments = forward_arguments(config)
    # a part of such a model cannot do without what its other parts give it
    needed = {name for name, argument in arguments.items() if argument.default is argument.empty}
    needs_more = bool(needed - {"self", "input_ids", "args", "kwargs"})
    return has_parts or needs_more or main_input != "input_ids" or "return_loss" in arguments


def forward_arguments(config: PretrainedConfig) -> Mapping[str, Any]:
    """The arguments that the model of a configuration reads."""
    return inspect.signature(cast(Any, MODEL_MAPPING[type(config)]).forward).parameters


def position_limit(model: PreTrainedModel) -> int:
    """The longest input of a model, in tokens; `VERY_LONG` where its configuration names none.

    RoBERTa and its relatives count positions from after the padding token's id.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return VERY_LONG
    for module in model.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(getattr(module, "position_embeddings", None), nn.Module):
            return positions - padding - 1
    if getattr(model.config, "attention_type", None) == "block_sparse":
        # BigBird takes another attention for shorter texts, and keeps it for longer ones that come later
        config = model.config
        return min(positions, int((5 + 2 * config.num_random_blocks) * config.block_size))
    return positions


def check_length(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, key: str, sides: int
) -> None:
    """Refuse texts longer than a model can read, and a length that leaves no token of each of the `sides`."""
    limit = position_limit(model)
    special = tokenizer.num_special_tokens_to_add(pair=sides == 2)
    if 1 <= max_length < special + sides:
        raise InputError(
            f"{key}: {max_length:,} tokens leave none of a text beside the {special} special ones that the tokenizer "
            f"of model {name} adds; set it to {special + sides} or more"
        )
    if not 1 <= max_length <= limit:
        raise InputError(
            f"{key}: {max_length:,} tokens, but model {name} has {limit:,} positions; set it to {limit:,} or fewer"
        )


def check_vocabulary(files: CheckpointFiles, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose ids a model has no embeddings for."""
    try:
        rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    except NotImplementedError:  # of a vits, which synthesises speech
        raise files.refusal(
            f"a {model.config.model_type} has no embeddings of tokens that transformers knows; start from another model"
        ) from None
    highest = max(tokenizer.get_vocab().values(), default=0)
    if rows is not None and highest >= rows:
        token = tokenizer.convert_ids_to_tokens(highest)
        raise files.refusal(
            f"its tokenizer knows {highest + 1:,} tokens ('{token}' is the last), but the model has embeddings for "
            f"{rows:,}; save the tokenizer that belongs to it, or resize_token_embeddings and save the model again"
        )


def readable_columns(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What a tokenizer gives of a pair that the model can read: without token types where there are too many."""
    columns = list(tokenizer.model_input_names)
    types = getattr(config, "type_vocab_size", None)
    types_of_pair = tokenizer("a", "b").get("token_type_ids") or [0]
    # a decoder that takes token types reads them as tokens of the text (GPT-2)
    if is_decoder(config) or (isinstance(types, int) and max(types_of_pair) >= types):
        columns = [column for column in columns if column != "token_type_ids"]
    return columns
