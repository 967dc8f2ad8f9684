"""What is known of an encoder without gold: how it scores pairs that it has not learnt from, and edited sentences.

A part of the pool is held out of every training. An encoder that has learnt orders these pairs as its teacher does,
spreads its scores, gives both orders of a pair like scores, and finds an edited sentence less like itself the more was
edited.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.data.edits import graded_order, graded_pairs
from te_trainer.labelling import SAME_SCORE
from te_trainer.metrics import spearman

MIN_PAIRS, MAX_PAIRS = 32, 500  # a rank correlation of fewer says little, one of more costs time
SMALLEST_POOL = 20  # pairs; of a smaller pool nothing is held out
FEWEST_HELD_OUT = 8  # pairs; two order each other right or wrong by chance
SENTENCES = 50  # that are edited

# Bounds below which a student has not learnt; docs/selection.md says what they rest on.
MIN_AGREEMENT = 0.5
MIN_SPREAD = 0.25
MIN_GRADED = 0.7
_EDITS = (
    "finds a heavily edited sentence no less similar than a lightly edited one (edits in order {:.0f} %; at least "
    f"{100 * MIN_GRADED:.0f} % is expected)"
)


@dataclass(frozen=True)
class Probe:
    """Pairs by which a run's encoders are judged."""

    rows: np.ndarray  # of the pool, ascending
    held_out: bool  # whether no training may see them
    exchanged: np.ndarray  # rows that hold the same pairs in the other order, which no training may see either
    pairs: dict[str, list[str]]  # columns: these pairs, the same with their sentences exchanged, and edited sentences

    @classmethod
    def draw(cls, pool: Dataset, part: float, seed: int) -> Probe:
        """Draw a probe from a pool.

        `part` of the pool, 0 to 1, is held out; at 0, trainings see the probe's pairs.
        """
        held_out = held_out_pairs(len(pool), part)
        count = held_out or min(len(pool), MIN_PAIRS)
        rows = np.sort(np.random.default_rng((seed, 3)).choice(len(pool), size=count, replace=False))
        block = pool[rows.tolist()]
        one, two = (list(block[name]) for name in SENTENCE_COLUMNS)
        graded = graded_pairs(one + two, SENTENCES, seed)
        columns = (one + two + graded["sentence1"], two + one + graded["sentence2"])
        exchanged = _rows_that_hold(pool, list(zip(two, one, strict=True)))
        return cls(rows, held_out > 0, exchanged, dict(zip(SENTENCE_COLUMNS, columns, strict=True)))

    def rows_to_learn(self, pairs: int) -> np.ndarray:
        """Numbers of the rows of a pool that trainings see."""
        rows = np.arange(pairs)
        return np.setdiff1d(rows, np.concatenate([self.rows, self.exchanged])) if self.held_out else rows

    def health(
        self, scores: np.ndarray, labels: np.ndarray | None = None, start: np.ndarray | None = None
    ) -> dict[str, float | int]:
        """The health of an encoder.

        Args:
            scores: Its scores of `pairs`, shape (n,).
            labels: The labels that it learnt, shape (pairs of the pool,); None for the start.
            start: The scores of the bi-encoder that its PLM started from, of that shape; None for `labels`.

        Returns:
            `std` and `distinct` of the scores of held-out pairs; `orders`, Spearman's correlation of the scores of both
            orders; `graded`, how often more edited sentences score lower; after a training also `agreement`, Spearman's
            correlation with the labels, `start`, that with the start's scores, and `spread`, the ratio of the standard
            deviations to that of the labels. What says nothing is absent: the last three of fewer than
            `FEWEST_HELD_OUT` pairs or of equal labels, `orders` of so few pairs or of equal scores, and `graded` where
            no sentence is long enough to edit.
        """
        count = len(self.rows)
        held_out, exchanged, graded = np.split(scores, [count, 2 * count])
        health = {
            "pairs": count,
            "std": float(held_out.std(dtype=np.float64)),
            "distinct": len(np.unique(held_out)),
            "graded": graded_order(graded),
        }
        if count >= FEWEST_HELD_OUT and np.ptp(held_out) >= SAME_SCORE:
            health["orders"] = spearman(held_out, exchanged)
        if labels is not None and count >= FEWEST_HELD_OUT and np.ptp(labels := labels[self.rows]) >= SAME_SCORE:
            health["agreement"] = spearman(held_out, labels)
            health["start"] = health["agreement"] if start is None else spearman(held_out, start[self.rows])
            health["spread"] = health["std"] / float(labels.std(dtype=np.float64))
        return {name: value for name, value in health.items() if not np.isnan(value)}


