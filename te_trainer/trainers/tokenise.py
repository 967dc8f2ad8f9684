"""From text to token ids, once per training: Arrow columns that batches are made of; of a stream, row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset, IterableDataset, concatenate_datasets
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from te_trainer.models.tokenization import tokenise
from te_trainer.trainers.datasets import TEXT, PairCheck

Rows = dict[str, list[Any]]
AnyPairs = TypeVar("AnyPairs", Dataset, IterableDataset)
ANY = PairCheck("dataset")


def tokenise_sentences(
    dataset: AnyPairs,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    prompt: str = "",
    check: PairCheck = ANY,
    numbered: bool = False,
) -> AnyPairs:
    """For a bi-encoder: columns `input_ids1`, `input_ids2`, `length` (tokens of the longer sentence), `label`.

    Args:
        prompt: text in front of every sentence.
        check: refuses rows.
        numbered: Whether a column `row` says which row of `dataset` it was.
    """

    def sentences(rows: Rows) -> Rows:
        one, two = (
            tokenise(tokenizer, max_length, [prompt + text for text in rows[name]])["input_ids"] for name in TEXT
        )
        lengths = [max(len(first), len(second)) for first, second in zip(one, two, strict=True)]
        return {"input_ids1": one, "input_ids2": two, "length": lengths}

    return _map(dataset, [sentences], check, _hash(tokenizer, max_length, prompt), numbered)


def tokenise_pairs(
    dataset: AnyPairs,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    both_orders: bool = False,
    check: PairCheck = ANY,
    numbered: bool = False,
) -> AnyPairs:
    """For a cross-encoder: what the tokenizer gives for a pair, `length`, `label`.

    Args:
        both_orders: all pairs once as they are and once swapped, with the same label; twice as many rows. A stream
            gives a thousand pairs as they are, then the same ones swapped.
        check: refuses rows.
        numbered: Whether a column `row` says which row of `dataset` it was.
    """

    def both(sides: Sequence[str]) -> Callable[[Rows], Rows]:
        def pairs(rows: Rows) -> Rows:
            encoded = tokenise(tokenizer, max_length, *(rows[name] for name in sides))
            return {**encoded, "length": [len(ids) for ids in encoded["input_ids"]]}

        return pairs

    orders = [both(TEXT), both(TEXT[::-1])] if both_orders else [both(TEXT)]
    return _map(dataset, orders, check, _hash(tokenizer, max_length), numbered)


def is_tokenised(dataset: Any) -> bool:
    """Whether these are rows that the functions above gave."""
    if not isinstance(dataset, Dataset) or TEXT[0] in dataset.column_names:
        return False
    return any(name.startswith("input_ids") for name in dataset.column_names)


def lengths(dataset: Dataset) -> np.ndarray:
    """The column `length`, shape (n,)."""
    return column(dataset, "length")


def column(dataset: Dataset, name: str) -> np.ndarray:
    """A column of numbers, shape (n,)."""
    return np.asarray(dataset.with_format("numpy")[name][:])


def _map(
    dataset: AnyPairs,
    functions: Sequence[Callable[[Rows], Rows]],
    check: PairCheck,
    called: str | None,
    numbered: bool = False,
) -> AnyPairs:
    """Rows of each function, one behind the other."""
    kept = check.columns(dataset)
    dataset = dataset.select_columns(kept)
    if isinstance(dataset, IterableDataset):

        def of_all(rows: Rows, indices: list[int]) -> Rows:
            check.rows(rows, indices[0])
            columns: Rows = {}
            for function in functions:
                rest = {"label": rows["label"]} if "label" in rows else {}
                for name, values in {**function(rows), **rest}.items():
                    columns.setdefault(name, []).extend(values)
            return columns

        return dataset.map(of_all, batched=True, with_indices=True, remove_columns=kept)

    def of_one(rows: Rows, indices: list[int], order: int) -> Rows:
        check.rows(rows, indices[0])
        return functions[order](rows) | ({"row": indices} if numbered else {})

    parts = [
        dataset.map(
            of_one,
            batched=True,
            with_indices=True,
            remove_columns=list(TEXT),
            fn_kwargs={"order": order},
            new_fingerprint=called and Hasher.hash([dataset._fingerprint, called, check, numbered, order]),
        )
        for order in range(len(functions))
    ]
    return concatenate_datasets(parts)


def _hash(tokenizer: PreTrainedTokenizerBase, *arguments: Any) -> str | None:
    """What `Dataset.map` keeps a result under, for the other ranks to find; its own way takes half a second a call."""
    if not tokenizer.is_fast:
        return None
    settings = [tokenizer.backend_tokenizer.to_str(), tokenizer.model_input_names, tokenizer.truncation_side]
    return Hasher.hash([*settings, *arguments])
