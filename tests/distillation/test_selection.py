"""Agreement on the pool, the cycle that it chooses, and what this gains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from te_trainer.config.types import Kind
from te_trainer.data import GoldSet, GoldSets
from te_trainer.distillation.gains import collect_gains
from te_trainer.distillation.selection import Selection, agreement
from te_trainer.metrics import spearman
from te_trainer.runs.scoring import Scorer

START = np.random.default_rng(0).random(200).astype(np.float32)


def scores(cycle: int, kind: Kind) -> np.ndarray:
    """Every encoder is the start and some noise of its own, the least in cycle 2."""
    noise = np.random.default_rng((cycle, kind == "bi-encoder")).normal(0, 1, 200)
    scale = {0: 0.0, 1: 0.5, 2: 0.1, 3: 0.9}[cycle]
    return (START + scale * noise).astype(np.float32)


def test_the_cycle_of_the_highest_agreement_is_kept() -> None:
    kinds: list[Kind] = ["bi-encoder", "cross-encoder"]
    plan = SimpleNamespace(
        models=["m"], kinds=kinds, cycles=3, selector="agreement", may_keep_start=False, combine=next
    )
    for labels, kept in ((lambda key: scores(key.cycle, key.kind), 2), (lambda key: START, 1)):
        store = SimpleNamespace(labels=labels)
        selection = Selection(plan, store, {("m", kind): 3 for kind in kinds})  # type: ignore[arg-type]
        assert [selection.best_cycle("m", kind) for kind in kinds] == [kept, kept]


def test_scores_that_rank_nothing_agree_with_nothing() -> None:
    assert agreement(START, np.full_like(START, 0.5)) == agreement(np.zeros_like(START), START) == 0
    assert agreement(START, -START) == pytest.approx(-1)


def test_gold_pairs_that_come_again_narrow_no_gain(tmp_path: Path) -> None:
    rng, found = np.random.default_rng(0), []
    scores, start = rng.random((2, 40))
    for rows in (np.arange(40), np.tile(np.arange(40), 3)):
        one, two = ([f"{side} {row}" for row in rows] for side in ("one", "two"))
        gold = GoldSet("gold", one, two, scores[rows])
        predicted = {0: start[rows], 1: (scores + start)[rows]}
        store: Any = SimpleNamespace(
            predictions=lambda key, known=predicted: [known[key.cycle]], is_scored=lambda *_, **__: True
        )
        plan = SimpleNamespace(models=["m"], kinds=["bi-encoder"], config=SimpleNamespace(seed=1))
        selection: Any = SimpleNamespace(plan=plan, store=store, best_cycle=lambda *_: 1)
        found.append(collect_gains(selection, Scorer(GoldSets(None, (gold,)), spearman, None, tmp_path)))
    (once,), (thrice,) = (gains["m"]["bi-encoder"].values() for gains in found)
    assert once["pairs"] == thrice["pairs"] == 40
    assert once["interval"] == pytest.approx(thrice["interval"], abs=1e-9)
