"""Batches of texts of similar length, by tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MAX_PADDING_SHARE = 0.05  # of a padded batch
ROW_MULTIPLE = 64  # tokens; a packed row has a multiple of this
BATCH_MULTIPLE = 16  # texts; a packed batch of more has a multiple of this


def padded_batches(lengths: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """Indices in batches of similar length, the longest first.

    A batch ends when it is full, or when padding would pass its share: among few texts of many lengths, small batches
    cost less than the padding of large ones.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    start = 0
    while start < len(order):
        longest = int(ordered[start])
        real = np.cumsum(ordered[start : start + max(1, max_tokens // longest)])
        # the share of real tokens only falls with every text, so those that keep it come first
        size = int((real >= (1 - MAX_PADDING_SHARE) * longest * np.arange(1, len(real) + 1)).sum())
        yield order[start : start + size]
        start += size


def packed_batches(lengths: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """As `padded_batches`, for models that compute no padding: real tokens alone fill a batch.

    All batches but the last are nearly full, and of few sizes: products are compiled for each number of tokens and, in
    a cross-encoder's head, for each number of pairs, and half a megabyte is kept of each.
    """
    # a row ends with at least one filler
    capacity = max(1, max_tokens // ROW_MULTIPLE) * ROW_MULTIPLE - 1
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        before = ends[start] - lengths[order[start]]
        stop = max(start + 1, int(np.searchsorted(ends, before + capacity, side="right")))
        if stop - start > BATCH_MULTIPLE:
            stop -= (stop - start) % BATCH_MULTIPLE
        yield order[start:stop]
        start = stop


def row_length(num_tokens: int) -> int:
    """Tokens of a packed row with so many real ones; at least one is a filler."""
    return (num_tokens // ROW_MULTIPLE + 1) * ROW_MULTIPLE


def split_by_size(sizes: np.ndarray, cost: int) -> Iterator[np.ndarray]:
    """Indices of one batch in groups of similar size, the largest first.

    In a group, each text costs as much as the largest; a group is split while that saves more than `cost`.
    """
    order = np.argsort(-sizes, kind="stable")
    ordered = sizes[order]

    def parts(start: int, stop: int) -> Iterator[np.ndarray]:
        saved = (ordered[start] - ordered[start:stop]) * np.arange(stop - start, 0, -1)
        cut = int(saved.argmax())
        if saved[cut] <= cost:
            yield order[start:stop]
        else:
            yield from parts(start, start + cut)
            yield from parts(start + cut, stop)

    return parts(0, len(order))
