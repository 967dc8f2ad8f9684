"""Which cycle's encoders a run keeps: the best by a dev set, the last, or those that agree best on the pool.

No measure of agreement has seen a gold score. None is the paper's, which chooses by a dev set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from te_trainer.metrics import spearman
from te_trainer.runs.layout import EncoderKey

if TYPE_CHECKING:
    from te_trainer.config.schema import Kind
    from te_trainer.runs.store import RunStore

# The measure by which the cycle of each kind of encoder is chosen. Encoders that agree with their like of the cycle
# before, or with each other, may have agreed on their own mistakes: in the runs of docs/results.md these measures rise
# while the scores fall.
CHOOSING: dict[Kind, str] = {"bi-encoder": "bi-first", "cross-encoder": "cross-first"}

MEASURES = ("cross-first", "bi-first", "cross-bi", "cross-cross", "bi-bi")


class Selection:
    """Chooses cycles from the records of a run.

    Args:
        how: `dev`, `last` or `agreement`.
        store: Scores and labels of the run.
        names: Names of the PLMs.
        kinds: Kinds of encoders that a cycle trains.
        combine: Makes one set of labels of all PLMs'.
    """

    def __init__(
        self,
        how: str,
        store: RunStore,
        names: Sequence[str],
        kinds: Sequence[Kind],
        combine: Callable[[Iterable[np.ndarray]], np.ndarray],
    ) -> None:
        self.how = how
        self.store = store
        self.names = names
        self.kinds = kinds
        self.combine = combine
        self._measures: dict[str, list[dict[str, Any]]] = {}

    def best_cycle(self, name: str, kind: Kind, cycles: int) -> int:
        """The cycle whose encoder is kept, of equals the earliest.

        Args:
            cycles: Number of cycles that are done.
        """
        if self.how == "last":
            return cycles
        if self.how == "agreement":
            return most_agreed_cycle(self.agreement(name), kind)

        def dev(cycle: int) -> float:
            return float(self.store.scores(EncoderKey(cycle, name, kind))["scores"]["dev"])

        return max(range(1, cycles + 1), key=lambda cycle: (dev(cycle), -cycle))

    def agreement(self, name: str) -> list[dict[str, Any]]:
        """How well a PLM's encoders agree on the pool, cycle by cycle; needs the labels of the last bi-encoder."""
        if name not in self._measures:
            first = self.combine(self.store.labels(EncoderKey(0, each, "bi-encoder")) for each in self.names)
            self._measures[name] = measures(
                lambda cycle, kind: self.store.labels(EncoderKey(cycle, name, kind)),
                first,
                self.store.cycles,
                self.kinds,
            )
        return self._measures[name]


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    """Spearman's rank correlation of two encoders' scores of the pool, shape (n,); 0 where one ranks nothing."""
    if one.min() == one.max() or two.min() == two.max():
        return 0.0
    return spearman(one, two)


def measures(
    labels: Callable[[int, Kind], np.ndarray], first: np.ndarray, cycles: int, kinds: Sequence[Kind]
) -> list[dict[str, int | float]]:
    """Every measure of every cycle of a PLM.

    Args:
        labels: Gives the labels of the pool by a cycle's encoder of a kind; cycle 0 is the start.
        first: The labels that the first cycle learns from, of all PLMs together; shape (n,).
        cycles: Number of cycles.
        kinds: Kinds of encoders that a cycle trains.

    Returns:
        For each cycle `{"cycle": c, "cross-first": f, "bi-first": f, "cross-bi": f, "cross-cross": f, "bi-bi": f}`: the
        agreement of each encoder with the first labels, of the cycle's two encoders, and of each with its like of the
        cycle before. The first bi-encoder is compared with the start, the first cross-encoder with none; without
        cross-encoders there are `bi-first` and `bi-bi` alone.
    """
    entries = []
    for cycle in range(1, cycles + 1):
        bi = labels(cycle, "bi-encoder")
        entry: dict[str, int | float] = {"cycle": cycle}
        if "cross-encoder" in kinds:
            cross = labels(cycle, "cross-encoder")
            entry |= {"cross-first": agreement(cross, first), "cross-bi": agreement(cross, bi)}
            if cycle > 1:
                entry["cross-cross"] = agreement(cross, labels(cycle - 1, "cross-encoder"))
        entry |= {"bi-first": agreement(bi, first), "bi-bi": agreement(bi, labels(cycle - 1, "bi-encoder"))}
        entries.append(entry)
    return entries


def most_agreed_cycle(entries: Sequence[dict[str, Any]], kind: Kind) -> int:
    """The cycle of the highest agreement, of equals the earliest.

    Args:
        entries: As `measures` returns them.
        kind: Kind of the encoder that is chosen.
    """
    return int(max(entries, key=lambda entry: (entry[CHOOSING[kind]], -entry["cycle"]))["cycle"])
