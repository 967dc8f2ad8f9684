"""The order of training examples, which follows from (seed, epoch) alone, and how ranks divide it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """The indices of all examples in random order, shape (count,)."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def grouped_by_length(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int, batches_per_stretch: int = 100
) -> np.ndarray:
    """Batches of examples of similar length (tokens, shape (n,)), in random order; shape (n,).

    Every epoch draws a permutation, sorts each stretch of it by length, and shuffles the batches. A batch holds the
    examples of one optimiser step, over all ranks; longer stretches save more padding and shuffle less.
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(lengths))
    stretch = batch_size * batches_per_stretch
    for start in range(0, len(order), stretch):
        part = order[start : start + stretch]
        order[start : start + stretch] = part[np.argsort(lengths[part], kind="stable")]
    # The examples that fill no batch stay at the end: moved forward, they would shift every batch after them.
    whole = len(order) // batch_size * batch_size
    generator.shuffle(order[:whole].reshape(-1, batch_size))
    return order


def whole_batches(count: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Whole batches only, in random order, for losses with in-batch negatives: `epoch * count + index`, shape (m,).

    Grouped by length, sentences would be told apart by less than they are in a random batch. The examples that fill no
    whole batch are left out, other ones in each epoch: a smaller batch would have fewer negatives, and one that repeats
    an example would make a sentence its own negative. A batch is a micro-batch, over all ranks.
    """
    return epoch * count + shuffled(count, seed, epoch)[: count // batch_size * batch_size]


class MicroBatches(Sampler[list[int]]):
    """One rank's micro-batches of every global batch.

    Global batches depend neither on the number of ranks nor on that of accumulation steps. Where the count fills whole
    ones, micro-batches over all ranks do not depend on the number of ranks either. The last, smaller global batch is
    divided evenly too: every rank has as many micro-batches, none of them is empty, and no example is repeated. Fewer
    examples than there are ranks may be left out.

    Args:
        order: Gives the order of an epoch by its number, shape (count,).
        size: Examples of one rank's micro-batch, of which a step has `accumulation`.
    """

    def __init__(
        self,
        order: Callable[[int], np.ndarray],
        count: int,
        size: int,
        accumulation: int = 1,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.order, self.accumulation, self.rank, self.ranks, self.epoch = order, accumulation, rank, ranks, 0
        self.global_size = size * accumulation * ranks
        self.full_batches, remainder = divmod(count, self.global_size)
        # The last global batch: each rank has at least `fewest` examples, the last ranks have one more.
        fewest, uneven = (0, 0) if drop_last else divmod(remainder, ranks)
        self.last_micro_batches = math.ceil((fewest + bool(uneven)) / size)
        if self.last_micro_batches > fewest:
            uneven = 0
            self.last_micro_batches = math.ceil(fewest / size)
        self.last_size = fewest * ranks + uneven

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins; the first is 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Micro-batches of this rank in an epoch."""
        return self.full_batches * self.accumulation + self.last_micro_batches

    def __iter__(self) -> Iterator[list[int]]:
        order = self.order(self.epoch)
        end = self.full_batches * self.global_size
        for start in range(0, end, self.global_size):
            yield from self._micro_batches(order[start : start + self.global_size], self.accumulation)
        if self.last_micro_batches:
            yield from self._micro_batches(order[end : end + self.last_size], self.last_micro_batches)

    def _micro_batches(self, examples: np.ndarray, count: int) -> Iterator[list[int]]:
        # ranks divide a micro-batch, and not the step: those in it are each other's negatives
        for together in np.array_split(examples, count):
            begin, end = (len(together) * rank // self.ranks for rank in (self.rank, self.rank + 1))
            yield together[begin:end].tolist()
