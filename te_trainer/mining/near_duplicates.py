"""Pairs that say nothing, because both sentences consist of nearly the same words or look the same to the encoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from scipy.sparse import csr_array

from te_trainer.data.words import number_words

WORDS = 4_000_000  # of pairs that are compared at once
# 1 - cosine of two texts of the same tokens, by the rounding of 16-bit arithmetic; raw decoders come near it, too.
SAME_TOKENS = 1e-5


def near_duplicates(sentences: Dataset, rows: np.ndarray, threshold: float = 0.9) -> np.ndarray:
    """Find the pairs whose sets of words are nearly equal.

    Args:
        sentences: Column `sentence1`.
        rows: Pairs of rows, int64, shape (n, 2).
        threshold: Smallest part of the words of both that they share (Jaccard's index) of a near-duplicate.

    Returns:
        Whether each pair is one, bool, shape (n,). Sentences without any word are no near-duplicates.
    """
    present, index = np.unique(rows, return_inverse=True)
    pairs = index.reshape(rows.shape)
    numbers, vocabulary = number_words(sentences.select(present)["sentence1"])
    sets = [sorted(set(each)) for each in numbers]
    ends = np.cumsum([0, *map(len, sets)])
    flat = np.fromiter((number for each in sets for number in each), dtype=np.int32, count=ends[-1])
    words = csr_array((np.ones(len(flat), dtype=np.int32), flat, ends), shape=(len(sets), max(1, len(vocabulary))))
    sizes = np.diff(ends)
    found = np.zeros(len(rows), dtype=bool)
    both = sizes[pairs].sum(axis=1)
    for block in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(np.cumsum(both) // WORDS)) + 1):
        one, two = pairs[block].T
        shared = words[one].multiply(words[two]).sum(axis=1)
        found[block] = (shared >= threshold * (both[block] - shared)) & (shared > 0)
    return found


def look_the_same(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Find the pairs that no bi-encoder tells apart, such as long texts that differ after the tokens that it reads.

    Args:
        scores: Cosines by each bi-encoder, shape (n,) each.

    Returns:
        Whether each pair is one, bool, shape (n,).
    """
    return np.asarray(np.min(scores, axis=0) > 1 - SAME_TOKENS)
