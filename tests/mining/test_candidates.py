"""Each pair once, with the first source that found it; random partners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from te_trainer.mining.candidates import SOURCES, document_pairs, merge, random_pairs


def test_a_pair_is_gathered_once_with_the_first_source_that_found_it() -> None:
    found = {
        "random": np.array([[4, 1], [7, 2], [3, 3]]),
        "neighbours": np.array([[2, 7], [5, 9], [9, 5]]),
        "bm25": np.array([[1, 4]]),
    }
    rows, source = merge(found)
    assert rows.tolist() == [[1, 4], [2, 7], [5, 9]]
    assert [SOURCES[each] for each in source] == ["bm25", "neighbours", "neighbours"]
    assert rows.dtype == np.int64
    assert source.dtype == np.uint8


def test_sources_that_found_nothing_give_no_candidates() -> None:
    for found in ({}, {"bm25": np.empty((0, 2), dtype=np.int64)}, {"random": np.array([[3, 3]])}):
        rows, source = merge(found)
        assert rows.shape == (0, 2)
        assert source.shape == (0,)


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([9, 9, 9, 4, 5, 5], [[0, 1], [1, 2], [4, 5]]),
        ([2**64 - 1, 3, 2**64 - 1, 7, 3, 3, 2**64 - 1], [[0, 2], [1, 4], [2, 6], [4, 5]]),
        ([1, 2, 3], []),
        ([1], []),
    ],
)
def test_the_next_sentence_of_a_document_may_stand_further_down(documents: list[int], expected: list[Any]) -> None:
    pairs = document_pairs(np.array(documents, dtype=np.uint64), np.arange(len(documents)))
    assert (pairs.shape, pairs.dtype) == ((len(expected), 2), np.int64)
    assert sorted(pairs.tolist()) == expected


def test_only_anchors_look_for_their_neighbours_in_documents() -> None:
    documents = np.array([1, 1, 2, 1, 1, 2, 1])
    assert sorted(document_pairs(documents, np.array([3])).tolist()) == [[1, 3], [3, 4]]
    assert sorted(document_pairs(documents, np.array([0, 5])).tolist()) == [[0, 1], [2, 5]]
    assert document_pairs(documents, np.array([], dtype=np.int64)).shape == (0, 2)


@pytest.mark.parametrize("count", [2, 3, 50])
def test_random_partners_are_other_sentences_and_all_of_them_in_the_end(count: int) -> None:
    anchors = 3 * np.arange(count)
    pairs = random_pairs(anchors, 20, seed=1)
    k = min(20, count - 1)
    assert pairs[:, 0].tolist() == np.repeat(anchors, k).tolist()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert set(pairs[:, 1]) == set(anchors)
    of_the_first = [random_pairs(anchors, 20, seed)[:k, 1] for seed in range(200)]
    assert set(np.concatenate(of_the_first)) == set(anchors[1:])
    assert (random_pairs(anchors, 20, seed=1) == pairs).all()


def test_another_seed_draws_other_partners() -> None:
    anchors = np.arange(50)
    assert (random_pairs(anchors, 5, seed=1) != random_pairs(anchors, 5, seed=2)).any()


def test_one_sentence_has_no_partner() -> None:
    assert random_pairs(np.array([0]), 5, seed=0).shape == (0, 2)
