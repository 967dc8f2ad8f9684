"""How well encoders agree on the pool: what may choose a cycle where no gold score may.

No measure here has seen a gold score. None is the paper's, which chooses by a dev set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from te_trainer.config.schema import Kind
from te_trainer.metrics import spearman

# The measure by which the cycle of each kind of encoder is chosen: the first of these that a run has.
CHOOSING: dict[Kind, tuple[str, ...]] = {"bi-encoder": ("cross-bi", "bi-bi"), "cross-encoder": ("cross-bi",)}


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    """Spearman's rank correlation of two encoders' scores of the pool, shape (n,); 0 where one ranks nothing."""
    if one.min() == one.max() or two.min() == two.max():
        return 0.0
    return spearman(one, two)


def measures(
    scores: Callable[[int, Kind], np.ndarray], cycles: int, kinds: Sequence[Kind]
) -> list[dict[str, int | float]]:
    """Every measure of every cycle of a PLM.

    Args:
        scores: gives the scores of the pool by a cycle's encoder of a kind; cycle 0 is the start.
        kinds: of encoders that a cycle trains.

    Returns:
        for each cycle `{"cycle": c, "cross-bi": f, "cross-cross": f, "bi-bi": f}`: the agreement of the cycle's two
        encoders, and of each with its like of the cycle before. The first bi-encoder is compared with the start, the
        first cross-encoder with none; without cross-encoders there is `bi-bi` alone.
    """
    found = []
    for cycle in range(1, cycles + 1):
        entry: dict[str, int | float] = {"cycle": cycle}
        bi = scores(cycle, "bi-encoder")
        if "cross-encoder" in kinds:
            cross = scores(cycle, "cross-encoder")
            entry["cross-bi"] = agreement(cross, bi)
            if cycle > 1:
                entry["cross-cross"] = agreement(cross, scores(cycle - 1, "cross-encoder"))
        entry["bi-bi"] = agreement(bi, scores(cycle - 1, "bi-encoder"))
        found.append(entry)
    return found


def most_agreed_cycle(found: Sequence[dict[str, Any]], kind: Kind) -> int:
    """The cycle whose encoder of a kind is kept: that of the highest agreement, the earliest of equals.

    Args:
        found: as `measures` gives it.
    """
    measure = next(name for name in CHOOSING[kind] if any(name in entry for entry in found))
    measured = [entry for entry in found if measure in entry]
    return int(max(measured, key=lambda entry: (entry[measure], -entry["cycle"]))["cycle"])
