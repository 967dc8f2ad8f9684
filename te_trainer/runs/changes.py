"""What may change while a run lasts: keys on which no result depends, and how the same batch is split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from fnmatch import fnmatch
from typing import Any, NamedTuple

import yaml

from te_trainer.config.schema import EvaluationConfig, RunConfig
from te_trainer.config.types import section_of

NEVER_COMPARED = ("output_dir", "hub", "ddp_timeout")
# They change speed, memory, logs, or what is kept beside the results.
RUN_KEYS = (
    "report_to",
    "compare",
    "distillation.batch_tokens",
    "distillation.isolate_stages",
    "distillation.keep_cycles",
)
# The same of a section that trains.
TRAINING_KEYS = (
    "activation_checkpointing",
    "dataloader_multiprocessing_context",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "eval_accumulation_steps",
    "gradient_checkpointing",
    "log_*",
    "logging_*",
    "per_device_eval_batch_size",
    "project",
    "torch_empty_cache_steps",
    "trackio_*",
)
# Keys of such a section that runs of an older version may hold, and that mean nothing any more.
FORMER_KEYS = ("save_total_limit",)
SPLIT_KEYS = ("per_device_train_batch_size", "gradient_accumulation_steps")
TRAINING_SECTIONS = ("bi_encoder", "cross_encoder", "contrastive", "step0.contrastive")


class BatchSplit(NamedTuple):
    """How the batch of an optimiser step is split."""

    per_device: int
    accumulation: int
    processes: int
    in_batch_negatives: bool

    @property
    def effective_batch(self) -> tuple[int, int]:
        """What a training depends on: negatives come from one micro-batch of all devices."""
        micro_batch = self.per_device * self.processes
        return (micro_batch, self.accumulation) if self.in_batch_negatives else (micro_batch * self.accumulation, 1)


def compared_values(config: Any) -> dict[str, Any]:
    """A configuration as `run.yaml` holds it and gives it back: without output folder, Hub and time-out."""
    values = {key: value for key, value in asdict(config, dict_factory=_section).items() if key not in NEVER_COMPARED}
    plain: dict[str, Any] = yaml.safe_load(yaml.safe_dump(values))
    return plain


def changes_no_result(name: str) -> bool:
    """Whether a key of this name, of a section that trains, may change while a run lasts."""
    return any(fnmatch(name, pattern) for pattern in (*TRAINING_KEYS, *FORMER_KEYS))


def changeable(config: Any) -> str:
    """What `compared_values` of a command's configuration may change, for a sentence."""
    if isinstance(config, EvaluationConfig):
        return "output_dir, ddp_timeout and compare"
    keys = ["output_dir", "ddp_timeout", "report_to"]
    if isinstance(config, RunConfig):
        keys += ["hub", *(key for key in RUN_KEYS if key.startswith("distillation."))]
    return (
        f"{', '.join(keys)}, and of a section that trains {', '.join(TRAINING_KEYS)}, and "
        f"{' with '.join(SPLIT_KEYS)} where the batch of an optimiser step stays the same"
    )


def batch_splits(content: dict[str, Any], processes: int) -> Iterator[tuple[tuple[str, str], BatchSplit]]:
    """The batch splits of the resolved entries of `run.yaml`, by section and PLM."""
    resolved, step0 = content.get("resolved", {}), content.get("step0")
    trainings: list[tuple[tuple[str, str], dict[str, Any]]] = [(("step0.contrastive", ""), step0)] if step0 else []
    if any(not isinstance(kinds, dict) for kinds in resolved.values()):
        trainings += [(("contrastive", ""), resolved)]
    else:
        for name, kinds in resolved.items():
            trainings += [((section_of(kind), name), values) for kind, values in kinds.items()]
    for where, values in trainings:
        per_device, accumulation = (values.get(key) or 1 for key in SPLIT_KEYS)
        yield where, BatchSplit(per_device, accumulation, processes, values.get("loss") == "info_nce")


def _section(values: list[tuple[str, Any]]) -> dict[str, Any]:
    """A section as YAML holds it: keys of TrainingArguments stand beside its own."""
    section = dict(values)
    return {**section.pop("training", {}), **section}
