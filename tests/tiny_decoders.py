"""Tiny decoder-only PLMs, built in-process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from conftest import sample_pairs
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2Tokenizer,
    GPTNeoXConfig,
    GPTNeoXTokenizer,
    LlamaConfig,
    LlamaTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2Tokenizer,
    set_seed,
)
from transformers.pytorch_utils import Conv1D


def byte_level(special: list[str]) -> Tokenizer:
    """Byte pairs of the sample's sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for pair in sample_pairs(100) for text in pair), trainer)
    return tokenizer


def tokenizer_of(plm: str) -> PreTrainedTokenizerBase:
    """A tokenizer without padding token, as those of the PLMs are."""
    special = ["<unk>", "<s>", "</s>"] if plm == "llama" else ["<|endoftext|>"]
    model = json.loads(byte_level(special).to_str())["model"]
    parts: dict[str, Any] = {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}
    if plm == "gpt2":
        return GPT2Tokenizer(**parts)
    if plm == "qwen2":
        return Qwen2Tokenizer(**parts, pad_token=None)
    if plm == "gpt_neox":
        return GPTNeoXTokenizer(**parts, pad_token=None)
    return LlamaTokenizer(**parts, add_bos_token=True, padding_side="left")


def config_of(plm: str, words: int) -> PretrainedConfig:
    if plm == "gpt2":
        return GPT2Config(vocab_size=words, n_embd=32, n_layer=2, n_head=4, n_positions=130)
    sizes: dict[str, Any] = {
        "vocab_size": words,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 130,
    }
    if plm == "gpt_neox":
        return GPTNeoXConfig(**sizes)
    make = {"llama": LlamaConfig, "qwen2": Qwen2Config}[plm]
    return make(**sizes, num_key_value_heads=2)


def enlarge_weights(model: torch.nn.Module) -> None:
    """Random weights of the usual size make all sentences alike, the more so as all of them end with EOS."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | Conv1D):
                module.weight.mul_(12)
        model.get_input_embeddings().weight.mul_(20)


def save_decoder(folder: Path, plm: str) -> Path:
    """A causal language model of two layers with random weights, and its tokenizer."""
    set_seed(0)
    tokenizer = tokenizer_of(plm)
    assert tokenizer.pad_token is None
    model = AutoModelForCausalLM.from_config(config_of(plm, len(tokenizer)))
    enlarge_weights(model.base_model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
