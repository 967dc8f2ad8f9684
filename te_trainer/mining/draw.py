"""Which of the scored candidates become pairs: as many of each score, or more of the higher ones."""

from __future__ import annotations

import heapq
import math

import numpy as np

OUTER = 0.5  # per cent of the scores on each side that do not widen the range of the bands
BANDS = 20
SKEW = 1.0  # given pairs have high scores oftener than low ones too; docs/results.md measures 0, 1 and 2


def draw_by_score(
    scores: np.ndarray,
    rows: np.ndarray,
    pairs: int,
    per_sentence: int,
    seed: int,
    skew: float = SKEW,
    bands: int = BANDS,
) -> np.ndarray:
    """Draw pairs so that each score occurs as often as `skew` says, as far as there are candidates.

    The bands are of equal width and take turns to give one of their candidates, drawn at random; one with a larger
    share has more turns. A band that has none left gives its turns to the others.

    Args:
        scores: Scores of the candidates, shape (n,).
        rows: Rows of their sentences, int64, shape (n, 2).
        pairs: How many to draw; fewer where the candidates or `per_sentence` allow no more.
        per_sentence: Pairs that a sentence may be in.
        seed: Draws among the candidates of a band.
        skew: The shares of the bands are as their numbers, from 1 for the lowest, to this power. At 0, all are equal.
        bands: Number of bands.

    Returns:
        The drawn candidates, int64, ascending.
    """
    band = band_of(scores, band_edges(scores, bands))
    order = np.random.default_rng(seed).permutation(len(scores))
    queues = [iter(order[band[order] == number].tolist()) for number in range(bands)]
    first, second = rows[:, 0].tolist(), rows[:, 1].tolist()
    taken = [0] * (int(rows.max(initial=-1)) + 1)
    drawn: list[int] = []
    # of each band the logarithm of when its next turn is: the band's n-th is at n divided by its share
    turns = [(-skew * math.log((number + 1) / bands), number, 1) for number in range(bands)]
    heapq.heapify(turns)
    while turns and len(drawn) < pairs:
        _, number, turn = heapq.heappop(turns)
        for candidate in queues[number]:
            one, two = first[candidate], second[candidate]
            if taken[one] < per_sentence and taken[two] < per_sentence:
                taken[one] += 1
                taken[two] += 1
                drawn.append(candidate)
                later = math.log(turn + 1) - skew * math.log((number + 1) / bands)
                heapq.heappush(turns, (later, number, turn + 1))
                break
    return np.array(sorted(drawn), dtype=np.int64)


def band_edges(scores: np.ndarray, bands: int = BANDS) -> np.ndarray:
    """Edges of bands of equal width between the scores' 0.5th and 99.5th percentile, float64, shape (bands + 1,)."""
    low, high = np.percentile(scores, [OUTER, 100 - OUTER]) if len(scores) else (0.0, 1.0)
    return np.linspace(low, high, bands + 1)


def band_of(scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The band of each score, from 0; a score outside of all bands is in the nearest one."""
    return np.searchsorted(edges[1:-1], scores, side="right")
