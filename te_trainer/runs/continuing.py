"""What may change between the command that began a run and the one that continues it: what changes no result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from te_trainer.config.parsing import as_mapping, flatten_keys
from te_trainer.config.schema import ContrastiveConfig, EvaluationConfig, RunConfig
from te_trainer.contrastive.stage import ContrastiveSettings
from te_trainer.distil.settings import kinds_of, training_values
from te_trainer.distil.step0 import step0_settings
from te_trainer.errors import InputError
from te_trainer.files.atomic import write_text
from te_trainer.files.records import read_run_file
from te_trainer.models.locate import pin
from te_trainer.runs.commits import KEY

Config = RunConfig | ContrastiveConfig | EvaluationConfig

NEVER_COMPARED = ("output_dir", "hub", "ddp_timeout")
# Speed, memory, logs, and what is kept beside the results.
RUN_KEYS = (
    "report_to",
    "compare",
    "distillation.batch_tokens",
    "distillation.isolate_stages",
    "distillation.keep_cycles",
)
# Of a section that trains.
TRAINING_KEYS = (
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "log_*",
    "logging_*",
    "per_device_eval_batch_size",
    "project",
    "save_total_limit",
    "torch_empty_cache_steps",
    "trackio_*",
)
SPLIT = ("per_device_train_batch_size", "gradient_accumulation_steps")
SECTIONS = ("bi_encoder", "cross_encoder", "contrastive", "step0.contrastive")


class Split(NamedTuple):
    """How the batch of an optimiser step is divided: pairs on a device, micro-batches, devices."""

    size: int
    accumulation: int
    processes: int
    in_batch_negatives: bool

    @property
    def learnt(self) -> tuple[int, int]:
        """What a training depends on; negatives come from a micro-batch over all devices."""
        meeting = self.size * self.processes
        return (meeting, self.accumulation) if self.in_batch_negatives else (meeting * self.accumulation, 1)


def comparable(config: Config) -> dict[str, Any]:
    """A configuration as `run.yaml` holds it: without its output folder, the Hub and time-outs."""
    return {key: value for key, value in as_mapping(config).items() if key not in NEVER_COMPARED}


def refuse_other_configuration(root: Path, config: Config, processes: int) -> None:
    """Refuse to go on in a folder with a configuration that would lead to other results than the one it began with.

    Raises:
        InputError: names every key that may not change, with both values, and those that may.
    """
    if not (root / "run.yaml").is_file():
        return
    begun = read_run_file(root)
    was, now = flatten_keys(begun["config"]), flatten_keys(yaml.safe_load(yaml.safe_dump(comparable(config))))
    differ = [key for key in sorted(was.keys() | now.keys()) if was.get(key) != now.get(key)]
    # what a section means may depend on its model
    pin(begun.get(KEY) or {})
    refused = [key for key in differ if not _may_change(key, begun, config, processes)]
    if refused:
        changes = ", ".join(f"{key} (was {was.get(key)}, is {now.get(key)})" for key in refused)
        raise InputError(
            f"output_dir: {root} was begun with another configuration: {changes}; name another folder, or change "
            f"nothing but {_changeable(config)}"
        )
    if not (root / "results.json").exists():
        _refuse_other_batches(root, begun, config, processes)
    if "distillation.keep_cycles" in differ and now["distillation.keep_cycles"]:
        _refuse_removed_cycles(root)


def update_run_file(root: Path, config: Config, resolved: dict[str, Any], processes: int) -> None:
    """Let `run.yaml` say what the run goes on with, where that is something else than before.

    Args:
        resolved: entries of `run.yaml` that say what a training's section means, as far as they may have changed.
    """
    begun = read_run_file(root)
    content = begun | {"config": yaml.safe_load(yaml.safe_dump(comparable(config))), "processes": processes}
    if content["config"] != begun["config"]:
        for entry, values in resolved.items():
            content[entry] = begun.get(entry, {}) | values
        write_text(root / "run.yaml", yaml.safe_dump(content, sort_keys=False))


def _may_change(key: str, begun: dict[str, Any], config: Config, processes: int) -> bool:
    section, _, name = key.rpartition(".")
    if section in SECTIONS and name in SPLIT:
        now = dict(_splits(section, config, processes))
        return all(_begun_split(begun, path, split) == split.learnt for path, split in now.items())
    return key in RUN_KEYS or (section in SECTIONS and any(fnmatch(name, pattern) for pattern in TRAINING_KEYS))


def _splits(section: str, config: Config, processes: int) -> Iterator[tuple[tuple[str, ...], Split]]:
    """The divisions of a section's batches, by where `run.yaml` says how they were when the run began."""
    if isinstance(config, RunConfig) and section == "step0.contrastive" and config.step0 is not None:
        yield ("step0",), _split(step0_settings(config).training(processes), processes)
    elif isinstance(config, RunConfig):
        for model in config.models:
            for kind in kinds_of(config):
                if kind.replace("-", "_") == section:
                    values = training_values(config, model, kind, processes)
                    yield ("resolved", str(model.name), kind), _split(values, processes)
    elif isinstance(config, ContrastiveConfig) and section == "contrastive":
        yield ("resolved",), _split(ContrastiveSettings(config.contrastive).training(processes), processes)


def _split(values: dict[str, Any], processes: int) -> Split:
    size, accumulation = (values.get(key) or 1 for key in SPLIT)
    return Split(size, accumulation, processes, values.get("loss") == "info_nce")


def _begun_split(begun: dict[str, Any], path: tuple[str, ...], now: Split) -> tuple[int, int] | None:
    values: Any = begun
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    if not isinstance(values, dict):
        return None
    # runs of earlier versions do not say on how many devices they began
    processes = begun.get("processes") or now.processes
    return _split(values, processes)._replace(in_batch_negatives=now.in_batch_negatives).learnt


def _refuse_other_batches(root: Path, begun: dict[str, Any], config: Config, processes: int) -> None:
    """Refuse another number of processes where it changes the batch of an optimiser step, with no key changed."""
    for section in SECTIONS:
        for path, now in _splits(section, config, processes):
            was = _begun_split(begun, path, now)
            if was is None or was == now.learnt:
                continue
            batch, on = math.prod(was), begun.get("processes")
            size, rest = divmod(batch, processes * now.accumulation)
            split = "" if rest else f", set {section}.per_device_train_batch_size to {size}"
            raise InputError(
                f"output_dir: {root} was begun with another number of processes ({on}, now {processes}), which would "
                f"make batches of {math.prod(now.learnt)} in {section} instead of {batch}; start as many as "
                f"before{split}, or name another folder"
            )


def _changeable(config: Config) -> str:
    if isinstance(config, EvaluationConfig):
        return "output_dir, ddp_timeout and compare"
    keys = ["ddp_timeout", "report_to"]
    if isinstance(config, RunConfig):
        keys += ["hub", *(key for key in RUN_KEYS if key.startswith("distillation."))]
    return (
        f"output_dir, {', '.join(keys)}, and of a section that trains {', '.join(TRAINING_KEYS)}, and "
        f"{' with '.join(SPLIT)} where the batch of an optimiser step stays the same"
    )


def _refuse_removed_cycles(root: Path) -> None:
    for record in sorted(root.glob("cycle-*/*/*-encoder.json")):
        if not record.with_suffix("").is_dir():
            raise InputError(
                f"distillation.keep_cycles: {record.with_suffix('')} was removed when its cycle was over, so not all "
                "cycles can be kept any more; leave it at false, or name another output_dir"
            )
