"""What a training costs: the parameters it trains, and the memory it takes."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from te_trainer.distributed import device_type
from te_trainer.models.lora import parameter_counts


@dataclass
class Footprint:
    """Of one training, on this rank.

    Args:
        trainable, parameters: numbers of parameters.
    """

    trainable: int
    parameters: int

    @classmethod
    def begin(cls, model: nn.Module) -> Footprint:
        """Count, and watch the device's memory from here on."""
        if (device := _counting_device()) is not None:
            device.reset_peak_memory_stats()
        return cls(*parameter_counts(model))

    def describe(self) -> str:
        """In words, for example `trainable: 0.3 M of 109.5 M parameters (0.27 %)`."""
        share = self.trainable / self.parameters
        return (
            f"trainable: {_millions(self.trainable)} of {_millions(self.parameters)} parameters ({share:.2%})".replace(
                "%", " %"
            )
        )

    def describe_memory(self) -> str:
        """The peak so far, in words."""
        place = "of the process so far" if _counting_device() is None else f"on the device ({device_type()})"
        return f"peak memory {place}: {peak_memory() / 1e9:.2f} GB"

    def record(self) -> dict[str, int]:
        """For `NAME.training.json`; memory in bytes."""
        return {**asdict(self), "peak_memory": peak_memory()}


def peak_memory() -> int:
    """Bytes: allocated on the device since the training began, else what this process has held at most in its life."""
    if (device := _counting_device()) is not None:
        return int(device.max_memory_allocated())
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _counting_device() -> Any:
    """torch's module for this process's device, where it counts what is allocated there; None for a CPU."""
    module = torch.get_device_module(device_type())
    return module if hasattr(module, "max_memory_allocated") else None


def _millions(count: int) -> str:
    return f"{count / 1e6:,.{1 if count >= 1e5 else 3}f} M"
