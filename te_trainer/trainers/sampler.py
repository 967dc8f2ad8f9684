"""The order of training examples, a function of (seed, epoch), and how it is divided among ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


class ShuffledSampler(Sampler[int]):
    """Every example in random order; an order depends on seed and epoch alone, so that a resumed epoch continues.

    Args:
        count: examples.
        seed: of all orders.
        epoch: gives the number of the epoch that begins.
    """

    def __init__(self, count: int, seed: int = 0, epoch: Callable[[], int] = lambda: 0) -> None:
        self.count = count
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def order(self) -> np.ndarray:
        """All indices of the epoch that begins, shape (n,)."""
        return self.generator().permutation(self.count)

    def generator(self) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch()))


class LengthGroupedSampler(ShuffledSampler):
    """Indices whose consecutive runs of `batch_size` have similar lengths, while the runs come in random order.

    Every epoch draws a permutation, sorts stretches of `runs_per_stretch` runs by length, and shuffles the runs.

    Args:
        lengths: tokens of each example, shape (n,).
        batch_size: examples in a run: those of one optimiser step, over all ranks and micro-batches.
        runs_per_stretch: runs that are sorted together; more of them waste less padding and shuffle less.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
        runs_per_stretch: int = 100,
    ) -> None:
        super().__init__(len(lengths), seed, epoch)
        self.lengths = lengths
        self.batch_size = batch_size
        self.stretch = batch_size * runs_per_stretch

    def order(self) -> np.ndarray:
        """All indices of the epoch that begins, shape (n,)."""
        generator = self.generator()
        order = generator.permutation(self.count)
        for start in range(0, len(order), self.stretch):
            part = order[start : start + self.stretch]
            order[start : start + self.stretch] = part[np.argsort(self.lengths[part], kind="stable")]
        # The rest that fills no run stays at the end: moved forward, it would shift every batch behind it.
        whole = len(order) // self.batch_size * self.batch_size
        runs = order[:whole].reshape(-1, self.batch_size)
        generator.shuffle(runs)
        return order


class ViewSampler(ShuffledSampler):
    """Every example in random order, in whole batches only, as `epoch * count + index`.

    For losses with in-batch negatives. Grouped by length, sentences would be told apart by less than they are in a
    random batch. The rest that fills no batch over all ranks is left out, another one in each epoch: a smaller batch
    would have fewer negatives, and one that is filled up with what it holds already would make a sentence its own
    negative.

    Args:
        batch_size: examples whose vectors meet: those of a micro-batch, over all ranks.
    """

    def __init__(self, count: int, batch_size: int, seed: int = 0, epoch: Callable[[], int] = lambda: 0) -> None:
        super().__init__(count, seed, epoch)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return self.count // self.batch_size * self.batch_size

    def order(self) -> np.ndarray:
        """Indices of the epoch that begins, shape (len,)."""
        return self.epoch() * self.count + super().order()[: len(self)]


class MicroBatches(Sampler[list[int]]):
    """A rank's share of every global batch, in micro-batches.

    Global batches are the same whatever the number of ranks and of accumulation steps, so that these change nothing in
    what is learnt. The last, smaller one is divided evenly as well: every rank sees as many micro-batches, none of them
    is empty, and no example is repeated (fewer examples than ranks may be left out).

    Args:
        sampler: the order of all examples.
        size: examples in a micro-batch of one rank.
        accumulation: micro-batches of an optimiser step.
        rank, ranks: this process among all.
        drop_last: leave the last, smaller global batch out.
    """

    def __init__(
        self,
        sampler: ShuffledSampler,
        size: int,
        accumulation: int = 1,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.sampler = sampler
        self.size = size
        self.accumulation = accumulation
        self.rank = rank
        self.ranks = ranks
        self.whole, rest = divmod(len(sampler), size * accumulation * ranks)
        # Share of each rank in the last global batch at the least; an uneven rest goes to the last ranks.
        self.least, more = (0, 0) if drop_last else divmod(rest, ranks)
        self.last = math.ceil((self.least + bool(more)) / size)
        if self.last > self.least:
            more = 0
            self.last = math.ceil(self.least / size)
        self.rest = self.least * ranks + more

    def __len__(self) -> int:
        """Micro-batches of this rank in an epoch."""
        return self.whole * self.accumulation + self.last

    def __iter__(self) -> Iterator[list[int]]:
        order = self.sampler.order()
        step = self.size * self.accumulation * self.ranks
        for start in range(0, self.whole * step, step):
            yield from self._of_rank(order[start : start + step], self.accumulation)
        if self.last:
            yield from self._of_rank(order[self.whole * step :][: self.rest], self.last)

    def _of_rank(self, examples: np.ndarray, count: int) -> Iterator[list[int]]:
        begin, end = (len(examples) * rank // self.ranks for rank in (self.rank, self.rank + 1))
        for part in np.array_split(examples[begin:end], count):
            yield part.tolist()
