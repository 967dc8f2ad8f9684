"""Pairs of sentences that follow one another in a document."""

from __future__ import annotations

import numpy as np


def document_pairs(documents: np.ndarray) -> np.ndarray:
    """Pair each sentence with the next one of its document.

    Args:
        documents: A number of each sentence's document, shape (n,), in the order in which they were read.

    Returns:
        Pairs of rows, int64, shape (m, 2).
    """
    first = np.flatnonzero(documents[1:] == documents[:-1])
    return np.stack([first, first + 1], axis=1).astype(np.int64)
