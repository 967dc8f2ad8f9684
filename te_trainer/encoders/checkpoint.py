"""Finding a checkpoint, telling what it is, and loading its tokenizer, with one sentence for each way to fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from te_trainer.config.revision import split_revision
from te_trainer.config.schema import Pooling
from te_trainer.encoders.decoders import is_decoder, prepare_tokenizer
from te_trainer.encoders.locate import commit_of, locate
from te_trainer.errors import InputError

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)

VERY_LONG = 1_000_000  # tokens, where nothing bounds a text

CheckpointKind = Literal["encoder", "cross-encoder"]


def load_config(name: str) -> PretrainedConfig:
    """The configuration of a checkpoint.

    Raises:
        InputError: there is no such model, or it is neither an encoder nor a decoder (but both, as T5 is).
    """
    path = locate(name, weights=False)
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        where = "repository" if commit_of(name) else "folder"
        raise InputError(f"model {name}: no model in that {where} ({_reason(error)})") from None
    architecture = (config.architectures or [""])[0]
    if config.is_encoder_decoder or type(config) not in MODEL_MAPPING:
        raise InputError(
            f"model {name}: {architecture or config.model_type} is neither an encoder nor a decoder alone; start from "
            "one such as bert-base-uncased"
        )
    return config


def load_model(auto: Any, name: str, **arguments: Any) -> PreTrainedModel:
    """`auto.from_pretrained`, in float32 whatever the checkpoint's dtype.

    Raises:
        InputError: there are no weights, or they do not fit the configuration.
    """
    try:
        model = auto.from_pretrained(locate(name), dtype=torch.float32, **arguments)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"model {name}: its weights cannot be loaded ({_reason(error)})") from None
    if commit_of(name) is not None:
        # What is saved of the model names its start so, and not by a folder of this machine.
        model.name_or_path = model.config.name_or_path = split_revision(name)[0]
    return model


def check_weights(name: str) -> None:
    """Refuse a checkpoint without weights, or with a weight file that was cut short, without reading them."""
    folder = Path(locate(name))
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    if not files:
        raise InputError(f"model {name}: the folder or repository holds no weights (model.safetensors)")
    for file in files:
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "pt"):
                    pass
            except (SafetensorError, OSError) as error:
                raise InputError(f"model {name}: {file.name} is broken ({_reason(error)}); copy it again") from None


def checkpoint_kind(config: PretrainedConfig) -> CheckpointKind:
    """Whether a checkpoint has a classification head."""
    architecture = (config.architectures or [""])[0]
    return "cross-encoder" if architecture.endswith("ForSequenceClassification") else "encoder"


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint; a decoder's is told how to pad, and to end sentences.

    Raises:
        InputError: there is none, or it cannot pad.
    """
    path = locate(name, weights=False)
    if not any(Path(path, file).is_file() for file in TOKENIZER_FILES):
        # transformers would make an empty tokenizer of the model's type
        raise InputError(f"model {name}: the folder holds no tokenizer (tokenizer.json); save the model's beside it")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"model {name}: no tokenizer that can be loaded ({_reason(error)})") from None
    if is_decoder(load_config(name)):
        prepare_tokenizer(tokenizer, name)
    if tokenizer.pad_token_id is None:
        raise InputError(f"model {name}: its tokenizer has no padding token, without which sentences cannot be batched")
    return tokenizer


def refuse_other_modules(name: str) -> None:
    """Refuse a sentence-transformers checkpoint that does more than `AutoModel` and a pooling can.

    Raises:
        InputError: names the module that would be lost.
    """
    for module in _json(name, "modules.json") or []:
        if module["type"].rpartition(".")[2] not in {"Transformer", "Pooling", "Normalize"}:
            raise InputError(
                f"model {name}: its module {module['type'].rpartition('.')[2]} would be lost; start from a checkpoint "
                "of Transformer and Pooling only"
            )


def saved_pooling(name: str, key: str = "pooling") -> Pooling | None:
    """The pooling that a sentence-transformers folder or repository names; None where it names none.

    Args:
        key: of the configuration, that would choose another one.

    Raises:
        InputError: it pools in a way of its own.
    """
    modules = _json(name, "modules.json") or []
    path = next((module["path"] for module in modules if module["type"].endswith("Pooling")), None)
    pooling = _json(name, f"{path}/config.json") if path is not None else None
    if pooling is None:
        return None
    # sentence-transformers 6 writes one name or several; earlier versions a flag for each kind.
    modes = pooling.get("pooling_mode") or [
        mode.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens")
        for mode, flag in pooling.items()
        if mode.startswith("pooling_mode_") and flag
    ]
    modes = [modes] if isinstance(modes, str) else modes
    known: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
    if len(modes) == 1 and modes[0] in known:
        return known[modes[0]]
    raise InputError(f"model {name}: its pooling is none of cls, mean and last; choose one with the key {key}")


def saved_prompt(name: str) -> str:
    """The text that a sentence-transformers folder or repository puts in front of every sentence by default."""
    config = _json(name, "config_sentence_transformers.json") or {}
    return (config.get("prompts") or {}).get(config.get("default_prompt_name")) or ""


def saved_max_length(name: str) -> int:
    """Tokens that a checkpoint takes: what sentence-transformers is told, else as many as tokenizer and model allow."""
    said = (_json(name, "sentence_bert_config.json") or {}).get("max_seq_length")
    positions = getattr(load_config(name), "max_position_embeddings", -1)
    return said or min(load_tokenizer(name).model_max_length, positions if positions > 0 else VERY_LONG, VERY_LONG)


def saved_activation(name: str, config: PretrainedConfig) -> Literal["sigmoid", "identity"]:
    """How sentence-transformers would make scores of a cross-encoder's logits; sigmoid where nothing says otherwise.

    Raises:
        InputError: in another way than those two.
    """
    # version 6 has a file of its own for it; earlier ones wrote it into the model's configuration
    path = (
        (_json(name, "config_sentence_transformers.json") or {}).get("activation_fn")
        or (getattr(config, "sentence_transformers", None) or {}).get("activation_fn")
        or getattr(config, "sbert_ce_default_activation_function", None)
        or "Sigmoid"
    )
    activation = path.rpartition(".")[2].lower()
    if activation == "sigmoid":
        return "sigmoid"
    if activation == "identity":
        return "identity"
    raise InputError(
        f"model {name}: its scores are the {path} of its logits; start from a cross-encoder whose scores are sigmoids "
        "or logits"
    )


def _json(name: str, file: str) -> Any:
    path = Path(locate(name, weights=False), file)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
