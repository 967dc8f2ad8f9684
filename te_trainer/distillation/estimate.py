"""How long a run's cycles will take, measured on a few pairs before they begin."""

from __future__ import annotations

import time

from datasets import Dataset

from te_trainer.distillation.encoders import load_encoder
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.distillation.work import FORWARD, cycles_work
from te_trainer.distributed import device_type
from te_trainer.labelling import score_pairs
from te_trainer.runs.folder import scratch_folder
from te_trainer.runs.layout import EncoderKey
from te_trainer.runs.scoring import Scorer
from te_trainer.runs.store import RunStore

WARM_UP = 32  # pairs
TIMED, TIMED_ON_GPU = 256, 4096  # pairs; large batches are what a GPU is good at


def estimate_seconds(plan: DistillationPlan, store: RunStore, pairs: Dataset, scorer: Scorer) -> float:
    """Seconds that the cycles will take, by the time in which the starts label some pairs of the pool.

    A PLM's cross-encoder is taken to be as large as its bi-encoder. Every rank must call this; each has its own clock.
    """
    seconds = 0.0
    for name in plan.models:
        # the start and each student score the sets with gold scores
        scored = (1 + plan.cycles * len(plan.kinds)) * scorer.pairs
        labelled = cycles_work(plan, name) / FORWARD * len(pairs)
        seconds += (labelled + scored) * _seconds_per_pair(plan, store, pairs, EncoderKey(0, name, "bi-encoder"))
    return seconds


def spread(pairs: Dataset, count: int) -> Dataset:
    """So many pairs from all of the pool, whose parts may differ in length."""
    return pairs.select([number * len(pairs) // count for number in range(count)])


def _seconds_per_pair(plan: DistillationPlan, store: RunStore, pairs: Dataset, key: EncoderKey) -> float:
    encoder = load_encoder(plan, store, key)
    timed = min(TIMED if device_type() == "cpu" else TIMED_ON_GPU, len(pairs))
    some = spread(pairs, timed)
    for sample in (some.select(range(min(WARM_UP, timed))), some):
        with scratch_folder(store.layout.gold_scratch) as scratch:
            began = time.monotonic()
            tokens = plan.config.distillation.batch_tokens
            score_pairs(encoder, sample, precision=store.precision, batch_tokens=tokens, scratch=scratch)
    return (time.monotonic() - began) / timed
