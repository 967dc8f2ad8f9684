"""From texts to token ids, cut to a length, in memory that grows with the longest text and no faster.

A fast tokenizer keeps the pieces that it cuts off; of a pair, every piece of one text with every piece of the other, so
that memory grows with the product of their lengths. Here it gives the ids of each text alone; they are cut and framed
afterwards. That costs less time than what it replaces, with short texts too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

CHARACTERS = 1_000_000  # of texts that are tokenised together; the tokenizer needs about 100 bytes for each

Columns = dict[str, list[list[int]]]


def tokenise(tokenizer: PreTrainedTokenizerBase, max_length: int, *sides: Sequence[str]) -> Columns:
    """What `tokenizer(*sides, truncation="longest_first", max_length=max_length)` gives, to the id.

    `sides` are n sentences, or the first and the second sentences of n pairs; each column has n rows.
    """
    if not tokenizer.is_fast:
        return dict(tokenizer(*map(list, sides), truncation="longest_first", max_length=max_length))
    frame = _frame(tokenizer, len(sides))
    budget = max(0, max_length - tokenizer.num_special_tokens_to_add(pair=len(sides) == 2))
    from_end = tokenizer.truncation_side == "left"
    columns: Columns = {name: [] for name in frame}
    for encodings in _encoded(tokenizer, sides):
        texts = [encoding.ids for encoding in encodings]
        if sum(map(len, texts)) > budget:
            kept = zip(texts, _longest_first([len(ids) for ids in texts], budget), strict=True)
            texts = [ids[len(ids) - count :] if from_end else ids[:count] for ids, count in kept]
        for name, (edges, values) in frame.items():
            row = list(edges[0])
            for ids, value, edge in zip(texts, values, edges[1:], strict=True):
                row += ids if name == "input_ids" else value * len(ids)
                row += edge
            columns[name].append(row)
    return columns


def token_counts(tokenizer: PreTrainedTokenizerBase, *sides: Sequence[str]) -> list[int]:
    """How many tokens each row has before anything is cut, special ones included."""
    if not tokenizer.is_fast:
        return [len(ids) for ids in tokenizer(*map(list, sides), verbose=False)["input_ids"]]
    special = sum(map(len, _frame(tokenizer, len(sides))["input_ids"][0]))
    return [special + sum(map(len, encodings)) for encodings in _encoded(tokenizer, sides)]


def _frame(tokenizer: PreTrainedTokenizerBase, sides: int) -> dict[str, tuple[list[list[int]], list[list[int]]]]:
    """What stands around the texts in each column, and what stands for each of their tokens.

    The tokenizer itself is asked, with texts of one token. Asking leaves it without truncation and padding.
    """
    probe = tokenizer(*[[tokenizer.pad_token]] * sides)
    whose = probe.sequence_ids(0)
    starts = [whose.index(side) for side in range(sides)]
    ends = [len(whose) - whose[::-1].index(side) for side in range(sides)]
    frame = {}
    for name, (row,) in probe.items():
        edges = [row[end:start] for end, start in zip([0, *ends], [*starts, len(row)], strict=True)]
        frame[name] = (edges, [row[start : start + 1] for start in starts])
    return frame


def _longest_first(lengths: list[int], budget: int) -> list[int]:
    """How many tokens of one or two texts are kept, where all are too many.

    Of an odd number of tokens, the longer text, or the second of equals, gets one more.
    """
    if len(lengths) == 1:
        return [budget]
    shorter = min(*lengths, budget // 2)
    kept = [shorter, budget - shorter]
    return kept[::-1] if lengths[0] > lengths[1] else kept


def _encoded(tokenizer: PreTrainedTokenizerBase, sides: Sequence[Sequence[str]]) -> Iterator[tuple[Encoding, ...]]:
    """Each row's one or two texts, nothing cut off or added."""
    start, size = 0, 0
    for row, texts in enumerate(zip(*sides, strict=True), 1):
        size += sum(map(len, texts))
        if size > CHARACTERS or row == len(sides[0]):
            encode = partial(tokenizer.backend_tokenizer.encode_batch_fast, add_special_tokens=False)
            yield from zip(*(encode(list(side[start:row])) for side in sides), strict=True)
            start, size = row, 0
