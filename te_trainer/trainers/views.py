"""Positive pairs for contrastive training: two views of a sentence, or two sentences that mean the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils import data
from transformers import PreTrainedTokenizerBase

from te_trainer.errors import InputError
from te_trainer.models.tokenization import tokenise
from te_trainer.trainers.datasets import TEXT, PairCheck

ROWS = 10_000  # that are looked at together
SHORTEST = 30  # characters; a shorter text is not masked (Mirror-BERT's code, src/data_loader.py)


class SentenceViews(data.Dataset[dict[str, Any]]):
    """Tokenised positive pairs; index `epoch * len + row`, so that a view may differ from epoch to epoch.

    Tokenised when asked for: a masked view is another text in every epoch.

    Args:
        pairs: columns `sentence1` and `sentence2`; the same sentence twice for SimCSE, where dropout makes the views.
        span: characters of `sentence2` that a mask token replaces (Mirror-BERT); 0 for none.
        seed: a mask's place follows from (seed, epoch, row) alone.
        prompt: text in front of every sentence, never masked.

    Raises:
        InputError: a column is missing, there are no rows, or the tokenizer has no mask token.
    """

    def __init__(
        self,
        pairs: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        span: int = 0,
        seed: int = 0,
        prompt: str = "",
    ) -> None:
        check = PairCheck("train_dataset", label_needed=False)
        check.columns(pairs)
        if span and tokenizer.mask_token is None:
            raise InputError("span: the model's tokenizer has no mask token to replace a span with; set span to 0")
        self.pairs = pairs.select_columns(list(TEXT))
        for start in range(0, len(pairs), ROWS):
            check.rows(self.pairs[start : start + ROWS], start)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.span = span
        self.seed = seed
        self.prompt = prompt

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        places = [divmod(index, len(self)) for index in indices]
        rows = self.pairs[[row for _, row in places]]
        one, two = (rows[name] for name in TEXT)
        if self.span:
            mask = str(self.tokenizer.mask_token)
            two = [
                mask_span(text, self.span, mask, np.random.default_rng((self.seed, *place, 1)))
                for text, place in zip(two, places, strict=True)
            ]
        first, second = (
            tokenise(self.tokenizer, self.max_length, [self.prompt + text for text in texts])["input_ids"]
            for texts in (one, two)
        )
        return [{"input_ids1": ids1, "input_ids2": ids2} for ids1, ids2 in zip(first, second, strict=True)]


def mask_span(text: str, span: int, mask: str, generator: np.random.Generator) -> str:
    """Replace `span` characters in a row by a mask token (Liu et al. 2021, "random span masking").

    A text of fewer than 30 characters stays as it is, as in the official code.
    """
    if len(text) < max(SHORTEST, span + 1):
        return text
    start = int(generator.integers(len(text) - span))
    return f"{text[:start]} {mask} {text[start + span :]}"
