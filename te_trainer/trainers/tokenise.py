"""From text to token ids, once per training: Arrow columns that batches are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from te_trainer.encoders.tokens import tokenise
from te_trainer.errors import InputError

TEXT = ("sentence1", "sentence2")


def tokenise_sentences(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, prompt: str = ""
) -> Dataset:
    """For a bi-encoder: columns `input_ids1`, `input_ids2`, `label`, `length` (tokens of the longer sentence).

    Args:
        prompt: text in front of every sentence.
    """

    def sentences(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        one, two = (
            tokenise(tokenizer, max_length, [prompt + text for text in rows[name]])["input_ids"] for name in TEXT
        )
        lengths = [max(len(first), len(second)) for first, second in zip(one, two, strict=True)]
        return {"input_ids1": one, "input_ids2": two, "length": lengths}

    return _map(dataset, sentences, _hash(tokenizer, max_length, prompt))


def tokenise_pairs(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, both_orders: bool = False
) -> Dataset:
    """For a cross-encoder: what the tokenizer gives for a pair, `label`, `length`.

    Args:
        both_orders: all pairs once as they are and once swapped, with the same label; twice as many rows.
    """

    def both(rows: dict[str, list[Any]], swap: bool = False) -> dict[str, list[Any]]:
        encoded = tokenise(tokenizer, max_length, *(rows[name] for name in (reversed(TEXT) if swap else TEXT)))
        return {**encoded, "length": [len(ids) for ids in encoded["input_ids"]]}

    orders = (False, True) if both_orders else (False,)
    parts = [_map(dataset, both, _hash(tokenizer, max_length, swap), swap=swap) for swap in orders]
    return concatenate_datasets(parts)


def lengths(dataset: Dataset) -> np.ndarray:
    """The column `length`, shape (n,)."""
    return np.asarray(dataset.with_format("numpy")["length"][:])


def check_columns(dataset: Dataset, names: Sequence[str]) -> None:
    """Refuse a dataset that cannot be trained on.

    Raises:
        InputError: it has no rows, or lacks a column.
    """
    if len(dataset) == 0:
        raise InputError("the dataset has no rows; give at least one pair")
    for name in names:
        if name not in dataset.column_names:
            raise InputError(
                f"the dataset has no column '{name}' among {', '.join(dataset.column_names)}; rename one with "
                "Dataset.rename_column"
            )


def _map(
    dataset: Dataset, function: Callable[..., dict[str, list[Any]]], called: str | None, **arguments: Any
) -> Dataset:
    check_columns(dataset, (*TEXT, "label"))
    dataset = dataset.select_columns([*TEXT, "label"])
    return dataset.map(
        function,
        batched=True,
        remove_columns=list(TEXT),
        fn_kwargs=arguments,
        new_fingerprint=called and Hasher.hash([dataset._fingerprint, called]),
    )


def _hash(tokenizer: PreTrainedTokenizerBase, *arguments: Any) -> str | None:
    """What `Dataset.map` keeps a result under, for the other ranks to find; its own way takes half a second a call."""
    if not tokenizer.is_fast:
        return None
    settings = [tokenizer.backend_tokenizer.to_str(), tokenizer.model_input_names, tokenizer.truncation_side]
    return Hasher.hash([*settings, *arguments])
