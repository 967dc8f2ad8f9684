"""What the page says of labels is exact."""

from __future__ import annotations

import numpy as np
import pytest

from te_trainer.report.labels import Labelling, at_quantiles, disagreements


def labelling(values: list[float]) -> Labelling:
    return Labelling("cycle 1", np.asarray(values, dtype=np.float32))


def test_moments_quantiles_and_ranks() -> None:
    found = labelling([0.5, 0.1, 0.5, 0.9])
    assert (found.mean, found.limits) == (pytest.approx(0.5), pytest.approx((0.1, 0.9)))
    assert found.std == pytest.approx(np.sqrt(0.08))
    assert at_quantiles(found.values) == pytest.approx([0.16, 0.4, 0.5, 0.6, 0.84])
    assert at_quantiles(np.arange(101.0)) == [5, 25, 50, 75, 95]
    # equal labels count half
    assert found.ranks.tolist() == [0.5, 0.125, 0.5, 0.875]


def test_the_widest_disagreements_come_first() -> None:
    one, two = np.arange(100.0), np.arange(100.0)
    two[[80, 90]], two[10] = (-1, 0.5), 200
    higher, lower = disagreements(labelling(list(one)), labelling(list(two)), 2)
    assert higher == [90, 80] and lower[0] == 10
    assert disagreements(labelling([1, 2, 3]), labelling([10, 20, 40]), 5) == ([], [])
