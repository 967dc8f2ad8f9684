"""What the page says of labels: how a teacher's are distributed, and how those of two teachers differ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from te_trainer.distillation.combine import quantiles

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Labelling:
    """The labels that a teacher gave a pool, float32, shape (n,), and when, as the page names it."""

    when: str
    values: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.values.mean(dtype=np.float64))

    @property
    def std(self) -> float:
        return float(self.values.std(dtype=np.float64))

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest label."""
        return float(self.values.min()), float(self.values.max())

    @cached_property
    def ranks(self) -> np.ndarray:
        """For each pair, which fraction of the pool has a lower label, equal labels counted half; shape (n,)."""
        return quantiles(self.values)


def at_quantiles(values: np.ndarray) -> list[float]:
    """The value at each of `QUANTILES`."""
    found: list[float] = np.quantile(values, QUANTILES).tolist()
    return found


def disagreements(first: Labelling, second: Labelling, count: int) -> tuple[list[int], list[int]]:
    """The pairs whose ranks differ most, the widest apart first, of equals the earlier one.

    The first list holds at most `count` rows that the first teacher ranks higher. Ranks are compared because labels of
    two teachers are on scales of their own.
    """
    gap = first.ranks - second.ranks
    higher, lower = (np.argsort(-side, kind="stable")[:count] for side in (gap, -gap))
    return higher[gap[higher] > 0].tolist(), lower[gap[lower] < 0].tolist()
