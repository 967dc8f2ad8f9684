"""How many texts of its pool and its sentences a run of distillation cuts."""

from __future__ import annotations

from functools import cache

from te_trainer.config.schema import Kind
from te_trainer.data import PoolManifest, SentenceManifest
from te_trainer.distillation.plan import DistillationPlan, ModelPlan
from te_trainer.models import Checkpoint
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.truncation import Truncation, count_once, count_truncation


def count_run_truncation(plan: DistillationPlan, layout: RunLayout) -> None:
    """Count what each PLM's encoders cut of the pool, and step 0 of its sentences, unless that is known.

    The file holds the records by PLM, and by kind of encoder or `step0`.
    """

    @cache
    def count(start: Checkpoint, kind: Kind, max_length: int, prompt: str, of_step0: bool = False) -> Truncation:
        texts = (SentenceManifest.load(layout.sentences) if of_step0 else PoolManifest.load(layout.pool))[1]
        return count_truncation(texts, kind, start.tokenizer, max_length, prompt, plan.config.seed)

    def count_model(model: ModelPlan) -> dict[str, Truncation]:
        entry = {}
        if (step0 := model.step0) is not None:
            length = step0.section.max_length
            entry["step0"] = count(step0.start, "bi-encoder", length, step0.prompt_text, of_step0=True)
        for kind, encoder in model.encoders.items():
            entry[kind] = count(encoder.start, kind, encoder.max_length, encoder.prompt_text)
        return entry

    count_once(layout.pool, lambda: {name: count_model(model) for name, model in plan.models.items()})
