"""What a run's numbers depend on beside its configuration: library versions, device, precision."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from te_trainer.distributed import process_state

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


def library_versions() -> dict[str, str]:
    """Versions of the libraries that a run computes with, where they are installed."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def describe_environment(precision: str) -> dict[str, Any]:
    """Versions, device and arithmetic, as `results.json` holds them under `environment`."""
    state = process_state()
    device_name = getattr(torch.get_device_module(state.device), "get_device_name", None)
    device = device_name() if device_name is not None else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": library_versions(),
        "device": f"{state.device.type} ({device})",
        "threads": torch.get_num_threads(),
        "processes": state.num_processes,
        "distributed": str(state.distributed_type.value),
        "precision": precision,
    }
