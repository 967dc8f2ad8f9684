"""How far a score may be chance: the bootstrap over the pairs of a gold set."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from te_trainer.metrics import roc_auc

RESAMPLES = 1000
COVERED = 95  # per cent of the resamples that an interval holds
CHUNK = 100_000  # pairs that are drawn at once: more would leave the processor's cache


def resampled(
    metrics: Sequence[Callable[..., Any]],
    scores: np.ndarray,
    gold: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    seed: int,
    name: str,
) -> list[np.ndarray]:
    """Score resamples: as many different pairs as the set has, drawn with replacement.

    The draws follow from `seed`, `name` and the number of pairs, so that two models are scored on the same ones and
    their scores can be subtracted (the paired bootstrap).

    Args:
        metrics: Functions of `te_trainer.metrics`.
        scores, gold: Shape (n,).
        groups: The number of each row's pair, shape (n,): rows of one pair are drawn together. None for n pairs.
        name: Name of the gold set.

    Returns:
        Scores of the resamples for each metric, shape (RESAMPLES,). A resample in which nothing can be ranked gets the
        score of a random order.
    """
    groups = np.arange(len(gold)) if groups is None else groups
    numbers, size = np.random.default_rng([seed, zlib.crc32(name.encode())]), int(groups.max()) + 1
    found: list[list[np.ndarray]] = [[] for _ in metrics]
    chunk = max(1, CHUNK // len(gold))
    for start in range(0, RESAMPLES, chunk):
        draws = numbers.integers(size, size=(min(chunk, RESAMPLES - start), size))
        counts = np.stack([np.bincount(draw, minlength=size)[groups] for draw in draws]).astype(float)
        for values, metric in zip(found, metrics, strict=True):
            values.append(np.nan_to_num(metric(scores, gold, counts), nan=0.5 if metric is roc_auc else 0.0))
    return [np.concatenate(values) for values in found]


def interval(values: np.ndarray) -> tuple[float, float]:
    """The percentile interval of resampled scores."""
    low, high = np.percentile(values, [(100 - COVERED) / 2, (100 + COVERED) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Score:
    """A score and what it was in every resample, shape (RESAMPLES,); all are fractions."""

    value: float
    resamples: np.ndarray

    @staticmethod
    def mean(scores: Sequence[Score]) -> Score:
        """The unweighted mean over sets, each of which is resampled by itself."""
        resamples = np.mean([score.resamples for score in scores], axis=0)
        return Score(float(np.mean([score.value for score in scores])), resamples)

    def __sub__(self, other: Score) -> Score:
        return Score(self.value - other.value, self.resamples - other.resamples)

    @property
    def interval(self) -> list[float]:
        return list(interval(self.resamples))
