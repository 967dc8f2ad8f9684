"""The metrics equal those of scipy and scikit-learn."""

from __future__ import annotations

import math

import evaluate
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from te_trainer.metrics import average_precision, module_path, pearson, roc_auc, spearman

MODULES = {"spearman": spearman, "pearson": pearson, "roc_auc": roc_auc, "average_precision": average_precision}


def scores_and_gold(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(seed)
    gold = numbers.integers(0, 21, 400) / 4
    scores = gold + numbers.normal(0, 2, 400)
    return (scores.round(0) if ties else scores), gold


REFERENCES = {
    "spearman": lambda gold, scores: scipy.stats.spearmanr(scores, gold).statistic,
    "pearson": lambda gold, scores: scipy.stats.pearsonr(scores, gold).statistic,
    "roc_auc": sklearn.metrics.roc_auc_score,
    "average_precision": sklearn.metrics.average_precision_score,
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
def test_a_metric_equals_that_of_scipy_or_scikit_learn(name: str, seed: int, ties: bool) -> None:
    scores, gold = scores_and_gold(seed, ties)
    if name in {"roc_auc", "average_precision"}:
        gold = (gold > 3).astype(float)
    value = MODULES[name](scores, gold)
    assert type(value) is float
    assert value == pytest.approx(REFERENCES[name](gold, scores), abs=1e-12)
    assert 0.3 < value < 0.99


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


def test_scores_that_are_all_the_same_order_nothing() -> None:
    gold = np.array([0.0, 0.0, 1.0, 1.0])
    assert spearman(np.full(4, 0.3), gold) == 0.0
    assert pearson(np.full(4, 0.3), gold) == 0.0
    assert roc_auc(np.full(4, 0.3), gold) == 0.5
    assert average_precision(np.full(4, 0.3), gold) == 0.5


# ---------------------------------------------------------------- as modules of the library evaluate


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_loaded_by_its_path_and_keeps_float64(name: str) -> None:
    scores = 1 + 1e-9 * np.random.default_rng(0).permutation(60)
    gold = (np.arange(60) % 3 == 0).astype(float)
    assert len(np.unique(scores.astype(np.float32))) == 1
    found = evaluate.load(module_path(name)).compute(predictions=scores, references=gold)
    assert found == {name: pytest.approx(MODULES[name](scores, gold), abs=1e-12)}


def test_modules_are_combined() -> None:
    scores, gold = scores_and_gold(0, ties=True)
    labels = (gold > 3).astype(float)
    found = evaluate.combine([module_path(name) for name in MODULES]).compute(predictions=scores, references=labels)
    assert found == {name: pytest.approx(metric(scores, labels), abs=1e-12) for name, metric in MODULES.items()}


@pytest.mark.parametrize(
    ("name", "scores", "gold", "words"),
    [
        ("spearman", [], [], "spearman: 0 pairs cannot be ranked"),
        ("roc_auc", [0.1, math.nan, 0.5], [0, 1, 1], "roc_auc: predictions holds nan; give finite numbers"),
        ("pearson", [0.1, 0.2, 0.5], [0, math.inf, 1], "pearson: references holds inf; give finite numbers"),
        ("roc_auc", [0.1, 0.2, 0.5], [1, 2, 1], "roc_auc: references holds 2; give 0 and 1"),
        ("average_precision", [0.1, 0.2], [0, 0.5], "average_precision: references holds 0.5; give 0 and 1"),
    ],
)
def test_a_module_refuses_what_has_no_value(name: str, scores: list[float], gold: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        evaluate.load(module_path(name)).compute(predictions=scores, references=gold)
