"""Which of the scored candidates become pairs: some of each score, more of the higher ones."""

from __future__ import annotations

import heapq

import numpy as np

OUTER = 0.5  # per cent of the scores on each side that do not widen the range of the bands
BANDS = 20


def draw_by_score(
    scores: np.ndarray, rows: np.ndarray, pairs: int, per_sentence: int, seed: int, bands: int = BANDS
) -> np.ndarray:
    """Draw pairs of each score, more of the higher ones, as far as there are candidates.

    The bands are of equal width and take turns to give one of their candidates, drawn at random. A band has as many
    turns as its number says, from 1 for the lowest: given pairs have high scores oftener than low ones too, and this
    was better than equal shares and than squared ones (docs/results.md). A band that has none left gives its turns to
    the others.

    Args:
        scores: Scores of the candidates, shape (n,).
        rows: Rows of their sentences, int64, shape (n, 2).
        per_sentence: Pairs that a sentence may be in.

    Returns:
        The drawn candidates, int64, ascending: `pairs`, or as many as candidates and `per_sentence` allow.
    """
    band = band_of(scores, band_edges(scores, bands))
    order = np.random.default_rng(seed).permutation(len(scores))
    queues = [iter(order[band[order] == number].tolist()) for number in range(bands)]
    first, second = rows[:, 0].tolist(), rows[:, 1].tolist()
    taken = [0] * (int(rows.max(initial=-1)) + 1)
    drawn: list[int] = []
    # the n-th turn of a band is at n divided by its share
    turns = [(1 / (number + 1), number, 1) for number in range(bands)]
    heapq.heapify(turns)
    while turns and len(drawn) < pairs:
        _, number, turn = heapq.heappop(turns)
        for candidate in queues[number]:
            one, two = first[candidate], second[candidate]
            if taken[one] < per_sentence and taken[two] < per_sentence:
                taken[one] += 1
                taken[two] += 1
                drawn.append(candidate)
                heapq.heappush(turns, ((turn + 1) / (number + 1), number, turn + 1))
                break
    return np.array(sorted(drawn), dtype=np.int64)


def band_edges(scores: np.ndarray, bands: int = BANDS) -> np.ndarray:
    """Edges of bands of equal width between the scores' 0.5th and 99.5th percentile, float64, shape (bands + 1,)."""
    low, high = np.percentile(scores, [OUTER, 100 - OUTER]) if len(scores) else (0.0, 1.0)
    return np.linspace(low, high, bands + 1)


def band_of(scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The band of each score, from 0; a score outside of all bands is in the nearest one."""
    return np.searchsorted(edges[1:-1], scores, side="right")
