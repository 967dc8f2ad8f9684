"""`results.json`: every score of a run, as fractions, for programs."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from te_trainer.config.schema import Kind
from te_trainer.cycle import HALVES
from te_trainer.processes import process_state
from te_trainer.stages import StageRunner

PACKAGES = (
    "te_trainer",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "sentence-transformers",
    "deepspeed",
    "peft",
)


def collect(runner: StageRunner) -> dict[str, Any]:
    """Put the records of all stages together.

    Returns:
        `{"start", "cycles", "final", "seconds", "environment"}`; scores are `{"dev": f, "test": {task: f, ..., "avg":
        f}}`, Spearman or ROC-AUC as a fraction, absent where there is no gold. With several PLMs `start` and `final`
        hold an `ensemble` beside them. Where agreement chooses, `agreement` holds each PLM's measures by cycle.
    """
    names = list(runner.models)
    cycles = range(1, runner.cycles + 1)
    order: list[Kind] = [student for _, student in HALVES[runner.config.distillation.students]]
    start: dict[str, Any] = {name: {"bi-encoder": runner.record(0, name, "bi-encoder")["scores"]} for name in names}
    final: dict[str, Any] = {}
    for name in names:
        final[name] = {}
        for kind in order:
            best = runner.best_cycle(name, kind, runner.cycles)
            path = str((runner.root / name / kind).absolute())
            final[name][kind] = {"cycle": best, "path": path, **runner.record(best, name, kind)["scores"]}
    if len(names) > 1:
        start["ensemble"] = {"bi-encoder": runner.ensemble("bi-encoder", start=True)}
        final["ensemble"] = {kind: runner.ensemble(kind) for kind in order}
    agrees = runner.config.distillation.selection == "agreement"
    return {
        "start": start,
        "cycles": [
            {"cycle": cycle}
            | {name: {kind: runner.record(cycle, name, kind)["scores"] for kind in order} for name in names}
            for cycle in cycles
        ],
        "final": final,
        **({"agreement": {name: runner.agreement(name) for name in names}} if agrees else {}),
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
    seconds: dict[str, float] = {}
    if runner.config.step0 is not None:
        seconds["step0"] = sum(runner.training_record(0, name, "bi-encoder")["seconds"] for name in runner.models)
    for teacher, student in HALVES[runner.config.distillation.students]:
        seconds |= {f"label_{teacher.split('-')[0]}": 0.0, f"train_{student.split('-')[0]}": 0.0}
    seconds["evaluate"] = 0.0
    for name in runner.models:
        seconds["evaluate"] += runner.record(0, name, "bi-encoder")["seconds"]
        for cycle in range(1, runner.cycles + 1):
            for kind in runner.kinds:
                short = kind.split("-")[0]
                seconds[f"label_{short}"] += runner.label_seconds(cycle, name, kind)
                seconds[f"train_{short}"] += runner.training_record(cycle, name, kind)["seconds"]
                seconds["evaluate"] += runner.record(cycle, name, kind)["seconds"]
        if runner.config.distillation.selection == "agreement":
            seconds["label_bi"] += runner.label_seconds(runner.cycles + 1, name, "bi-encoder")
    seconds["total"] = sum(seconds.values())
    return {key: round(value, 3) for key, value in seconds.items()}
