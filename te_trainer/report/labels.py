"""What a pool's labels look like. They are read block by block, so that memory does not grow with the pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import load_from_disk

from te_trainer.files.records import damage_as_input_error

BLOCK = 65_536  # labels in memory at a time
BINS = 65_536  # between the lowest and the highest value; what ranks and quantiles are told apart by

Blocks = Callable[[], Iterator[np.ndarray]]


class Labels:
    """Labels of a pool on disk.

    Args:
        folder: of a labelling.
        pairs: of the pool, where it is known.

    Raises:
        DamagedError: a file of theirs is missing or damaged, or there are more or fewer of them than pairs.
    """

    def __init__(self, folder: Path, pairs: int | None = None) -> None:
        with damage_as_input_error(folder, "this folder", "the run's command writes the page without these labels"):
            self.rows = load_from_disk(str(folder)).with_format("numpy")
            if len(self) != (len(self) if pairs is None else pairs):
                raise ValueError("they were cut")

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[np.ndarray]:
        """All labels in their order, float64."""
        for start in range(0, len(self), BLOCK):
            yield self.rows[start : start + BLOCK]["score"].astype(np.float64)

    def at(self, rows: np.ndarray) -> np.ndarray:
        """The labels of some rows, float64."""
        return self.rows[rows.tolist()]["score"].astype(np.float64)


@dataclass(frozen=True)
class Distribution:
    """How values are distributed, told apart by a 65,536th of their range.

    Args:
        low, high: the lowest and the highest value.
        counts: values in each bin between them, shape (BINS,).
    """

    low: float
    high: float
    counts: np.ndarray

    @classmethod
    def of(cls, blocks: Blocks) -> Distribution:
        """Of values in blocks, which are read twice."""
        low, high = np.inf, -np.inf
        for block in blocks():
            low, high = min(low, float(block.min())), max(high, float(block.max()))
        found = cls(low, high, np.zeros(BINS, dtype=np.int64))
        for block in blocks():
            np.add(found.counts, np.bincount(found._bin(block), minlength=BINS), out=found.counts)
        return found

    @property
    def mean(self) -> float:
        """Mean value."""
        return float(np.average(self.centres, weights=self.counts))

    @property
    def spread(self) -> float:
        """Standard deviation."""
        return float(np.sqrt(np.average((self.centres - self.mean) ** 2, weights=self.counts)))

    @property
    def centres(self) -> np.ndarray:
        """Middle of each bin, shape (BINS,)."""
        return self.low + self._width * (np.arange(BINS) + 0.5)

    def quantile(self, share: float) -> float:
        """The value that this share of all values does not pass."""
        place = np.searchsorted(np.cumsum(self.counts), share * self.counts.sum())
        return float(np.clip(self.centres[min(place, BINS - 1)], self.low, self.high))

    def ranks(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function from values to the share of all values that is lower, equal ones counted half; in [0, 1]."""
        shares = (np.cumsum(self.counts) - self.counts / 2) / self.counts.sum()
        return lambda values: shares[self._bin(values)]

    def histogram(self, edges: np.ndarray) -> np.ndarray:
        """Share of the values between each two edges."""
        return np.histogram(self.centres, edges, weights=self.counts)[0] / self.counts.sum()

    @property
    def _width(self) -> float:
        return (self.high - self.low) / BINS

    def _bin(self, values: np.ndarray) -> np.ndarray:
        if self.low == self.high:
            return np.zeros(len(values), dtype=np.int64)
        return np.clip((values - self.low) / (self.high - self.low) * BINS, 0, BINS - 1).astype(np.int64)


@dataclass(frozen=True)
class Movement:
    """How labels changed between two labellings.

    Args:
        change: of the labels.
        spearman: between them, as a fraction.
    """

    change: Distribution
    spearman: float


@dataclass(frozen=True)
class Disagreement:
    """A pair that two teachers rank differently.

    Args:
        row: in the pool.
        labels: of both.
        ranks: the share of the pool that each ranks lower.
    """

    row: int
    labels: tuple[float, float]
    ranks: tuple[float, float]


def movement(before: Labels, after: Labels, one: Distribution, two: Distribution) -> Movement:
    """How labels changed.

    Args:
        one, two: the distributions of both.
    """

    def changes() -> Iterator[np.ndarray]:
        for old, new in zip(before.blocks(), after.blocks(), strict=True):
            yield new - old

    return Movement(Distribution.of(changes), rank_correlation(before, after, one, two))


def rank_correlation(first: Labels, second: Labels, one: Distribution, two: Distribution) -> float:
    """Spearman's rank correlation; 0 where one of the two ranks nothing."""
    products = np.zeros((2, 2))
    ranks = one.ranks(), two.ranks()
    for blocks in zip(first.blocks(), second.blocks(), strict=True):
        # the mean of all ranks is a half
        centred = np.stack([rank(block) - 0.5 for rank, block in zip(ranks, blocks, strict=True)])
        products += centred @ centred.T
    scale = np.sqrt(products[0, 0] * products[1, 1])
    return float(products[0, 1] / scale) if scale else 0.0


def disagreements(
    first: Labels, second: Labels, one: Distribution, two: Distribution, count: int
) -> tuple[list[Disagreement], list[Disagreement]]:
    """The pairs whose ranks differ most, the widest apart first, of equals the earlier one.

    Labels of two teachers are on scales of their own, and the order is what Spearman and AUC ask for; so ranks are
    compared.

    Returns:
        at most `count` pairs that the first teacher ranks higher, and at most as many that the second one does.
    """
    ranks = one.ranks(), two.ranks()
    rows = np.empty((2, 0), dtype=np.int64)
    gaps = np.empty((2, 0))
    start = 0
    for blocks in zip(first.blocks(), second.blocks(), strict=True):
        gap = ranks[0](blocks[0]) - ranks[1](blocks[1])
        here = np.broadcast_to(np.arange(start, start + len(gap)), (2, len(gap)))
        start += len(gap)
        gaps, rows = np.hstack([gaps, [gap, -gap]]), np.hstack([rows, here])
        order = np.argsort(-gaps, axis=1, kind="stable")[:, :count]
        gaps, rows = np.take_along_axis(gaps, order, 1), np.take_along_axis(rows, order, 1)

    def told(row: int) -> Disagreement:
        labels = [labels.at(np.array([row])) for labels in (first, second)]
        shares = [float(rank(label)[0]) for rank, label in zip(ranks, labels, strict=True)]
        return Disagreement(row, (float(labels[0][0]), float(labels[1][0])), (shares[0], shares[1]))

    higher, lower = ([told(int(row)) for row in side[gap > 0]] for side, gap in zip(rows, gaps, strict=True))
    return higher, lower


def sampled(total: int, count: int, seed: int) -> np.ndarray:
    """So many rows of a pool, ascending; all of them where there are no more."""
    if count >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, size=count, replace=False, shuffle=False))
