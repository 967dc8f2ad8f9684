"""Sentences that share rare words, by BM25."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from te_trainer.data.words import number_words
from te_trainer.errors import InputError
from te_trainer.labelling import Progress


def bm25_pairs(sentences: Dataset, anchors: np.ndarray, k: int, progress: Progress) -> np.ndarray:
    """Pair each anchor with the `k` sentences of the highest BM25 score, or with all that share a word with it.

    Args:
        sentences: Column `sentence1`.
        anchors: Rows of the sentences that look for partners, int64, shape (a,).

    Returns:
        Pairs of rows, int64, shape (m, 2) with m at most a * k, the anchor first.

    Raises:
        InputError: The package bm25s is not installed.
    """
    check_bm25()
    import bm25s

    numbers, vocabulary = number_words(sentences["sentence1"])
    k = max(0, min(k, len(numbers) - 1))
    if not vocabulary or not k:
        return np.empty((0, 2), dtype=np.int64)
    index = bm25s.BM25()
    index.index((numbers, vocabulary), show_progress=False)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for done, anchor in enumerate(anchors.tolist(), start=1):
        if query := list(dict.fromkeys(numbers[anchor])):
            partners = _best(index.get_scores_from_ids(query), anchor, k)
            pairs.append(np.stack([np.full(len(partners), anchor), partners], axis=1))
        progress(done / len(anchors))
    return np.concatenate(pairs)


def check_bm25() -> None:
    """Refuse to go on without the package bm25s."""
    try:
        import bm25s  # noqa: F401
    except ImportError:
        raise InputError(
            "mining.sources: bm25 needs the package bm25s; pip install 'te_trainer[mining]', or leave bm25 out"
        ) from None


def _best(scores: np.ndarray, anchor: int, k: int) -> np.ndarray:
    """The k rows of the highest scores above 0, the anchor left out; of equal scores the next ones after the anchor.

    Where many sentences are alike but for a name or a number, their scores are equal, and if each anchor took the same
    first rows, these could be in few pairs.
    """
    scores[anchor] = 0
    found = np.flatnonzero(scores)
    if len(found) > k:
        least = np.partition(scores[found], len(found) - k)[len(found) - k]
        found = found[scores[found] >= least]
    return found[np.lexsort(((found - anchor) % len(scores), -scores[found]))[:k]]
