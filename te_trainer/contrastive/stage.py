"""Step 0 (Trans-Encoder, section 2.1): contrastive training makes a bi-encoder of a plain PLM."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from te_trainer.config.schema import Logger
from te_trainer.contrastive.plan import ContrastivePlan
from te_trainer.data import SentenceManifest
from te_trainer.distributed import on_main_process
from te_trainer.files.atomic import write_text
from te_trainer.models import BiEncoder
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.scoring import Scorer, describe
from te_trainer.runs.training import Training
from te_trainer.runs.truncation import Truncation, count_once, count_truncation


def contrastive_training(
    plan: ContrastivePlan, *, report_to: list[Logger], ddp_timeout: int, **of_run: Any
) -> Training:
    """The training that makes a bi-encoder of a plain PLM."""
    return Training(
        kind="bi-encoder",
        load=partial(BiEncoder.from_pretrained, plan.start.name, **plan.encoder),
        values={"report_to": report_to or "none", "ddp_timeout": ddp_timeout} | plan.training,
        section="contrastive",
        **of_run,
    )


def score_once(
    plan: ContrastivePlan, model: str, title: str, record: Path, scorer: Scorer, progress: RunProgress
) -> None:
    """Score a bi-encoder, unless its record is there."""
    if record.exists():
        return
    entry, _ = scorer.score(BiEncoder.from_pretrained(model, **plan.encoder))
    on_main_process(lambda: write_text(record, json.dumps(entry, indent=2) + "\n"))
    if entry["scores"]:
        progress.say(f"{title}: {describe(entry['scores'])}")


def count_contrastive_truncation(plan: ContrastivePlan, folder: Path, seed: int) -> None:
    """Count what contrastive training cuts of its sentences, unless that is known."""

    def count() -> Truncation:
        sentences, length = SentenceManifest.load(folder)[1], plan.section.max_length
        return count_truncation(sentences, "bi-encoder", plan.start.tokenizer, length, plan.prompt_text, seed)

    count_once(folder, lambda: {"bi-encoder": count()})
