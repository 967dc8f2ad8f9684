"""The bootstrap scores what it draws, and draws the same for every model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from te_trainer.metrics import Metric, average_precision, bootstrap, pearson, roc_auc, spearman
from te_trainer.metrics.bootstrap import RESAMPLES, interval, resampled

METRICS = [spearman, pearson, roc_auc, average_precision]


def scores_and_gold(metric: Metric, size: int = 80) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(0)
    gold = numbers.integers(0, 6, size).astype(float)
    scores = (gold + numbers.normal(0, 2, size)).round(1).astype(np.float32)  # with ties
    return scores, (gold > 3).astype(float) if metric in {roc_auc, average_precision} else gold


@pytest.mark.parametrize("metric", METRICS)
def test_pairs_that_count_several_times_are_scored_as_if_they_stood_there_so_often(metric: Callable[..., Any]) -> None:
    scores, gold = scores_and_gold(metric)
    counts = np.random.default_rng(1).multinomial(len(gold), np.full(len(gold), 1 / len(gold)), size=25).astype(float)
    drawn = [np.repeat(np.arange(len(gold)), row.astype(int)) for row in counts]
    expected = [metric(scores[rows], gold[rows]) for rows in drawn]
    np.testing.assert_allclose(metric(scores, gold, counts), expected, atol=1e-9)


def test_draws_are_those_of_a_bootstrap_and_follow_seed_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def watch(scores: np.ndarray, gold: np.ndarray, counts: np.ndarray) -> np.ndarray:
        seen.append(counts)
        return counts[:, 0]

    scores, gold = scores_and_gold(spearman, 50)
    resampled([watch], scores, gold, seed=0, name="set")
    draws = np.concatenate(seen)
    assert draws.shape == (RESAMPLES, 50)
    assert (draws.sum(1) == 50).all()
    assert draws.var() == pytest.approx(1 - 1 / 50, rel=0.05)  # of a binomial variable
    seen.clear()
    monkeypatch.setattr(bootstrap, "CHUNK", 70)
    resampled([watch], scores, gold, seed=0, name="set")
    np.testing.assert_array_equal(draws, np.concatenate(seen))

    scores, gold = scores_and_gold(spearman)
    one, again, other, elsewhere = (
        resampled([spearman], scores, gold, seed=seed, name=name)[0]
        for seed, name in ((3, "a"), (3, "a"), (4, "a"), (3, "b"))
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, elsewhere)


def test_a_pair_that_comes_again_is_drawn_with_its_like_and_narrows_no_interval() -> None:
    scores, gold = scores_and_gold(spearman, 40)
    again = np.tile(np.arange(40), 3)
    once, thrice = (
        resampled([spearman], scores[rows], gold[rows], rows, seed=0, name="set")[0] for rows in (np.arange(40), again)
    )
    np.testing.assert_allclose(thrice, once, atol=1e-9)
    np.testing.assert_array_equal(once, resampled([spearman], scores, gold, seed=0, name="set")[0])
    apart = resampled([spearman], scores[again], gold[again], seed=0, name="set")[0]
    assert np.ptp(interval(apart)) < 0.7 * np.ptp(interval(thrice))


def test_models_are_compared_on_the_same_draws() -> None:
    """Of two models that hardly differ, the difference is known far better than either score."""
    scores, gold = scores_and_gold(pearson, 400)
    nearly = scores + np.random.default_rng(2).normal(0, 0.01, len(scores))
    (one,), (two,) = (resampled([pearson], values, gold, seed=0, name="set") for values in (scores, nearly))
    low, high = interval(one)
    assert low < pearson(scores, gold) < high
    assert np.ptp(interval(one - two)) < np.ptp(interval(one)) / 20


def test_an_interval_is_as_wide_as_theory_says() -> None:
    """Fisher: the standard error of a correlation of normal variables is about (1 - r²) / sqrt(n)."""
    numbers = np.random.default_rng(0)
    gold = numbers.normal(size=2000)
    scores = gold + numbers.normal(size=2000)
    low, high = interval(resampled([pearson], scores, gold, seed=0, name="set")[0])
    r = pearson(scores, gold)
    assert (high - low) / 2 == pytest.approx(1.96 * (1 - r**2) / np.sqrt(2000), rel=0.1)


@pytest.mark.parametrize(("metric", "chance"), [(spearman, 0), (pearson, 0), (roc_auc, 0.5), (average_precision, 0)])
def test_draws_in_which_nothing_can_be_ranked_count_as_chance(metric: Metric, chance: float) -> None:
    (found,) = resampled([metric], np.array([0.1, 0.9]), np.array([0.0, 1.0]), seed=0, name="set")
    assert np.isfinite(found).all()
    assert chance in set(found.round(12))
