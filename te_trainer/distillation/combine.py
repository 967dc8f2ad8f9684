"""How labels of several teachers become one (mutual-distillation, Trans-Encoder, section 2.4), and how they spread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.stats import rankdata

from te_trainer.config.types import Combine


def combine(labels: Iterable[np.ndarray], how: Combine, weights: Sequence[float]) -> np.ndarray:
    """One score for each pair out of every teacher's, float32, shape (n,).

    Args:
        labels: Labels of each teacher, float32, shape (n,); one array is in memory at a time.
        how: `mean` is the paper's. `weighted` is the mean by `weights`. `rank` orders the pairs by the mean of their
            ranks (equal scores share their average rank) and gives them the values of the plain mean in that order
            (pairs of equal means share the average of theirs): no monotone rescaling of a teacher changes the order,
            and a teacher whose scores spread widely counts no more than another.
        weights: Weights of the teachers, positive, for `weighted`; only their ratios count.
    """
    mean: np.ndarray | float = 0.0
    ranks: np.ndarray | float = 0.0
    total = sum(weights) if how == "weighted" else len(weights)
    for scores, weight in zip(labels, weights, strict=True):
        mean = mean + (weight if how == "weighted" else 1.0) * scores.astype(np.float64)
        if how == "rank":
            ranks = ranks + rankdata(scores)
    combined = np.asarray(mean / total, dtype=np.float32)
    if how == "rank":
        _, index, count = np.unique(ranks, return_inverse=True, return_counts=True)
        sums = np.add.reduceat(np.sort(combined).astype(np.float64), np.cumsum(count) - count)
        combined = (sums / count)[index].astype(np.float32)
    return combined


def quantiles(labels: np.ndarray) -> np.ndarray:
    """The same order, spread evenly over (0, 1): (rank - 1/2) / n; equal labels share theirs. float32, shape (n,)."""
    return np.asarray((rankdata(labels) - 0.5) / len(labels), dtype=np.float32)