def held_out_pairs(pairs: int, part: float) -> int:
    """How many pairs of a pool of so many are held out; 0 where none are, for want of pairs too."""
    if part == 0 or pairs < SMALLEST_POOL:
        return 0
    # trainings need the rest
    return min(max(MIN_PAIRS, round(part * pairs)), MAX_PAIRS, max(pairs // 10, FEWEST_HELD_OUT))


def _rows_that_hold(pool: Dataset, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Numbers of the rows of a pool that hold one of these pairs, in this order of its sentences."""
    columns: Any = pool.with_format("arrow")[:]
    found = [
        pc.is_in(columns[name], value_set=pa.array(texts, columns[name].type))
        for name, texts in zip(SENTENCE_COLUMNS, zip(*pairs, strict=True), strict=True)
    ]
    rows = np.flatnonzero(pc.and_(*found).to_numpy())
    wanted, block = set(pairs), pool[rows.tolist()]
    return rows[[pair in wanted for pair in zip(*(block[name] for name in SENTENCE_COLUMNS), strict=True)]]


def describe_health(health: dict[str, Any]) -> str:
    """The health of an encoder in one line, correlations times 100."""
    parts = {
        "agreement": "agreement with the labels learnt {:.1f}",
        "start": "with the start {:.1f}",
        "spread": "spread {:.2f} of the labels'",
        "std": "standard deviation {:.3f}",
        "distinct": "distinct scores {:,}",
        "orders": "agreement of both orders {:.1f}",
        "graded": "edits in order {:.0f} %",
    }
    plain = {"spread", "std", "distinct"}
    values = {name: value if name in plain else 100 * value for name, value in health.items()}
    return "health: " + ", ".join(words.format(values[name]) for name, words in parts.items() if name in values)


def why_no_teacher(health: dict[str, Any]) -> str | None:
    """What shows that a start tells texts too little apart for its labels to teach anything, or None."""
    value = health.get("graded")
    if value is None or not value < MIN_GRADED:
        return None
    return (
        f"the start {_EDITS.format(100 * value)}, so that its labels may say nothing of these texts; another model may "
        "tell them apart, or a higher bi_encoder.max_length"
    )


def why_not_learnt(health: dict[str, Any]) -> str | None:
    """What shows that a student has not learnt its labels, or None; of too few pairs nothing does."""
    if "spread" not in health and health["pairs"] >= FEWEST_HELD_OUT:
        return (
            f"it is judged by {health['pairs']} pairs whose labels are all the same, so that nothing shows that it has"
        )
    agreement, spread, graded = (health.get(name, math.inf) for name in ("agreement", "spread", "graded"))
    if agreement < MIN_AGREEMENT:
        words = f"agreement {100 * agreement:.1f}; at least {100 * MIN_AGREEMENT:.0f} is expected"
        return f"it orders pairs of the pool unlike the labels that it learnt ({words})"
    if spread < MIN_SPREAD:
        return f"its scores spread {spread:.2f} times as widely as its labels; at least {MIN_SPREAD} is expected"
    return f"it {_EDITS.format(100 * graded)}" if graded < MIN_GRADED else None
