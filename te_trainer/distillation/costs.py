"""What a run will cost, said before its cycles begin: seconds and memory."""

from __future__ import annotations

import time
from typing import Any

import torch
from datasets import Dataset

from te_trainer.distillation.encoders import load_run_encoder
from te_trainer.distillation.plan import DistillationPlan, EncoderPlan
from te_trainer.distillation.work import FORWARD, cycles_work
from te_trainer.distributed import device_type, process_state
from te_trainer.errors import divergence_named
from te_trainer.files.scratch import scratch_folder
from te_trainer.labelling import score_pairs
from te_trainer.models.lora import parameter_counts, put_adapters
from te_trainer.runs.layout import EncoderKey
from te_trainer.runs.scoring import Scorer
from te_trainer.runs.store import RunStore

WARM_UP = 32  # pairs
TIMED, TIMED_ON_GPU = 256, 4096  # pairs; large batches are what a GPU is good at
STATES = 4 + 4 + 8  # bytes of a trained parameter in float32: the weight, its gradient, AdamW's two moments
FROZEN = 4  # bytes of any other
# Korthikanti et al. (arXiv 2205.05198, equation 1) count 16-bit activations; float32 takes twice as much, and autocast
# keeps a part of them in float32 (docs/performance.md).
ACTIVATIONS = 2


def estimate_seconds(plan: DistillationPlan, store: RunStore, pairs: Dataset, scorer: Scorer) -> float:
    """Seconds that the cycles will take, by the time in which the starts label some pairs of the pool.

    A PLM's cross-encoder is taken to be as large as its bi-encoder. Every rank must call this; each has its own clock.
    """
    seconds = 0.0
    for name in plan.models:
        # the start and each student score the sets with gold scores
        scored = (1 + plan.cycles * len(plan.kinds)) * sum(len(gold) for _, gold in scorer.gold)
        labelled = cycles_work(plan, name) / FORWARD * len(pairs)
        seconds += (labelled + scored) * _seconds_per_pair(plan, store, pairs, EncoderKey.start(name))
    return seconds


def spread(pairs: Dataset, count: int) -> Dataset:
    """So many pairs from all of the pool, whose parts may differ in length."""
    return pairs.select([number * len(pairs) // count for number in range(count)])


def _seconds_per_pair(plan: DistillationPlan, store: RunStore, pairs: Dataset, key: EncoderKey) -> float:
    encoder = load_run_encoder(plan, store, key)
    timed = min(TIMED if device_type() == "cpu" else TIMED_ON_GPU, len(pairs))
    some = spread(pairs, timed)
    for sample in (some.select(range(min(WARM_UP, timed))), some):
        with divergence_named(f"{key.name}: start"), scratch_folder(store.layout.gold_scratch) as scratch:
            began = time.monotonic()
            score_pairs(encoder, sample, scratch=scratch, **plan.labelling)
    return (time.monotonic() - began) / timed


def describe_memory(plan: DistillationPlan) -> list[str]:
    """What each kind of training needs on a process, a line each, and what the device has, if it is a GPU."""
    lines = []
    for name, model in plan.models.items():
        for kind, encoder in sorted(model.encoders.items(), reverse=True):
            weights = f"{_state_bytes(plan, encoder) / 1e9:.2f} GB of memory for weights, gradients and AdamW"
            texts = encoder.training["per_device_train_batch_size"] * (2 if kind == "bi-encoder" else 1)
            batch = activation_bytes(encoder.start.config, texts, encoder.max_length)
            more = "" if batch is None else f", and {batch / 1e9:.2f} GB for a batch of texts of full length"
            lines.append(f"{name}: training a {kind} takes about {weights}{more}")
    if device_type() == "cuda":
        lines.append(f"The GPU has {torch.cuda.get_device_properties(0).total_memory / 1e9:.1f} GB")
        if (devices := torch.cuda.device_count()) > 1 and process_state().num_processes == 1:
            lines.append(
                f"The run computes on one of {devices} GPUs; accelerate_configs/multi_gpu.yaml is for all of them"
            )
    return lines


def activation_bytes(config: Any, texts: int, length: int) -> int | None:
    """Bytes of a micro-batch's activations, all its texts of that many tokens; None of a model with other sizes."""
    try:
        hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    except AttributeError:
        return None
    return int(ACTIVATIONS * texts * length * layers * (34 * hidden + 5 * heads * length))


def _state_bytes(plan: DistillationPlan, encoder: EncoderPlan) -> int:
    model, lora = encoder.start.empty_model(encoder.kind), plan.config.lora
    adapted = put_adapters(model, encoder.kind, lora, encoder.start.name) if lora.rank else model
    trained, parameters = parameter_counts(adapted)
    return int(STATES * trained + FROZEN * (parameters - trained))
