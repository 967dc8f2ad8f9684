"""Probabilities of scores: scikit-learn's Platt scaling is found, and what is said of it is what holds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import _SigmoidCalibration, calibration_curve
from sklearn.metrics import precision_score, recall_score

from te_trainer.metrics.calibration import (
    BINS,
    calibration_error,
    chance_error,
    cross_validated,
    fit_platt,
    precision_and_recall,
)


def draw(count: int, seed: int = 0, slope: float = 9.0, intercept: float = -6.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores like cosines, and answers whose probabilities follow a known curve."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, count).astype(np.float32)
    return scores, rng.random(count) < 1 / (1 + np.exp(-(slope * scores + intercept)))


@pytest.mark.parametrize("count", [20, 50, 1_000])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_the_fit_is_that_of_scikit_learn(count: int, scale: float) -> None:
    scores, same = draw(count)
    theirs = _SigmoidCalibration().fit(scores.astype(np.float64), same)
    ours = fit_platt(scores * scale + 5, same)
    np.testing.assert_allclose(ours(scores * scale + 5), theirs.predict(scores.astype(np.float64)), atol=1e-3)
    assert ours(np.array([ours.threshold])) == pytest.approx(0.5)


def test_the_curve_that_drew_the_answers_is_found() -> None:
    platt = fit_platt(*draw(100_000))
    assert (platt.slope, platt.intercept) == pytest.approx((9.0, -6.0), rel=0.03)


@pytest.mark.parametrize("each", [2, 5, 200])
def test_what_a_score_separates_does_not_diverge(each: int) -> None:
    scores = np.concatenate([np.linspace(0.0, 0.4, each), np.linspace(0.6, 1.0, each)])
    same = np.arange(2 * each) >= each
    platt = fit_platt(scores, same)
    assert 0 < platt.slope < 1_000
    assert platt.threshold == pytest.approx(0.5, abs=1e-3)


def test_a_score_that_says_nothing_or_the_contrary_has_no_rising_slope() -> None:
    scores, same = draw(200)
    assert fit_platt(np.full(200, 0.3), same).slope == 0
    assert fit_platt(-scores, same).slope < 0


def test_a_pair_has_no_say_in_its_own_probability() -> None:
    scores, same = draw(30)
    expected = cross_validated(scores, same)
    for row in range(30):
        others = np.arange(30) != row
        assert fit_platt(scores[others], same[others])(scores[row : row + 1])[0] == pytest.approx(expected[row])


def test_of_many_pairs_a_fiftieth_is_left_out_at_a_time() -> None:
    scores, same = draw(333)
    probabilities = cross_validated(scores, same)
    assert len(np.unique(scores)) == 333
    np.testing.assert_allclose(probabilities, fit_platt(scores, same)(scores), atol=0.05)
    assert not np.array_equal(probabilities, fit_platt(scores, same)(scores))


def test_the_error_is_that_of_scikit_learns_bins() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.random(50 * BINS)
    same = rng.random(50 * BINS) < probabilities**2
    true, predicted = calibration_curve(same, probabilities, n_bins=BINS, strategy="quantile")
    assert calibration_error(probabilities, same) == pytest.approx(np.abs(true - predicted).mean())
    assert calibration_error(np.full(100, 0.25), np.arange(100) % 4 == 0) < 0.1
    assert calibration_error(np.ones(100), np.zeros(100, bool)) == 1


def test_chance_alone_makes_an_error_that_more_pairs_lower() -> None:
    few, many = (chance_error(fit_platt(*draw(count))(draw(count)[0])) for count in (50, 5_000))
    assert 0.05 < few < 0.2
    assert many < 0.02
    # of probabilities that are right, the error is the one that chance makes
    errors = []
    for seed in range(50):
        scores, same = draw(200, seed)
        errors.append(calibration_error(1 / (1 + np.exp(-(9.0 * scores - 6.0))), same))
    scores, _ = draw(200, 0)
    assert np.mean(errors) == pytest.approx(chance_error(1 / (1 + np.exp(-(9.0 * scores - 6.0)))), rel=0.15)


def test_precision_and_recall_are_those_of_scikit_learn() -> None:
    scores, same = draw(300)
    chosen = scores > 0.6
    expected = precision_score(same, chosen), recall_score(same, chosen)
    assert precision_and_recall(chosen, same) == pytest.approx(expected)
    precision, recall = precision_and_recall(np.zeros(300, bool), same)
    assert np.isnan(precision) and recall == 0
