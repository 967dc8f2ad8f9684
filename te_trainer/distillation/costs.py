"""What a run will cost, said before its work begins: seconds and memory."""

from __future__ import annotations

import time

from datasets import Dataset

from te_trainer.data import SentenceManifest
from te_trainer.distillation.encoders import load_run_encoder
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.distillation.work import FORWARD, cycles_work, expected_pairs, mining_work, step0_work
from te_trainer.distributed import device_type, process_state
from te_trainer.errors import divergence_named
from te_trainer.files.scratch import scratch_folder
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder
from te_trainer.runs.layout import EncoderKey, RunLayout
from te_trainer.runs.memory import describe_gpus, describe_training_memory
from te_trainer.runs.progress import format_duration
from te_trainer.runs.scoring import Scorer
from te_trainer.runs.store import RunStore

WARM_UP = 32  # pairs
LONG = 2 * 3600  # seconds
TIMED, TIMED_ON_GPU = 256, 4096  # pairs; large batches are what a GPU is good at


def estimate_seconds(plan: DistillationPlan, store: RunStore, texts: Dataset, scorer: Scorer) -> float:
    """Seconds that the whole run will take, by the time in which the starts, or their PLMs, label some pairs.

    A PLM's cross-encoder is taken to be as large as its bi-encoder. Every rank must call this; each has its own clock.

    Args:
        texts: The pool's pairs; or the sentences that pairs are mined from, each as a pair with itself.
    """
    layout, seconds = store.layout, 0.0
    pairs, mining, step0 = expected_pairs(plan, layout), mining_work(plan, layout), step0_work(plan, layout)
    for number, name in enumerate(plan.models):
        # the start and each student score the sets with gold scores
        scored = (1 + plan.cycles * len(plan.kinds)) * sum(len(gold) for _, gold in scorer.gold)
        passes = step0 + mining.embed + mining.search + mining.gather * (number == 0) + cycles_work(plan, name, pairs)
        seconds += (passes / FORWARD * pairs + scored) * _seconds_per_pair(plan, store, texts, name)
    return seconds


def describe_time(seconds: float, is_mined: bool) -> str:
    """How long a run will take, and what shortens a long one, whose pairs are mined or given."""
    key = "mining.pairs" if is_mined else "data.max_pairs"
    shorter = f"; one with a smaller {key}, in another output_dir, is shorter" if seconds > LONG else ""
    return f"The run will take about {format_duration(seconds)} on this machine{shorter}"


def spread(rows: Dataset, count: int) -> Dataset:
    """So many rows from all of a data set, whose parts may differ in length."""
    return rows.select([number * len(rows) // count for number in range(count)])


def _seconds_per_pair(plan: DistillationPlan, store: RunStore, texts: Dataset, name: str) -> float:
    step0 = plan.models[name].step0
    if step0 is None:
        encoder = load_run_encoder(plan, store, EncoderKey.start(name))
    else:
        encoder = BiEncoder.from_pretrained(step0.start.name, **step0.encoder)
    most = TIMED if device_type() == "cpu" else TIMED_ON_GPU
    if plan.config.mines:
        rows = spread(texts, min(2 * most, len(texts)))["sentence1"]
        pairs = Dataset.from_dict({"sentence1": rows[::2], "sentence2": rows[1::2] + rows[: len(rows) % 2]})
    else:
        pairs = spread(texts, min(most, len(texts)))
    for sample in (pairs.select(range(min(WARM_UP, len(pairs)))), pairs):
        with divergence_named(f"{name}: start"), scratch_folder(store.layout.gold_scratch) as scratch:
            began = time.monotonic()
            score_pairs(encoder, sample, scratch=scratch, **plan.labelling)
    return (time.monotonic() - began) / len(pairs)


def describe_trainings(plan: DistillationPlan, layout: RunLayout) -> list[str]:
    """How long each kind of training is, and what memory it takes on a process."""
    lines = []
    for name, model in plan.models.items():
        if model.step0 is not None:
            sentences = SentenceManifest.load(layout.sentences)[0].num_rows
            lines += model.step0.describe(f"{name}: step 0", sentences)
    return [
        *lines,
        *plan.describe(expected_pairs(plan, layout), process_state().num_processes),
        *describe_memory(plan),
        *describe_gpus(),
    ]


def describe_memory(plan: DistillationPlan) -> list[str]:
    """What each kind of training of the cycles takes on a process, a line each."""
    return [
        describe_training_memory(
            f"{name}: training a {kind}",
            encoder.start,
            kind,
            encoder.training["per_device_train_batch_size"],
            encoder.max_length,
            plan.config.lora,
        )
        for name, model in plan.models.items()
        for kind, encoder in sorted(model.encoders.items(), reverse=True)
    ]
