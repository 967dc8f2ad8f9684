"""How the labels of several teachers become one (mutual-distillation, Trans-Encoder, section 2.4).

Labels come one teacher at a time and are let go of: memory holds a few arrays of a pool's size, however many PLMs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.stats import rankdata

from te_trainer.config.schema import Combine


def combine(labels: Iterable[np.ndarray], how: Combine, weights: Sequence[float]) -> np.ndarray:
    """One score for each pair out of every teacher's.

    Args:
        labels: of each teacher, float32, shape (n,).
        how: `mean` is the paper's. `weighted` is the mean by `weights`. `rank` orders the pairs by the mean of their
            ranks (equal scores share their average rank) and gives them the values of the plain mean in that order: no
            monotone rescaling of a teacher changes the order, and a teacher whose scores spread widely counts no more
            than another. Of equal mean ranks the earlier pair comes lower.
        weights: of the teachers, positive; only their ratios count, and only where `how` is `weighted`.

    Returns:
        float32, shape (n,).
    """
    total: np.ndarray | float = 0.0
    ranks: np.ndarray | float = 0.0
    whole = 0.0
    for scores, given in zip(labels, weights, strict=True):
        weight = given if how == "weighted" else 1.0
        total = total + weight * scores.astype(np.float64)
        whole += weight
        if how == "rank":
            ranks = ranks + rankdata(scores)
    mean = np.asarray(total / whole, dtype=np.float32)
    if how != "rank":
        return mean
    result = np.empty_like(mean)
    result[np.argsort(ranks, kind="stable")] = np.sort(mean)
    return result
