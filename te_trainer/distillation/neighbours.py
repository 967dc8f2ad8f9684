"""What an encoder changed, without gold: which sentences have other nearest neighbours than the start finds."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from te_trainer.labelling import distinct_sentences, sentences_at

SENTENCES = 2_000  # drawn from the pool: enough neighbours to choose from, embedded in seconds
NEAREST = 3
MOST_CHANGED = 6  # sentences that are written down


def draw_sentences(pairs: Dataset, seed: int) -> list[str]:
    """At most `SENTENCES` distinct sentences of a pool, in its order."""
    _, first = distinct_sentences(pairs)
    drawn = np.random.default_rng((seed, 4)).permutation(len(first))[:SENTENCES]
    return sentences_at(pairs, first[np.sort(drawn)])


def changed_neighbours(sentences: list[str], before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Compare the nearest sentences by two encoders.

    Args:
        sentences: More than `NEAREST` sentences.
        before, after: Their vectors by the two encoders, float32, shapes (n, hidden) and (n, hidden of the other).

    Returns:
        `{"sentences": n, "unchanged": f, "changed": [{"sentence": s, "before": [ENTRY], "after": [ENTRY]}]}`.
        `unchanged` is the part of the sentences whose `NEAREST` nearest are the same. `changed` holds those whose
        nearest by `before` have fallen furthest among all by `after`. An entry is `{"sentence": s, "cosine": f,
        "rank": p}`, with the cosine of the encoder that found it, and its rank among all by `after`, 1 for the
        nearest.
    """
    cosines = [_cosines(vectors) for vectors in (before, after)]
    near = [np.argsort(-each, axis=1, kind="stable")[:, :NEAREST] for each in cosines]
    at = np.arange(len(sentences))[:, None]
    ranks = [1 + (cosines[1][:, None, :] > cosines[1][at, each][:, :, None]).sum(2) for each in near]
    unchanged = (np.sort(near[0], axis=1) == np.sort(near[1], axis=1)).all(1)
    fall = np.where(unchanged, 0, ranks[0].mean(1))
    most = np.argsort(-fall, kind="stable")[:MOST_CHANGED]

    def entries(row: int, encoder: int) -> list[dict[str, Any]]:
        return [
            {
                "sentence": sentences[other],
                "cosine": round(float(cosines[encoder][row, other]), 4),
                "rank": int(rank),
            }
            for other, rank in zip(near[encoder][row], ranks[encoder][row], strict=True)
        ]

    return {
        "sentences": len(sentences),
        "unchanged": round(float(unchanged.mean()), 4),
        "changed": [
            {"sentence": sentences[row], "before": entries(row, 0), "after": entries(row, 1)}
            for row in most
            if fall[row]
        ],
    }


def _cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosines of all sentences with one another, shape (n, n); a sentence is no neighbour of its own."""
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines: np.ndarray = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines
