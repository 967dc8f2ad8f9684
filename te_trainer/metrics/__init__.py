"""How well scores order pairs as gold scores do, in float64: float32 would make ties where there are none.

Each metric is a function here and a module of the library evaluate: `evaluate.load(module_path(name))`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.stats import ConstantInputWarning, pearsonr, rankdata, spearmanr

from te_trainer.config.schema import Task

Metric = Callable[[np.ndarray, np.ndarray], float]
METRIC_TITLES = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "roc_auc": "ROC-AUC",
    "average_precision": "Average precision",
}


@contextlib.contextmanager
def _constant_gold_is_nan() -> Iterator[None]:
    """Callers refuse gold scores that are all the same by the NaN, so scipy need not warn of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        yield


def spearman(scores: np.ndarray, gold: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays of shape (n,), a fraction; 0 for scores that are all equal."""
    scores = np.asarray(scores, dtype=np.float64)
    if (scores == scores[0]).all():
        return 0.0
    with _constant_gold_is_nan():
        return float(spearmanr(scores, np.asarray(gold, dtype=np.float64)).statistic)


def pearson(scores: np.ndarray, gold: np.ndarray) -> float:
    """Pearson's correlation of two arrays of shape (n,), a fraction; 0 for scores that are all equal."""
    scores = np.asarray(scores, dtype=np.float64)
    if (scores == scores[0]).all():
        return 0.0
    with _constant_gold_is_nan():
        return float(pearsonr(scores, np.asarray(gold, dtype=np.float64)).statistic)


def roc_auc(scores: np.ndarray, gold: np.ndarray) -> float:
    """Area under the ROC curve, a fraction: how often a positive pair scores above a negative one, ties half.

    Args:
        scores: Shape (n,).
        gold: Shape (n,); above 0.5 is positive.
    """
    positive = np.asarray(gold) > 0.5
    count = int(positive.sum())
    ranks = rankdata(np.asarray(scores, dtype=np.float64))
    wins = ranks[positive].sum() - count * (count + 1) / 2
    return float(wins / (count * (len(ranks) - count)))


def average_precision(scores: np.ndarray, gold: np.ndarray) -> float:
    """Average precision, a fraction: precision at each score that positive pairs have, weighted by how many have it.

    Args:
        scores: Shape (n,); pairs of equal scores are retrieved together.
        gold: Shape (n,); above 0.5 is positive, and at least one must be.
    """
    positive = np.asarray(gold) > 0.5
    _, index = np.unique(-np.asarray(scores, dtype=np.float64), return_inverse=True)
    retrieved = np.bincount(index)
    hits = np.bincount(index, weights=positive)
    return float((hits * hits.cumsum() / retrieved.cumsum()).sum() / positive.sum())


# The first metric of a task is the one that the paper's tables have, and that chooses checkpoints.
TASK_METRICS: dict[Task, tuple[Metric, Metric]] = {
    "sts": (spearman, pearson),
    "binary": (roc_auc, average_precision),
}


def module_path(name: str) -> str:
    """Path of the `evaluate.Metric` of a metric, for `evaluate.load` without network.

    Args:
        name: `spearman`, `pearson`, `roc_auc` or `average_precision`.
    """
    return str(Path(__file__).parent / "modules" / name)
