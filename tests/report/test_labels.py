"""What is said of labels is what whole arrays say, though they are read in blocks."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from scipy.stats import rankdata, spearmanr

from te_trainer.report.labels import BLOCK, Distribution, Labels, disagreements, movement, rank_correlation, sampled

ROWS = BLOCK + 1000


def saved(folder: Path, values: np.ndarray) -> Labels:
    Dataset.from_dict({"score": values.astype(np.float32)}).save_to_disk(str(folder))
    return Labels(folder)


@pytest.fixture(scope="module")
def values() -> tuple[np.ndarray, np.ndarray]:
    """Labels of two teachers, more than a block of them: cosines, and sigmoids that crowd at both ends."""
    generator = np.random.default_rng(0)
    cosines = generator.beta(5, 2, ROWS) * 1.2 - 0.2
    sigmoids = 1 / (1 + np.exp(-14 * (cosines - 0.5 + 0.1 * generator.standard_normal(ROWS))))
    return cosines.astype(np.float32), sigmoids.astype(np.float32)


@pytest.fixture(scope="module")
def labels(
    values: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[Labels, Labels], tuple[Distribution, Distribution]]:
    folder = tmp_path_factory.mktemp("labels")
    one, two = (saved(folder / str(number), each) for number, each in enumerate(values))
    return (one, two), (Distribution.of(one.blocks), Distribution.of(two.blocks))


def test_distributions(values: tuple[np.ndarray, ...], labels: tuple) -> None:
    for array, found in zip(values, labels[1], strict=True):
        assert (found.low, found.high) == (array.min(), array.max())
        assert found.mean == pytest.approx(array.mean(dtype=np.float64), abs=1e-5)
        assert found.spread == pytest.approx(array.std(dtype=np.float64), abs=1e-5)
        for share in (0.05, 0.25, 0.5, 0.75, 0.95):
            assert found.quantile(share) == pytest.approx(np.quantile(array, share), abs=2e-4)
        edges = np.linspace(array.min(), array.max(), 11)
        assert found.histogram(edges) == pytest.approx(np.histogram(array, edges)[0] / ROWS, abs=1e-4)
        assert found.ranks()(array) == pytest.approx((rankdata(array) - 0.5) / ROWS, abs=2e-3)


def test_correlation_and_movement(values: tuple[np.ndarray, ...], labels: tuple) -> None:
    exact = spearmanr(*values).statistic
    assert rank_correlation(*labels[0], *labels[1]) == pytest.approx(exact, abs=1e-5)
    moved = movement(*labels[0], *labels[1])
    assert moved.spearman == pytest.approx(exact, abs=1e-5)
    assert moved.change.quantile(0.25) == pytest.approx(np.quantile(values[1] - values[0], 0.25), abs=2e-4)


def test_the_widest_disagreements_are_found_in_every_block(tmp_path: Path, values: tuple[np.ndarray, ...]) -> None:
    one, two = values[0].copy(), values[0].copy()
    one[[3, BLOCK + 5]], two[[3, BLOCK + 5]] = 1.5, (-1.5, -1.4)
    one[7], two[7] = -1.5, 1.5
    first, second = saved(tmp_path / "one", one), saved(tmp_path / "two", two)
    spread = Distribution.of(first.blocks), Distribution.of(second.blocks)
    higher, lower = disagreements(first, second, *spread, 2)
    assert [each.row for each in higher] == [3, BLOCK + 5]
    assert lower[0].row == 7
    assert higher[0].labels == (1.5, -1.5)
    assert higher[0].ranks[0] > 0.999 > 0.001 > higher[0].ranks[1]


def test_equal_orders_are_no_disagreement(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "one", np.arange(9)), saved(tmp_path / "two", 3 * np.arange(9) + 1)
    spread = Distribution.of(first.blocks), Distribution.of(second.blocks)
    assert disagreements(first, second, *spread, 5) == ([], [])


def test_labels_that_are_all_the_same(tmp_path: Path) -> None:
    same, other = saved(tmp_path / "same", np.full(20, 0.5)), saved(tmp_path / "other", np.arange(20))
    spread = Distribution.of(same.blocks), Distribution.of(other.blocks)
    assert rank_correlation(same, other, *spread) == 0
    assert [spread[0].quantile(share) for share in (0.05, 0.95)] == [0.5, 0.5]
    assert spread[0].spread == 0


def test_samples_are_drawn_once_and_for_all() -> None:
    rows = sampled(10_000_000, 2000, seed=3)
    assert len(set(rows.tolist())) == 2000
    assert (np.diff(rows) > 0).all()
    assert (rows == sampled(10_000_000, 2000, seed=3)).all()
    assert (sampled(10, 2000, seed=3) == np.arange(10)).all()


def test_memory_does_not_grow_with_the_pool(tmp_path: Path) -> None:
    peaks = []
    for number, rows in enumerate((2 * BLOCK, 8 * BLOCK)):
        values = np.random.default_rng(0).random(rows, dtype=np.float32)
        first, second = (saved(tmp_path / f"{number}-{side}", each) for side, each in enumerate((values, values[::-1])))
        tracemalloc.start()
        spread = Distribution.of(first.blocks), Distribution.of(second.blocks)
        movement(first, second, *spread)
        disagreements(first, second, *spread, 9)
        sampled(rows, 2000, seed=0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # as much as float16 would need for what was added
    assert peaks[1] - peaks[0] < 2 * 6 * BLOCK
