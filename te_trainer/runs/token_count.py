"""Tokens that go through a model, real ones and padding."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from te_trainer.distributed import process_state
from te_trainer.files.atomic import write_text
from te_trainer.files.records import read_json
from te_trainer.models.packed.batches import row_size
from te_trainer.models.packed.pack import is_packed

FILE = "tokens.json"  # in a checkpoint


class TokenCount:
    """Counts what a model reads, in front of its forward pass; no device is waited for before the total.

    Args:
        checkpoint: folder of a checkpoint that a training goes on from; what it had seen is counted too, as far as the
            checkpoint tells.
    """

    def __init__(self, checkpoint: str | None = None) -> None:
        file = checkpoint and Path(checkpoint, FILE)
        then = "the run's command continues, and counts this training's tokens from there"
        self.before = read_json(file, then=then) if file and file.exists() else {}
        self.positions = 0
        self.real: Tensor | int = 0

    @contextlib.contextmanager
    def watch(self, model: nn.Module, training: bool = False) -> Iterator[TokenCount]:
        """Count while the block runs.

        Args:
            training: count the passes of training instead of those of inference.
        """

        def count(module: Any, _: tuple[Any, ...], inputs: dict[str, Any]) -> None:
            if module.training == training:
                size, mask = inputs["input_ids"].numel(), inputs.get("attention_mask")
                real = size if mask is None else mask.detach().sum()
                self.positions += row_size(int(real)) if is_packed(module) else size
                self.real = self.real + real

        # in front of what packs a batch, and so loses its padding
        handle = model.register_forward_pre_hook(count, with_kwargs=True, prepend=True)
        try:
            yield self
        finally:
            handle.remove()

    def total(self) -> dict[str, int]:
        """`{"real": tokens, "padding": tokens}` over all ranks; every rank has to ask."""
        real = int(self.real)
        counts = torch.tensor([[real, self.positions - real]], device=process_state().device)
        summed = gather(counts).sum(0).tolist()
        return {key: self.before.get(key, 0) + n for key, n in zip(("real", "padding"), summed, strict=True)}


class SaveTokenCount(TrainerCallback):
    """Leaves the count so far in each checkpoint, so that a resumed training ends with the count of an unkilled one."""

    def __init__(self, tokens: TokenCount) -> None:
        self.tokens = tokens

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        total = self.tokens.total()
        if state.is_world_process_zero:
            write_text(Path(args.output_dir or "", f"checkpoint-{state.global_step}", FILE), json.dumps(total))
