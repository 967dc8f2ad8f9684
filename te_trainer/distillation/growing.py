"""More pairs for a cross-encoder that cannot learn, or has not learnt, from a small pool: other pairs of the pool's own
sentences.

They are random, drawn over the range of the scores that the teachers of the cycle give them, which are their labels.
Such pairs made far better cross-encoders of pools that taught too little, as good as those that BM25 finds did, and as
many steps on the pool alone did not: docs/results.md.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.data import pairs_of
from te_trainer.distillation.encoders import load_run_encoder
from te_trainer.distillation.mining import are_given
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.distributed import ask_main_process, on_main_process
from te_trainer.errors import divergence_named
from te_trainer.files.scratch import scratch_folder
from te_trainer.labelling import score_pairs
from te_trainer.mining.candidates import merge, random_pairs
from te_trainer.mining.draw import draw_by_score
from te_trainer.mining.near_duplicates import look_the_same
from te_trainer.runs.layout import EncoderKey
from te_trainer.runs.store import RunStore

LARGEST_POOL = 1000  # pairs; larger pools were not tried
TIMES = 2  # new pairs for each of the pool's


def can_grow(plan: DistillationPlan, pairs: int) -> bool:
    """Whether a pool of so many pairs may grow: a small one to which no mined pairs belong."""
    return pairs < LARGEST_POOL and not plan.config.mines


def grown_pairs(plan: DistillationPlan, store: RunStore, pool: Dataset, cycle: int) -> dict[str, Any]:
    """Pairs of the pool's sentences that are not in it, with the labels of the cycle's bi-encoders.

    All ranks score them; the first one draws and writes them, unless they are there.

    Returns:
        Columns `sentence1`, `sentence2`, `label`, each with up to `TIMES` as many rows as the pool has.
    """
    if not ask_main_process(lambda: store.has_grown_pairs(cycle)):
        with scratch_folder(store.layout.mining_scratch) as scratch:
            _grow(plan, store, pool, cycle, scratch)
    return store.grown_pairs(cycle)


def _grow(plan: DistillationPlan, store: RunStore, pool: Dataset, cycle: int, scratch: Path) -> None:
    began, mining, seed = time.monotonic(), plan.config.mining, plan.config.seed
    texts = list(dict.fromkeys(text for pair in pairs_of(pool) for text in pair))
    sentences = Dataset.from_dict({"sentence1": texts})
    rows = merge({"random": random_pairs(np.arange(len(texts)), mining.candidates, seed)}).rows
    rows = rows[~are_given(sentences, rows, pool)]
    pairs = {name: [texts[row] for row in rows[:, side]] for side, name in enumerate(SENTENCE_COLUMNS)}
    labels, differ = np.empty(0, dtype=np.float32), np.arange(0)
    if len(rows):
        keys = [EncoderKey.teacher(cycle, name, "bi-encoder") for name in plan.models]
        by_teacher = [_score(plan, store, key, pairs, scratch) for key in keys]
        labels, differ = plan.combine(by_teacher), np.flatnonzero(~look_the_same(by_teacher))

    def draw() -> None:
        drawn = differ[draw_by_score(labels[differ], rows[differ], TIMES * len(pool), mining.per_sentence, seed)]
        columns = {
            name: [column[row] for row in drawn] for name, column in (pairs | {"label": labels.tolist()}).items()
        }
        store.save_grown_pairs(cycle, columns, round(time.monotonic() - began, 3))

    on_main_process(draw)


def _score(
    plan: DistillationPlan, store: RunStore, teacher: EncoderKey, pairs: dict[str, list[str]], scratch: Path
) -> np.ndarray:
    encoder = load_run_encoder(plan, store, teacher)
    with divergence_named(f"{teacher.name}: new pairs"), scratch_folder(scratch / "scores") as tmp_dir:
        return score_pairs(encoder, pairs, scratch=tmp_dir, **plan.labelling)
