"""How well scores order pairs as gold scores do, in float64: float32 would make ties where there are none.

Each metric is a function here and a module of the library evaluate: `evaluate.load(module_path(name))`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ConstantInputWarning, pearsonr, spearmanr

from te_trainer.config.types import Task

Metric = Callable[[np.ndarray, np.ndarray], float]
METRIC_TITLES = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "roc_auc": "ROC-AUC",
    "average_precision": "Average precision",
}


def spearman(scores: np.ndarray, gold: np.ndarray, counts: np.ndarray | None = None) -> Any:
    """Spearman's rank correlation, a fraction; 0 for scores that are all equal, NaN for such gold scores.

    Args:
        scores, gold: Shape (n,).
        counts: How often each pair counts, shape (b, n), for b results at once. Default: once, for one result.
    """
    if counts is None:
        return _by_scipy(spearmanr, scores, gold)
    return _correlation(_Order(scores).ranks(counts), _Order(gold).ranks(counts), counts)


def pearson(scores: np.ndarray, gold: np.ndarray, counts: np.ndarray | None = None) -> Any:
    """Pearson's correlation, a fraction; arguments and exceptions are those of `spearman`."""
    if counts is None:
        return _by_scipy(pearsonr, scores, gold)
    # less the first one, values that are all equal are exactly 0, and so is their mean
    one, two = (values - values[0] for values in (np.asarray(scores, np.float64), np.asarray(gold, np.float64)))
    return _correlation(one, two, counts)


def roc_auc(scores: np.ndarray, gold: np.ndarray, counts: np.ndarray | None = None) -> Any:
    """Area under the ROC curve, a fraction: how often a positive pair scores above a negative one, ties half.

    Args:
        scores, counts: As for `spearman`.
        gold: Shape (n,); above 0.5 is positive. The result is NaN where all are, or none is.
    """
    weights = _weights(gold, counts)
    hits = weights * (np.asarray(gold) > 0.5)
    positives, negatives = hits.sum(1), (weights - hits).sum(1)
    wins = (hits * _Order(scores).ranks(weights)).sum(1) - positives * (positives + 1) / 2
    with np.errstate(invalid="ignore"):
        return _result(wins / (positives * negatives), counts)


def average_precision(scores: np.ndarray, gold: np.ndarray, counts: np.ndarray | None = None) -> Any:
    """Average precision, a fraction: precision at each score that positive pairs have, weighted by how many have it.

    Args:
        scores, counts: As for `spearman`; pairs of equal scores are retrieved together.
        gold: Shape (n,); above 0.5 is positive. The result is NaN where none is.
    """
    weights, order = _weights(gold, counts), _Order(-np.asarray(scores, np.float64))
    hits, retrieved = order.count(weights * (np.asarray(gold) > 0.5)), order.count(weights)
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(hits.cumsum(1) / retrieved.cumsum(1))
        return _result((hits * precision).sum(1) / hits.sum(1), counts)


def _by_scipy(correlation: Callable[..., Any], scores: np.ndarray, gold: np.ndarray) -> float:
    scores, gold = np.asarray(scores, np.float64), np.asarray(gold, np.float64)
    if (scores == scores[0]).all():
        return 0.0
    with warnings.catch_warnings():
        # callers refuse gold scores that are all equal by the NaN
        warnings.simplefilter("ignore", ConstantInputWarning)
        return float(correlation(scores, gold).statistic)


class _Order:
    """The order of values, to count below each value without sorting again."""

    def __init__(self, values: np.ndarray) -> None:
        distinct, self.index = np.unique(np.asarray(values, np.float64), return_inverse=True)
        self.order = np.argsort(self.index, kind="stable")
        self.starts = np.searchsorted(self.index[self.order], np.arange(len(distinct)))

    def count(self, weights: np.ndarray) -> np.ndarray:
        """How often each distinct value counts, in ascending order: (b, m)."""
        return np.add.reduceat(weights[:, self.order], self.starts, axis=1)

    def ranks(self, weights: np.ndarray) -> np.ndarray:
        """The average rank of each pair's value, (b, n)."""
        drawn = self.count(weights)
        return (drawn.cumsum(1) - (drawn - 1) / 2)[:, self.index]


def _weights(gold: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    return np.ones((1, len(gold))) if counts is None else counts


def _result(values: np.ndarray, counts: np.ndarray | None) -> Any:
    return float(values[0]) if counts is None else values


def _correlation(one: np.ndarray, two: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation of values of shape (n,) or (b, n)."""
    one, two = (
        values - (weights * values).sum(1, keepdims=True) / weights.sum(1, keepdims=True) for values in (one, two)
    )
    variance, gold_variance = (weights * one**2).sum(1), (weights * two**2).sum(1)
    with np.errstate(invalid="ignore"):
        correlation = (weights * one * two).sum(1) / np.sqrt(variance * gold_variance)
    return np.where(variance == 0, 0.0, correlation)


# The first metric of a task is the one that the paper's tables have, and that chooses checkpoints.
TASK_METRICS: dict[Task, tuple[Metric, Metric]] = {
    "sts": (spearman, pearson),
    "binary": (roc_auc, average_precision),
}


def module_path(name: str) -> str:
    """Path of the `evaluate.Metric` of a metric of `METRIC_TITLES`, for `evaluate.load` without network."""
    return str(Path(__file__).parent / "modules" / name)
