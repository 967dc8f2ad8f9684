"""Callbacks of both trainers: when to evaluate, which checkpoints are whole, and when to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState

from te_trainer.distributed import process_state
from te_trainer.errors import DivergedError
from te_trainer.trainers.checkpoint_mark import WEIGHTS_MARK, WHOLE_MARK, mark_whole

LOWER_RATE_HINT = "try a lower learning rate"


class EvaluateEachEpoch(TrainerCallback):
    """Evaluate and save at the end of each epoch too, beside every `eval_steps` steps.

    `evaluated_at` is the step of the trainer's last evaluation of its own sets, which the trainer sets: in
    `on_evaluate` another callback may have evaluated something else.
    """

    evaluated_at = -1

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.saved_at = self.evaluated_at = -1

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.saved_at = state.global_step

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.evaluated_at != state.global_step and state.global_step >= args.eval_delay:
            control.should_evaluate = args.eval_strategy != "no"
        # with "best", the evaluation decides whether a checkpoint is saved
        if self.saved_at != state.global_step and args.save_strategy != "best":
            control.should_save = args.save_strategy != "no"


class MarkWholeCheckpoints(TrainerCallback):
    """Mark a checkpoint once all processes have written their part."""

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        process_state().wait_for_everyone()
        folder = Path(args.output_dir or "", f"checkpoint-{state.global_step}")
        # a trial of a hyper-parameter search saves in a folder of its own
        if state.is_world_process_zero and folder.is_dir():
            mark_whole(folder, WEIGHTS_MARK if args.save_only_model else WHOLE_MARK)


class StopOnNaN(TrainerCallback):
    """Stop at the first loss that is NaN or infinite, before it is saved.

    Losses are checked on their device. The result is fetched only when the trainer logs, evaluates or saves anyway,
    because fetching it makes a GPU wait.
    """

    first_bad_step: Tensor | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.first_bad_step = None

    def watch(self, loss: Tensor, step: int) -> None:
        """Check the loss of step number `step` (the first is 1)."""
        if self.first_bad_step is None:
            self.first_bad_step = torch.zeros((), dtype=torch.long, device=loss.device)
        bad = ~torch.isfinite(loss.detach()) & (self.first_bad_step == 0)
        self.first_bad_step = torch.where(bad, step, self.first_bad_step)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        fetches_anyway = control.should_log or control.should_evaluate
        if self.first_bad_step is not None and (fetches_anyway or self.first_bad_step.device.type == "cpu"):
            self.raise_if_bad()

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.raise_if_bad()

    def raise_if_bad(self) -> None:
        """Raise a DivergedError that names the first step whose loss was NaN or infinite."""
        if self.first_bad_step is not None and (step := int(self.first_bad_step)):
            raise DivergedError(f"the loss is nan or infinite at step {step}; {LOWER_RATE_HINT}")
