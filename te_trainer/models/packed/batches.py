"""Batches of similar length, by tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

PADDING = 0.05  # share of a batch that may be padding
ROW = 64  # tokens; a packed row has a multiple of this
ITEMS = 16  # a packed batch of more has a multiple of this


def token_batches(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Positions in batches of similar length, the longest first.

    A batch ends when it is full, or when padding would pass its share: among few items of many lengths, small batches
    cost less than the padding of large ones.

    Args:
        lengths: tokens of each item, shape (n,).
        budget: items times the longest of them stays within this, but a batch holds at least one item.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    start = 0
    while start < len(order):
        longest = int(ordered[start])
        real = np.cumsum(ordered[start : start + max(1, budget // longest)])
        # the share of real tokens only falls with every item, so those that keep it come first
        size = int((real >= (1 - PADDING) * longest * np.arange(1, len(real) + 1)).sum())
        yield order[start : start + size]
        start += size


def packed_batches(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """As `token_batches`, for models that compute no padding: real tokens alone fill a batch.

    All batches but the last are nearly full, and of few sizes: products are compiled for each number of tokens and, in
    a cross-encoder's head, for each number of pairs, and half a megabyte is kept of each.
    """
    room = max(1, budget // ROW) * ROW - 1
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        before = ends[start] - lengths[order[start]]
        stop = max(start + 1, int(np.searchsorted(ends, before + room, side="right")))
        if stop - start > ITEMS:
            stop -= (stop - start) % ITEMS
        yield order[start:stop]
        start = stop


def row_size(real: int) -> int:
    """Tokens of a packed row with so many real ones; at least one is a filler."""
    return (real // ROW + 1) * ROW


def split_by_size(sizes: np.ndarray, cost: int) -> Iterator[np.ndarray]:
    """Positions of one batch in groups of similar size, the largest first; one group where splitting saves little.

    Args:
        sizes: of each item, shape (n,); in a group, each costs as much as the largest.
        cost: of one more group: a group is split while that saves more.
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
