"""The alternation (Trans-Encoder, Algorithm 1): label with bi-encoders, train cross-encoders, label with those, train
bi-encoders; cycle after cycle.

This module knows the order of the stages and nothing else: no files, no tensors. Every stage is idempotent, so a run
that was killed goes through the same calls again, and those whose work is done return at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from te_trainer.config.schema import Kind, Students

Labels = TypeVar("Labels")

# Teacher and student of each half of a cycle.
HALF_CYCLES: dict[Students, tuple[tuple[Kind, Kind], ...]] = {
    "both": (("bi-encoder", "cross-encoder"), ("cross-encoder", "bi-encoder")),
    "bi-encoder": (("bi-encoder", "bi-encoder"),),
}


class Stages(Protocol[Labels]):
    """The stages of a cycle."""

    def evaluate_start(self, name: str) -> None:
        """Score the bi-encoder that a PLM starts from."""

    def label(self, cycle: int, name: str, teacher: Kind) -> Labels:
        """Score the pool with the current teacher of a PLM."""

    def combine(self, labels: Iterable[Labels]) -> Labels:
        """Make one set of labels of all PLMs'."""

    def train(self, cycle: int, name: str, student: Kind, labels: Labels) -> bool:
        """Train an encoder of a PLM on labels, and score it; False where it must not teach."""

    def end_cycle(self, cycle: int) -> None:
        """Remove what later cycles do not need."""


def distil(
    stages: Stages[Labels],
    names: Sequence[str],
    cycles: int,
    students: Students = "both",
    label_at_end: bool = False,
) -> dict[Kind, int]:
    """Run all cycles, or as many as have students that can teach.

    Args:
        stages: Does the work.
        names: Names of the PLMs. Each labels, and each learns from the labels of all (self-distillation with one PLM,
            mutual-distillation with several; section 2.4).
        cycles: Number of cycles, in the paper 3 for STS and 5 for binary tasks.
        students: Which encoders a cycle trains. `bi-encoder` alone is standard self-distillation, the paper's baseline
            (Table 14).
        label_at_end: Label the pool with the last bi-encoders too, as a further cycle would.

    Returns:
        Of each kind of student, the number of cycles in which those of all PLMs have learnt.
    """
    learnt: dict[Kind, int] = {student: 0 for _, student in HALF_CYCLES[students]}
    for name in names:
        stages.evaluate_start(name)
    for cycle in range(1, cycles + 1):
        for teacher, student in HALF_CYCLES[students]:
            labels = stages.combine(stages.label(cycle, name, teacher) for name in names)
            may_teach = [stages.train(cycle, name, student, labels) for name in names]
            if not all(may_teach):
                return learnt
            learnt[student] = cycle
        stages.end_cycle(cycle)
    if label_at_end:
        for name in names:
            stages.label(cycles + 1, name, "bi-encoder")
    return learnt
