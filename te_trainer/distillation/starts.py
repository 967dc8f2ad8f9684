"""Before the cycles: step 0, which makes a bi-encoder of each plain PLM (Trans-Encoder, section 2.1)."""

from __future__ import annotations

from collections.abc import Callable

from te_trainer.data import SentenceManifest
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.distillation.trainings import Trainings
from te_trainer.distillation.work import step0_work


def train_starts(plan: DistillationPlan, trainings: Trainings, after_stage: Callable[[], None] = lambda: None) -> None:
    """Train the bi-encoders that the PLMs' cycles start from, each once, where the run has a step 0.

    Args:
        after_stage: Called when a training's result is on the disk; it need not return.
    """
    if plan.config.step0 is None:
        return
    layout = trainings.store.layout
    _, sentences = SentenceManifest.load(layout.sentences)
    work = step0_work(plan, layout)
    for name in plan.models:
        training = trainings.step0(name)
        is_new = not training.is_done
        training.run(f"step 0 {name}: contrastive training", work, sentences)
        if is_new:
            after_stage()
