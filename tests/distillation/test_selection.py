"""Agreement on the pool, and the cycle that it chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from te_trainer.config.types import Kind
from te_trainer.distillation.selection import agreement, measures, most_agreed_cycle

START = np.random.default_rng(0).random(200).astype(np.float32)


def scores(cycle: int, kind: Kind) -> np.ndarray:
    """Every encoder is the start and some noise of its own, the least in cycle 2."""
    noise = np.random.default_rng((cycle, kind == "bi-encoder")).normal(0, 1, 200)
    scale = {0: 0.0, 1: 0.5, 2: 0.1, 3: 0.9}[cycle]
    return (START + scale * noise).astype(np.float32)


def test_the_cycle_of_the_highest_agreement_is_kept() -> None:
    entries = measures(scores, START, 3, ("bi-encoder", "cross-encoder"))
    assert most_agreed_cycle(entries, "bi-encoder") == most_agreed_cycle(entries, "cross-encoder") == 2
    equal: list[dict[str, Any]] = [{"cycle": 1, "bi-first": 0.5}, {"cycle": 2, "bi-first": 0.5}]
    assert most_agreed_cycle(equal, "bi-encoder") == 1


def test_scores_that_rank_nothing_agree_with_nothing() -> None:
    assert agreement(START, np.full_like(START, 0.5)) == agreement(np.zeros_like(START), START) == 0
    assert agreement(START, -START) == pytest.approx(-1)
