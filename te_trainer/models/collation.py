"""From token ids to padded tensors, for labelling and for both trainers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from te_trainer.models.tokens import Tokens


def pad(tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> dict[str, Tensor]:
    """What `tokenizer.pad(tokens.rows(), return_tensors="pt")` gives, in a fiftieth of its time.

    The columns and `attention_mask` come back, each of shape (n, tokens of the longest row).
    """
    real = np.arange(tokens.lengths.max()) < tokens.lengths[:, None]
    if tokenizer.padding_side == "left":
        real = real[:, ::-1]
    fillers = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    padded = {}
    for name, values in tokens.columns.items():
        rows = np.full(real.shape, fillers.get(name, 0))
        rows[real] = values
        padded[name] = torch.from_numpy(rows)
    return {**padded, "attention_mask": torch.from_numpy(real.astype(np.int64))}


@dataclass
class BiEncoderCollator:
    """Both sides of all pairs as one batch: the first sentences, then the second ones.

    Two pairs `{"input_ids1": [2, 7, 3], "input_ids2": [2, 3], "label": 0.5}` and `{"input_ids1": [2, 8, 3],
    "input_ids2": [2, 9, 3], "label": 0.1}` give `input_ids` `[[2, 7, 3], [2, 8, 3], [2, 3, 0], [2, 9, 3]]`, the
    `attention_mask` of the same shape (4, 3), and `labels` `[0.5, 0.1]`. Positive pairs have no labels.
    """

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids = [row[side] for side in ("input_ids1", "input_ids2") for row in rows]
        return {**pad(self.tokenizer, Tokens.of_rows({"input_ids": ids})), **_labels(rows)}


@dataclass
class CrossEncoderCollator:
    """Pairs padded to the longest.

    Two pairs `{"input_ids": [2, 7, 3, 8, 3], "label": 0.5}` and `{"input_ids": [2, 7, 3, 3], "label": 0.1}` give
    `input_ids` `[[2, 7, 3, 8, 3], [2, 7, 3, 3, 0]]`, `attention_mask` (and `token_type_ids`, where the tokenizer has
    them) of the same shape (2, 5), and `labels` `[0.5, 0.1]`; pairs without labels have none.
    """

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        names = [name for name in rows[0] if name not in {"label", "length", "row"}]
        tokens = Tokens.of_rows({name: [row[name] for row in rows] for name in names})
        return {**pad(self.tokenizer, tokens), **_labels(rows)}


def _labels(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    if "label" not in rows[0]:
        return {}
    return {"labels": torch.tensor([row["label"] for row in rows], dtype=torch.float32)}
