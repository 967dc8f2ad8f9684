"""The processes of a run."""

from __future__ import annotations

import torch
from accelerate import PartialState


def process_state() -> PartialState:
    """This process among all of them; on a machine without an accelerator, ranks find each other on the CPU."""
    return PartialState(cpu=not torch.accelerator.is_available())
