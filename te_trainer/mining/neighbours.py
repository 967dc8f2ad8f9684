"""The nearest sentences of some sentences: exact where they are few, by an approximate index where they are many."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from te_trainer.labelling import Progress
from te_trainer.mining.candidates import pairs_with_anchors
from te_trainer.search import nearest


def nearest_pairs(vectors: np.ndarray, anchors: np.ndarray, k: int, scratch: Path, progress: Progress) -> np.ndarray:
    """Pair each anchor with the sentences of the highest cosine.

    All ranks call it, and all get the pairs.

    Args:
        vectors: Vectors of all sentences, float32, shape (n, hidden).
        anchors: Rows of the sentences that look for partners, int64, shape (a,).
        k: Partners of each; at most all other sentences.
        scratch: Folder for what was found, on a disk that all ranks see.
        progress: Called with the fraction that is done, 0 to 1.

    Returns:
        Pairs of rows, int64, shape (a * k, 2), the anchor first and its nearest partner first.
    """
    k = max(0, min(k, len(vectors) - 1))
    rows, _ = nearest(vectors, vectors[anchors], k + 1, scratch, progress)
    return pairs_with_anchors(anchors, without_anchors(np.asarray(rows), anchors))


def without_anchors(rows: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Drop each anchor from the k + 1 rows that it found, or the last of them where others with its vector hide it."""
    drop = rows == anchors[:, None]
    drop[~drop.any(axis=1), -1] = True
    kept: np.ndarray = rows[~drop].reshape(len(rows), rows.shape[1] - 1)
    return kept
