"""What is said of a model against the first one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from te_trainer.evaluation.paper_tables import verdicts
from te_trainer.report.verdicts import MOST_NEEDED, pairs_needed


def results_of(*found: tuple[float, float, float], pairs: tuple[int, ...] = (50,)) -> dict[str, Any]:
    """An evaluation of a start and of models with (difference, low, high) of start minus model, as fractions."""
    names = ["start", *(f"model-{number}" for number in range(len(found)))]
    differences = [
        {"models": ["start", name], "average": {"sts": {"difference": each[0], "interval": list(each[1:])}}}
        for name, each in zip(names[1:], found, strict=True)
    ]
    # between the others, of which nothing is said
    differences.append({"models": names[1:3], "average": {"sts": {"difference": 0.5, "interval": [0.4, 0.6]}}})
    return {
        "models": [{"name": name} for name in names],
        "columns": [{"title": f"set-{count}", "family": "sts", "different_pairs": count} for count in pairs],
        "differences": differences,
    }


def test_a_difference_whose_interval_leaves_out_0_is_better_or_worse() -> None:
    better, worse, same = verdicts(results_of((-0.031, -0.055, -0.008), (0.02, 0.001, 0.04), (0.0, 0.0, 0.0)))
    assert better == ("model-0 is better than start on set-50: +3.1 Spearman × 100 (95 % interval +0.8 to +5.5).")
    assert worse == "model-1 is worse than start on set-50: -2.0 Spearman × 100 (95 % interval -4.0 to -0.1)."
    assert same == "model-2 scores as start does on set-50, in every draw of the bootstrap."


def test_an_interval_that_leaves_out_0_is_seen_to() -> None:
    (better,) = verdicts(results_of((-0.0002, -0.0004, -0.0001)))
    assert better == "model-0 is better than start on set-50: +0.02 Spearman × 100 (95 % interval +0.01 to +0.04)."
    (touching,) = verdicts(results_of((-0.05, -0.1, -0.00002)))
    assert "too few to tell" in touching and "(95 % interval +0.0 to +10.0)" in touching


def test_an_interval_that_holds_0_says_how_many_pairs_would_tell() -> None:
    unclear, tiny = verdicts(results_of((-0.0105, -0.041, 0.02), (-0.0001, -0.04, 0.04), pairs=(30, 20)))
    assert unclear == (
        "50 pairs are too few to tell whether model-0 is better or worse than start on the average of 2 sets: "
        "+1.1 Spearman × 100 (95 % interval -2.0 to +4.1). A difference of this size would need about 870 pairs to be "
        "seen in four of five draws."
    )
    assert "would need more than 100,000 pairs" in tiny


def test_no_number_of_pairs_is_named_that_is_there_already() -> None:
    (unclear,) = verdicts(results_of((-0.7, -0.8, 0.0), pairs=(3, 2)))
    assert unclear == (
        "5 pairs are too few to tell whether model-0 is better or worse than start on the average of 2 sets: "
        "+70.0 Spearman × 100 (95 % interval +0.0 to +80.0)."
    )
    many = MOST_NEEDED + 50_000
    (none,) = verdicts(results_of((-0.0001, -0.04, 0.04), pairs=(many,)))
    assert none.startswith(f"{many:,} pairs are too few") and "would need" not in none


def test_so_many_pairs_show_the_difference_in_four_of_five_draws() -> None:
    gain, half_width = 2.0, 5.0
    pairs = pairs_needed(50, gain, half_width)
    assert pairs is not None
    deviation = half_width / 1.96 * np.sqrt(50)  # of a pair
    drawn = np.random.default_rng(0).normal(gain, deviation / np.sqrt(pairs), 20_000)
    assert (drawn - 1.96 * deviation / np.sqrt(pairs) > 0).mean() == pytest.approx(0.8, abs=0.02)
    assert pairs_needed(50, 0.0, half_width) is None
    assert pairs_needed(50, 0.1, half_width) is None
    assert pairs_needed(MOST_NEEDED, 5.0, 1.0) == 8_200
