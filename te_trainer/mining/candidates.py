"""Pairs that could be mined: each once, with the source that found it."""

from __future__ import annotations

from typing import NamedTuple, get_args

import numpy as np

from te_trainer.config.types import CandidateSource

SOURCES: tuple[CandidateSource, ...] = get_args(CandidateSource)


class Candidates(NamedTuple):
    """Pairs of rows of a file of sentences, in ascending order; no pair occurs twice."""

    rows: np.ndarray  # int64, shape (n, 2), the smaller row first
    source: np.ndarray  # uint8, shape (n,): which of `SOURCES` found the pair, the first of them where several did

    def of(self, kept: np.ndarray) -> Candidates:
        """Those of them for which `kept`, bool, shape (n,), is true."""
        return Candidates(self.rows[kept], self.source[kept])


def merge(found: dict[str, np.ndarray]) -> Candidates:
    """Gather what several sources found.

    Args:
        found: Pairs of rows of each source, by its name in `SOURCES`, each of shape (m, 2) and in any order. A
            sentence with itself is dropped.
    """
    names = [name for name in SOURCES if name in found]
    rows = np.concatenate([np.empty((0, 2), dtype=np.int64), *(found[name] for name in names)])
    source = np.repeat([SOURCES.index(name) for name in names], [len(found[name]) for name in names]).astype(np.uint8)
    two = rows[:, 0] != rows[:, 1]
    rows, source = np.sort(rows[two], axis=1), source[two]
    # the two rows of a pair as one number; `unique` gives the first index of each
    _, first = np.unique(rows[:, 0] << 32 | rows[:, 1], return_index=True)
    return Candidates(rows[first], source[first])


def document_pairs(documents: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Pair each anchor with the sentences before and after it in its document, whatever stands between them.

    Args:
        documents: Numbers of the documents, or of their unbroken parts, of all sentences in the order in which they
            were read, shape (n,).
        anchors: Rows of the sentences that look for partners, int64, shape (a,).

    Returns:
        Pairs of rows, int64, shape (m, 2) with m at most 2 * a, in the order of the document.
    """
    order = np.argsort(documents, kind="stable")
    same = np.flatnonzero(documents[order[1:]] == documents[order[:-1]])
    pairs = np.stack([order[same], order[same + 1]], axis=1).astype(np.int64)
    return pairs[np.isin(pairs, anchors).any(axis=1)]


def random_pairs(anchors: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Pair each anchor with `k` other anchors that are drawn at random, one perhaps twice.

    Where not all sentences are anchors, these are drawn at random themselves; others would have to be embedded.

    Args:
        anchors: Rows of the sentences that look for partners, int64, shape (a,).

    Returns:
        Pairs of rows, int64, shape (a * k, 2), the anchor first; with fewer other anchors than k, fewer.
    """
    count = len(anchors)
    k = max(0, min(k, count - 1))
    # a step from 1 to count - 1 never leads back to the anchor
    steps = np.random.default_rng(seed).integers(1, max(count, 2), (count, k))
    return pairs_with_anchors(anchors, anchors[(np.arange(count)[:, None] + steps) % max(count, 1)])


def pairs_with_anchors(anchors: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """Pairs of each anchor, shape (a,), with each of its partners, shape (a, k): int64, shape (a * k, 2)."""
    return np.stack([np.repeat(anchors, partners.shape[1]), partners.ravel()], axis=1).astype(np.int64)
