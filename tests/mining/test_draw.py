"""Pairs of each score, as many as they shall be and there are candidates for."""

from __future__ import annotations

import numpy as np
import pytest

from te_trainer.mining.draw import band_edges, band_of, draw_by_score

RNG = np.random.default_rng(0)
MANY = np.arange(40_000).reshape(-1, 2)  # rows of pairs that share no sentence


@pytest.mark.parametrize("bands", [8, 20])
def test_a_band_gives_as_many_pairs_as_its_number_says(bands: int) -> None:
    scores = RNG.beta(2, 5, len(MANY))
    drawn = draw_by_score(scores, MANY, 420, 5, seed=0, bands=bands)
    counts = np.bincount(band_of(scores[drawn], band_edges(scores, bands)), minlength=bands)
    shares = np.arange(1, bands + 1)
    np.testing.assert_allclose(counts, 420 * shares / shares.sum(), atol=1)
    assert (np.diff(drawn) > 0).all()


def test_bands_that_run_dry_give_their_share_to_the_others() -> None:
    scores = np.concatenate([np.full(6, 0.9), np.full(500, 0.1), np.full(500, 0.5)])
    drawn = draw_by_score(scores, MANY[: len(scores)], 96, 5, seed=0, bands=3)
    assert [(np.isclose(scores[drawn], score)).sum() for score in (0.9, 0.1, 0.5)] == [6, 30, 60]


def test_scores_that_are_all_alike_are_drawn() -> None:
    assert len(draw_by_score(np.full(100, 0.5), MANY[:100], 30, 5, seed=0)) == 30


@pytest.mark.parametrize("per_sentence", [1, 3])
def test_a_sentence_is_in_no_more_pairs_than_it_may(per_sentence: int) -> None:
    first = RNG.integers(0, 200, 20_000)
    rows = np.stack([first, (first + RNG.integers(1, 200, 20_000)) % 200], axis=1)
    scores = RNG.random(len(rows))
    drawn = draw_by_score(scores, rows, 10_000, per_sentence, seed=0)
    counts = np.bincount(rows[drawn].ravel(), minlength=200)
    assert counts.max() == per_sentence
    # no candidate is left whose sentences both could take one more
    assert not (counts[rows] < per_sentence).all(axis=1)[np.setdiff1d(np.arange(len(rows)), drawn)].any()


def test_the_seed_decides() -> None:
    scores = RNG.random(len(MANY))
    first, again, other = (draw_by_score(scores, MANY, 500, 5, seed).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_fewer_candidates_than_pairs() -> None:
    assert draw_by_score(RNG.random(7), MANY[:7], 100, 5, seed=0).tolist() == list(range(7))
    assert draw_by_score(np.empty(0), MANY[:0], 100, 5, seed=0).tolist() == []


def test_scores_outside_of_the_bands_belong_to_the_nearest() -> None:
    scores = np.concatenate([[-50.0], np.linspace(0, 1, 1001), [50.0]])
    edges = band_edges(scores, 4)
    assert np.allclose(edges, [0.004, 0.252, 0.5, 0.748, 0.996], atol=2e-3)
    assert band_of(scores[[0, 1, -2, -1]], edges).tolist() == [0, 0, 3, 3]
