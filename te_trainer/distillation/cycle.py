"""The alternation (Trans-Encoder, Algorithm 1): label with bi-encoders, train cross-encoders, label with those, train
bi-encoders; cycle after cycle.

This module knows the order of the stages and nothing else: no files, no tensors. Every stage is idempotent, so a run
that was killed goes through the same calls again, and those whose work is done return at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from te_trainer.config.types import Kind

if TYPE_CHECKING:
    from te_trainer.distillation.stages import DistillationStages


def run_cycles(stages: DistillationStages) -> dict[tuple[str, Kind], int]:
    """Run all cycles of a plan, or as many as have students that can teach.

    Each PLM labels, and each learns from the labels of all (self-distillation with one PLM, mutual-distillation with
    several; section 2.4). Bi-encoders as the only students are standard self-distillation, the paper's baseline (Table
    14). Where agreement chooses, the last bi-encoders label the pool too, as in a further cycle.

    Returns:
        Of each PLM and kind of student, the number of cycles in which it has learnt.
    """
    plan = stages.plan
    names = list(plan.models)
    cycles_learnt: dict[tuple[str, Kind], int] = {
        (name, student): 0 for name in names for _, student in plan.half_cycles
    }
    for name in names:
        stages.evaluate_start(name)
    for cycle in range(1, plan.cycles + 1):
        for teacher, student in plan.half_cycles:
            labels = plan.combine(stages.label(cycle, name, teacher) for name in names)
            may_teach = {name: stages.train(cycle, name, student, labels) for name in names}
            cycles_learnt |= {(name, student): cycle for name in names if may_teach[name]}
            if not all(may_teach.values()):
                return cycles_learnt
        stages.end_cycle(cycle)
    if plan.config.distillation.selection == "agreement":
        for name in names:
            stages.label(plan.cycles + 1, name, "bi-encoder")
    return cycles_learnt
