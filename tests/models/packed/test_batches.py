"""Groups of similar size: every item once, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest

from te_trainer.models.packed.batches import split_by_size


def padded(groups: list[np.ndarray], lengths: np.ndarray) -> int:
    return sum(len(group) * int(lengths[group].max()) for group in groups)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cost", [0, 20, 200, 10**6])
def test_splitting_loses_nothing_and_pays(seed: int, cost: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 40, 100)
    groups = list(split_by_size(lengths, cost))
    assert sorted(np.concatenate(groups).tolist()) == list(range(100))
    whole = 100 * int(lengths.max())
    assert padded(groups, lengths) + cost * (len(groups) - 1) <= whole
    if cost == 0:
        assert padded(groups, lengths) == lengths.sum()
    if cost == 10**6:
        assert len(groups) == 1


def test_equal_sizes_stay_together() -> None:
    assert [len(group) for group in split_by_size(np.full(30, 7), 0)] == [30]
