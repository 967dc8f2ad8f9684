"""Padded batches are those of the tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import sample_pairs
from transformers import AutoTokenizer

from te_trainer.models.collation import pad
from te_trainer.models.tokenization import tokenise
from te_trainer.models.tokens import Tokens


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("sides", [1, 2], ids=["sentences", "pairs"])
def test_batches_are_those_of_the_tokenizer(tiny: Path, sides: int, side: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny, padding_side=side)
    tokenizer.pad_token_id = 7
    tokenizer._pad_token_type_id = 3  # as XLNet's
    tokens = tokenise(tokenizer, 32, *zip(*[pair[:sides] for pair in sample_pairs(20)], strict=True))
    expected = tokenizer.pad(tokens.rows(), return_tensors="pt")
    assert (expected["input_ids"] == 7).any() and (expected["token_type_ids"] == 3).any()
    found = pad(tokenizer, tokens)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(found[name], values), name


def test_one_row(tiny: Path) -> None:
    found = pad(AutoTokenizer.from_pretrained(tiny), Tokens.of_rows({"input_ids": [[5, 6, 7]]}))
    assert found["input_ids"].tolist() == [[5, 6, 7]]
    assert found["attention_mask"].tolist() == [[1, 1, 1]]
