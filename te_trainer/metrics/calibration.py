"""From a score to the probability that two sentences are the same, by Platt scaling, and how far it can be trusted.

Platt, "Probabilistic Outputs for Support Vector Machines" (1999): a logistic regression on the score alone, whose
targets lie a little inside 0 and 1, so that few pairs suffice and pairs that a score separates do not diverge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

FOLDS = 50
BINS = 10
DRAWS = 1_000


@dataclass(frozen=True)
class PlattScaling:
    """The probability of a score s is 1 / (1 + exp(-(slope * s + intercept)))."""

    slope: float
    intercept: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of scores, float64, of the same shape."""
        return np.asarray(expit(self.slope * np.asarray(scores, np.float64) + self.intercept))

    @property
    def threshold(self) -> float:
        """The score whose probability is one half."""
        return -self.intercept / self.slope


def fit_platt(scores: np.ndarray, same: np.ndarray) -> PlattScaling:
    """Fit Platt scaling to pairs whose answer is known.

    Args:
        scores: Shape (n,).
        same: Whether the two sentences of each pair are the same, bool of shape (n,).
    """
    positives, negatives = np.count_nonzero(same), np.count_nonzero(~same)
    targets = np.where(same, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # less the first one, scores that are all equal are exactly 0, and so is their deviation
    first = float(scores[0])
    values = np.asarray(scores, np.float64) - first
    # the optimiser sees scores of mean 0 and deviation 1, whatever an encoder's scores are
    mean, deviation = values.mean(), values.std() or 1.0
    features = np.stack([(values - mean) / deviation, np.ones(len(values))], axis=1)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = features @ weights
        gradient = features.T @ (expit(logits) - targets)
        return float(np.logaddexp(0, logits).sum() - targets @ logits), gradient

    slope, shift = minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    return PlattScaling(float(slope / deviation), float(shift - slope * (mean + first) / deviation))


def cross_validated(scores: np.ndarray, same: np.ndarray) -> np.ndarray:
    """The probability of each pair, shape (n,), by a fit to others: without itself, of many without a fiftieth."""
    probabilities = np.empty(len(scores))
    order = np.argsort(scores, kind="stable")
    for fold in range(min(FOLDS, len(scores))):
        out = order[fold::FOLDS]
        rest = np.delete(np.arange(len(scores)), out)
        probabilities[out] = fit_platt(scores[rest], same[rest])(scores[out])
    return probabilities


def calibration_error(probabilities: np.ndarray, same: np.ndarray) -> float:
    """The expected calibration error of probabilities, shape (n,): the mean distance of bins of equal size."""
    bins = np.array_split(np.argsort(probabilities, kind="stable"), BINS)
    return float(sum(abs((probabilities[rows] - same[rows]).sum()) for rows in bins) / len(probabilities))


def chance_error(probabilities: np.ndarray) -> float:
    """The calibration error that these probabilities would show on average if each were exactly right."""
    rng = np.random.default_rng(0)
    drawn = rng.random((DRAWS, len(probabilities))) < probabilities
    return float(np.mean([calibration_error(probabilities, same) for same in drawn]))


def precision_and_recall(chosen: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """Precision (NaN where none is chosen) and recall of the chosen pairs, bool of shape (n,), against the same."""
    hits = np.count_nonzero(chosen & same)
    count = np.count_nonzero(chosen)
    return (hits / count if count else float("nan")), hits / np.count_nonzero(same)


def describe_calibration(scores: np.ndarray, same: np.ndarray) -> str:
    """What pairs whose answer is known say of their probabilities, in one sentence, by cross-validation."""
    probabilities = cross_validated(scores, same)
    error, chance = calibration_error(probabilities, same), chance_error(probabilities)
    chosen = probabilities >= 0.5
    found = "which none of them reaches"
    if chosen.any():
        precision, recall = precision_and_recall(chosen, same)
        found = f"which {np.count_nonzero(chosen):,} reach, with precision {precision:.2f} and recall {recall:.2f}"
    return (
        f"{len(same):,} pairs, {np.count_nonzero(same):,} of them the same; expected calibration error {error:.3f} "
        f"(of exact probabilities {chance:.3f}, by chance); probability 0.5 is the score "
        f"{fit_platt(scores, same).threshold:.4f}, {found}"
    )
