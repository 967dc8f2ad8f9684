"""How well encoders agree on the pool: what may choose a cycle where no gold score may.

No measure here has seen a gold score. None is the paper's, which chooses by a dev set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from te_trainer.config.schema import Kind
from te_trainer.metrics import spearman

# The measure by which the cycle of each kind of encoder is chosen. Encoders that agree with their like of the cycle
# before, or with each other, may have agreed on their own mistakes: in the runs of docs/results.md these measures rise
# while the scores fall.
CHOOSING: dict[Kind, str] = {"bi-encoder": "bi-first", "cross-encoder": "cross-first"}

MEASURES = ("cross-first", "bi-first", "cross-bi", "cross-cross", "bi-bi")


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    """Spearman's rank correlation of two encoders' scores of the pool, shape (n,); 0 where one ranks nothing."""
    if one.min() == one.max() or two.min() == two.max():
        return 0.0
    return spearman(one, two)


def measures(
    scores: Callable[[int, Kind], np.ndarray], first: np.ndarray, cycles: int, kinds: Sequence[Kind]
) -> list[dict[str, int | float]]:
    """Every measure of every cycle of a PLM.

    Args:
        scores: gives the scores of the pool by a cycle's encoder of a kind; cycle 0 is the start.
        first: the labels that the first cycle learnt from, of all PLMs together; shape (n,).
        kinds: of encoders that a cycle trains.

    Returns:
        for each cycle `{"cycle": c, "cross-first": f, "bi-first": f, "cross-bi": f, "cross-cross": f, "bi-bi": f}`: the
        agreement of each encoder with the first labels, of the cycle's two encoders, and of each with its like of the
        cycle before. The first bi-encoder is compared with the start, the first cross-encoder with none; without
        cross-encoders there are `bi-first` and `bi-bi` alone.
    """
    found = []
    for cycle in range(1, cycles + 1):
        bi = scores(cycle, "bi-encoder")
        entry: dict[str, int | float] = {"cycle": cycle}
        if "cross-encoder" in kinds:
            cross = scores(cycle, "cross-encoder")
            entry |= {"cross-first": agreement(cross, first), "cross-bi": agreement(cross, bi)}
            if cycle > 1:
                entry["cross-cross"] = agreement(cross, scores(cycle - 1, "cross-encoder"))
        entry |= {"bi-first": agreement(bi, first), "bi-bi": agreement(bi, scores(cycle - 1, "bi-encoder"))}
        found.append(entry)
    return found


def most_agreed_cycle(found: Sequence[dict[str, Any]], kind: Kind) -> int:
    """The cycle whose encoder of a kind is kept: that of the highest agreement, the earliest of equals.

    Args:
        found: as `measures` gives it.
    """
    return int(max(found, key=lambda entry: (entry[CHOOSING[kind]], -entry["cycle"]))["cycle"])
