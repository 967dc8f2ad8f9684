"""Telling what a checkpoint is, and loading its model and tokenizer, with one sentence for each way to fail."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal, cast

import torch
from tokenizers.normalizers import Lowercase, Sequence
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from te_trainer.config.revision import split_revision
from te_trainer.config.schema import Kind
from te_trainer.errors import InputError
from te_trainer.models.decoders import is_decoder, prepare_tokenizer
from te_trainer.models.families import check_family
from te_trainer.models.json_files import read_json, value_of
from te_trainer.models.layout import has_modules, model_folder, saved_lower_case, saved_max_seq_length
from te_trainer.models.limits import check_sizes, position_limit, readable_columns
from te_trainer.models.locate import commit_of
from te_trainer.models.weights import refuse_misfits, refuse_stand_ins

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "tokenizer.model",
    "bpe.codes",
    "tiktoken.model",
    "tekken.json",
)

PROBE = "a"  # a text
PADS_LEFT = {"xlnet"}  # its classifier reads the last column, its positions are relative

CheckpointKind = Literal["encoder", "cross-encoder"]


def load_config(name: str) -> PretrainedConfig:
    """The configuration of a checkpoint.

    Raises:
        InputError: there is no such model, or it is neither an encoder nor a decoder (but both, as T5 is), or it needs
            code of its own.
    """
    path = model_folder(name)
    refuse_stand_ins(name, path)
    raw = read_json(name, path, "config.json", dict) or {}
    check_sizes(name, raw)
    architectures = value_of(name, "config.json", raw, "architectures", list) or []
    if not all(isinstance(architecture, str) for architecture in architectures):
        raise InputError(f"model {name}: architectures in config.json are no names; correct the file")
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # families raise many kinds for values that they cannot use
        if "auto_map" in raw and "trust_remote_code" in str(error):
            raise InputError(_own_code(name, "config.json")) from None
        where = "repository" if commit_of(name) else "folder"
        raise InputError(f"model {name}: no model in that {where} ({_reason(error)})") from None
    architecture = (config.architectures or [""])[0]
    if config.is_encoder_decoder or type(config) not in MODEL_MAPPING:
        raise InputError(
            f"model {name}: {architecture or config.model_type} is neither an encoder nor a decoder alone; start from "
            "one such as bert-base-uncased"
        )
    check_family(name, config)
    return config


def load_model(auto: Any, name: str, new_head: bool = False, **arguments: Any) -> PreTrainedModel:
    """`auto.from_pretrained`, in float32 whatever the checkpoint's dtype.

    Args:
        new_head: whether the model gets a head that its checkpoint never had.

    Raises:
        InputError: there are no weights, or they do not fit the configuration.
    """
    try:
        model, info = auto.from_pretrained(
            model_folder(name, weights=True),
            dtype=torch.float32,
            trust_remote_code=False,
            output_loading_info=True,
            **arguments,
        )
    except Exception as error:  # files of strangers make transformers, torch and pickle raise many kinds
        raise InputError(f"model {name}: its weights cannot be loaded ({_reason(error)})") from None
    refuse_misfits(name, model, info, new_head)
    model.config.return_dict = True  # configurations made for TorchScript say otherwise
    if commit_of(name) is not None:
        # What is saved of the model names its start so, and not by a folder of this machine.
        model.name_or_path = model.config.name_or_path = split_revision(name)[0]
    return model


def checkpoint_kind(config: PretrainedConfig) -> CheckpointKind:
    """Whether a checkpoint has a classification head."""
    architecture = (config.architectures or [""])[0]
    return "cross-encoder" if architecture.endswith("ForSequenceClassification") else "encoder"


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint; a decoder's is told how to pad, and to end sentences.

    It lower-cases texts where sentence-transformers would, and gives no token types that the model does not have.

    Raises:
        InputError: there is none, or it cannot pad.
    """
    path = model_folder(name)
    files = [file for file in TOKENIZER_FILES if Path(path, file).is_file()]
    if not files:
        # transformers would make an empty tokenizer of the model's type
        raise InputError(f"model {name}: the folder holds no tokenizer (tokenizer.json); save the model's beside it")
    _refuse_missing_package(name, path, files)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # files of strangers make transformers and tokenizers raise many kinds
        if "trust_remote_code" in str(error):
            raise InputError(_own_code(name, "tokenizer_config.json")) from None
        raise InputError(f"model {name}: no tokenizer that can be loaded ({_reason(error)})") from None
    config = load_config(name)
    _probe(tokenizer, name)
    if is_decoder(config):
        trained_as: Kind | None = "bi-encoder" if has_modules(name) else None
        prepare_tokenizer(
            tokenizer, name, "cross-encoder" if checkpoint_kind(config) == "cross-encoder" else trained_as
        )
    elif tokenizer.num_special_tokens_to_add(pair=False) == 0:
        raise InputError(
            f"model {name}: its tokenizer puts no special tokens around a sentence, nor between two; save one with a "
            "post-processor that does"
        )
    if tokenizer.pad_token_id is None:
        raise InputError(f"model {name}: its tokenizer has no padding token, without which sentences cannot be batched")
    if saved_lower_case(name):
        lower_case(tokenizer, name)
    tokenizer.model_input_names = readable_columns(config, tokenizer)
    if config.model_type not in PADS_LEFT:
        # positions may be absolute, and are counted from the first column
        tokenizer.padding_side = "right"
    return tokenizer


