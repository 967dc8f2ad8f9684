"""The order of training examples: batches of similar length, in random order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


class LengthGroupedSampler(Sampler[int]):
    """Indices whose consecutive runs of `batch_size` have similar lengths, while the runs come in random order.

    Every epoch draws a permutation, sorts stretches of `runs_per_stretch` runs by length, and shuffles the runs. An
    order depends on seed and epoch alone, so that a resumed epoch continues where it stopped.

    Args:
        lengths: tokens of each example, shape (n,).
        batch_size: examples in a run; the number of pairs in a batch over all ranks, so that ranks wait little for
            each other.
        seed: of all orders.
        epoch: gives the number of the epoch that begins.
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
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.stretch = batch_size * runs_per_stretch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch()))
        order = generator.permutation(len(self.lengths))
        for start in range(0, len(order), self.stretch):
            part = order[start : start + self.stretch]
            order[start : start + self.stretch] = part[np.argsort(self.lengths[part], kind="stable")]
        # The rest that fills no run stays at the end: moved forward, it would shift every batch behind it.
        whole = len(order) // self.batch_size * self.batch_size
        runs = order[:whole].reshape(-1, self.batch_size)
        generator.shuffle(runs)
        yield from runs.ravel().tolist()
        yield from order[whole:].tolist()
