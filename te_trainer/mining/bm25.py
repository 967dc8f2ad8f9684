"""Sentences that share rare words, by BM25."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from te_trainer.errors import InputError
from te_trainer.mining.words import number_words


def bm25_pairs(sentences: Dataset, anchors: np.ndarray, k: int) -> np.ndarray:
    """Pair each anchor with the sentences of the highest BM25 score.

    Args:
        sentences: Column `sentence1`.
        anchors: Rows of the sentences that look for partners, int64, shape (a,).
        k: Partners of each; fewer where fewer sentences share a word with it.

    Returns:
        Pairs of rows, int64, shape (m, 2) with m at most a * k, the anchor first.

    Raises:
        InputError: The package bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError:
        raise InputError("BM25 needs the package bm25s; pip install 'te_trainer[mining]'") from None
    numbers, vocabulary = number_words(sentences["sentence1"])
    k = max(0, min(k, len(numbers) - 1))
    if not vocabulary or not k:
        return np.empty((0, 2), dtype=np.int64)
    index = bm25s.BM25()
    index.index((numbers, vocabulary), show_progress=False)
    queries = [list(dict.fromkeys(numbers[row])) for row in anchors.tolist()]
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for anchor, query in zip(anchors.tolist(), queries, strict=True):
        if query:
            scores = index.get_scores_from_ids(query)
            scores[anchor] = 0
            best = np.argsort(-scores, kind="stable")[:k]
            best = best[scores[best] > 0]
            pairs.append(np.stack([np.full(len(best), anchor), best], axis=1))
    return np.concatenate(pairs)
