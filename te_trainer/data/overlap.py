"""Pairs that stand both in a pool and in a set with gold scores."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset

from te_trainer.data.gold import GoldSet
from te_trainer.data.pool import BLOCK, pair_digest


def count_overlaps(pool: Dataset, sets: Sequence[GoldSet]) -> list[int]:
    """Count, for each set, its pairs that the pool holds in either order.

    The pool is read once, block by block; memory grows with the sets alone. Pairs are compared by the 64-bit hash by
    which a pool finds duplicates.

    Args:
        pool: columns `sentence1` and `sentence2`, as `build_pool` writes them.

    Returns:
        of each set, how many of its rows are in the pool.
    """
    rows = [
        [
            {pair_digest(one, two), pair_digest(two, one)}
            for one, two in zip(gold.sentence1, gold.sentence2, strict=True)
        ]
        for gold in sets
    ]
    wanted = {digest for digests in rows for row in digests for digest in row}
    found: set[int] = set()
    for block in pool.iter(batch_size=BLOCK) if wanted else ():
        digests = map(pair_digest, block["sentence1"], block["sentence2"])
        found.update(wanted.intersection(digests))
    return [sum(not row.isdisjoint(found) for row in digests) for digests in rows]
