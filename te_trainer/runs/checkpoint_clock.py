"""When a training of a run saves: weights where dev says that they are the best, all to resume from by the clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy

from te_trainer.files.atomic import sync
from te_trainer.trainers.checkpoint_mark import last_whole_checkpoint, remove_behind, remove_others

# A kill loses about a minute of training. The moments of AdamW make a full checkpoint three times as large as the
# weights, so saving may take a twentieth of the time at most, however slow the disk or large the model.
FULL_CHECKPOINT_SECONDS = 60.0
TIMES_WHAT_SAVING_TOOK = 20
# Ranks must agree, and a GPU waits while they do.
STEPS_BETWEEN_AGREEMENTS = 16


class SaveByClock(TrainerCallback):
    """Writes weights alone where the dev score is the best so far, and a full checkpoint about once in a minute.

    It is the last callback of its trainer, so that a checkpoint has its mark before older ones go. Those stay that are
    needed: the best one, the last full one, and the one that was the best by then.
    """

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.strategy = SaveStrategy.BEST if args.load_best_model_at_end else SaveStrategy.NO
        args.save_strategy, args.save_only_model, args.save_total_limit = self.strategy, True, None
        self.best_of_full = state.best_model_checkpoint
        self.last, self.began, self.took = time.monotonic(), 0.0, 0.0
        self.is_due = False
        if state.is_world_process_zero:
            # `auto_find_batch_size` begins again with smaller batches, whose steps are others
            remove_behind(Path(args.output_dir), state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        ranks_agree = args.world_size == 1 or control.should_log or state.global_step % STEPS_BETWEEN_AGREEMENTS == 0
        if not self.is_due and ranks_agree:
            self.is_due = broadcast_object_list([self._is_time(control.should_log)])[0]
        # an epoch ends with an evaluation, which a training that resumes from its last step would miss
        ends_epoch = float(state.epoch or 0).is_integer() and not control.should_evaluate
        if self.is_due and not ends_epoch:
            self._save_all(args, state, control)

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.is_due:
            self._save_all(args, state, control)

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.began = time.monotonic()

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(args.output_dir)
        if not args.save_only_model:
            if state.is_world_process_zero:
                # power may fail when those before have just been removed
                sync(folder)
            self.last, self.is_due, self.best_of_full = time.monotonic(), False, state.best_model_checkpoint
            self.took = self.last - self.began
            args.save_strategy, args.save_only_model = self.strategy, True
        if state.is_world_process_zero:
            remove_others(folder, state.best_model_checkpoint, self.best_of_full, last_whole_checkpoint(folder))

    def _is_time(self, logs: bool) -> bool:
        interval = max(FULL_CHECKPOINT_SECONDS, TIMES_WHAT_SAVING_TOOK * self.took)
        # The loss that is logged next is the mean since the last one, or since the step that a training resumed from.
        return time.monotonic() - self.last >= (interval if logs else 1.5 * interval)

    def _save_all(self, args: Any, state: TrainerState, control: TrainerControl) -> None:
        if state.global_step < state.max_steps:
            # "best" would drop it where this step's evaluation is not the best
            args.save_strategy, args.save_only_model = SaveStrategy.STEPS, False
            control.should_save, self.began = True, time.monotonic()
