"""From tokenised rows to padded tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from te_trainer.models.padding import pad


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
        batch = pad(self.tokenizer, {"input_ids": ids})
        if "label" not in rows[0]:
            return batch
        return {**batch, "labels": torch.tensor([row["label"] for row in rows], dtype=torch.float32)}


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
        batch = pad(self.tokenizer, {name: [row[name] for row in rows] for name in names})
        if "label" not in rows[0]:
            return batch
        return {**batch, "labels": torch.tensor([row["label"] for row in rows], dtype=torch.float32)}
