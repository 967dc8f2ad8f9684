"""Pairs of each score, as many as they shall be and there are candidates for."""

from __future__ import annotations

import numpy as np
import pytest

from te_trainer.mining.draw import band_edges, band_of, draw_by_score

RNG = np.random.default_rng(0)
MANY = np.arange(40_000).reshape(-1, 2)  # rows of pairs that share no sentence


def test_skewed_scores_are_drawn_evenly() -> None:
    scores = RNG.beta(2, 5, len(MANY))
    drawn = draw_by_score(scores, MANY, 1000, 5, seed=0, skew=0)
    counts = np.bincount(band_of(scores[drawn], band_edges(scores)), minlength=20)
    assert counts.tolist() == [50] * 20
    assert (np.diff(drawn) > 0).all()


@pytest.mark.parametrize("skew", [1.0, 2.0, 0.5])
def test_high_scores_are_drawn_oftener(skew: float) -> None:
    scores = RNG.beta(2, 5, len(MANY))
    drawn = draw_by_score(scores, MANY, 300, 5, seed=0, skew=skew, bands=8)
    counts = np.bincount(band_of(scores[drawn], band_edges(scores, 8)), minlength=8)
    shares = np.arange(1, 9) ** skew
    np.testing.assert_allclose(counts, 300 * shares / shares.sum(), atol=1)


def test_a_band_that_has_its_turn_late_gives_all_that_is_needed() -> None:
    scores = np.concatenate([np.zeros(50), [1.0]])
    # so late that nobody could count until then
    assert len(draw_by_score(scores, MANY[:51], 40, 5, seed=0, skew=1e6)) == 40


def test_bands_that_run_dry_give_their_share_to_the_others() -> None:
    scores = np.concatenate([np.full(6, 0.9), np.full(500, 0.1), np.full(500, 0.5)])
    drawn = draw_by_score(scores, MANY[: len(scores)], 106, 5, seed=0, skew=0, bands=3)
    assert [(np.isclose(scores[drawn], score)).sum() for score in (0.9, 0.1, 0.5)] == [6, 50, 50]


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
