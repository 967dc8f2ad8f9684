"""From texts to token ids, cut to a length, in memory that grows with the longest text and no faster.

A fast tokenizer keeps the pieces that it cuts off; of a pair, every piece of one text with every piece of the other, so
that memory grows with the product of their lengths. Here it gives the ids of each text alone; they are cut and framed
afterwards. That costs less time than what it replaces, with short texts too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple, Self

import numpy as np
from transformers import PreTrainedTokenizerBase

from te_trainer.models.tokens import Tokens, spans

CHARACTERS = 1_000_000  # of texts that are tokenised together; the tokenizer needs about 100 bytes for each


def tokenise(tokenizer: PreTrainedTokenizerBase, max_length: int, *sides: Sequence[str]) -> Tokens:
    """What `tokenizer(*sides, truncation="longest_first", max_length=max_length)` gives, to the id.

    `sides` are n sentences, or the first and the second sentences of n pairs, for n rows.
    """
    if not tokenizer.is_fast:
        return Tokens.of_rows(tokenizer(*map(list, sides), truncation="longest_first", max_length=max_length))
    frame, positions = _frame(tokenizer, len(sides))
    width = len(frame["input_ids"])
    budget = max(0, max_length - width + len(sides))
    from_end = tokenizer.truncation_side == "left"
    parts = []
    for texts in _encoded(tokenizer, sides):
        kept = _longest_first([lengths for _, lengths in texts], budget)
        counts = np.ones((len(kept[0]), width), dtype=np.int64)
        counts[:, positions] = np.stack(kept, axis=1)
        # of each token, its position in the frame
        position = np.repeat(np.tile(np.arange(width), len(counts)), counts.ravel())
        columns = {name: values[position] for name, values in frame.items()}
        for (ids, lengths), count, of_text in zip(texts, kept, positions, strict=True):
            starts = np.cumsum(lengths) - (count if from_end else lengths)
            columns["input_ids"][position == of_text] = ids[spans(starts, count)]
        parts.append(Tokens(columns, counts.sum(axis=1)))
    return Tokens.concatenate(parts)


class TokenCounts(NamedTuple):
    """How many tokens rows have before anything is cut."""

    lengths: np.ndarray  # of each row, special ones included: int64, shape (n,)
    unknown: int  # how many tokens of all rows are the one for what the vocabulary lacks

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, *sides: Sequence[str]) -> Self:
        """Count them; `sides` are those of `tokenise`."""
        unknown = _unknown_id(tokenizer)
        if not tokenizer.is_fast:
            tokens = Tokens.of_rows(tokenizer(*map(list, sides), verbose=False))
            return cls(tokens.lengths, int((tokens.columns["input_ids"] == unknown).sum()))
        frame, positions = _frame(tokenizer, len(sides))
        lengths, count = [], 0
        for texts in _encoded(tokenizer, sides):
            lengths.append(sum(each for _, each in texts))
            count += sum(int((ids == unknown).sum()) for ids, _ in texts)
        return cls(len(frame["input_ids"]) - len(positions) + np.concatenate(lengths), count)


def _unknown_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of what the vocabulary lacks; -1 where there is none, or it has another role, as in GPT-2."""
    roles = ("bos", "eos", "sep", "pad", "cls", "mask")
    others = {getattr(tokenizer, f"{role}_token_id") for role in roles}
    found = tokenizer.unk_token_id
    return -1 if found is None or found in others else int(found)


def _frame(tokenizer: PreTrainedTokenizerBase, sides: int) -> tuple[dict[str, np.ndarray], list[int]]:
    """Each column of a row whose texts have one token each, and the positions of these tokens in it.

    The tokenizer itself is asked, which leaves it without truncation and padding.
    """
    probe = tokenizer(*[[tokenizer.pad_token]] * sides)
    whose = probe.sequence_ids(0)
    row = [position for position, side in enumerate(whose) if side is None or position == whose.index(side)]
    columns = {name: np.array(values, dtype=np.int32)[row] for name, (values,) in probe.items()}
    columns.pop("attention_mask", None)
    return columns, [row.index(whose.index(side)) for side in range(sides)]


def _longest_first(lengths: list[np.ndarray], budget: int) -> list[np.ndarray]:
    """How many tokens are kept of each row's one or two texts: together `budget` at most.

    Of an odd number of tokens, the longer text, or the second of equals, gets one more.
    """
    if len(lengths) == 1:
        return [np.minimum(lengths[0], budget)]
    one, two = lengths
    shorter = np.minimum(np.minimum(one, two), budget // 2)
    longer = np.minimum(np.maximum(one, two), budget - shorter)
    return [np.where(one > two, longer, shorter), np.where(one > two, shorter, longer)]


def _encoded(
    tokenizer: PreTrainedTokenizerBase, sides: Sequence[Sequence[str]]
) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """Ids of each side's texts, nothing cut off or added, and how many each text has; some rows at a time."""
    ends = np.cumsum([sum(map(len, texts)) for texts in zip(*sides, strict=True)], dtype=np.int64)
    cuts = np.flatnonzero(np.diff(ends // CHARACTERS)) + 1
    for start, stop in pairwise([0, *cuts.tolist(), len(ends)]):
        found = []
        for side in sides:
            encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(side[start:stop]), add_special_tokens=False)
            lengths = np.fromiter(map(len, encodings), dtype=np.int64)
            ids = chain.from_iterable(encoding.ids for encoding in encodings)
            found.append((np.fromiter(ids, dtype=np.int32, count=lengths.sum()), lengths))
        yield found
