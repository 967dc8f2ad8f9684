"""The metrics equal those of scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from te_trainer.metrics import roc_auc, spearman


def scores_and_gold(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(seed)
    gold = numbers.integers(0, 21, 400) / 4
    scores = gold + numbers.normal(0, 2, 400)
    return (scores.round(0) if ties else scores), gold


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
def test_spearman_equals_scipys(seed: int, ties: bool) -> None:
    scores, gold = scores_and_gold(seed, ties)
    ranks = np.corrcoef(scipy.stats.rankdata(scores), scipy.stats.rankdata(gold))[0, 1]
    assert spearman(scores, gold) == pytest.approx(scipy.stats.spearmanr(scores, gold).statistic, abs=1e-12)
    assert spearman(scores, gold) == pytest.approx(ranks, abs=1e-12)
    assert 0.3 < spearman(scores, gold) < 0.95


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
def test_roc_auc_equals_scikit_learns(seed: int, ties: bool) -> None:
    scores, gold = scores_and_gold(seed, ties)
    labels = (gold > 3).astype(float)
    assert roc_auc(scores, labels) == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert 0.6 < roc_auc(scores, labels) < 0.99


def test_orders_have_their_known_values() -> None:
    gold = np.array([0.0, 0.0, 1.0, 1.0])
    assert spearman(np.array([1, 2, 3, 4]), np.array([10, 20, 30, 40])) == pytest.approx(1)
    assert spearman(np.array([1, 2, 3, 4]), np.array([4, 3, 2, 1])) == pytest.approx(-1)
    assert roc_auc(np.array([1, 2, 3, 4]), gold) == 1
    assert roc_auc(np.array([4, 3, 2, 1]), gold) == 0
    assert roc_auc(np.array([5, 5, 5, 5]), gold) == 0.5
    assert roc_auc(np.array([1, 3, 2, 4]), gold) == 0.75


def test_scores_that_only_float64_tells_apart_are_no_ties() -> None:
    scores = 1 + 1e-9 * np.arange(50)
    assert len(np.unique(scores.astype(np.float32))) == 1
    assert spearman(scores, np.arange(50)) == pytest.approx(1)
    assert roc_auc(scores, np.arange(50) >= 25) == 1


def test_large_sets_are_counted_without_overflow() -> None:
    scores = np.linspace(0, 1, 200_001, dtype=np.float32)
    assert roc_auc(scores, (np.arange(200_001) % 2 == 0).astype(np.float32)) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("metric", [spearman, roc_auc])
def test_a_metric_is_a_plain_number(metric: object) -> None:
    assert callable(metric)
    value = metric(np.array([0.1, 0.9, 0.4], dtype=np.float32), np.array([0, 1, 1], dtype=np.float32))
    assert type(value) is float


def test_scores_that_are_all_the_same_order_nothing() -> None:
    gold = np.array([0.0, 0.0, 1.0, 1.0])
    assert spearman(np.full(4, 0.3), gold) == 0.0
    assert roc_auc(np.full(4, 0.3), gold) == 0.5
