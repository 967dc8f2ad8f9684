"""Pairs that stand both in a pool and in a set with gold scores."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset

from te_trainer.data.arrow_io import BLOCK_ROWS
from te_trainer.data.digests import text_digest
from te_trainer.data.gold import GoldSet


def count_overlaps(pool: Dataset, sets: Sequence[GoldSet]) -> list[int]:
    """Count, for each set, its pairs that the pool holds in either order.

    The pool is read once, block by block; memory grows with the sets alone. Pairs are compared by the 64-bit hash by
    which a pool finds duplicates.

    Args:
        pool: Pairs with columns `sentence1` and `sentence2`, as `build_pool` writes them.

    Returns:
        Number of rows in the pool, for each set.
    """
    digests = [
        [
            {text_digest(one, two), text_digest(two, one)}
            for one, two in zip(gold.sentence1, gold.sentence2, strict=True)
        ]
        for gold in sets
    ]
    wanted = {digest for rows in digests for row in rows for digest in row}
    in_pool: set[int] = set()
    for block in pool.iter(batch_size=BLOCK_ROWS) if wanted else ():
        in_pool.update(wanted.intersection(map(text_digest, block["sentence1"], block["sentence2"])))
    return [sum(not row.isdisjoint(in_pool) for row in rows) for rows in digests]
