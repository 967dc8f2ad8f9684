"""Which cycle's encoders a run keeps: the best by a dev set, the last, those that agree best on the pool, or the last
that have learnt by their health.

Neither agreement nor health has seen a gold score. The paper chooses by a dev set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from te_trainer.config.types import Kind
from te_trainer.distillation.health import MIN_PAIRS, why_not_learnt
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.metrics import spearman
from te_trainer.runs.layout import EncoderKey
from te_trainer.runs.store import RunStore

# What an encoder of each kind has in common with the first labels. Encoders that agree with their like of the cycle
# before, or with each other, may have agreed on their own mistakes: in the runs of docs/results.md that agreement rises
# while the scores fall.
MEASURES: dict[Kind, str] = {"cross-encoder": "cross-first", "bi-encoder": "bi-first"}

DEV_TOLERANCE = 0.01
TRUSTED_AGREEMENT = 0.97  # at 0.92 a cross-encoder was 3 points below the start: docs/selection.md


@dataclass
class Selection:
    """Chooses cycles from the records of a run, as its plan says."""

    plan: DistillationPlan
    store: RunStore
    # of each PLM and kind, the cycles whose encoders may be kept
    cycles_learnt: dict[tuple[str, Kind], int] = field(default_factory=dict)
    _measures: dict[str, list[dict[str, Any]]] = field(default_factory=dict, init=False)

    @property
    def trusts_students(self) -> bool:
        """Whether health chooses, and the last students that have learnt are kept."""
        has_learnt = any(self.cycles_learnt[name, "bi-encoder"] for name in self.plan.models)
        return self.plan.selector == "health" and not self.plan.may_keep_start and has_learnt

    def best_cycle(self, name: str, kind: Kind, cycles: int | None = None) -> int | None:
        """The cycle whose encoder is kept, of equals the earliest; 0 for the start, None where nothing has learnt.

        `cycles` is the number of cycles that are done, by default those that have learnt.
        """
        how, cycles = self.plan.selector, self.cycles_learnt[name, kind] if cycles is None else cycles
        # where health chooses and nothing has learnt, the start is kept always
        with_start = kind == "bi-encoder" and (self.plan.may_keep_start or (how == "health" and cycles == 0))
        candidates = range(0 if with_start else 1, cycles + 1)
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        if how == "last" or (how == "health" and not self.plan.may_keep_start):
            return cycles
        if how == "agreement":
            entries = self.agreement(name)
            return int(max(entries, key=lambda entry: (entry[MEASURES[kind]], -entry["cycle"]))["cycle"])
        if how == "health" and with_start:
            return 0
        records = {cycle: self.store.scores(EncoderKey(cycle, name, kind)) for cycle in candidates}
        if how == "health":
            return max(candidates, key=lambda cycle: (records[cycle]["health"].get("start", -1.0), -cycle))
        return max(candidates, key=lambda cycle: (records[cycle]["scores"]["dev"], -cycle))

    def failure(self, key: EncoderKey) -> dict[str, Any] | None:
        """What is to be said of a student that has not learnt, whatever chooses the cycle; None of one that has.

        Returns:
            `{"cycle": c, "name": s, "kind": s, "reason": s, "steps": n, "length": s, "added_pairs": n, "stopped": b,
            "taught": b}`: `length` is the key that says how long it was trained, `added_pairs` how many it has learnt
            beside the pool's, `stopped` whether it ends the cycles, `taught` whether another
            learns from it all the same.
        """
        record = self.store.scores(key)
        reason = why_not_learnt(record["health"])
        if reason is None:
            return None
        stops, is_last = self.plan.selector == "health", key.kind == "bi-encoder" and key.cycle == self.plan.cycles
        return key._asdict() | {
            "reason": reason,
            "steps": self.store.training_record(key)["steps"],
            "length": self.plan.models[key.name].encoders[key.kind].length_key,
            "added_pairs": record["added_pairs"],
            "stopped": stops,
            "taught": not stops and not is_last,
        }

    def agreement(self, name: str) -> list[dict[str, Any]]:
        """How well a PLM's encoders agree with the labels that the first cycle learnt from.

        These labels are of all PLMs together. Call it once the last bi-encoder has labelled the pool.

        Returns:
            For each cycle `{"cycle": c, "cross-first": f, "bi-first": f}`, without the former where there are no
            cross-encoders.
        """
        if name not in self._measures:
            first, kinds = self.first_labels(), [kind for kind in MEASURES if kind in self.plan.kinds]
            self._measures[name] = [
                {"cycle": cycle}
                | {MEASURES[kind]: agreement(self.store.labels(EncoderKey(cycle, name, kind)), first) for kind in kinds}
                for cycle in range(1, self.plan.cycles + 1)
            ]
        return self._measures[name]

    def first_labels(self) -> np.ndarray:
        """The labels that the first cycle learns from, which are the start's."""
        return self.plan.combine(self.store.labels(EncoderKey.start(name)) for name in self.plan.models)


def is_as_good_as_start(record: dict[str, Any], start: dict[str, Any], dev_pairs: int, held_out: bool) -> bool:
    """Whether an encoder may be called as good as the bi-encoder that its PLM started from, by the records of both.

    With a dev set, `dev_pairs` of at least `MIN_PAIRS`, it has learnt and scores at most `DEV_TOLERANCE` lower. Without
    one, its scores of at least `MIN_PAIRS` pairs must agree with the start's to `TRUSTED_AGREEMENT`, and these pairs be
    `held_out`: what agrees less may be better or worse, what has learnt them may agree there alone, and nobody knows.
    """
    health = record["health"]
    if "dev" in start["scores"]:
        scores_as_high = record["scores"]["dev"] >= start["scores"]["dev"] - DEV_TOLERANCE
        return bool(scores_as_high and dev_pairs >= MIN_PAIRS and why_not_learnt(health) is None)
    return bool(held_out and health["pairs"] >= MIN_PAIRS and health.get("start", 0.0) >= TRUSTED_AGREEMENT)


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    """Spearman's rank correlation of two encoders' scores of the pool, shape (n,); 0 where one ranks nothing."""
    return float(np.nan_to_num(spearman(one, two)))
