"""`results.json`: every score of a run, as fractions, for programs."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from te_trainer.config.schema import Kind
from te_trainer.processes import process_state
from te_trainer.stages import StageRunner
from te_trainer.stages.settings import KINDS

PACKAGES = ("te_trainer", "torch", "transformers", "accelerate", "datasets", "sentence-transformers", "deepspeed")


def collect(runner: StageRunner) -> dict[str, Any]:
    """Put the records of all stages together.

    Returns:
        `{"start", "cycles", "final", "seconds", "environment"}`; scores are `{"dev": f, "test": {task: f, ..., "avg":
        f}}`, Spearman or ROC-AUC as a fraction, absent where there is no gold.
    """
    names = list(runner.models)
    cycles = range(1, runner.cycles + 1)
    order: tuple[Kind, Kind] = ("cross-encoder", "bi-encoder")
    final: dict[str, Any] = {}
    for name in names:
        final[name] = {}
        for kind in order:
            best = runner.best_cycle(name, kind, runner.cycles)
            path = str((runner.root / name / kind).absolute())
            final[name][kind] = {"cycle": best, "path": path, **runner.record(best, name, kind)["scores"]}
    if len(names) > 1:
        final["ensemble"] = {kind: runner.ensemble(kind) for kind in order}
    return {
        "start": {name: {"bi-encoder": runner.record(0, name, "bi-encoder")["scores"]} for name in names},
        "cycles": [
            {"cycle": cycle}
            | {name: {kind: runner.record(cycle, name, kind)["scores"] for kind in order} for name in names}
            for cycle in cycles
        ],
        "final": final,
        "seconds": _seconds(runner),
        "environment": environment(runner.precision),
    }


def environment(precision: str) -> dict[str, Any]:
    """Versions, device and arithmetic."""
    state = process_state()
    device = torch.cuda.get_device_name() if state.device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "device": f"{state.device.type} ({device})",
        "threads": torch.get_num_threads(),
        "processes": state.num_processes,
        "distributed": str(state.distributed_type.value),
        "precision": precision,
    }


def versions() -> dict[str, str]:
    """Versions of the packages that make a run's numbers, where installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _seconds(runner: StageRunner) -> dict[str, float]:
    seconds = dict.fromkeys(["label_bi", "train_cross", "label_cross", "train_bi", "evaluate"], 0.0)
    for name in runner.models:
        seconds["evaluate"] += runner.record(0, name, "bi-encoder")["seconds"]
        for cycle in range(1, runner.cycles + 1):
            for kind in KINDS:
                short = kind.split("-")[0]
                seconds[f"label_{short}"] += runner.label_seconds(cycle, name, kind)
                seconds[f"train_{short}"] += runner.training_record(cycle, name, kind)["seconds"]
                seconds["evaluate"] += runner.record(cycle, name, kind)["seconds"]
    seconds["total"] = sum(seconds.values())
    return {key: round(value, 3) for key, value in seconds.items()}