def lower_case(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Let a tokenizer lower-case what it reads, as sentence-transformers does where `do_lower_case` is set.

    Raises:
        InputError: it is a slow one.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(f"model {name}: do_lower_case needs a fast tokenizer; save a tokenizer.json beside the model")
    before = backend.normalizer
    steps = list(cast(Any, before)) if isinstance(before, Sequence) else [before] if before is not None else []
    if not any(isinstance(step, Lowercase) for step in steps):
        backend.normalizer = Sequence([Lowercase(), *steps])


def saved_max_length(name: str) -> int:
    """Tokens that a checkpoint takes: as many as sentence-transformers or the tokenizer is told, if the model can."""
    with torch.device("meta"):
        model = AutoModel.from_config(load_config(name))
    return max_length_of_model(name, model, load_tokenizer(name))


def max_length_of_model(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that a checkpoint takes, where its model and its tokenizer are there already."""
    return int(min(saved_max_seq_length(name) or tokenizer.model_max_length, position_limit(model)))


def _probe(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer that cannot read a text, be it of characters that it has never seen."""
    longest = tokenizer.model_max_length
    # NaN is not 1 or more either
    if not isinstance(longest, int | float) or isinstance(longest, bool) or not longest >= 1:
        raise InputError(
            f"model {name}: model_max_length in tokenizer_config.json is {str(longest)[:60]!r}, where a number from 1 "
            "on is expected; correct the file"
        )
    try:
        tokens = tokenizer(f"{PROBE} \N{SNOWMAN}", add_special_tokens=False)["input_ids"]
    except Exception as error:  # tokenizers raises nothing more definite
        raise InputError(f"model {name}: its tokenizer cannot read every text ({_reason(error)})") from None
    if not tokens:
        raise InputError(f"model {name}: its tokenizer makes no tokens of a text; save the model's own beside it")


def _refuse_missing_package(name: str, folder: str, files: list[str]) -> None:
    """Ask for the package that reads a vocabulary; transformers asks for another one where there is a choice."""
    if not files or not all(file.endswith(".model") for file in files):
        return
    with Path(folder, files[0]).open("rb") as file:
        # SentencePiece's files are protocol buffers, whose first field has this tag; tiktoken's are lines of text
        package = "sentencepiece" if file.read(1) == b"\n" else "tiktoken"
    if importlib.util.find_spec(package) is None:
        raise InputError(f"model {name}: its tokenizer ({files[0]}) needs the package {package}; pip install {package}")


def _own_code(name: str, file: str) -> str:
    return (
        f"model {name}: it needs code of its own (auto_map in {file}), which te_trainer does not run; start from a "
        "model that transformers knows"
    )


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
