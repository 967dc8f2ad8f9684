"""Neighbours against brute force, exact and approximate."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from te_trainer import search
from te_trainer.distributed import process_state
from te_trainer.errors import InputError
from te_trainer.mining import neighbours
from te_trainer.mining.neighbours import nearest_pairs


def pairs_of(vectors: np.ndarray, anchors: np.ndarray, k: int, folder: Path) -> np.ndarray:
    done: list[float] = []
    pairs = nearest_pairs(vectors, anchors, k, folder, done.append)
    assert done == sorted(done)
    assert done[-1] == 1
    return pairs


def brute_force(vectors: np.ndarray, anchors: np.ndarray, k: int) -> list[tuple[int, int]]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit[anchors] @ unit.T
    cosines[np.arange(len(anchors)), anchors] = -2
    best = np.argsort(-cosines, axis=1)[:, :k]
    return [(anchor, row) for anchor, found in zip(anchors.tolist(), best.tolist(), strict=True) for row in found]


@pytest.fixture
def vectors() -> np.ndarray:
    """Forty groups of vectors of any length."""
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(40, 16)).repeat(50, axis=0)
    lengths = rng.uniform(0.1, 10, (2000, 1))
    return (lengths * (groups + 0.3 * rng.normal(size=(2000, 16)))).astype(np.float32)


def test_exact_neighbours_are_those_of_brute_force(vectors: np.ndarray, tmp_path: Path) -> None:
    anchors = np.array([3, 700, 1999])
    assert [tuple(pair) for pair in pairs_of(vectors, anchors, 5, tmp_path).tolist()] == brute_force(
        vectors, anchors, 5
    )


def test_approximate_neighbours_are_nearly_those_of_brute_force(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 0)
    anchors = np.arange(0, 2000, 7)
    pairs = pairs_of(vectors, anchors, 5, tmp_path)
    found = {tuple(pair) for pair in pairs.tolist()}
    assert len(found & set(brute_force(vectors, anchors, 5))) >= 0.9 * 5 * len(anchors)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert (pairs_of(vectors, anchors, 5, tmp_path) == pairs).all()


def test_blocks_of_an_accelerators_shape_give_what_a_cpus_give(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, vectors = [], vectors[::5]
    for block in ((7, 90), (90, 7), (3000, 3000)):
        monkeypatch.setattr(search, "BLOCK_CPU", block)
        monkeypatch.setattr(search, "BLOCK", block)
        rows, cosines = search.nearest(vectors, None, 5, tmp_path, lambda _: None)
        found.append((np.array(rows), np.array(cosines)))
    for rows, cosines in found[1:]:
        np.testing.assert_array_equal(rows, found[0][0])
        np.testing.assert_allclose(cosines, found[0][1], rtol=0, atol=1e-6)
    # where many are wanted, fewer queries are in a block, down to one
    monkeypatch.setattr(search, "MOST_FOUND", 4)
    said: list[float] = []
    rows, _ = search.nearest(vectors, None, 5, tmp_path, said.append)
    np.testing.assert_array_equal(rows, found[0][0])
    assert len(said) == len(vectors)


@pytest.mark.parametrize("exact_up_to", [10**9, 0])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_more_partners_than_sentences(
    count: int, exact_up_to: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", exact_up_to)
    monkeypatch.setattr(neighbours, "PROBED", 1)
    vectors = np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)
    pairs = pairs_of(vectors, np.arange(count), 9, tmp_path)
    assert sorted(map(tuple, pairs.tolist())) == [(a, b) for a in range(count) for b in range(count) if a != b]


def test_sentences_of_one_vector_are_partners_of_each_other(tmp_path: Path) -> None:
    pairs = pairs_of(np.ones((6, 4), dtype=np.float32), np.arange(6), 2, tmp_path)
    assert pairs.shape == (12, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()


def test_a_large_search_without_faiss_is_refused(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 0)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"2,000 sentences need the package faiss; pip install 'te_trainer\[mining\]'"):
        nearest_pairs(vectors, np.arange(10), 2, tmp_path, lambda _: None)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InputError, match=r"faiss, which ends a process of macOS that has loaded torch"):
        nearest_pairs(vectors, np.arange(10), 2, tmp_path, lambda _: None)


def test_an_accelerator_searches_exactly_what_a_cpu_leaves_to_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    process_state()  # the tests' own, on a CPU, before they are told otherwise
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")
    neighbours.check_faiss(1_000_000, 100_000)
    with pytest.raises(InputError, match=r"1,000,000 sentences need the package faiss"):
        neighbours.check_faiss(1_000_000, 1_000_000)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "xpu")
    neighbours.check_faiss(10_000_000, 1_000_000)
    with pytest.raises(InputError, match=r"10,000,000 sentences need the package faiss"):
        neighbours.check_faiss(10_000_000, 10_000_000)
