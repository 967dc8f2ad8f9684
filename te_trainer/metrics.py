"""How well scores order pairs as gold scores do, in float64: float32 would make ties where there are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata, spearmanr

Metric = Callable[[np.ndarray, np.ndarray], float]


def spearman(scores: np.ndarray, gold: np.ndarray) -> float:
    """Spearman's rank correlation, a fraction; both of shape (n,).

    Scores that are all the same put nothing in order: 0, as for scores in random order.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if (scores == scores[0]).all():
        return 0.0
    return float(spearmanr(scores, np.asarray(gold, dtype=np.float64)).statistic)


def roc_auc(scores: np.ndarray, gold: np.ndarray) -> float:
    """Area under the ROC curve, a fraction: how often a positive pair scores above a negative one, ties half.

    Args:
        scores: shape (n,).
        gold: shape (n,), positive where above 0.5.
    """
    positive = np.asarray(gold) > 0.5
    count = int(positive.sum())
    ranks = rankdata(np.asarray(scores, dtype=np.float64))
    wins = ranks[positive].sum() - count * (count + 1) / 2
    return float(wins / (count * (len(ranks) - count)))
