"""How far a score may be chance: the bootstrap over the pairs of a gold set."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from te_trainer.metrics import Metric, average_precision, pearson, roc_auc, spearman

RESAMPLES = 1000
COVERED = 95  # per cent of the resamples that an interval holds
CHUNK = 100_000  # pairs that are drawn at once: more would leave the processor's cache

Statistic = Callable[[np.ndarray], np.ndarray]  # from how often each pair was drawn, (b, n), to scores, (b,)


def resampled(
    metrics: Sequence[Metric], scores: np.ndarray, gold: np.ndarray, *, seed: int, name: str
) -> list[np.ndarray]:
    """Score resamples: as many pairs as the set has, drawn with replacement.

    The draws follow from `seed`, `name` and the number of pairs, so that two models are scored on the same ones and
    their scores can be subtracted (the paired bootstrap).

    Args:
        metrics: Functions of `te_trainer.metrics`.
        scores, gold: Shape (n,).
        name: Name of the gold set.

    Returns:
        Scores of the resamples for each metric, shape (RESAMPLES,). A resample in which nothing can be ranked gets the
        score of a random order.
    """
    scores, gold = scores.astype(np.float64), gold.astype(np.float64)
    statistics = [_STATISTICS[metric](scores, gold) for metric in metrics]
    resamples: list[list[np.ndarray]] = [[] for _ in metrics]
    for counts in _draws(len(gold), np.random.default_rng([seed, zlib.crc32(name.encode())])):
        with np.errstate(invalid="ignore", divide="ignore"):
            for values, statistic in zip(resamples, statistics, strict=True):
                values.append(statistic(counts))
    return [np.concatenate(values) for values in resamples]


def interval(values: np.ndarray) -> tuple[float, float]:
    """The percentile interval of resampled scores."""
    low, high = np.percentile(values, [(100 - COVERED) / 2, (100 + COVERED) / 2])
    return float(low), float(high)


def _draws(size: int, numbers: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each pair was drawn, (b, n), in chunks of RESAMPLES in all; they do not depend on the chunks."""
    chunk = max(1, CHUNK // size)
    for start in range(0, RESAMPLES, chunk):
        draws = range(start, min(start + chunk, RESAMPLES))
        yield np.stack([np.bincount(numbers.integers(size, size=size), minlength=size) for _ in draws]).astype(float)


def _correlation(counts: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Pearson's correlation of values that count several times; values of shape (n,) or (b, n)."""
    total = counts.sum(1, keepdims=True)
    one = one - (counts * one).sum(1, keepdims=True) / total
    two = two - (counts * two).sum(1, keepdims=True) / total
    product = (counts * one * two).sum(1)
    correlation = product / np.sqrt((counts * one**2).sum(1) * (counts * two**2).sum(1))
    return np.asarray(np.nan_to_num(correlation, nan=0.0, posinf=0.0, neginf=0.0))


class _Order:
    """The order of values, to count below each value without sorting again."""

    def __init__(self, values: np.ndarray) -> None:
        distinct, self.index = np.unique(values, return_inverse=True)
        self.order = np.argsort(self.index, kind="stable")
        self.starts = np.searchsorted(self.index[self.order], np.arange(len(distinct)))

    def count(self, counts: np.ndarray) -> np.ndarray:
        """How often each distinct value was drawn, in ascending order: (b, m)."""
        return np.add.reduceat(counts[:, self.order], self.starts, axis=1)

    def ranks(self, counts: np.ndarray) -> np.ndarray:
        """The average rank of each pair's value, (b, n)."""
        drawn = self.count(counts)
        return (drawn.cumsum(1) - (drawn - 1) / 2)[:, self.index]


def _spearman(scores: np.ndarray, gold: np.ndarray) -> Statistic:
    one, two = _Order(scores), _Order(gold)
    return lambda counts: _correlation(counts, one.ranks(counts), two.ranks(counts))


def _pearson(scores: np.ndarray, gold: np.ndarray) -> Statistic:
    return lambda counts: _correlation(counts, scores, gold)


def _roc_auc(scores: np.ndarray, gold: np.ndarray) -> Statistic:
    order = _Order(scores)
    positive = gold > 0.5

    def statistic(counts: np.ndarray) -> np.ndarray:
        hits = counts * positive
        positives, negatives = hits.sum(1), (counts - hits).sum(1)
        wins = (hits * order.ranks(counts)).sum(1) - positives * (positives + 1) / 2
        return np.asarray(np.nan_to_num(wins / (positives * negatives), nan=0.5))

    return statistic


def _average_precision(scores: np.ndarray, gold: np.ndarray) -> Statistic:
    order = _Order(-scores)
    positive = gold > 0.5

    def statistic(counts: np.ndarray) -> np.ndarray:
        hits, retrieved = order.count(counts * positive), order.count(counts)
        precision = np.nan_to_num(hits.cumsum(1) / retrieved.cumsum(1))
        return np.asarray(np.nan_to_num((hits * precision).sum(1) / hits.sum(1)))

    return statistic


_STATISTICS: dict[Metric, Callable[[np.ndarray, np.ndarray], Statistic]] = {
    spearman: _spearman,
    pearson: _pearson,
    roc_auc: _roc_auc,
    average_precision: _average_precision,
}
